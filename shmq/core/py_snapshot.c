/* py_snapshot.c - looking at messages without taking them: scan, and peek with its type Snapshot. A copy is good when
 * the control word is the same before and after it. */
#include <Python.h>

#include "binding.h"

#include <string.h>
#include <structmember.h>

typedef struct {
    PyObject_HEAD unsigned int slot, state, reason, level, priority, flags, delivery_count, failure_count;
    unsigned long long ctl, sequence, expires_ns;
    PyObject *envelope, *body, *sender;
} SnapshotObject;

/* ---- peek ---- */
static SnapshotObject *snapshot_new(const QueueObject *q, const struct shmq_delivery *d)
{
    SnapshotObject *s = PyObject_New(SnapshotObject, &shmq_py_Snapshot);
    if (!s)
        return NULL;
    s->envelope = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)d->envelope_bytes);
    s->body = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)d->body_bytes);
    s->sender = shmq_py_sender(q, d->origin);
    s->slot = d->slot;
    s->ctl = d->ctl;
    s->state = shmq_ctl_state(d->ctl);
    s->reason = s->state == SHMQ_DEAD ? shmq_ctl_owner(d->ctl) : 0;
    s->level = d->level;
    s->priority = shmq_origin_priority(d->origin);
    s->flags = d->flags;
    s->delivery_count = shmq_ctl_deliveries(d->ctl);
    s->failure_count = shmq_ctl_failures(d->ctl);
    s->sequence = d->sequence;
    s->expires_ns = d->expires;
    if (!s->envelope || !s->body || !s->sender)
        Py_CLEAR(s);
    return s;
}

static void copy_large(char *to, const uint8_t *from, size_t bytes)
{
    Py_BEGIN_ALLOW_THREADS memcpy(to, from, bytes);
    Py_END_ALLOW_THREADS
}

static void fill_snapshot(SnapshotObject *s, const struct shmq_delivery *d)
{
    if (d->envelope_bytes)
        memcpy(PyBytes_AS_STRING(s->envelope), d->envelope, d->envelope_bytes);
    if (d->body_bytes >= SHMQ_COPY_ALONE)
        copy_large(PyBytes_AS_STRING(s->body), d->body, d->body_bytes);
    else if (d->body_bytes)
        memcpy(PyBytes_AS_STRING(s->body), d->body, d->body_bytes);
}

/* Between WRITING and FREE the metadata and the body of one control word never change. */
static bool can_be_peeked(uint64_t ctl)
{
    uint32_t state = shmq_ctl_state(ctl);
    return state == SHMQ_READY || state == SHMQ_DELAYED || state == SHMQ_UNACKED || state == SHMQ_DEAD;
}

static PyObject *peek(QueueObject *q, PyObject *const *args, Py_ssize_t n)
{
    struct shmq_delivery d;
    uint32_t slot;
    uint64_t ctl;
    if (shmq_py_slot(args, n, 2, q, &slot, &ctl) < 0 || (!shmq_py_is_live(q) && shmq_py_refuse(q) < 0))
        return NULL;
    if (slot >= shmq_slots_high(&q->core) || !can_be_peeked(ctl) ||
        shmq_load(&shmq_slot_at(&q->core, slot)->ctl) != ctl)
        Py_RETURN_NONE;
    int r = shmq_describe(&q->core, slot, ctl, &d);
    if (!shmq_is_current(&q->core, &(struct shmq_delivery){.slot = slot, .ctl = ctl}))
        Py_RETURN_NONE; /* what was described may be another message's, or torn */
    if (r) {
        shmq_py_raise(r);
        return NULL;
    }
    SnapshotObject *s = snapshot_new(q, &d);
    if (!s)
        return NULL;
    Py_INCREF(q);
    fill_snapshot(s, &d);
    bool current = shmq_is_current(&q->core, &d);
    Py_DECREF(q);
    if (current)
        return (PyObject *)s;
    Py_DECREF(s);
    Py_RETURN_NONE;
}

