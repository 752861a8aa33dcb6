/* py_wait.c - sleeping at bells, by the rules of the core protocol, section 4: register, look, poll; a token read uses
 * up the registration; whoever leaves without having read one takes a registration back (shmq_bell_leave).
 *
 * While the GIL is away another thread may close a queue or change its bells. It takes our registration back then
 * (shmq_py_wake_waiters) and says so by `bell_turn`: from there on neither descriptor nor registration is ours. */
#define _GNU_SOURCE
#include <Python.h>

#include "binding.h"

#include <poll.h>
#include <time.h>

#define ON_STACK 257 /* 256 queues and other_fd, without allocation */

struct place { /* our registration at one queue */
    bool registered;
    uint32_t turn;
};
struct sleeper {
    PyObject *queues; /* tuple of Queue */
    Py_ssize_t count;
    enum shmq_side side;
    uint64_t deadline;
    struct pollfd *fd; /* count + 1: bells, other_fd */
    struct place *place;
};

static inline QueueObject *queue_at(const struct sleeper *s, Py_ssize_t i)
{
    return (QueueObject *)PyTuple_GET_ITEM(s->queues, i);
}

static inline bool is_ours(const QueueObject *q, const struct place *p)
{
    return p->turn == q->bell_turn && shmq_py_is_writable(q);
}

/* ---- registrations ---- */
void shmq_py_wake_waiters(QueueObject *q)
{
    for (int side = 0; side < SHMQ_SIDES; side++)
        for (; q->waiting[side]; q->waiting[side]--)
            shmq_bell_wake_own(&q->core, (enum shmq_side)side);
}

static void register_at(QueueObject *q, struct place *p, enum shmq_side side)
{
    shmq_bell_register(&q->core, side);
    q->waiting[side]++;
    p->registered = true;
    p->turn = q->bell_turn;
}

static void unregister(QueueObject *q, struct place *p, enum shmq_side side)
{
    p->registered = false;
    if (p->turn == q->bell_turn)
        q->waiting[side]--;
}

static void leave_all(struct sleeper *s)
{
    for (Py_ssize_t i = 0; i < s->count; i++) {
        struct place *p = &s->place[i];
        QueueObject *q = queue_at(s, i);
        if (!p->registered)
            continue;
        unregister(q, p, s->side);
        if (is_ours(q, p))
            shmq_bell_leave(&q->core, s->side);
    }
}

/* ---- one round: each step gives -1, or SHMQ_PY_LOOK, or SHMQ_PY_TIMEOUT for "go on" ---- */
static int register_all(struct sleeper *s)
{
    for (Py_ssize_t i = 0; i < s->count; i++) {
        QueueObject *q = queue_at(s, i);
        struct place *p = &s->place[i];
        if (!shmq_py_is_writable(q))
            return shmq_py_refuse(q);
        if (p->registered && p->turn != q->bell_turn)
            p->registered = false;
        if (!p->registered && q->core.bell[s->side] >= 0)
            register_at(q, p, s->side);
        s->fd[i] = (struct pollfd){.fd = q->core.bell[s->side], .events = POLLIN};
    }
    for (Py_ssize_t i = 0; i < s->count && !SHMQ_BROKEN(SLEEP_WITHOUT_LOOK); i++)
        if (shmq_bell_look(&queue_at(s, i)->core, s->side))
            return SHMQ_PY_LOOK;
    return SHMQ_PY_TIMEOUT;
}

/* The bells that rang: reads tokens until one queue has something; the others' tokens stay for others. Who waits at several queues may take
 * from another one and not look here, so the token is passed on. */
static int read_tokens(struct sleeper *s)
{
    for (Py_ssize_t i = 0; i < s->count; i++) {
        QueueObject *q = queue_at(s, i);
        struct place *p = &s->place[i];
        if (!shmq_py_is_writable(q))
            return shmq_py_refuse(q);
        if (!s->fd[i].revents || !p->registered || !is_ours(q, p))
            continue;
        if (s->fd[i].revents & (POLLNVAL | POLLERR))
            return shmq_py_raise(-EBADF);
        bool token = shmq_bell_token(&q->core, s->side);
        if (token)
            unregister(q, p, s->side);
        if (!shmq_bell_look(&q->core, s->side))
            continue;
        if (token && s->count > 1)
            shmq_bell_ring(&q->core, s->side);
        return SHMQ_PY_LOOK;
    }
    return SHMQ_PY_TIMEOUT;
}

/* Number of ready descriptors, or -1 with errno. The GIL is away. */
static int sleep_at(struct pollfd *fd, nfds_t count, uint64_t deadline)
{
    uint64_t now = shmq_now();
    uint64_t left = deadline > now ? deadline - now : 0;
    struct timespec time = {.tv_sec = (time_t)(left / 1000000000u), .tv_nsec = (long)(left % 1000000000u)};
    return ppoll(fd, count, &time, NULL);
}

static int wait_all(struct sleeper *s)
{
    for (;;) {
        int r = register_all(s), ready;
        if (r)
            return r;
        Py_BEGIN_ALLOW_THREADS ready = sleep_at(s->fd, (nfds_t)s->count + 1, s->deadline);
        Py_END_ALLOW_THREADS if (ready == 0) return SHMQ_PY_TIMEOUT;
        if (ready < 0 && errno != EINTR)
            return shmq_py_raise(-errno);
        if (ready < 0) {
            if (PyErr_CheckSignals() < 0)
                return -1;
            continue;
        }
        r = read_tokens(s);
        if (r)
            return r;
        if (s->fd[s->count].revents)
            return SHMQ_PY_OTHER;
    }
}

