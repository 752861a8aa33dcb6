/* py_message.c - the type Message: its body as bytes and as buffer, its properties, its end.
 *
 * A small body is copied at delivery. A large one stays in the segment until somebody wants it; while a buffer is
 * exported, or a copy is under way, it is *pinned*. Acked meanwhile, or never looked at, it is *kept* (ACKED in the
 * segment) and given back with the last pin or the message.
 *
 * Messages are not tracked by the garbage collector: what they refer to (queue, consumer) should not refer to them. */
#include <Python.h>

#include "binding.h"

#include <structmember.h>

/* ---- the memory of a large body ---- */
static void release_kept(MessageObject *m)
{
    m->kept = false;
    if (shmq_py_is_ours(m->queue))
        (void)shmq_release(&m->queue->core, &m->delivery);
}

void shmq_py_unpin(MessageObject *m)
{
    if (--m->pins == 0 && m->kept && (m->viewed || m->body))
        release_kept(m);
}

/* 0: the body is in the segment, the message may be pinned. */
static int check_in_segment(const MessageObject *m)
{
    if (m->state != MESSAGE_UNACKED && !m->kept)
        return m->state == MESSAGE_STALE ? shmq_py_fail(ERROR_STALE, NULL) : shmq_py_fail(ERROR_RELEASED, NULL);
    return shmq_py_is_live(m->queue) ? 0 : shmq_py_refuse(m->queue);
}

/* Copies a large body and keeps the copy. Another thread may ack, read or close meanwhile: the pin holds the memory. Of a message that was
 * taken back it may have been given back long ago: to touch it then is a SIGBUS on a full file system. */
static int load_body(MessageObject *m)
{
    if (check_in_segment(m) < 0)
        return -1;
    if (!shmq_is_current(&m->queue->core, &m->delivery))
        return shmq_py_fail(ERROR_STALE, NULL);
    Py_INCREF(m);
    m->pins++;
    PyObject *copy = shmq_py_body_copy(m);
    bool current = copy && shmq_is_current(&m->queue->core, &m->delivery);
    if (current && !m->body)
        m->body = Py_NewRef(copy);
    Py_XDECREF(copy);
    shmq_py_unpin(m);
    Py_DECREF(m);
    if (copy && !current)
        return shmq_py_fail(ERROR_STALE, NULL);
    return copy ? 0 : -1;
}

/* ---- buffer ---- */
static int message_getbuffer(MessageObject *m, Py_buffer *view, int flags)
{
    view->obj = NULL;
    void *from = (void *)(uintptr_t)m->delivery.body;
    bool pinned = !m->body;
    if (pinned && check_in_segment(m) < 0)
        return -1;
    if (pinned && !shmq_is_current(&m->queue->core, &m->delivery))
        return shmq_py_fail(ERROR_STALE, NULL);
    if (!pinned)
        from = PyBytes_AS_STRING(m->body);
    if (PyBuffer_FillInfo(view, (PyObject *)m, from, (Py_ssize_t)m->delivery.body_bytes, 1, flags) < 0)
        return -1;
    view->internal = pinned ? m : NULL;
    m->viewed = true;
    m->exports++;
    m->pins += pinned;
    return 0;
}

static void message_releasebuffer(MessageObject *m, Py_buffer *view)
{
    m->exports--;
    if (view->internal)
        shmq_py_unpin(m);
}

static PyObject *message_view(MessageObject *m, PyObject *unused)
{
    (void)unused;
    return PyMemoryView_FromObject((PyObject *)m);
}

/* ---- properties ---- */
static PyObject *get_body(MessageObject *m, void *unused)
{
    (void)unused;
    if (UNLIKELY(!m->body) && load_body(m) < 0)
        return NULL;
    return Py_NewRef(m->body);
}

static PyObject *get_envelope(MessageObject *m, void *unused)
{
    (void)unused;
    return m->envelope ? Py_NewRef(m->envelope) : PyBytes_FromStringAndSize(NULL, 0);
}

static PyObject *get_priority(MessageObject *m, void *unused)
{
    (void)unused;
    return PyLong_FromLong(shmq_origin_priority(m->delivery.origin));
}

static PyObject *get_sender(MessageObject *m, void *unused)
{
    (void)unused;
    return shmq_py_sender(m->queue, m->delivery.origin);
}

static PyObject *get_redelivered(MessageObject *m, void *unused)
{
    (void)unused;
    return PyBool_FromLong(shmq_ctl_deliveries(m->delivery.ctl) > 1);
}

static PyObject *get_delivery_count(MessageObject *m, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLong(shmq_ctl_deliveries(m->delivery.ctl));
}

