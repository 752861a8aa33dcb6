/* py_supervisor.c - methods of Queue for the supervisor: reap, heal, what is due, dead and delayed messages. */
#include <Python.h>

#include "binding.h"

#define LIVE_BYTES 8192   /* one bit an owner */
#define STEP_SLOTS 65536u /* looked at in one step of a sweep */

static bool refused(const QueueObject *q)
{
    return !shmq_py_is_writable(q) && shmq_py_refuse(q) < 0;
}

/* A count, or an error of the core. */
static PyObject *counted(int64_t n)
{
    if (n >= 0)
        return PyLong_FromLongLong(n);
    shmq_py_raise((int)n);
    return NULL;
}

/* ---- reap ---- */
static PyObject *reap_with(QueueObject *q, const uint8_t *live, uint32_t owner, bool count_failure, bool lost_session)
{
    struct shmq_counts counts;
    int r = shmq_reap(&q->core, live, owner, count_failure, lost_session, &counts);
    if (r)
        return counted(r < 0 ? r : -EIO);
    return Py_BuildValue("(KKK)", (unsigned long long)counts.requeued, (unsigned long long)counts.dead,
                         (unsigned long long)counts.freed);
}

static PyObject *reap(QueueObject *q, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"owner", "count_failure", "lost_session", NULL};
    PyObject *value;
    int64_t owner;
    int count_failure = -1, lost_session = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|$pp:reap", names, &value, &count_failure, &lost_session))
        return NULL;
    if (count_failure < 0) {
        PyErr_SetString(PyExc_TypeError, "reap() is missing its argument 'count_failure'");
        return NULL;
    }
    if (shmq_py_integer(value, "owner", 0, UINT16_MAX, &owner) < 0 || refused(q))
        return NULL;
    return reap_with(q, NULL, (uint32_t)owner, count_failure, lost_session);
}

static PyObject *reap_except(QueueObject *q, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"live", "count_failure", NULL};
    PyObject *live;
    int count_failure = -1;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "S|$p:reap_except", names, &live, &count_failure))
        return NULL;
    if (count_failure < 0) {
        PyErr_SetString(PyExc_TypeError, "reap_except() is missing its argument 'count_failure'");
        return NULL;
    }
    if (PyBytes_GET_SIZE(live) != LIVE_BYTES) {
        PyErr_Format(PyExc_ValueError, "live has %zd bytes, it must have %d", PyBytes_GET_SIZE(live), LIVE_BYTES);
        return NULL;
    }
    if (refused(q))
        return NULL;
    return reap_with(q, (const uint8_t *)PyBytes_AS_STRING(live), 0, count_failure, false);
}

/* ---- heal, check ---- */
static PyObject *heal(QueueObject *q, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    static struct shmq_py_signature signature = {"heal", 1, 0, {"full"}, {NULL}};
    PyObject *values[SHMQ_PY_PARAMETERS_MAX];
    struct shmq_heal_report report;
    bool full = false;
    if (shmq_py_sort(&signature, args, n, names, values) < 0 || shmq_py_truth(values[0], &full) < 0 || refused(q))
        return NULL;
    int r = shmq_heal_step(&q->core, shmq_now(), full, &report);
    if (r < 0)
        return counted(r);
    return Py_BuildValue("{sKsKsK}", "bits", (unsigned long long)report.bits, "references",
                         (unsigned long long)report.references, "rescan", (unsigned long long)report.rescan);
}

static PyObject *shrink(QueueObject *q, PyObject *unused)
{
    (void)unused;
    return refused(q) ? NULL : PyLong_FromUnsignedLongLong(shmq_arena_shrink(&q->core));
}

static void say(void *list, const char *text)
{
    PyObject *sentence = PyErr_Occurred() ? NULL : PyUnicode_FromString(text);
    if (sentence)
        (void)PyList_Append(list, sentence); /* no memory: seen by PyErr_Occurred at the end */
    Py_XDECREF(sentence);
}

static PyObject *check(QueueObject *q, PyObject *unused)
{
    (void)unused;
    if (!shmq_py_is_live(q) && shmq_py_refuse(q) < 0)
        return NULL;
    PyObject *list = PyList_New(0);
    if (!list)
        return NULL;
    int r = shmq_check(&q->core, say, list);
    if (r < 0 && !PyErr_Occurred())
        shmq_py_raise(r);
    if (PyErr_Occurred())
        Py_CLEAR(list);
    return list;
}

