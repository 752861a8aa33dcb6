/* binding.h - what the files of the CPython binding (py_*.c) share. They convert arguments and outcomes; the protocol
 * is in the core.
 *
 * Rules:
 *   - the GIL protects the private part of a handle: no core function that takes the queue runs without it; only
 * memcpy, ppoll and walks over the segment's atomic words do;
 *   - whoever gives the GIL away holds a reference to the queue, and looks at `live` when it has it back;
 *   - each handle remembers the fork epoch of its process; in a forked child it is dead and its end touches nothing
 * shared;
 *   - C functions return 0 or a positive outcome when fine, -1 with a Python exception set otherwise.
 */
#ifndef SHMQ_BINDING_H
#define SHMQ_BINDING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "shmq_core.h"

#define SHMQ_COPY_ALONE 65536u /* bodies from here on are copied with the GIL released */

#define LIKELY(x)   __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* ---- objects ---- */
typedef struct {
    PyObject_HEAD struct shmq_queue core;
    uint32_t live;                /* fork epoch of our process; 0: closed */
    uint32_t writable;            /* the same; 0 also when read-only */
    uint32_t born;                /* the same, closed or not; 0: never attached */
    uint32_t bell_turn;           /* how often the bells were changed: registrations of an earlier turn are gone */
    uint32_t waiting[SHMQ_SIDES]; /* threads in wait() that are registered */
    uint32_t under_way;           /* writes between begin and commit */
    PyTypeObject *message_type;
    PyObject *context;
    PyObject *weakrefs;
} QueueObject;

typedef struct shmq_py_ledger {
    PyObject_HEAD struct shmq_py_ledger *parent; /* NULL: this is the root */
    PyObject *by_tag;                            /* dict of deliveries; NULL: none are kept */
    PyObject *on_room;                           /* called when there is room again */
    uint64_t last_tag;                           /* the root's */
    Py_ssize_t prefetch, counted;
} LedgerObject;

typedef struct {
    PyObject_HEAD PyObject *queues; /* tuple of Queue */
    PyObject *on_empty;
    PyObject *on_room;    /* called when the own prefetch has room again; may be NULL */
    LedgerObject *ledger; /* whom deliveries are entered in; may be NULL */
    Py_ssize_t prefetch, unacked, turn;
    bool no_ack;
} ConsumerObject;

enum shmq_py_state { MESSAGE_UNACKED, MESSAGE_ACKED, MESSAGE_NACKED, MESSAGE_REJECTED, MESSAGE_STALE, MESSAGE_AUTO };

typedef struct {
    PyObject_HEAD QueueObject *queue;
    ConsumerObject *consumer; /* until settled; may be NULL */
    LedgerObject *ledger;     /* the same */
    uint64_t tag;             /* in its ledger; 0: it was never in one */
    PyObject *body;           /* bytes; NULL: still in the segment */
    PyObject *envelope;       /* bytes; NULL: empty */
    struct shmq_delivery delivery;
    uint32_t exports; /* buffers handed out */
    uint32_t pins;    /* those of them (and copies under way) that read the segment */
    uint8_t state;    /* enum shmq_py_state */
    bool viewed;      /* a buffer was asked for */
    bool kept;        /* ACKED in the segment, to be released by us */
    bool counted;     /* in its ledger against the prefetch */
} MessageObject;

typedef struct {
    PyObject_HEAD QueueObject *queue;
    struct shmq_write write;
    PyObject *entered; /* the memoryview of `with` */
    uint64_t body_bytes;
    uint32_t exports;
    uint8_t state; /* enum shmq_py_loan_state */
} LoanObject;

extern PyTypeObject shmq_py_Queue, shmq_py_Message, shmq_py_Consumer, shmq_py_Ledger, shmq_py_Loan, shmq_py_Publisher,
    shmq_py_Snapshot;