static PyObject *get_failure_count(MessageObject *m, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLong(shmq_ctl_failures(m->delivery.ctl));
}

static PyObject *get_state(MessageObject *m, void *unused)
{
    static const char *const names[] = {"unacked", "acked", "nacked", "rejected", "stale", "auto"};
    (void)unused;
    return PyUnicode_InternFromString(names[m->state]);
}

static PyObject *get_is_current(MessageObject *m, void *unused)
{
    (void)unused;
    if (m->state != MESSAGE_UNACKED && !m->kept)
        Py_RETURN_FALSE;
    if (!shmq_py_is_live(m->queue)) {
        shmq_py_refuse(m->queue);
        return NULL;
    }
    return PyBool_FromLong(shmq_is_current(&m->queue->core, &m->delivery));
}

static PyObject *message_repr(MessageObject *m)
{
    PyObject *state = get_state(m, NULL);
    PyObject *text =
        state ? PyUnicode_FromFormat("<%s of %u bytes, %U>", Py_TYPE(m)->tp_name, m->delivery.body_bytes, state) : NULL;
    Py_XDECREF(state);
    return text;
}

/* ---- the end ---- */
static int message_traverse(MessageObject *m, visitproc visit, void *arg)
{
    Py_VISIT(m->queue);
    Py_VISIT(m->consumer);
    Py_VISIT(m->ledger);
    return 0;
}

static void message_dealloc(MessageObject *m)
{
    PyObject_GC_UnTrack(m); /* a subclass' end may have tracked it */
    if (UNLIKELY(m->kept))
        release_kept(m);
    Py_XDECREF(m->body);
    Py_XDECREF(m->envelope);
    Py_XDECREF(m->consumer);
    Py_XDECREF(m->ledger);
    Py_DECREF(m->queue);
    shmq_py_message_free(m);
}

/* ---- the type ---- */
static PyBufferProcs buffer = {
    .bf_getbuffer = (getbufferproc)message_getbuffer,
    .bf_releasebuffer = (releasebufferproc)message_releasebuffer,
};
static PyMethodDef methods[] = {
    {"view", SHMQ_PY_METHOD(message_view), METH_NOARGS, NULL},
    {"ack", SHMQ_PY_METHOD(shmq_py_message_ack), METH_NOARGS, NULL},
    {"ack_at_delivery", SHMQ_PY_METHOD(shmq_py_message_ack_at_delivery), METH_NOARGS, NULL},
    {"nack", SHMQ_PY_METHOD(shmq_py_message_nack), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"reject", SHMQ_PY_METHOD(shmq_py_message_reject), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"touch", SHMQ_PY_METHOD(shmq_py_message_touch), METH_O, NULL},
    {NULL, NULL, 0, NULL},
};
#define DELIVERY(field) (offsetof(MessageObject, delivery) + offsetof(struct shmq_delivery, field))
static PyMemberDef members[] = {
    {"queue", T_OBJECT_EX, offsetof(MessageObject, queue), READONLY, NULL},
    {"body_bytes", T_UINT, DELIVERY(body_bytes), READONLY, NULL},
    {"flags", T_UBYTE, DELIVERY(flags), READONLY, NULL},
    {"delivery_tag", T_ULONGLONG, offsetof(MessageObject, tag), READONLY, NULL},
    {"sequence", T_ULONGLONG, DELIVERY(sequence), READONLY, NULL},
    {"expires_ns", T_ULONGLONG, DELIVERY(expires), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};
static PyGetSetDef properties[] = {
    {"body", (getter)get_body, NULL, NULL, NULL},
    {"envelope", (getter)get_envelope, NULL, NULL, NULL},
    {"priority", (getter)get_priority, NULL, NULL, NULL},
    {"sender", (getter)get_sender, NULL, NULL, NULL},
    {"redelivered", (getter)get_redelivered, NULL, NULL, NULL},
    {"delivery_count", (getter)get_delivery_count, NULL, NULL, NULL},
    {"failure_count", (getter)get_failure_count, NULL, NULL, NULL},
    {"state", (getter)get_state, NULL, NULL, NULL},
    {"is_current", (getter)get_is_current, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject shmq_py_Message = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "shmq.core._core.Message",
    .tp_basicsize = sizeof(MessageObject),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_doc = "One delivery.",
    .tp_dealloc = (destructor)message_dealloc,
    .tp_traverse = (traverseproc)message_traverse,
    .tp_repr = (reprfunc)message_repr,
    .tp_as_buffer = &buffer,
    .tp_methods = methods,
    .tp_members = members,
    .tp_getset = properties,
};
