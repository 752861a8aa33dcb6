/* py_settle.c - the end of a delivery: ack, nack, reject; and touch, which puts it off. */
#include <Python.h>

#include "binding.h"

/* Who waits for room is told of the one that makes some. */
static void uncount(ConsumerObject *c)
{
    bool was_full = c->prefetch && c->unacked >= c->prefetch;
    c->unacked--;
    if (UNLIKELY(was_full && c->on_room) && c->unacked < c->prefetch)
        shmq_py_tell_room(c->on_room);
    Py_DECREF(c);
}

/* It counts no longer against a prefetch, and its tag is used up. */
void shmq_py_settled(MessageObject *m, enum shmq_py_state state)
{
    ConsumerObject *c = m->consumer;
    m->state = (uint8_t)state;
    m->consumer = NULL;
    if (c)
        uncount(c);
    if (UNLIKELY(m->ledger))
        shmq_py_ledger_leave(m);
}

static int check_unacked(const MessageObject *m)
{
    if (UNLIKELY(m->state == MESSAGE_STALE))
        return shmq_py_fail(ERROR_STALE, NULL);
    if (UNLIKELY(m->state != MESSAGE_UNACKED))
        return shmq_py_fail(ERROR_SETTLED,
                            m->state == MESSAGE_AUTO ? "this message was acked when it was delivered (no_ack)" : NULL);
    return shmq_py_is_writable(m->queue) ? 0 : shmq_py_refuse(m->queue);
}

/* OK -> settled; STALE -> somebody else has it. */
static PyObject *settle(MessageObject *m, int r, enum shmq_py_state state)
{
    if (LIKELY(r == SHMQ_OK)) {
        shmq_py_settled(m, state);
        Py_RETURN_NONE;
    }
    if (r == SHMQ_STALE) {
        shmq_py_settled(m, MESSAGE_STALE);
        shmq_py_fail(ERROR_STALE, NULL);
    } else {
        shmq_py_raise(r);
    }
    return NULL;
}

/* Its memory is still wanted: buffers read it, or nobody has looked at it yet. */
static inline bool must_keep(const MessageObject *m)
{
    return UNLIKELY(shmq_py_is_large(m)) && (m->pins || (!m->body && !m->viewed));
}

PyObject *shmq_py_message_ack(MessageObject *m, PyObject *unused)
{
    (void)unused;
    if (UNLIKELY(m->state == MESSAGE_AUTO))
        Py_RETURN_NONE;
    if (check_unacked(m) < 0)
        return NULL;
    if (LIKELY(!must_keep(m)))
        return settle(m, shmq_ack(&m->queue->core, &m->delivery), MESSAGE_ACKED);
    int r = shmq_ack_keep(&m->queue->core, &m->delivery);
    m->kept = r == SHMQ_OK;
    return settle(m, r, MESSAGE_ACKED);
}

PyObject *shmq_py_message_ack_at_delivery(MessageObject *m, PyObject *unused)
{
    PyObject *done = shmq_py_message_ack(m, unused);
    if (done)
        m->state = MESSAGE_AUTO;
    return done;
}

/* ---- back to the queue, or dead ---- */
static int check_given_back(const MessageObject *m)
{
    if (check_unacked(m) < 0)
        return -1;
    return m->exports || m->pins ? shmq_py_fail(ERROR_VIEWS, NULL) : 0;
}

static PyObject *bury(MessageObject *m, enum shmq_py_state state)
{
    return settle(m, shmq_bury(&m->queue->core, m->delivery.slot, m->delivery.ctl, SHMQ_REJECTED), state);
}

PyObject *shmq_py_message_nack(MessageObject *m, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    static struct shmq_py_signature signature = {"nack", 2, 0, {"requeue", "delay"}, {NULL}};
    PyObject *values[SHMQ_PY_PARAMETERS_MAX];
    bool requeue = true;
    uint64_t delay = 0;
    if (shmq_py_sort(&signature, args, n, names, values) < 0 || shmq_py_truth(values[0], &requeue) < 0)
        return NULL;
    if (values[1] && values[1] != Py_None && shmq_py_seconds(values[1], "delay", &delay) < 0)
        return NULL;
    if (delay && !requeue) {
        PyErr_SetString(PyExc_ValueError, "delay needs requeue=True");
        return NULL;
    }
    if (check_given_back(m) < 0)
        return NULL;
    const struct shmq_delivery *d = &m->delivery;
    if (!requeue)
        return bury(m, MESSAGE_NACKED);
    int r = delay ? shmq_delay(&m->queue->core, d->slot, d->ctl, shmq_now() + delay)
                  : shmq_requeue(&m->queue->core, d->slot, d->ctl, false);
    return settle(m, r, MESSAGE_NACKED);
}

PyObject *shmq_py_message_reject(MessageObject *m, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    static struct shmq_py_signature signature = {"reject", 1, 0, {"requeue"}, {NULL}};
    PyObject *values[SHMQ_PY_PARAMETERS_MAX];
    bool requeue = false;
    if (shmq_py_sort(&signature, args, n, names, values) < 0 || shmq_py_truth(values[0], &requeue) < 0)
        return NULL;
    if (check_given_back(m) < 0)
        return NULL;
    if (!requeue)
        return bury(m, MESSAGE_REJECTED);
    int r = shmq_requeue(&m->queue->core, m->delivery.slot, m->delivery.ctl, true);
    return settle(m, r == SHMQ_DEAD_NOW ? SHMQ_OK : r, MESSAGE_REJECTED);
}

PyObject *shmq_py_message_touch(MessageObject *m, PyObject *extend)
{
    uint64_t ns;
    if (shmq_py_seconds(extend, "extend", &ns) < 0 || check_unacked(m) < 0)
        return NULL;
    int r = shmq_touch(&m->queue->core, m->delivery.slot, m->delivery.ctl, shmq_now() + ns);
    if (r == SHMQ_OK)
        Py_RETURN_NONE;
    return settle(m, r, MESSAGE_STALE);
}