/* ---- memory ---- */
static PyObject *memory_bytes(QueueObject *q, PyObject *unused)
{
    (void)unused;
    return !shmq_py_is_live(q) && shmq_py_refuse(q) < 0 ? NULL : counted(shmq_memory_bytes(&q->core));
}

static PyObject *set_share(QueueObject *q, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    static struct shmq_py_signature signature = {"set_share", 2, 2, {"share_bytes", "mark_bytes"}, {NULL}};
    PyObject *values[SHMQ_PY_PARAMETERS_MAX];
    int64_t share, mark;
    if (shmq_py_sort(&signature, args, n, names, values) < 0 ||
        shmq_py_integer(values[0], "share_bytes", 0, INT64_MAX, &share) < 0 ||
        shmq_py_integer(values[1], "mark_bytes", 0, INT64_MAX, &mark) < 0 || refused(q))
        return NULL;
    shmq_set_share(&q->core, (uint64_t)share, (uint64_t)mark);
    Py_RETURN_NONE;
}

/* ---- what is due ---- */
static PyObject *expire_due(QueueObject *q, PyObject *value)
{
    int64_t now;
    if (shmq_py_integer(value, "now_ns", 0, INT64_MAX, &now) < 0 || refused(q))
        return NULL;
    return counted(shmq_expire_due(&q->core, (uint64_t)now, STEP_SLOTS));
}

static PyObject *expire_from(QueueObject *q, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    static struct shmq_py_signature signature = {"expire_from", 2, 2, {"now_ns", "first"}, {NULL}};
    PyObject *values[SHMQ_PY_PARAMETERS_MAX];
    int64_t now, first;
    if (shmq_py_sort(&signature, args, n, names, values) < 0 ||
        shmq_py_integer(values[0], "now_ns", 0, INT64_MAX, &now) < 0 ||
        shmq_py_integer(values[1], "first", 0, SHMQ_SLOTS_MAX, &first) < 0 || refused(q))
        return NULL;
    int64_t expired = shmq_expire_from(&q->core, (uint64_t)now, (uint32_t)first, STEP_SLOTS);
    if (expired < 0)
        return counted(expired);
    uint32_t behind = (uint32_t)first + STEP_SLOTS;
    return Py_BuildValue("(LI)", (long long)expired, behind < shmq_slots_high(&q->core) ? behind : 0);
}

static PyObject *next_expiry_ns(QueueObject *q, PyObject *unused)
{
    (void)unused;
    if (!shmq_py_is_live(q) && shmq_py_refuse(q) < 0)
        return NULL;
    return PyLong_FromUnsignedLongLong(shmq_load(&q->core.header->expiry));
}

static PyObject *overdue(QueueObject *q, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    static struct shmq_py_signature signature = {"overdue", 2, 2, {"timeout_ns", "now_ns"}, {NULL}};
    PyObject *values[SHMQ_PY_PARAMETERS_MAX];
    int64_t timeout, now;
    if (shmq_py_sort(&signature, args, n, names, values) < 0 ||
        shmq_py_integer(values[0], "timeout_ns", 0, INT64_MAX, &timeout) < 0 ||
        shmq_py_integer(values[1], "now_ns", 0, INT64_MAX, &now) < 0 || refused(q))
        return NULL;
    return counted(shmq_overdue(&q->core, (uint64_t)timeout, (uint64_t)now, STEP_SLOTS));
}

/* ---- dead and delayed messages ---- */
/* What is not committed yet was never a message; its memory must not be touched. */
static inline bool is_there(QueueObject *q, uint32_t slot)
{
    return slot < shmq_slots_high(&q->core);
}

static uint64_t due_of(QueueObject *q, uint32_t slot, uint64_t ctl)
{
    uint64_t due = shmq_load(&shmq_slot_at(&q->core, slot)->due);
    return shmq_stamp_fits(due, ctl) ? due & ~UINT64_C(0xfff) : 0; /* of another delivery: due at once */
}

