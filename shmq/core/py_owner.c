/* py_owner.c - methods of Queue for whom it belongs to: the broker's words in the header, purge, statistics. */
#include <Python.h>

#include "binding.h"

#include <string.h>

static bool refused(const QueueObject *q)
{
    return !shmq_py_is_writable(q) && shmq_py_refuse(q) < 0;
}

/* ---- words of the header ---- */
static PyObject *mark_deleted(QueueObject *q, PyObject *unused)
{
    (void)unused;
    if (refused(q))
        return NULL;
    /* release: pairs with the acquire of Queue.deleted */
    atomic_fetch_or_explicit(&q->core.header->flags, SHMQ_FLAG_DELETED, memory_order_release);
    shmq_bell_ring_all(&q->core, SHMQ_CONSUMERS); /* who sleeps must see it */
    shmq_bell_ring_all(&q->core, SHMQ_PRODUCERS);
    Py_RETURN_NONE;
}

static PyObject *set_epoch(QueueObject *q, PyObject *value)
{
    uint64_t epoch = PyLong_AsUnsignedLongLong(value);
    if (PyErr_Occurred() || refused(q))
        return NULL;
    /* release: pairs with the acquire of Queue.bells_stale */
    atomic_store_explicit(&q->core.header->epoch, epoch, memory_order_release);
    Py_RETURN_NONE;
}

static void store(shmq_word *word, int64_t value)
{
    atomic_store_explicit(word, (uint64_t)value, memory_order_relaxed);
}

static void store_limits(struct shmq_header *h, const int64_t *v)
{
    store(&h->delivery_limit, v[0] + 1);
    store(&h->max_length, v[1] + 1);
    store(&h->max_bytes, v[2] + 1);
    store(&h->overflow, v[3]);
    store(&h->retry, v[4]);
    store(&h->retry_min, v[5]);
    store(&h->retry_max, v[6]);
    store(&h->ageing, v[7]);
    if (v[8])
        atomic_fetch_or_explicit(&h->flags, SHMQ_FLAG_WARN, memory_order_relaxed);
    else
        atomic_fetch_and_explicit(&h->flags, ~(uint64_t)SHMQ_FLAG_WARN, memory_order_relaxed);
}

#define LIMITS 9
static PyObject *set_limits(QueueObject *q, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    static struct shmq_py_signature signature = {
        "set_limits",
        LIMITS,
        0,
        {"delivery_limit", "max_length", "max_length_bytes", "overflow", "retry", "retry_min_ns", "retry_max_ns",
         "ageing_ns", "warn"},
        {NULL}};
    static const int64_t most[LIMITS] = {254,       INT64_MAX - 1, INT64_MAX - 1, 0xff, 3,
                                         INT64_MAX, INT64_MAX,     INT64_MAX,     1};
    int64_t limits[LIMITS] = {-1, -1, -1, 0, 0, 0, 0, 0, 0};
    PyObject *values[SHMQ_PY_PARAMETERS_MAX];
    if (shmq_py_sort(&signature, args, n, names, values) < 0)
        return NULL;
    for (int i = 0; i < LIMITS; i++)
        if (values[i] &&
            shmq_py_integer(values[i], signature.names[i], i < 3 ? -1 : 0, most[i], &limits[i]) < 0)
            return NULL;
    if (refused(q))
        return NULL;
    store_limits(q->core.header, limits);
    Py_RETURN_NONE;
}

static PyObject *set_brokered(QueueObject *q, PyObject *value)
{
    int brokered = PyObject_IsTrue(value);
    if (brokered < 0 || refused(q))
        return NULL;
    if (brokered)
        atomic_fetch_or_explicit(&q->core.header->flags, SHMQ_FLAG_BROKERED, memory_order_seq_cst);
    else
        atomic_fetch_and_explicit(&q->core.header->flags, ~(uint64_t)SHMQ_FLAG_BROKERED, memory_order_seq_cst);
    shmq_bell_ring_all(&q->core, SHMQ_CONSUMERS); /* who sleeps must see it */
    Py_RETURN_NONE;
}

