/* py_arguments.c - arguments of Python calls as C values, checked against their ranges. Knows no queue's state. */
#include <Python.h>

#include "binding.h"

#define TIME_NS_MAX (((int64_t)1 << 62) - 1) /* 146 years */

const char *const shmq_py_draft_names[5] = {"level", "envelope", "ttl_ns", "delay_ns", "flags"};

static int intern(struct shmq_py_signature *s)
{
    for (int i = 0; i < s->parameters; i++)
        if (!s->interned[i] && !(s->interned[i] = PyUnicode_InternFromString(s->names[i])))
            return -1;
    return 0;
}

/* Position of a keyword; keywords in source code are interned, so the pointer nearly always decides. */
static int position(const struct shmq_py_signature *s, PyObject *name)
{
    for (int i = 0; i < s->parameters; i++)
        if (s->interned[i] == name)
            return i;
    for (int i = 0; i < s->parameters; i++)
        if (PyUnicode_Compare(s->interned[i], name) == 0)
            return i;
    PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument %R", s->function, name);
    return -1;
}

int shmq_py_sort(struct shmq_py_signature *s, PyObject *const *args, Py_ssize_t n, PyObject *names, PyObject **out)
{
    if (UNLIKELY(!s->interned[0]) && intern(s) < 0)
        return -1;
    if (n > s->parameters) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most %d arguments (%zd given)", s->function, s->parameters, n);
        return -1;
    }
    for (int i = 0; i < s->parameters; i++)
        out[i] = i < n ? args[i] : NULL;
    Py_ssize_t keywords = names ? PyTuple_GET_SIZE(names) : 0;
    for (Py_ssize_t k = 0; k < keywords; k++) {
        int i = position(s, PyTuple_GET_ITEM(names, k));
        if (i < 0)
            return -1;
        if (out[i]) {
            PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument '%s'", s->function, s->names[i]);
            return -1;
        }
        out[i] = args[n + k];
    }
    for (int i = 0; i < s->required; i++)
        if (!out[i]) {
            PyErr_Format(PyExc_TypeError, "%s() is missing its argument '%s'", s->function, s->names[i]);
            return -1;
        }
    return 0;
}

/* ---- single values ---- */
int shmq_py_integer(PyObject *value, const char *name, int64_t low, int64_t high, int64_t *out)
{
    int overflow = 0;
    long long v = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (v == -1 && !overflow && PyErr_Occurred())
        return -1;
    if (overflow || v < low || v > high) {
        PyErr_Format(PyExc_ValueError, "%s is %R, allowed are %lld to %lld", name, value, (long long)low,
                     (long long)high);
        return -1;
    }
    *out = v;
    return 0;
}

int shmq_py_truth(PyObject *value, bool *out)
{
    if (!value)
        return 0; /* keeps its default */
    int truth = PyObject_IsTrue(value);
    if (truth >= 0)
        *out = truth;
    return truth < 0 ? -1 : 0;
}

int shmq_py_seconds(PyObject *value, const char *name, uint64_t *ns)
{
    double seconds = PyFloat_AsDouble(value);
    if (seconds == -1.0 && PyErr_Occurred())
        return -1;
    if (!(seconds >= 0.0 && seconds <= (double)TIME_NS_MAX / 1e9)) {
        PyErr_Format(PyExc_ValueError, "%s is %R, allowed are seconds from 0 to %lld", name, value,
                     (long long)(TIME_NS_MAX / 1000000000));
        return -1;
    }
    *ns = (uint64_t)(seconds * 1e9);
    return 0;
}

int shmq_py_side(PyObject *value, int64_t last, enum shmq_side *out)
{
    int64_t side;
    if (shmq_py_integer(value, "side", 0, last, &side) < 0)
        return -1;
    *out = (enum shmq_side)side;
    return 0;
}

int shmq_py_slot(PyObject *const *args, Py_ssize_t n, Py_ssize_t expected, const QueueObject *q, uint32_t *slot,
                 uint64_t *ctl)
{
    int64_t s;
    if (n != expected) {
        PyErr_Format(PyExc_TypeError, "expected %zd arguments, got %zd", expected, n);
        return -1;
    }
    if (shmq_py_integer(args[0], "slot", 0, (int64_t)q->core.geometry.slots - 1, &s) < 0)
        return -1;
    *slot = (uint32_t)s;
    *ctl = PyLong_AsUnsignedLongLong(args[1]);
    return PyErr_Occurred() ? -1 : 0;
}