/* ---- wait ---- */
static int sleep_with(struct sleeper *s, int other_fd)
{
    struct pollfd fds[ON_STACK];
    struct place places[ON_STACK];
    size_t count = (size_t)s->count + 1;
    bool many = count > ON_STACK;
    s->fd = many ? PyMem_Malloc(count * sizeof *s->fd) : fds;
    s->place = many ? PyMem_Malloc(count * sizeof *s->place) : places;
    int r = -1;
    if (s->fd && s->place) {
        for (size_t i = 0; i < count; i++)
            s->place[i] = (struct place){false, 0};
        s->fd[s->count] = (struct pollfd){.fd = other_fd, .events = POLLIN};
        r = wait_all(s);
        leave_all(s);
    } else {
        PyErr_NoMemory();
    }
    if (many) {
        PyMem_Free(s->fd);
        PyMem_Free(s->place);
    }
    return r;
}

PyObject *shmq_py_wait(PyObject *module, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    static struct shmq_py_signature signature = {"wait", 4, 3, {"queues", "side", "timeout_ns", "other_fd"}, {NULL}};
    PyObject *values[SHMQ_PY_PARAMETERS_MAX];
    struct sleeper s = {NULL};
    int64_t timeout, other = -1;
    (void)module;
    if (shmq_py_sort(&signature, args, n, names, values) < 0 || shmq_py_side(values[1], 1, &s.side) < 0 ||
        shmq_py_integer(values[2], "timeout_ns", 0, INT64_MAX, &timeout) < 0)
        return NULL;
    if (values[3] && shmq_py_integer(values[3], "other_fd", -1, INT32_MAX, &other) < 0)
        return NULL;
    s.deadline = shmq_now() + (uint64_t)timeout;
    s.queues = PySequence_Tuple(values[0]);
    if (!s.queues)
        return NULL;
    s.count = PyTuple_GET_SIZE(s.queues);
    int r = 0;
    for (Py_ssize_t i = 0; i < s.count && !r; i++)
        if (!PyObject_TypeCheck(PyTuple_GET_ITEM(s.queues, i), &shmq_py_Queue)) {
            PyErr_SetString(PyExc_TypeError, "queues must be a sequence of Queue");
            r = -1;
        }
    r = r ? r : sleep_with(&s, (int)other);
    Py_DECREF(s.queues);
    return r < 0 ? NULL : PyLong_FromLong(r);
}

/* ---- bells for event loops ---- */
static int bell_arguments(QueueObject *q, PyObject *value, enum shmq_side *side)
{
    if (shmq_py_side(value, 1, side) < 0)
        return -1;
    return shmq_py_is_writable(q) ? 0 : shmq_py_refuse(q);
}

PyObject *shmq_py_bell_fd(QueueObject *q, PyObject *value)
{
    enum shmq_side side;
    if (shmq_py_side(value, 1, &side) < 0)
        return NULL;
    if (!shmq_py_is_live(q)) {
        shmq_py_refuse(q);
        return NULL;
    }
    return PyLong_FromLong(q->core.bell[side]);
}

PyObject *shmq_py_bell_register(QueueObject *q, PyObject *value)
{
    enum shmq_side side;
    if (bell_arguments(q, value, &side) < 0)
        return NULL;
    shmq_bell_register(&q->core, side);
    Py_RETURN_NONE;
}

PyObject *shmq_py_bell_token(QueueObject *q, PyObject *value)
{
    enum shmq_side side;
    return bell_arguments(q, value, &side) < 0 ? NULL : PyBool_FromLong(shmq_bell_token(&q->core, side));
}

PyObject *shmq_py_bell_leave(QueueObject *q, PyObject *value)
{
    enum shmq_side side;
    if (bell_arguments(q, value, &side) < 0)
        return NULL;
    shmq_bell_leave(&q->core, side);
    Py_RETURN_NONE;
}

PyObject *shmq_py_bell_ring(QueueObject *q, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    static struct shmq_py_signature signature = {"bell_ring", 2, 1, {"side", "tokens"}, {NULL}};
    PyObject *values[SHMQ_PY_PARAMETERS_MAX];
    enum shmq_side side;
    int64_t tokens = 1;
    if (shmq_py_sort(&signature, args, n, names, values) < 0 || bell_arguments(q, values[0], &side) < 0)
        return NULL;
    if (values[1] && shmq_py_integer(values[1], "tokens", 0, INT64_MAX, &tokens) < 0)
        return NULL;
    if (tokens > UINT16_MAX)
        shmq_bell_ring_all(&q->core, side);
    for (; tokens > 0 && tokens <= UINT16_MAX; tokens--)
        shmq_bell_ring(&q->core, side);
    Py_RETURN_NONE;
}

PyObject *shmq_py_may_have(QueueObject *q, PyObject *value)
{
    enum shmq_side side;
    if (bell_arguments(q, value, &side) < 0)
        return NULL;
    return PyBool_FromLong(side == SHMQ_CONSUMERS ? shmq_may_have(&q->core) : shmq_bell_look(&q->core, side));
}
