/* py_consumer.c - the iterator Consumer: takes from its queues in turn, asks `on_empty` when there is nothing to give.
 */
#include <Python.h>

#include "binding.h"

#include <sched.h>
#include <structmember.h>

#define TURN_NS_MAX 100000
#define TURNS_LEFT_OUT 2048

static inline bool has_room(const ConsumerObject *c)
{
    return ((!c->prefetch || c->unacked < c->prefetch) && (LIKELY(!c->ledger) || shmq_py_ledger_has_room(c->ledger))) ||
           c->no_ack;
}

/* NULL: nothing there, or failed. The queues may be replaced, and the GIL given away, during a take: nothing borrowed
 * is kept. */
static PyObject *take_in_turn(ConsumerObject *c, bool *failed)
{
    Py_ssize_t queues = c->queues ? PyTuple_GET_SIZE(c->queues) : 0;
    for (Py_ssize_t i = 0; i < queues && i < PyTuple_GET_SIZE(c->queues); i++) {
        if (c->turn >= PyTuple_GET_SIZE(c->queues))
            c->turn = 0;
        QueueObject *q = (QueueObject *)PyTuple_GET_ITEM(c->queues, c->turn++);
        Py_INCREF(q);
        PyObject *m = (PyObject *)shmq_py_take(q, c, c->no_ack, failed);
        Py_DECREF(q);
        if (LIKELY(m || *failed))
            return m;
    }
    *failed = false;
    return NULL;
}

static bool has_stale_bells(const ConsumerObject *c)
{
    for (Py_ssize_t i = 0; c->queues && i < PyTuple_GET_SIZE(c->queues); i++)
        if (UNLIKELY(shmq_py_bells_stale((QueueObject *)PyTuple_GET_ITEM(c->queues, i))))
            return true;
    return false;
}

static bool is_brokered(const ConsumerObject *c)
{
    for (Py_ssize_t i = 0; c->queues && i < PyTuple_GET_SIZE(c->queues); i++)
        if (UNLIKELY(shmq_py_is_brokered((QueueObject *)PyTuple_GET_ITEM(c->queues, i))))
            return true;
    return false;
}

/* On one core, who will send to us is often ready to run, and a yield costs a tenth of a sleep and its wake-up. Beside a
 * busy neighbour our next turn comes late, while a wake-up would come at once: then sleep, and try again after a while.
 */
static bool yield_turn(void)
{
    static uint32_t left_out;
    if (left_out) {
        left_out--;
        return false;
    }
    uint64_t start = shmq_now();
    Py_BEGIN_ALLOW_THREADS sched_yield();
    Py_END_ALLOW_THREADS if (shmq_now() - start > TURN_NS_MAX) left_out = TURNS_LEFT_OUT;
    return true;
}

/* Look again (1), end (0), or hand this out (*message), which the broker gave. */
static int ask(ConsumerObject *c, PyObject **message)
{
    PyObject *on_empty = c->on_empty;
    if (!on_empty)
        return 0;
    Py_INCREF(on_empty);
    PyObject *answer = PyObject_CallNoArgs(on_empty);
    Py_DECREF(on_empty);
    if (!answer)
        return 0;
    *message = PyBool_Check(answer) ? NULL : answer;
    int again = answer == Py_True;
    if (!*message)
        Py_DECREF(answer);
    return again;
}

/* NULL without an exception ends the iteration. While bells are stale, `on_empty` is asked before each take: one who
 * never waits would not learn that there is a new broker. */
static PyObject *consumer_next(ConsumerObject *c)
{
    bool yielded = false;
    for (bool asked = !has_stale_bells(c);; asked = true) {
        bool failed;
        if (LIKELY(asked && has_room(c) && !is_brokered(c))) {
            PyObject *m = take_in_turn(c, &failed);
            if (LIKELY(m || failed))
                return m;
            if (!yielded && (yielded = yield_turn()))
                continue;
        }
        PyObject *message = NULL;
        if (!ask(c, &message))
            return message;
    }
}

/* What `next` would take, without asking anybody: None where it would ask. */
static PyObject *consumer_take(ConsumerObject *c, PyObject *unused)
{
    (void)unused;
    bool failed = false;
    PyObject *m = has_room(c) && !is_brokered(c) ? take_in_turn(c, &failed) : NULL;
    if (m || failed)
        return m;
    Py_RETURN_NONE;
}