/* ---- scan ---- */
static int append(PyObject *list, uint32_t slot, uint64_t ctl)
{
    PyObject *pair = Py_BuildValue("(IK)", slot, (unsigned long long)ctl);
    int r = pair ? PyList_Append(list, pair) : -1;
    Py_XDECREF(pair);
    return r;
}

static PyObject *scan(QueueObject *q, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    static struct shmq_py_signature signature = {"scan", 3, 1, {"state", "first", "slots"}, {NULL}};
    PyObject *values[SHMQ_PY_PARAMETERS_MAX];
    int64_t state, first = 0, slots = SHMQ_SLOTS_MAX;
    if (shmq_py_sort(&signature, args, n, names, values) < 0 ||
        shmq_py_integer(values[0], "state", 0, SHMQ_STATES - 1, &state) < 0 ||
        (values[1] && shmq_py_integer(values[1], "first", 0, SHMQ_SLOTS_MAX, &first) < 0) ||
        (values[2] && shmq_py_integer(values[2], "slots", 0, SHMQ_SLOTS_MAX, &slots) < 0) ||
        (!shmq_py_is_live(q) && shmq_py_refuse(q) < 0))
        return NULL;
    uint32_t high = shmq_slots_high(&q->core), end = (uint32_t)(first + slots);
    PyObject *list = PyList_New(0);
    for (uint32_t slot = (uint32_t)first; list && slot < high && slot < end; slot++) {
        uint64_t ctl = shmq_load(&shmq_slot_at(&q->core, slot)->ctl);
        if (shmq_ctl_state(ctl) == (uint32_t)state && append(list, slot, ctl) < 0)
            Py_CLEAR(list);
    }
    return list;
}

PyMethodDef shmq_py_snapshot_methods[] = {
    {"peek", SHMQ_PY_METHOD(peek), METH_FASTCALL, NULL},
    {"scan", SHMQ_PY_METHOD(scan), METH_FASTCALL | METH_KEYWORDS, NULL},
    {NULL, NULL, 0, NULL},
};

/* ---- the type ---- */
static void snapshot_dealloc(SnapshotObject *s)
{
    Py_XDECREF(s->envelope);
    Py_XDECREF(s->body);
    Py_XDECREF(s->sender);
    PyObject_Free(s);
}

static PyMemberDef members[] = {
    {"slot", T_UINT, offsetof(SnapshotObject, slot), READONLY, NULL},
    {"ctl", T_ULONGLONG, offsetof(SnapshotObject, ctl), READONLY, NULL},
    {"state", T_UINT, offsetof(SnapshotObject, state), READONLY, NULL},
    {"reason", T_UINT, offsetof(SnapshotObject, reason), READONLY, NULL},
    {"level", T_UINT, offsetof(SnapshotObject, level), READONLY, NULL},
    {"priority", T_UINT, offsetof(SnapshotObject, priority), READONLY, NULL},
    {"flags", T_UINT, offsetof(SnapshotObject, flags), READONLY, NULL},
    {"delivery_count", T_UINT, offsetof(SnapshotObject, delivery_count), READONLY, NULL},
    {"failure_count", T_UINT, offsetof(SnapshotObject, failure_count), READONLY, NULL},
    {"sequence", T_ULONGLONG, offsetof(SnapshotObject, sequence), READONLY, NULL},
    {"expires_ns", T_ULONGLONG, offsetof(SnapshotObject, expires_ns), READONLY, NULL},
    {"envelope", T_OBJECT_EX, offsetof(SnapshotObject, envelope), READONLY, NULL},
    {"body", T_OBJECT_EX, offsetof(SnapshotObject, body), READONLY, NULL},
    {"sender", T_OBJECT_EX, offsetof(SnapshotObject, sender), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyTypeObject shmq_py_Snapshot = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "shmq.core._core.Snapshot",
    .tp_basicsize = sizeof(SnapshotObject),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc = "A private copy of one message.",
    .tp_dealloc = (destructor)snapshot_dealloc,
    .tp_members = members,
};
