/* py_module.c - the module: its constants and types, how errors of the core become exceptions, and the fork epoch. */
#include <Python.h>

#include "binding.h"

#include <pthread.h>

PyObject *shmq_py_errors[ERRORS];
uint32_t shmq_py_fork_epoch = 1;

/* ---- errors ---- */
static const struct {
    const char *name, *text;
} errors[ERRORS] = {
    [ERROR_FORKED] = {"ForkedHandle", "this object belongs to the parent of this process: connect anew after fork()"},
    [ERROR_DETACHED] = {"DetachedQueue", "this queue was detached or its connection closed: connect or attach anew"},
    [ERROR_STALE] = {"StaleDelivery", "this delivery is no longer ours: the message went back to the queue "
                                      "(ack timeout, lost session). Nothing changed"},
    [ERROR_SETTLED] = {"AlreadySettled", "this delivery was acked, nacked or rejected before"},
    [ERROR_VIEWS] = {"ViewsInUse", "views of the body are alive: release them first "
                                   "(or ack, which keeps the memory until they are gone)"},
    [ERROR_RELEASED] = {"BodyReleased", "the body was given back when the message was settled: "
                                        "read it, or take a view, before that"},
    [ERROR_LAYOUT] = {"LayoutMismatch",
                      "the segment has another layout, geometry or queue id than the broker told: use the "
                      "version of shmq that wrote it, or drop the segments: shmqd --discard"},
    [ERROR_DAMAGED] = {"SegmentDamaged", "a word in the queue's segment failed its check: delete the queue, "
                                         "or drop all segments: shmqd --discard"},
    [ERROR_REJECTED] = {"PublishRejected", "the queue is as long as it may be, and refuses more (x-overflow)"},
};

static int load_errors(void)
{
    PyObject *module = PyImport_ImportModule("shmq.errors");
    if (!module)
        return -1;
    for (int i = 0; i < ERRORS; i++) {
        Py_XSETREF(shmq_py_errors[i], PyObject_GetAttrString(module, errors[i].name));
        if (!shmq_py_errors[i])
            break;
    }
    Py_DECREF(module);
    return PyErr_Occurred() ? -1 : 0;
}

int shmq_py_fail(enum shmq_py_error error, const char *text)
{
    PyErr_SetString(shmq_py_errors[error], text ? text : errors[error].text);
    return -1;
}

int shmq_py_raise(int r)
{
    if (r == SHMQ_DAMAGED)
        return shmq_py_fail(ERROR_DAMAGED, NULL);
    if (r == -EPROTO)
        return shmq_py_fail(ERROR_LAYOUT, NULL);
    if (r < 0) {
        errno = -r;
        PyErr_SetFromErrno(PyExc_OSError);
    } else {
        PyErr_Format(PyExc_SystemError, "unexpected outcome %d of the core", r);
    }
    return -1;
}

int shmq_py_refuse(const QueueObject *q)
{
    if (q->born && q->born != shmq_py_fork_epoch)
        return shmq_py_fail(ERROR_FORKED, NULL);
    if (!q->live)
        return shmq_py_fail(ERROR_DETACHED, NULL);
    PyErr_SetString(PyExc_PermissionError, "this handle is read-only: statistics, scans and peeks only");
    return -1;
}

/* ---- fork ---- */
static void in_forked_child(void)
{
    shmq_py_fork_epoch = shmq_py_fork_epoch == UINT32_MAX ? 1 : shmq_py_fork_epoch + 1;
}

/* ---- functions ---- */
static PyObject *segment_bytes(PyObject *module, PyObject *value)
{
    (void)module;
    struct shmq_geometry geometry;
    struct shmq_layout layout;
    if (shmq_py_geometry(value, &geometry, &layout) < 0)
        return NULL;
    return PyLong_FromUnsignedLongLong(layout.bytes);
}

static PyObject *monotonic_ns(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyLong_FromUnsignedLongLong(shmq_now());
}

static PyMethodDef functions[] = {
    {"segment_bytes", segment_bytes, METH_O, NULL},
    {"monotonic_ns", monotonic_ns, METH_NOARGS, NULL},
    {"epoll_open", shmq_py_epoll_open, METH_NOARGS, NULL},
    {"epoll_watch", SHMQ_PY_METHOD(shmq_py_epoll_watch), METH_FASTCALL, NULL},
    {"epoll_ready", shmq_py_epoll_ready, METH_O, NULL},
    {"wait", SHMQ_PY_METHOD(shmq_py_wait), METH_FASTCALL | METH_KEYWORDS, NULL},
    {NULL, NULL, 0, NULL},
};