static PyObject *mark_used(QueueObject *q, PyObject *unused)
{
    (void)unused;
    if (refused(q))
        return NULL;
    store(&q->core.header->used, (int64_t)shmq_now());
    Py_RETURN_NONE;
}

static PyObject *used_ns(QueueObject *q, PyObject *unused)
{
    (void)unused;
    if (!shmq_py_is_live(q) && shmq_py_refuse(q) < 0)
        return NULL;
    return PyLong_FromUnsignedLongLong(shmq_load(&q->core.header->used));
}

/* ---- purge, requeue ---- */
static PyObject *purge(QueueObject *q, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    static struct shmq_py_signature signature = {"purge", 1, 0, {"before_ns"}, {NULL}};
    PyObject *values[SHMQ_PY_PARAMETERS_MAX];
    int64_t before;
    if (shmq_py_sort(&signature, args, n, names, values) < 0)
        return NULL;
    if (!values[0] || values[0] == Py_None)
        before = (int64_t)shmq_now();
    else if (shmq_py_integer(values[0], "before_ns", 0, INT64_MAX, &before) < 0)
        return NULL;
    if (refused(q))
        return NULL;
    int64_t purged = shmq_purge(&q->core, (uint64_t)before);
    if (purged >= 0)
        return PyLong_FromLongLong(purged);
    shmq_py_raise((int)purged);
    return NULL;
}

static PyObject *requeue_owned(QueueObject *q, PyObject *unused)
{
    struct shmq_counts counts;
    (void)unused;
    if (refused(q))
        return NULL;
    int r = shmq_reap(&q->core, NULL, q->core.owner, false, true, &counts);
    if (r == 0)
        return PyLong_FromUnsignedLongLong(counts.requeued);
    shmq_py_raise(r);
    return NULL;
}

