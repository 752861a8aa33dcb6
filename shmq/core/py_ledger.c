/* py_ledger.c - the type Ledger: the deliveries of one channel that are not settled, by their tags, and how many of
 * them there may be.
 *
 * A ledger may stand in another one, its parent: what is entered counts in both, and there is room where both have it.
 * Tags and deliveries are the root's. A delivery of a segment leaves its ledger when it is settled, wherever that is
 * done; others say so.
 *
 * A ledger that keeps deliveries refers to them, and they, whom the garbage collector does not know, to it: `forget`
 * ends that. */
#include <Python.h>

#include "binding.h"

#include <structmember.h>

static inline bool has_own_room(const LedgerObject *l)
{
    return !l->prefetch || l->counted < l->prefetch;
}

bool shmq_py_ledger_has_room(const LedgerObject *l)
{
    for (; l; l = l->parent)
        if (!has_own_room(l))
            return false;
    return true;
}

/* Somebody may wait for this: told when one more may be handed out. Errors of theirs are not ours. */
void shmq_py_tell_room(PyObject *on_room)
{
    PyObject *type, *value, *trace;
    if (!on_room || on_room == Py_None)
        return;
    PyErr_Fetch(&type, &value, &trace);
    Py_INCREF(on_room);
    PyObject *answer = PyObject_CallNoArgs(on_room);
    if (!answer)
        PyErr_WriteUnraisable(on_room);
    Py_XDECREF(answer);
    Py_DECREF(on_room);
    PyErr_Restore(type, value, trace);
}

static LedgerObject *root_of(LedgerObject *l)
{
    while (l->parent)
        l = l->parent;
    return l;
}

/* ---- in and out ---- */
static void count(LedgerObject *l)
{
    for (; l; l = l->parent)
        l->counted++;
}

/* The callbacks may let go of a ledger: who calls holds the first one, and each one its parent. */
static void uncount(LedgerObject *l)
{
    for (; l; l = l->parent) {
        bool was_full = !has_own_room(l);
        l->counted--;
        if (was_full && has_own_room(l))
            shmq_py_tell_room(l->on_room);
    }
}

/* The next tag, under which the delivery is kept unless it needs no ack; 0 where none are kept. -1: failed, and nothing
 * has changed. */
static int enter(LedgerObject *l, PyObject *delivery, bool counted, uint64_t *tag)
{
    LedgerObject *root = root_of(l);
    *tag = root->by_tag ? root->last_tag + 1 : 0;
    if (delivery && root->by_tag) {
        PyObject *key = PyLong_FromUnsignedLongLong(*tag);
        int r = key ? PyDict_SetItem(root->by_tag, key, delivery) : -1;
        Py_XDECREF(key);
        if (r < 0)
            return -1;
    }
    root->last_tag = *tag;
    if (delivery && counted)
        count(l);
    return 0;
}

/* False: it is not there. */
static bool leave(LedgerObject *l, uint64_t tag, bool counted)
{
    LedgerObject *root = root_of(l);
    bool there = true;
    Py_INCREF(l);
    if (root->by_tag) {
        PyObject *type, *value, *trace;
        PyErr_Fetch(&type, &value, &trace);
        PyObject *key = PyLong_FromUnsignedLongLong(tag);
        there = key && PyDict_DelItem(root->by_tag, key) == 0;
        Py_XDECREF(key);
        PyErr_Clear();
        PyErr_Restore(type, value, trace);
    }
    if (there && counted)
        uncount(l);
    Py_DECREF(l);
    return there;
}

int shmq_py_ledger_enter(LedgerObject *l, MessageObject *m, bool counted)
{
    bool settled = m->state != MESSAGE_UNACKED;
    uint64_t tag;
    if (enter(l, settled ? NULL : (PyObject *)m, counted, &tag) < 0)
        return -1;
    m->tag = tag;
    if (!settled) {
        m->ledger = (LedgerObject *)Py_NewRef(l);
        m->counted = counted;
    }
    return 0;
}

void shmq_py_ledger_leave(MessageObject *m)
{
    LedgerObject *l = m->ledger;
    m->ledger = NULL;
    leave(l, m->tag, m->counted);
    Py_DECREF(l);
}

