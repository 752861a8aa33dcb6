/* py_queue.c - the type Queue: how it begins and ends, its properties. Its methods are in the files of their subject.
 */
#include <Python.h>

#include "binding.h"

#include <structmember.h>
#include <unistd.h>

/* ---- begin ---- */
struct beginning {
    struct shmq_geometry geometry;
    int fd, bells[3];
    int64_t owner;
    unsigned long long queue_id, epoch;
    int create, read_only;
    PyObject *message_type, *context;
};

static int read_bells(PyObject *tuple, int *bells)
{
    return PyArg_ParseTuple(tuple, "iii;bells must be (consumers, producers, supervisor)", &bells[0], &bells[1],
                            &bells[2])
               ? 0
               : -1;
}

/* Messages are made without their type's help: it must add nothing to their memory, nor to their end. */
static int check_message_type(PyObject *value)
{
    const PyTypeObject *type = (PyTypeObject *)value;
    if (PyType_Check(value) && PyType_IsSubtype((PyTypeObject *)value, &shmq_py_Message) &&
        type->tp_basicsize == (Py_ssize_t)sizeof(MessageObject) && !type->tp_dictoffset && !type->tp_weaklistoffset &&
        !type->tp_finalize)
        return 0;
    PyErr_SetString(PyExc_TypeError, "message_type must be Message, or a subclass with __slots__ = () and no __del__");
    return -1;
}

static int read_beginning(PyObject *args, PyObject *keywords, struct beginning *b)
{
    static char *names[] = {"fd",    "geometry",     "owner",   "create",    "queue_id", "bells",
                            "epoch", "message_type", "context", "read_only", NULL};
    PyObject *geometry, *owner, *bells = NULL;
    struct shmq_layout layout;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "iOO|$pKO!KOOp:Queue", names, &b->fd, &geometry, &owner,
                                     &b->create, &b->queue_id, &PyTuple_Type, &bells, &b->epoch, &b->message_type,
                                     &b->context, &b->read_only))
        return -1;
    if (shmq_py_geometry(geometry, &b->geometry, &layout) < 0 || check_message_type(b->message_type) < 0)
        return -1;
    if (shmq_py_integer(owner, "owner", 0, UINT16_MAX, &b->owner) < 0)
        return -1;
    return bells ? read_bells(bells, b->bells) : 0;
}

static void take_bells(QueueObject *q, const int *bells, uint64_t epoch)
{
    q->core.bell[SHMQ_CONSUMERS] = bells[0];
    q->core.bell[SHMQ_PRODUCERS] = bells[1];
    q->core.supervisor_bell = bells[2];
    q->core.bell_epoch = epoch;
}

static int queue_init(QueueObject *q, PyObject *args, PyObject *keywords)
{
    struct beginning b = {.bells = {-1, -1, -1}, .message_type = (PyObject *)&shmq_py_Message, .context = Py_None};
    if (q->born) {
        PyErr_SetString(PyExc_RuntimeError, "a Queue begins once");
        return -1;
    }
    if (read_beginning(args, keywords, &b) < 0)
        return -1;
    int r = shmq_attach(&q->core, b.fd, &b.geometry, (uint32_t)b.owner, b.queue_id, b.create, b.read_only);
    if (r)
        return shmq_py_raise(r);
    take_bells(q, b.bells, b.epoch);
    q->message_type = (PyTypeObject *)Py_NewRef(b.message_type);
    Py_XSETREF(q->context, Py_NewRef(b.context));
    q->born = q->live = shmq_py_fork_epoch;
    q->writable = b.read_only ? 0 : q->live;
    return 0;
}

