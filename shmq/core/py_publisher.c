/* py_publisher.c - the callable Publisher: publishes to the default exchange without leaving C, and calls its fallback,
 * with the very same arguments, whenever anything is unusual. */
#include <Python.h>

#include "binding.h"

#include <stddef.h>

typedef struct {
    PyObject_HEAD vectorcallfunc call;
    PyObject *routes; /* dict: routing key -> Queue */
    PyObject *fallback;
} PublisherObject;

static PyObject *word_routing_key, *word_priority, *word_persistent, *word_exchange;

int shmq_py_publisher_ready(void)
{
    word_routing_key = PyUnicode_InternFromString("routing_key");
    word_priority = PyUnicode_InternFromString("priority");
    word_persistent = PyUnicode_InternFromString("persistent");
    word_exchange = PyUnicode_InternFromString("exchange");
    return word_routing_key && word_priority && word_persistent && word_exchange ? 0 : -1;
}

/* Reads the keywords of the fast path. False: there is another one, or a value that it does not take. */
static bool read_keywords(PyObject *const *values, PyObject *names, PyObject **key, struct shmq_draft *draft)
{
    Py_ssize_t n = names ? PyTuple_GET_SIZE(names) : 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i), *value = values[i];
        if (name == word_routing_key) {
            *key = value;
        } else if (name == word_priority) {
            int overflow;
            long level = PyLong_CheckExact(value) ? PyLong_AsLongAndOverflow(value, &overflow) : -1;
            if (level < 0 || level >= (long)SHMQ_LEVELS_MAX)
                return false;
            draft->level = (uint32_t)level;
        } else if (name == word_persistent) {
            if (value != Py_True && value != Py_False)
                return false;
            draft->flags = value == Py_True ? SHMQ_PERSISTENT : 0;
        } else if (name == word_exchange) {
            if (!PyUnicode_CheckExact(value) || PyUnicode_GET_LENGTH(value))
                return false;
        } else {
            return false;
        }
    }
    return *key && PyUnicode_CheckExact(*key);
}

/* True: published. False: not, no exception is set. */
static bool publish_fast(const PublisherObject *p, PyObject *const *args, size_t flagged, PyObject *names)
{
    PyObject *key = NULL;
    struct shmq_draft draft = {.envelope = "", .ttl_ns = -1};
    if (UNLIKELY(!p->routes || PyVectorcall_NARGS(flagged) != 1) ||
        UNLIKELY(!read_keywords(args + 1, names, &key, &draft)))
        return false;
    PyObject *queue = PyDict_GetItemWithError(p->routes, key);
    if (UNLIKELY(!queue || !PyObject_TypeCheck(queue, &shmq_py_Queue))) {
        PyErr_Clear();
        return false;
    }
    QueueObject *q = (QueueObject *)queue;
    if (UNLIKELY(shmq_py_bells_stale(q)))
        return false; /* others listen to new bells, and there is a new broker to say hello to */
    Py_INCREF(q); /* the dictionary may drop it while a large body is copied */
    int r = shmq_py_publish(q, &draft, args[0]);
    Py_DECREF(q);
    if (UNLIKELY(r < 0))
        PyErr_Clear();
    return r == SHMQ_OK;
}

static PyObject *publisher_call(PublisherObject *p, PyObject *const *args, size_t flagged, PyObject *names)
{
    if (LIKELY(publish_fast(p, args, flagged, names)))
        Py_RETURN_NONE;
    if (UNLIKELY(!p->fallback)) { /* the garbage collector was here */
        shmq_py_fail(ERROR_DETACHED, NULL);
        return NULL;
    }
    return PyObject_Vectorcall(p->fallback, args, flagged, names);
}

/* ---- the type ---- */
static PyObject *publisher_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"fallback", NULL};
    PyObject *fallback;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O:Publisher", names, &fallback))
        return NULL;
    PublisherObject *p = (PublisherObject *)type->tp_alloc(type, 0);
    if (!p)
        return NULL;
    p->call = (vectorcallfunc)publisher_call;
    p->fallback = Py_NewRef(fallback);
    p->routes = PyDict_New();
    if (!p->routes)
        Py_CLEAR(p);
    return (PyObject *)p;
}

static int publisher_traverse(PublisherObject *p, visitproc visit, void *arg)
{
    Py_VISIT(p->routes);
    Py_VISIT(p->fallback);
    return 0;
}

static int publisher_clear(PublisherObject *p)
{
    Py_CLEAR(p->routes);
    Py_CLEAR(p->fallback);
    return 0;
}

static void publisher_dealloc(PublisherObject *p)
{
    PyObject_GC_UnTrack(p);
    publisher_clear(p);
    Py_TYPE(p)->tp_free((PyObject *)p);
}

static PyObject *get_routes(PublisherObject *p, void *unused)
{
    (void)unused;
    return Py_NewRef(p->routes);
}

static int set_routes(PublisherObject *p, PyObject *value, void *unused)
{
    (void)unused;
    if (!value || !PyDict_CheckExact(value)) {
        PyErr_SetString(PyExc_TypeError, "routes must be a dict of routing key to Queue");
        return -1;
    }
    Py_XSETREF(p->routes, Py_NewRef(value));
    return 0;
}

static PyGetSetDef properties[] = {
    {"routes", (getter)get_routes, (setter)set_routes, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject shmq_py_Publisher = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "shmq.core._core.Publisher",
    .tp_basicsize = sizeof(PublisherObject),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_doc = "Publishes to the default exchange in C; all that is unusual goes to the fallback.",
    .tp_new = publisher_new,
    .tp_dealloc = (destructor)publisher_dealloc,
    .tp_traverse = (traverseproc)publisher_traverse,
    .tp_clear = (inquiry)publisher_clear,
    .tp_call = PyVectorcall_Call,
    .tp_vectorcall_offset = offsetof(PublisherObject, call),
    .tp_getset = properties,
};