/* ---- methods ---- */
static PyObject *ledger_enter(LedgerObject *l, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    static struct shmq_py_signature signature = {"enter", 2, 1, {"delivery", "counted"}, {NULL}};
    PyObject *values[SHMQ_PY_PARAMETERS_MAX];
    bool counted = true;
    if (shmq_py_sort(&signature, args, n, names, values) < 0 || shmq_py_truth(values[1], &counted) < 0)
        return NULL;
    PyObject *delivery = values[0];
    uint64_t tag = 0;
    int r;
    if (PyObject_TypeCheck(delivery, &shmq_py_Message)) {
        MessageObject *m = (MessageObject *)delivery;
        if (m->tag || m->ledger) {
            PyErr_SetString(PyExc_ValueError, "this delivery is in a ledger, or was in one");
            return NULL;
        }
        r = shmq_py_ledger_enter(l, m, counted);
        tag = m->tag;
    } else {
        r = enter(l, delivery == Py_None ? NULL : delivery, counted, &tag);
    }
    return r < 0 ? NULL : PyLong_FromUnsignedLongLong(tag);
}

static PyObject *ledger_leave(LedgerObject *l, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    static struct shmq_py_signature signature = {"leave", 2, 1, {"tag", "counted"}, {NULL}};
    PyObject *values[SHMQ_PY_PARAMETERS_MAX];
    bool counted = true;
    int64_t tag;
    if (shmq_py_sort(&signature, args, n, names, values) < 0 || shmq_py_truth(values[1], &counted) < 0 ||
        shmq_py_integer(values[0], "tag", 0, INT64_MAX, &tag) < 0)
        return NULL;
    return PyBool_FromLong(leave(l, (uint64_t)tag, counted));
}

static PyObject *ledger_find(LedgerObject *l, PyObject *tag)
{
    PyObject *by_tag = root_of(l)->by_tag;
    PyObject *found = by_tag ? PyDict_GetItemWithError(by_tag, tag) : NULL;
    if (!found && PyErr_Occurred())
        return NULL;
    return Py_NewRef(found ? found : Py_None);
}

/* Tags were given out in the order of the dictionary. */
static PyObject *ledger_up_to(LedgerObject *l, PyObject *value)
{
    int64_t last;
    PyObject *key, *delivery, *by_tag = root_of(l)->by_tag;
    if (shmq_py_integer(value, "tag", 0, INT64_MAX, &last) < 0)
        return NULL;
    PyObject *list = PyList_New(0);
    for (Py_ssize_t i = 0; list && by_tag && PyDict_Next(by_tag, &i, &key, &delivery);) {
        if (PyLong_AsUnsignedLongLong(key) > (uint64_t)last)
            break;
        if (PyList_Append(list, delivery) < 0)
            Py_CLEAR(list);
    }
    return list;
}

/* Each delivery is let go of: it is its holder's alone, and counts no longer. What is entered meanwhile, by who is told of room, stays. */
static PyObject *ledger_forget(LedgerObject *l, PyObject *unused)
{
    (void)unused;
    PyObject *key, *delivery, *by_tag = root_of(l)->by_tag;
    PyObject *all = by_tag ? PyDict_Copy(by_tag) : PyDict_New();
    for (Py_ssize_t i = 0; all && PyDict_Next(all, &i, &key, &delivery);) {
        MessageObject *m = (MessageObject *)delivery;
        if (PyObject_TypeCheck(m, &shmq_py_Message) && m->ledger)
            shmq_py_ledger_leave(m);
        else if (by_tag && PyDict_DelItem(by_tag, key) < 0)
            PyErr_Clear(); /* it has left meanwhile */
    }
    PyObject *list = all ? PyDict_Values(all) : NULL;
    Py_XDECREF(all);
    return list;
}

/* ---- attributes ---- */
static Py_ssize_t ledger_length(LedgerObject *l)
{
    PyObject *by_tag = root_of(l)->by_tag;
    return by_tag ? PyDict_GET_SIZE(by_tag) : 0;
}