/* ---- end ---- */
static void close_descriptor(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void close_bells(QueueObject *q)
{
    if (shmq_py_is_writable(q))
        shmq_py_wake_waiters(q);
    q->bell_turn++;
    close_descriptor(&q->core.bell[SHMQ_CONSUMERS]);
    close_descriptor(&q->core.bell[SHMQ_PRODUCERS]);
    close_descriptor(&q->core.supervisor_bell);
}

/* In a forked child too: its copies of the descriptors are its own, nothing shared is touched. */
static void close_queue(QueueObject *q)
{
    if (!q->live)
        return;
    close_bells(q);
    close_descriptor(&q->core.fd);
    q->live = q->writable = 0;
}

static PyObject *queue_close(QueueObject *q, PyObject *unused)
{
    (void)unused;
    close_queue(q);
    Py_RETURN_NONE;
}

static int queue_traverse(QueueObject *q, visitproc visit, void *arg)
{
    Py_VISIT(q->context);
    Py_VISIT(q->message_type);
    return 0;
}

static int queue_clear(QueueObject *q)
{
    Py_CLEAR(q->context);
    return 0;
}

static void queue_dealloc(QueueObject *q)
{
    PyObject_GC_UnTrack(q);
    if (q->weakrefs)
        PyObject_ClearWeakRefs((PyObject *)q);
    close_queue(q);
    if (!shmq_py_is_ours(q))
        q->core.spares = 0; /* they are the parent's */
    shmq_detach(&q->core);
    queue_clear(q);
    Py_CLEAR(q->message_type);
    Py_TYPE(q)->tp_free((PyObject *)q);
}

/* ---- bells and owner change ---- */
static PyObject *queue_set_bells(QueueObject *q, PyObject *args)
{
    PyObject *tuple;
    unsigned long long epoch;
    int bells[3];
    if (!PyArg_ParseTuple(args, "O!K:set_bells", &PyTuple_Type, &tuple, &epoch) || read_bells(tuple, bells) < 0)
        return NULL;
    if (!shmq_py_is_live(q)) {
        shmq_py_refuse(q);
        return NULL;
    }
    close_bells(q);
    take_bells(q, bells, epoch);
    Py_RETURN_NONE;
}

static PyObject *queue_set_owner(QueueObject *q, PyObject *value)
{
    int64_t owner;
    if (shmq_py_integer(value, "owner", 0, UINT16_MAX, &owner) < 0)
        return NULL;
    if (!shmq_py_is_live(q)) {
        shmq_py_refuse(q);
        return NULL;
    }
    if (q->under_way) {
        PyErr_SetString(PyExc_ValueError, "the owner can't change while a loan or a write is under way");
        return NULL;
    }
    q->core.owner = (uint32_t)owner;
    Py_RETURN_NONE;
}

/* ---- properties ---- */
static PyObject *get_closed(QueueObject *q, void *unused)
{
    (void)unused;
    return PyBool_FromLong(!q->live);
}

static PyObject *get_owner(QueueObject *q, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLong(q->core.owner);
}

static PyObject *get_geometry(QueueObject *q, void *unused)
{
    (void)unused;
    const struct shmq_geometry *g = &q->core.geometry;
    return Py_BuildValue("(IIIIK)", g->levels, g->slots, g->inline_bytes, g->ring_entries,
                         (unsigned long long)g->arena_bytes);
}

static PyObject *get_deleted(QueueObject *q, void *unused)
{
    (void)unused;
    if (!shmq_py_is_live(q)) {
        shmq_py_refuse(q);
        return NULL;
    }
    /* acquire: pairs with the release of mark_deleted */
    uint64_t flags = atomic_load_explicit(&q->core.header->flags, memory_order_acquire);
    return PyBool_FromLong(flags & SHMQ_FLAG_DELETED);
}

static PyObject *get_bells_stale(QueueObject *q, void *unused)
{
    (void)unused;
    if (!shmq_py_is_live(q)) {
        shmq_py_refuse(q);
        return NULL;
    }
    return PyBool_FromLong(shmq_py_bells_stale(q));
}

static PyObject *get_brokered(QueueObject *q, void *unused)
{
    (void)unused;
    return PyBool_FromLong(shmq_py_is_brokered(q));
}

static PyObject *queue_repr(QueueObject *q)
{
    return PyUnicode_FromFormat("<%s owner %u, %s>", Py_TYPE(q)->tp_name, q->core.owner,
                                q->live ? "attached" : "closed");
}

static PyMemberDef members[] = {
    {"context", T_OBJECT, offsetof(QueueObject, context), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};
static PyGetSetDef properties[] = {
    {"closed", (getter)get_closed, NULL, NULL, NULL},           {"owner", (getter)get_owner, NULL, NULL, NULL},
    {"geometry", (getter)get_geometry, NULL, NULL, NULL},       {"deleted", (getter)get_deleted, NULL, NULL, NULL},
    {"bells_stale", (getter)get_bells_stale, NULL, NULL, NULL}, {"brokered", (getter)get_brokered, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyMethodDef own_methods[] = {
    {"close", SHMQ_PY_METHOD(queue_close), METH_NOARGS, NULL},
    {"set_bells", SHMQ_PY_METHOD(queue_set_bells), METH_VARARGS, NULL},
    {"set_owner", SHMQ_PY_METHOD(queue_set_owner), METH_O, NULL},
    {"sign", SHMQ_PY_METHOD(shmq_py_queue_sign), METH_O, NULL},
    {"publish", SHMQ_PY_METHOD(shmq_py_queue_publish), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"publish_many", SHMQ_PY_METHOD(shmq_py_queue_publish_many), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"loan", SHMQ_PY_METHOD(shmq_py_queue_loan), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"take", SHMQ_PY_METHOD(shmq_py_queue_take), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"take_many", SHMQ_PY_METHOD(shmq_py_queue_take_many), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"bell_fd", SHMQ_PY_METHOD(shmq_py_bell_fd), METH_O, NULL},
    {"bell_register", SHMQ_PY_METHOD(shmq_py_bell_register), METH_O, NULL},
    {"bell_token", SHMQ_PY_METHOD(shmq_py_bell_token), METH_O, NULL},
    {"bell_leave", SHMQ_PY_METHOD(shmq_py_bell_leave), METH_O, NULL},
    {"bell_ring", SHMQ_PY_METHOD(shmq_py_bell_ring), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"may_have", SHMQ_PY_METHOD(shmq_py_may_have), METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

PyTypeObject shmq_py_Queue = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "shmq.core._core.Queue",
    .tp_basicsize = sizeof(QueueObject),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_doc = "A mapped segment as one owner works in it.",
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)queue_init,
    .tp_dealloc = (destructor)queue_dealloc,
    .tp_traverse = (traverseproc)queue_traverse,
    .tp_clear = (inquiry)queue_clear,
    .tp_repr = (reprfunc)queue_repr,
    .tp_weaklistoffset = offsetof(QueueObject, weakrefs),
    .tp_members = members,
    .tp_getset = properties,
};

void shmq_py_queue_ready(void)
{
    static PyMethodDef all[64];
    PyMethodDef *const tables[] = {own_methods, shmq_py_owner_methods, shmq_py_supervisor_methods,
                                   shmq_py_snapshot_methods};
    size_t n = 0;
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
        for (PyMethodDef *m = tables[t]; m->ml_name && n < sizeof all / sizeof *all - 1; m++)
            all[n++] = *m;
    shmq_py_Queue.tp_methods = all;
}