/* ---- geometry ---- */
static int check_geometry(const int64_t *v, struct shmq_geometry *out)
{
    out->levels = (uint32_t)v[0];
    out->slots = (uint32_t)v[1];
    out->inline_bytes = (uint32_t)v[2];
    out->ring_entries = (uint32_t)v[3];
    out->arena_bytes = (uint64_t)v[4];
    if (out->inline_bytes % 64)
        PyErr_Format(PyExc_ValueError, "inline_bytes is %u, it must be a multiple of 64", out->inline_bytes);
    else if (out->ring_entries & (out->ring_entries - 1))
        PyErr_Format(PyExc_ValueError, "ring_entries is %u, it must be a power of two", out->ring_entries);
    else if (out->arena_bytes % (1u << 20))
        PyErr_Format(PyExc_ValueError, "arena_bytes is %lld, it must be a multiple of 1048576", (long long)v[4]);
    else
        return 0;
    return -1;
}

int shmq_py_geometry(PyObject *value, struct shmq_geometry *out, struct shmq_layout *layout)
{
    static const struct {
        const char *name;
        int64_t low, high;
    } fields[5] = {
        {"levels", 1, SHMQ_LEVELS_MAX}, {"slots", 1, SHMQ_SLOTS_MAX},         {"inline_bytes", 0, 1 << 20},
        {"ring_entries", 4, 65536},     {"arena_bytes", 0, (int64_t)1 << 40},
    };
    int64_t v[5];
    if (!PyTuple_Check(value) || PyTuple_GET_SIZE(value) != 5) {
        PyErr_SetString(PyExc_TypeError, "geometry must be (levels, slots, inline_bytes, ring_entries, arena_bytes)");
        return -1;
    }
    for (int i = 0; i < 5; i++)
        if (shmq_py_integer(PyTuple_GET_ITEM(value, i), fields[i].name, fields[i].low, fields[i].high, &v[i]) < 0)
            return -1;
    if (check_geometry(v, out) < 0)
        return -1;
    if (shmq_layout_of(out, layout) < 0) {
        PyErr_SetString(PyExc_ValueError, "ring_entries is too small for so many slots");
        return -1;
    }
    return 0;
}

/* ---- what is published ---- */
int shmq_py_draft(PyObject *const *values, struct shmq_draft *out)
{
    int64_t level = 0, ttl = -1, delay = 0, flags = 0;
    *out = (struct shmq_draft){.envelope = "", .ttl_ns = -1};
    if (values[0] && shmq_py_integer(values[0], "level", 0, INT32_MAX, &level) < 0)
        return -1;
    if (values[1]) {
        if (!PyBytes_Check(values[1])) {
            PyErr_Format(PyExc_TypeError, "envelope must be bytes, not %.100s", Py_TYPE(values[1])->tp_name);
            return -1;
        }
        if (PyBytes_GET_SIZE(values[1]) > (Py_ssize_t)SHMQ_ENVELOPE_BYTES_MAX) {
            PyErr_Format(PyExc_ValueError, "envelope has %zd bytes, allowed are %u", PyBytes_GET_SIZE(values[1]),
                         SHMQ_ENVELOPE_BYTES_MAX);
            return -1;
        }
        out->envelope = PyBytes_AS_STRING(values[1]);
        out->envelope_bytes = (uint32_t)PyBytes_GET_SIZE(values[1]);
    }
    if (values[2] && shmq_py_integer(values[2], "ttl_ns", -TIME_NS_MAX, TIME_NS_MAX, &ttl) < 0)
        return -1;
    if (values[3] && shmq_py_integer(values[3], "delay_ns", 0, TIME_NS_MAX, &delay) < 0)
        return -1;
    if (values[4] && shmq_py_integer(values[4], "flags", 0, 255, &flags) < 0)
        return -1;
    out->level = level < SHMQ_LEVELS_MAX ? (uint32_t)level : SHMQ_LEVELS_MAX - 1;
    out->ttl_ns = ttl;
    out->delay_ns = (uint64_t)delay;
    out->flags = (uint32_t)flags;
    return 0;
}