/* ---- py_module.c: errors, fork epoch ---- */
enum shmq_py_error {
    ERROR_FORKED,
    ERROR_DETACHED,
    ERROR_STALE,
    ERROR_SETTLED,
    ERROR_VIEWS,
    ERROR_RELEASED,
    ERROR_LAYOUT,
    ERROR_DAMAGED,
    ERROR_REJECTED,
    ERRORS
};
extern PyObject *shmq_py_errors[ERRORS];
extern uint32_t shmq_py_fork_epoch;                           /* starts at 1 */
int shmq_py_raise(int r);                                     /* an error of the core (negative) as an exception; -1 */
int shmq_py_fail(enum shmq_py_error error, const char *text); /* NULL: its usual text; -1 */
int shmq_py_refuse(const QueueObject *q);                     /* says why `live` or `writable` is not our epoch; -1 */

static inline bool shmq_py_is_live(const QueueObject *q)
{
    return LIKELY(q->live == shmq_py_fork_epoch);
}

/* Others use other bells than we do: there is a new broker, which has not given us its own. */
static inline bool shmq_py_bells_stale(const QueueObject *q)
{
    /* acquire: pairs with the release of set_epoch */
    return shmq_py_is_live(q) &&
           atomic_load_explicit(&q->core.header->epoch, memory_order_acquire) != q->core.bell_epoch;
}
/* Only the broker hands out. */
static inline bool shmq_py_is_brokered(const QueueObject *q)
{
    return shmq_py_is_live(q) &&
           atomic_load_explicit(&q->core.header->flags, memory_order_relaxed) & SHMQ_FLAG_BROKERED;
}
static inline bool shmq_py_is_writable(const QueueObject *q)
{
    return LIKELY(q->writable == shmq_py_fork_epoch);
}
/* Our process made it; it may be closed: what is held may still be given back. */
static inline bool shmq_py_is_ours(const QueueObject *q)
{
    return q->born == shmq_py_fork_epoch;
}

/* ---- py_arguments.c ---- */
#define SHMQ_PY_PARAMETERS_MAX 9
struct shmq_py_signature {
    const char *function;
    int parameters, required;
    const char *names[SHMQ_PY_PARAMETERS_MAX];
    PyObject *interned[SHMQ_PY_PARAMETERS_MAX];
};
/* Sorts the arguments of a METH_FASTCALL | METH_KEYWORDS call into out[] (borrowed; NULL where not given). */
int shmq_py_sort(struct shmq_py_signature *s, PyObject *const *args, Py_ssize_t n, PyObject *names, PyObject **out);
int shmq_py_integer(PyObject *value, const char *name, int64_t low, int64_t high, int64_t *out);
int shmq_py_truth(PyObject *value, bool *out);
int shmq_py_seconds(PyObject *value, const char *name, uint64_t *ns);
int shmq_py_geometry(PyObject *value, struct shmq_geometry *out, struct shmq_layout *layout);
int shmq_py_side(PyObject *value, int64_t last, enum shmq_side *out);
int shmq_py_slot(PyObject *const *args, Py_ssize_t n, Py_ssize_t expected, const QueueObject *q, uint32_t *slot,
                 uint64_t *ctl);
/* The parameters level, envelope, ttl_ns, delay_ns, flags. */
int shmq_py_draft(PyObject *const *values, struct shmq_draft *out);
extern const char *const shmq_py_draft_names[5];

/* ---- py_sender.c ---- */
int shmq_py_sign(QueueObject *q, PyObject *value, uint64_t *sender); /* of (uid, gid, pid), or None */
PyObject *shmq_py_queue_sign(QueueObject *q, PyObject *value);
PyObject *shmq_py_sender(const QueueObject *q, uint64_t origin);

/* ---- py_publish.c, py_loan.c ---- */
int shmq_py_publish(QueueObject *q, struct shmq_draft *draft, PyObject *body); /* an outcome, or -1 */
PyObject *shmq_py_loan_new(QueueObject *q, struct shmq_draft *draft);
PyObject *shmq_py_queue_publish(QueueObject *q, PyObject *const *args, Py_ssize_t n, PyObject *names);
PyObject *shmq_py_queue_publish_many(QueueObject *q, PyObject *const *args, Py_ssize_t n, PyObject *names);
PyObject *shmq_py_queue_loan(QueueObject *q, PyObject *const *args, Py_ssize_t n, PyObject *names);
int shmq_py_publisher_ready(void); /* interns its keywords */