/* ---- attributes ---- */
static int set_queues(ConsumerObject *c, PyObject *value, void *unused)
{
    (void)unused;
    PyObject *queues = value ? PySequence_Tuple(value) : NULL;
    if (!queues) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "queues can't be deleted");
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(queues); i++)
        if (!PyObject_TypeCheck(PyTuple_GET_ITEM(queues, i), &shmq_py_Queue)) {
            PyErr_SetString(PyExc_TypeError, "queues must be a sequence of Queue");
            Py_DECREF(queues);
            return -1;
        }
    Py_XSETREF(c->queues, queues);
    return 0;
}

static PyObject *get_queues(ConsumerObject *c, void *unused)
{
    (void)unused;
    return Py_NewRef(c->queues);
}

static int set_prefetch(ConsumerObject *c, PyObject *value, void *unused)
{
    (void)unused;
    int64_t prefetch;
    if (!value) {
        PyErr_SetString(PyExc_TypeError, "prefetch can't be deleted");
        return -1;
    }
    if (shmq_py_integer(value, "prefetch", 0, INT32_MAX, &prefetch) < 0)
        return -1;
    c->prefetch = (Py_ssize_t)prefetch;
    shmq_py_tell_room(c->on_room);
    return 0;
}

static PyObject *get_has_room(ConsumerObject *c, void *unused)
{
    (void)unused;
    return PyBool_FromLong(has_room(c));
}

static PyObject *get_prefetch(ConsumerObject *c, void *unused)
{
    (void)unused;
    return PyLong_FromSsize_t(c->prefetch);
}

/* ---- the type ---- */
static PyObject *consumer_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"queues", "prefetch", "no_ack", "on_empty", "ledger", NULL};
    PyObject *queues, *prefetch, *on_empty, *ledger = Py_None;
    int no_ack;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OOpO|O:Consumer", names, &queues, &prefetch, &no_ack, &on_empty,
                                     &ledger))
        return NULL;
    if (ledger != Py_None && !PyObject_TypeCheck(ledger, &shmq_py_Ledger)) {
        PyErr_SetString(PyExc_TypeError, "ledger must be a Ledger, or None");
        return NULL;
    }
    ConsumerObject *c = (ConsumerObject *)type->tp_alloc(type, 0);
    if (!c)
        return NULL;
    c->no_ack = no_ack;
    c->on_empty = Py_NewRef(on_empty);
    c->ledger = ledger == Py_None ? NULL : (LedgerObject *)Py_NewRef(ledger);
    if (set_queues(c, queues, NULL) < 0 || set_prefetch(c, prefetch, NULL) < 0)
        Py_CLEAR(c);
    return (PyObject *)c;
}

static int consumer_traverse(ConsumerObject *c, visitproc visit, void *arg)
{
    Py_VISIT(c->queues);
    Py_VISIT(c->on_empty);
    Py_VISIT(c->on_room);
    Py_VISIT(c->ledger);
    return 0;
}

static int consumer_clear(ConsumerObject *c)
{
    Py_CLEAR(c->queues);
    Py_CLEAR(c->on_empty);
    Py_CLEAR(c->on_room);
    Py_CLEAR(c->ledger);
    return 0;
}

static void consumer_dealloc(ConsumerObject *c)
{
    PyObject_GC_UnTrack(c);
    consumer_clear(c);
    Py_TYPE(c)->tp_free((PyObject *)c);
}

static PyMethodDef methods[] = {
    {"take", SHMQ_PY_METHOD(consumer_take), METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};
static PyMemberDef members[] = {
    {"unacked", T_PYSSIZET, offsetof(ConsumerObject, unacked), READONLY, NULL},
    {"on_room", T_OBJECT, offsetof(ConsumerObject, on_room), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};
static PyGetSetDef properties[] = {
    {"queues", (getter)get_queues, (setter)set_queues, NULL, NULL},
    {"prefetch", (getter)get_prefetch, (setter)set_prefetch, NULL, NULL},
    {"has_room", (getter)get_has_room, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject shmq_py_Consumer = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "shmq.core._core.Consumer",
    .tp_basicsize = sizeof(ConsumerObject),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_doc = "An iterator that takes from its queues in turn.",
    .tp_new = consumer_new,
    .tp_dealloc = (destructor)consumer_dealloc,
    .tp_traverse = (traverseproc)consumer_traverse,
    .tp_clear = (inquiry)consumer_clear,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = (iternextfunc)consumer_next,
    .tp_methods = methods,
    .tp_members = members,
    .tp_getset = properties,
};