/* ---- the module ---- */
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "shmq.core._core",
    .m_doc = "The C core as Python sees it; _core.pyi says what each name does.",
    .m_size = -1,
    .m_methods = functions,
};

static const struct {
    const char *name;
    long value;
} constants[] = {
    {"LAYOUT", SHMQ_LAYOUT},
    {"LEVELS_MAX", SHMQ_LEVELS_MAX},
    {"SLOTS_MAX", SHMQ_SLOTS_MAX},
    {"BODY_BYTES_MAX", (long)SHMQ_BODY_BYTES_MAX},
    {"ENVELOPE_BYTES_MAX", SHMQ_ENVELOPE_BYTES_MAX},
    {"OWNERS_MAX", 65535},
    {"OK", SHMQ_OK},
    {"FULL", SHMQ_FULL},
    {"NO_MEMORY", SHMQ_NO_MEMORY},
    {"TOO_LARGE", SHMQ_TOO_LARGE},
    {"DELETED", SHMQ_DELETED},
    {"REFUSED", SHMQ_REFUSED},
    {"STOPPED", SHMQ_STOPPED},
    {"CONSUMERS", SHMQ_CONSUMERS},
    {"PRODUCERS", SHMQ_PRODUCERS},
    {"PERSISTENT", SHMQ_PERSISTENT},
    {"REJECTED", SHMQ_REJECTED},
    {"EXPIRED", SHMQ_EXPIRED},
    {"MAXLEN", SHMQ_MAXLEN},
    {"DELIVERY_LIMIT", SHMQ_DELIVERY_LIMIT},
    {"DROPS", SHMQ_DROPS},
    {"DROPS_DEAD", SHMQ_DROPS_DEAD},
    {"REFUSES", SHMQ_REFUSES},
    {"REFUSES_DEAD", SHMQ_REFUSES_DEAD},
    {"DROPS_HIGHEST", SHMQ_DROPS_HIGHEST},
    {"RETRY_FAILED", SHMQ_RETRY_FAILED},
    {"RETRY_RETURNED", SHMQ_RETRY_RETURNED},
    {"FREE", SHMQ_FREE},
    {"WRITING", SHMQ_WRITING},
    {"READY", SHMQ_READY},
    {"DELAYED", SHMQ_DELAYED},
    {"UNACKED", SHMQ_UNACKED},
    {"ACKED", SHMQ_ACKED},
    {"DEAD", SHMQ_DEAD},
    {"TIMEOUT", SHMQ_PY_TIMEOUT},
    {"LOOK", SHMQ_PY_LOOK},
    {"OTHER", SHMQ_PY_OTHER},
};

static int add_geometry(PyObject *module)
{
    PyObject *integer = (PyObject *)&PyLong_Type;
    PyObject *fields = PyTuple_Pack(5, integer, integer, integer, integer, integer);
    PyObject *alias = fields ? Py_GenericAlias((PyObject *)&PyTuple_Type, fields) : NULL;
    int r = alias ? PyModule_AddObjectRef(module, "GeometryTuple", alias) : -1;
    Py_XDECREF(fields);
    Py_XDECREF(alias);
    return r;
}

static int fill(PyObject *module)
{
    PyTypeObject *types[] = {&shmq_py_Queue, &shmq_py_Message,   &shmq_py_Consumer, &shmq_py_Ledger,
                             &shmq_py_Loan,  &shmq_py_Publisher, &shmq_py_Snapshot};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (PyModule_AddType(module, types[i]) < 0)
            return -1;
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (PyModule_AddIntConstant(module, constants[i].name, constants[i].value) < 0)
            return -1;
    return add_geometry(module);
}

PyMODINIT_FUNC PyInit__core(void)
{
    static bool registered;
    if (load_errors() < 0 || shmq_py_publisher_ready() < 0)
        return NULL;
    if (!registered && pthread_atfork(NULL, NULL, in_forked_child) != 0)
        return PyErr_NoMemory();
    registered = true;
    shmq_py_queue_ready();
    PyObject *module = PyModule_Create(&definition);
    if (module && fill(module) < 0)
        Py_CLEAR(module);
    return module;
}
