/* py_take.c - messages out of the segment: made without their type's help, their small bodies copied at once. The hot
 * path. */
#include <Python.h>

#include "binding.h"

#include <string.h>

/* ---- memory of messages ---- */
/* Every Python subclass is a type of the garbage collector, so messages have its header; none is ever tracked. */
#define SPARE_MESSAGES 256
static MessageObject *spare[SPARE_MESSAGES];
static int spares;

static inline MessageObject *message_memory(void)
{
    if (LIKELY(spares))
        return spare[--spares];
    return PyObject_GC_New(MessageObject, &shmq_py_Message);
}

void shmq_py_message_free(MessageObject *m)
{
    if (LIKELY(spares < SPARE_MESSAGES))
        spare[spares++] = m;
    else
        PyObject_GC_Del(m);
}

/* ---- copies ---- */
static inline PyObject *copy_bytes(const uint8_t *from, uint32_t bytes)
{
    PyObject *copy = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)bytes);
    if (LIKELY(copy && bytes))
        memcpy(PyBytes_AS_STRING(copy), from, bytes);
    return copy;
}

/* The caller holds a reference to the queue, and nobody may give the memory back meanwhile. */
PyObject *shmq_py_body_copy(MessageObject *m)
{
    uint32_t bytes = m->delivery.body_bytes;
    if (bytes < SHMQ_COPY_ALONE)
        return copy_bytes(m->delivery.body, bytes);
    PyObject *copy = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)bytes);
    if (!copy)
        return NULL;
    char *to = PyBytes_AS_STRING(copy);
    Py_BEGIN_ALLOW_THREADS memcpy(to, m->delivery.body, bytes);
    Py_END_ALLOW_THREADS return copy;
}

/* ---- one message ---- */
/* Copies what has to be copied at delivery. False: no memory, or (no exception set) no longer ours. */
static inline bool fill_message(MessageObject *m, QueueObject *q, bool no_ack)
{
    if (UNLIKELY(m->delivery.envelope_bytes) &&
        !(m->envelope = copy_bytes(m->delivery.envelope, m->delivery.envelope_bytes)))
        return false;
    if (LIKELY(!shmq_py_is_large(m)))
        m->body = copy_bytes(m->delivery.body, m->delivery.body_bytes);
    else if (no_ack)
        m->body = shmq_py_body_copy(m);
    if (UNLIKELY(!m->body && PyErr_Occurred()))
        return false;
    if (UNLIKELY(!shmq_is_current(&q->core, &m->delivery)))
        return false;
    return LIKELY(!no_ack) || shmq_ack(&q->core, &m->delivery) == SHMQ_OK;
}

static inline MessageObject *begin_message(MessageObject *m, QueueObject *q, ConsumerObject *consumer, bool no_ack)
{
    PyObject_Init((PyObject *)m, q->message_type);
    m->queue = (QueueObject *)Py_NewRef(q);
    m->consumer = NULL;
    m->ledger = NULL;
    m->tag = 0;
    m->body = m->envelope = NULL;
    m->exports = m->pins = 0;
    m->state = no_ack ? MESSAGE_AUTO : MESSAGE_UNACKED;
    m->viewed = m->kept = false;
    if (consumer && !no_ack) {
        m->consumer = (ConsumerObject *)Py_NewRef(consumer);
        consumer->unacked++;
    }
    return m;
}

/* No memory for a copy: the message goes back; no longer ours: nothing is to be done. True: try the next one. */
static bool drop_message(MessageObject *m, QueueObject *q)
{
    bool failed = PyErr_Occurred() != NULL;
    if (failed)
        (void)shmq_requeue(&q->core, m->delivery.slot, m->delivery.ctl, false);
    shmq_py_settled(m, MESSAGE_STALE);
    Py_DECREF(m);
    return !failed && shmq_py_is_writable(q);
}

MessageObject *shmq_py_take(QueueObject *q, ConsumerObject *consumer, bool no_ack, bool *failed)
{
    do {
        *failed = true;
        MessageObject *m = message_memory(); /* may collect garbage, whose end may close the queue */
        if (UNLIKELY(!m)) {
            PyErr_NoMemory();
            return NULL;
        }
        if (UNLIKELY(!shmq_py_is_writable(q))) {
            shmq_py_message_free(m);
            shmq_py_refuse(q);
            return NULL;
        }
        int r = shmq_take(&q->core, &m->delivery);
        if (UNLIKELY(r != SHMQ_OK)) {
            shmq_py_message_free(m);
            *failed = r != SHMQ_EMPTY && shmq_py_raise(r) < 0;
            return NULL;
        }
        *failed = false;
        begin_message(m, q, consumer, no_ack);
        if (LIKELY(fill_message(m, q, no_ack)) &&
            (LIKELY(!consumer || !consumer->ledger) || shmq_py_ledger_enter(consumer->ledger, m, true) == 0))
            return m;
        *failed = !drop_message(m, q);
    } while (!*failed);
    if (!PyErr_Occurred())
        shmq_py_refuse(q);
    return NULL;
}

/* ---- methods of Queue ---- */
PyObject *shmq_py_queue_take(QueueObject *q, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    static struct shmq_py_signature signature = {"take", 1, 0, {"no_ack"}, {NULL}};
    PyObject *values[SHMQ_PY_PARAMETERS_MAX];
    bool no_ack = false, failed;
    if (shmq_py_sort(&signature, args, n, names, values) < 0 || shmq_py_truth(values[0], &no_ack) < 0)
        return NULL;
    MessageObject *m = shmq_py_take(q, NULL, no_ack, &failed);
    if (!m && !failed)
        Py_RETURN_NONE;
    return (PyObject *)m;
}

static int take_into(PyObject *list, QueueObject *q, int64_t most, bool no_ack)
{
    bool failed = false;
    for (int64_t i = 0; i < most; i++) {
        PyObject *m = (PyObject *)shmq_py_take(q, NULL, no_ack, &failed);
        if (!m)
            break;
        int r = PyList_Append(list, m);
        Py_DECREF(m);
        if (r < 0)
            return -1;
    }
    return failed ? -1 : 0;
}

PyObject *shmq_py_queue_take_many(QueueObject *q, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    static struct shmq_py_signature signature = {"take_many", 2, 1, {"max_messages", "no_ack"}, {NULL}};
    PyObject *values[SHMQ_PY_PARAMETERS_MAX];
    bool no_ack = false;
    int64_t most;
    if (shmq_py_sort(&signature, args, n, names, values) < 0 || shmq_py_truth(values[1], &no_ack) < 0 ||
        shmq_py_integer(values[0], "max_messages", 0, INT64_MAX, &most) < 0)
        return NULL;
    PyObject *list = PyList_New(0);
    if (!list || take_into(list, q, most, no_ack) == 0)
        return list;
    if (PyList_GET_SIZE(list))
        PyErr_Clear(); /* what was taken must not be lost; the next call meets the error again */
    else
        Py_CLEAR(list);
    return list;
}