/* ---- statistics ---- */
static PyObject *stats(QueueObject *q, PyObject *unused)
{
    struct shmq_stats s;
    (void)unused;
    if (!shmq_py_is_live(q) && shmq_py_refuse(q) < 0)
        return NULL;
    int64_t memory = shmq_memory_bytes(&q->core);
    if (memory < 0) {
        shmq_py_raise((int)memory);
        return NULL;
    }
    shmq_stats(&q->core, &s);
    const struct {
        const char *name;
        uint64_t value;
    } all[] = {
        {"published", s.published},
        {"delivered", s.delivered},
        {"acked", s.acked},
        {"requeued", s.requeued},
        {"dead", s.dead},
        {"expired", s.expired},
        {"purged", s.purged},
        {"settled", s.settled},
        {"aborted", s.aborted},
        {"fired", s.fired},
        {"bytes_in", s.bytes_in},
        {"bytes_out", s.bytes_out},
        {"ready", s.ready},
        {"unacked", s.unacked},
        {"delayed", s.delayed},
        {"dead_pending", s.dead_pending},
        {"often_failed", shmq_load(&q->core.header->often_failed)},
        {"slots_committed", s.slots_committed},
        {"slots_used_high", s.slots_high},
        {"arena_used_bytes", s.arena_used},
        {"arena_committed_bytes", s.arena_committed},
        {"stopped", shmq_load(&q->core.header->stops)},
        {"memory_bytes", (uint64_t)memory},
        {"share_bytes", shmq_load(&q->core.header->share)},
        {"mark_bytes", shmq_load(&q->core.header->mark)},
        {"capacity", q->core.geometry.slots},
        {"capacity_bytes", q->core.geometry.arena_bytes},
    };
    PyObject *dict = PyDict_New();
    for (size_t i = 0; dict && i < sizeof all / sizeof *all; i++) {
        PyObject *value = PyLong_FromUnsignedLongLong(all[i].value);
        if (!value || PyDict_SetItemString(dict, all[i].name, value) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(value);
    }
    return dict;
}

/* The walk needs no private word of the handle, so other threads may run. */
static void census(const struct shmq_queue *q, uint32_t high, uint64_t *states)
{
    for (uint32_t slot = 0; slot < high; slot++) {
        uint32_t state = shmq_ctl_state(shmq_load(&shmq_slot_at(q, slot)->ctl));
        if (state < SHMQ_STATES)
            states[state]++;
    }
}

static PyObject *count_states(QueueObject *q, PyObject *unused)
{
    uint64_t states[SHMQ_STATES] = {0};
    (void)unused;
    if (!shmq_py_is_live(q) && shmq_py_refuse(q) < 0)
        return NULL;
    uint32_t high = shmq_slots_high(&q->core);
    Py_INCREF(q);
    Py_BEGIN_ALLOW_THREADS census(&q->core, high, states);
    Py_END_ALLOW_THREADS Py_DECREF(q);
    PyObject *dict = PyDict_New();
    for (long i = 0; dict && i < SHMQ_STATES; i++) {
        PyObject *key = PyLong_FromLong(i), *value = PyLong_FromUnsignedLongLong(states[i]);
        if (!key || !value || PyDict_SetItem(dict, key, value) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(key);
        Py_XDECREF(value);
    }
    return dict;
}

/* ---- histograms ---- */
static PyObject *histogram(QueueObject *q, PyObject *which)
{
    const char *name = PyUnicode_AsUTF8(which);
    if (!name || (!shmq_py_is_live(q) && shmq_py_refuse(q) < 0))
        return NULL;
    int row = strcmp(name, "queue") == 0 ? 0 : strcmp(name, "ack") == 0 ? 1 : -1;
    if (row < 0) {
        PyErr_Format(PyExc_ValueError, "there is no histogram %R, only 'queue' and 'ack'", which);
        return NULL;
    }
    PyObject *list = PyList_New(SHMQ_BUCKETS);
    for (Py_ssize_t i = 0; list && i < (Py_ssize_t)SHMQ_BUCKETS; i++) {
        uint64_t count = atomic_load_explicit(&q->core.header->histogram[row][i], memory_order_relaxed);
        PyObject *value = PyLong_FromUnsignedLongLong(count);
        if (value)
            PyList_SET_ITEM(list, i, value);
        else
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *histogram_bounds(PyObject *none, PyObject *unused)
{
    (void)none, (void)unused;
    PyObject *list = PyList_New(SHMQ_BUCKETS);
    for (Py_ssize_t i = 0; list && i < (Py_ssize_t)SHMQ_BUCKETS; i++) {
        PyObject *value = PyLong_FromUnsignedLongLong(shmq_bucket_bound((uint32_t)i));
        if (value)
            PyList_SET_ITEM(list, i, value);
        else
            Py_CLEAR(list);
    }
    return list;
}

PyMethodDef shmq_py_owner_methods[] = {
    {"mark_deleted", SHMQ_PY_METHOD(mark_deleted), METH_NOARGS, NULL},
    {"set_epoch", SHMQ_PY_METHOD(set_epoch), METH_O, NULL},
    {"set_limits", SHMQ_PY_METHOD(set_limits), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"set_brokered", SHMQ_PY_METHOD(set_brokered), METH_O, NULL},
    {"mark_used", SHMQ_PY_METHOD(mark_used), METH_NOARGS, NULL},
    {"used_ns", SHMQ_PY_METHOD(used_ns), METH_NOARGS, NULL},
    {"purge", SHMQ_PY_METHOD(purge), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"requeue_owned", SHMQ_PY_METHOD(requeue_owned), METH_NOARGS, NULL},
    {"stats", SHMQ_PY_METHOD(stats), METH_NOARGS, NULL},
    {"count_states", SHMQ_PY_METHOD(count_states), METH_NOARGS, NULL},
    {"histogram", SHMQ_PY_METHOD(histogram), METH_O, NULL},
    {"histogram_bounds", SHMQ_PY_METHOD(histogram_bounds), METH_NOARGS | METH_STATIC, NULL},
    {NULL, NULL, 0, NULL},
};