static PyObject *get_prefetch(LedgerObject *l, void *unused)
{
    (void)unused;
    return PyLong_FromSsize_t(l->prefetch);
}

static int set_prefetch(LedgerObject *l, PyObject *value, void *unused)
{
    (void)unused;
    int64_t prefetch;
    if (!value) {
        PyErr_SetString(PyExc_TypeError, "prefetch can't be deleted");
        return -1;
    }
    if (shmq_py_integer(value, "prefetch", 0, INT32_MAX, &prefetch) < 0)
        return -1;
    bool was_full = !has_own_room(l);
    l->prefetch = (Py_ssize_t)prefetch;
    if (was_full && has_own_room(l))
        shmq_py_tell_room(l->on_room);
    return 0;
}

static PyObject *get_has_room(LedgerObject *l, void *unused)
{
    (void)unused;
    return PyBool_FromLong(shmq_py_ledger_has_room(l));
}

static PyObject *get_last_tag(LedgerObject *l, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(root_of(l)->last_tag);
}

/* ---- the type ---- */
static PyObject *ledger_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"parent", "keeps", NULL};
    PyObject *parent = Py_None;
    int keeps = 1;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|Op:Ledger", names, &parent, &keeps))
        return NULL;
    if (parent != Py_None && !PyObject_TypeCheck(parent, &shmq_py_Ledger)) {
        PyErr_SetString(PyExc_TypeError, "parent must be a Ledger, or None");
        return NULL;
    }
    LedgerObject *l = (LedgerObject *)type->tp_alloc(type, 0);
    if (!l)
        return NULL;
    l->parent = parent == Py_None ? NULL : (LedgerObject *)Py_NewRef(parent);
    if (!l->parent && keeps && !(l->by_tag = PyDict_New()))
        Py_CLEAR(l);
    return (PyObject *)l;
}

static int ledger_traverse(LedgerObject *l, visitproc visit, void *arg)
{
    Py_VISIT(l->parent);
    Py_VISIT(l->by_tag);
    Py_VISIT(l->on_room);
    return 0;
}

static int ledger_clear(LedgerObject *l)
{
    Py_CLEAR(l->parent);
    Py_CLEAR(l->by_tag);
    Py_CLEAR(l->on_room);
    return 0;
}

static void ledger_dealloc(LedgerObject *l)
{
    PyObject_GC_UnTrack(l);
    ledger_clear(l);
    Py_TYPE(l)->tp_free((PyObject *)l);
}

static PyMethodDef methods[] = {
    {"enter", SHMQ_PY_METHOD(ledger_enter), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"leave", SHMQ_PY_METHOD(ledger_leave), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"find", SHMQ_PY_METHOD(ledger_find), METH_O, NULL},
    {"up_to", SHMQ_PY_METHOD(ledger_up_to), METH_O, NULL},
    {"forget", SHMQ_PY_METHOD(ledger_forget), METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};
static PyMemberDef members[] = {
    {"counted", T_PYSSIZET, offsetof(LedgerObject, counted), READONLY, NULL},
    {"on_room", T_OBJECT, offsetof(LedgerObject, on_room), 0, NULL},
    {"parent", T_OBJECT, offsetof(LedgerObject, parent), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};
static PyGetSetDef properties[] = {
    {"prefetch", (getter)get_prefetch, (setter)set_prefetch, NULL, NULL},
    {"has_room", (getter)get_has_room, NULL, NULL, NULL},
    {"last_tag", (getter)get_last_tag, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PySequenceMethods sequence = {.sq_length = (lenfunc)ledger_length};

PyTypeObject shmq_py_Ledger = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "shmq.core._core.Ledger",
    .tp_basicsize = sizeof(LedgerObject),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_doc = "Deliveries of one channel that are not settled.",
    .tp_new = ledger_new,
    .tp_dealloc = (destructor)ledger_dealloc,
    .tp_traverse = (traverseproc)ledger_traverse,
    .tp_clear = (inquiry)ledger_clear,
    .tp_as_sequence = &sequence,
    .tp_methods = methods,
    .tp_members = members,
    .tp_getset = properties,
};