static PyObject *pop(QueueObject *q, enum shmq_state state)
{
    uint32_t slot;
    uint64_t ctl;
    if (refused(q))
        return NULL;
    int r = shmq_pop(&q->core, state, &slot, &ctl);
    if (r < 0)
        return counted(r);
    if (r != SHMQ_OK)
        Py_RETURN_NONE;
    if (state == SHMQ_DEAD)
        return Py_BuildValue("(IK)", slot, (unsigned long long)ctl);
    return Py_BuildValue("(IKK)", slot, (unsigned long long)ctl, (unsigned long long)due_of(q, slot, ctl));
}

static PyObject *dead_pop(QueueObject *q, PyObject *unused)
{
    (void)unused;
    return pop(q, SHMQ_DEAD);
}

static PyObject *delayed_pop(QueueObject *q, PyObject *unused)
{
    (void)unused;
    return pop(q, SHMQ_DELAYED);
}

static PyObject *settle_dead(QueueObject *q, PyObject *const *args, Py_ssize_t n)
{
    uint32_t slot;
    uint64_t ctl;
    if (shmq_py_slot(args, n, 2, q, &slot, &ctl) < 0 || refused(q))
        return NULL;
    int r = is_there(q, slot) ? shmq_settle_dead(&q->core, slot, ctl) : SHMQ_STALE;
    return r < 0 ? counted(r) : PyBool_FromLong(r == SHMQ_OK);
}

static PyObject *fire_delayed(QueueObject *q, PyObject *const *args, Py_ssize_t n)
{
    uint32_t slot;
    uint64_t ctl;
    int64_t now;
    if (shmq_py_slot(args, n, 3, q, &slot, &ctl) < 0 || shmq_py_integer(args[2], "now_ns", 0, INT64_MAX, &now) < 0 ||
        refused(q))
        return NULL;
    int r = is_there(q, slot) ? shmq_fire(&q->core, slot, ctl, (uint64_t)now) : SHMQ_STALE;
    if (r < 0)
        return counted(r);
    return PyLong_FromLong(r == SHMQ_OK ? 1 : r == SHMQ_NOT_DUE ? 0 : -1);
}

static PyObject *due_ns(QueueObject *q, PyObject *const *args, Py_ssize_t n)
{
    uint32_t slot;
    uint64_t ctl;
    if (shmq_py_slot(args, n, 2, q, &slot, &ctl) < 0 || (!shmq_py_is_live(q) && shmq_py_refuse(q) < 0))
        return NULL;
    return PyLong_FromUnsignedLongLong(is_there(q, slot) ? due_of(q, slot, ctl) : 0);
}

static PyObject *ring_unheard(QueueObject *q, PyObject *unused)
{
    (void)unused;
    if (refused(q))
        return NULL;
    shmq_bell_ring_unheard(&q->core);
    Py_RETURN_NONE;
}

PyMethodDef shmq_py_supervisor_methods[] = {
    {"reap", SHMQ_PY_METHOD(reap), METH_VARARGS | METH_KEYWORDS, NULL},
    {"reap_except", SHMQ_PY_METHOD(reap_except), METH_VARARGS | METH_KEYWORDS, NULL},
    {"heal", SHMQ_PY_METHOD(heal), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"shrink", SHMQ_PY_METHOD(shrink), METH_NOARGS, NULL},
    {"check", SHMQ_PY_METHOD(check), METH_NOARGS, NULL},
    {"memory_bytes", SHMQ_PY_METHOD(memory_bytes), METH_NOARGS, NULL},
    {"set_share", SHMQ_PY_METHOD(set_share), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"expire_due", SHMQ_PY_METHOD(expire_due), METH_O, NULL},
    {"expire_from", SHMQ_PY_METHOD(expire_from), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"next_expiry_ns", SHMQ_PY_METHOD(next_expiry_ns), METH_NOARGS, NULL},
    {"overdue", SHMQ_PY_METHOD(overdue), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"dead_pop", SHMQ_PY_METHOD(dead_pop), METH_NOARGS, NULL},
    {"delayed_pop", SHMQ_PY_METHOD(delayed_pop), METH_NOARGS, NULL},
    {"settle_dead", SHMQ_PY_METHOD(settle_dead), METH_FASTCALL, NULL},
    {"fire_delayed", SHMQ_PY_METHOD(fire_delayed), METH_FASTCALL, NULL},
    {"due_ns", SHMQ_PY_METHOD(due_ns), METH_FASTCALL, NULL},
    {"ring_unheard", SHMQ_PY_METHOD(ring_unheard), METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};