/* ---- py_take.c ---- */
MessageObject *shmq_py_take(QueueObject *q, ConsumerObject *consumer, bool no_ack,
                            bool *failed); /* NULL: nothing, or failed */
void shmq_py_message_free(MessageObject *m);
PyObject *shmq_py_body_copy(MessageObject *m); /* of a pinned message */
PyObject *shmq_py_queue_take(QueueObject *q, PyObject *const *args, Py_ssize_t n, PyObject *names);
PyObject *shmq_py_queue_take_many(QueueObject *q, PyObject *const *args, Py_ssize_t n, PyObject *names);

/* ---- py_message.c, py_settle.c ---- */
static inline bool shmq_py_is_large(const MessageObject *m)
{
    return m->delivery.tier != 0;
}
void shmq_py_unpin(MessageObject *m); /* one pin less; gives kept memory back with the last */
void shmq_py_settled(MessageObject *m, enum shmq_py_state state);
PyObject *shmq_py_message_ack(MessageObject *m, PyObject *unused);
PyObject *shmq_py_message_ack_at_delivery(MessageObject *m, PyObject *unused);
PyObject *shmq_py_message_nack(MessageObject *m, PyObject *const *args, Py_ssize_t n, PyObject *names);
PyObject *shmq_py_message_reject(MessageObject *m, PyObject *const *args, Py_ssize_t n, PyObject *names);
PyObject *shmq_py_message_touch(MessageObject *m, PyObject *extend);

/* ---- py_ledger.c ---- */
bool shmq_py_ledger_has_room(const LedgerObject *l);                       /* NULL: yes */
int shmq_py_ledger_enter(LedgerObject *l, MessageObject *m, bool counted); /* its tag; -1: no memory */
void shmq_py_ledger_leave(MessageObject *m);                               /* who calls holds the message */
void shmq_py_tell_room(PyObject *on_room);

/* ---- py_epoll.c ---- */
PyObject *shmq_py_epoll_open(PyObject *module, PyObject *unused);
PyObject *shmq_py_epoll_watch(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *shmq_py_epoll_ready(PyObject *module, PyObject *value);

/* ---- py_queue.c ---- */
void shmq_py_queue_ready(void); /* puts the tables of methods together */

/* ---- py_wait.c ---- */
enum shmq_py_woken { SHMQ_PY_TIMEOUT, SHMQ_PY_LOOK, SHMQ_PY_OTHER };
PyObject *shmq_py_wait(PyObject *module, PyObject *const *args, Py_ssize_t n, PyObject *names);
void shmq_py_wake_waiters(
    QueueObject *q); /* their registrations are taken back; to be called before bells are closed */
PyObject *shmq_py_bell_fd(QueueObject *q, PyObject *side);
PyObject *shmq_py_bell_register(QueueObject *q, PyObject *side);
PyObject *shmq_py_bell_token(QueueObject *q, PyObject *side);
PyObject *shmq_py_bell_leave(QueueObject *q, PyObject *side);
PyObject *shmq_py_bell_ring(QueueObject *q, PyObject *const *args, Py_ssize_t n, PyObject *names);
PyObject *shmq_py_may_have(QueueObject *q, PyObject *side);

/* ---- the tables of Queue's methods, by file ---- */
extern PyMethodDef shmq_py_owner_methods[];      /* py_owner.c: the broker */
extern PyMethodDef shmq_py_supervisor_methods[]; /* py_supervisor.c */
extern PyMethodDef shmq_py_snapshot_methods[];   /* py_snapshot.c */

#define SHMQ_PY_METHOD(f) ((PyCFunction)(void (*)(void))(f))

#endif
