/* py_publish.c - bodies into the segment: one, many, and the callable Publisher with its fast path. */
#include <Python.h>

#include "binding.h"

#include <string.h>

/* ---- one body ---- */
/* The queue may be closed by another thread during the copy: then nothing is published. */
static int publish_large(QueueObject *q, struct shmq_draft *draft, const void *body)
{
    struct shmq_write write;
    int r = shmq_write_begin(&q->core, draft, &write);
    if (r)
        return r < 0 ? shmq_py_raise(r) : r;
    q->under_way++;
    Py_INCREF(q);
    Py_BEGIN_ALLOW_THREADS memcpy(write.body, body, draft->body_bytes);
    Py_END_ALLOW_THREADS q->under_way--;
    if (shmq_py_is_writable(q)) {
        r = shmq_write_commit(&q->core, &write);
        r = r < 0 ? shmq_py_raise(r) : r;
    } else {
        shmq_write_abort(&q->core, &write);
        r = shmq_py_refuse(q);
    }
    Py_DECREF(q);
    return r;
}

static int publish_memory(QueueObject *q, struct shmq_draft *draft, const void *body, Py_ssize_t bytes)
{
    draft->body_bytes = (uint64_t)bytes;
    if (UNLIKELY((uint64_t)bytes >= SHMQ_COPY_ALONE))
        return publish_large(q, draft, body);
    int r = shmq_publish(&q->core, draft, body);
    return UNLIKELY(r < 0) ? shmq_py_raise(r) : r;
}

int shmq_py_publish(QueueObject *q, struct shmq_draft *draft, PyObject *body)
{
    if (UNLIKELY(!shmq_py_is_writable(q)))
        return shmq_py_refuse(q);
    if (LIKELY(PyBytes_CheckExact(body)))
        return publish_memory(q, draft, PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body));
    Py_buffer buffer;
    if (PyObject_GetBuffer(body, &buffer, PyBUF_SIMPLE) < 0)
        return -1;
    int r = shmq_py_is_writable(q) ? publish_memory(q, draft, buffer.buf, buffer.len) : shmq_py_refuse(q);
    PyBuffer_Release(&buffer);
    return r;
}

PyObject *shmq_py_queue_publish(QueueObject *q, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    static struct shmq_py_signature signature = {
        "publish", 7, 1, {"body", "level", "envelope", "ttl_ns", "delay_ns", "flags", "sender"}, {NULL}};
    PyObject *values[SHMQ_PY_PARAMETERS_MAX];
    struct shmq_draft draft;
    if (shmq_py_sort(&signature, args, n, names, values) < 0 || shmq_py_draft(values + 1, &draft) < 0)
        return NULL;
    if (values[6] && shmq_py_sign(q, values[6], &draft.sender) < 0)
        return NULL;
    int r = shmq_py_publish(q, &draft, values[0]);
    return r < 0 ? NULL : PyLong_FromLong(r);
}

/* ---- many ---- */
/* The length is read anew each time: a list may change while a large body is copied. */
static int publish_from(QueueObject *q, struct shmq_draft *draft, PyObject *bodies, int64_t start, int64_t *published)
{
    int r = SHMQ_OK;
    for (Py_ssize_t i = (Py_ssize_t)start; r == SHMQ_OK && i < PySequence_Fast_GET_SIZE(bodies); i++) {
        PyObject *body = Py_NewRef(PySequence_Fast_GET_ITEM(bodies, i));
        r = shmq_py_publish(q, draft, body);
        Py_DECREF(body);
        *published += r == SHMQ_OK;
    }
    return r;
}

PyObject *shmq_py_queue_publish_many(QueueObject *q, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    static struct shmq_py_signature signature = {
        "publish_many",
        8,
        1,
        {"bodies", "start", "level", "envelope", "ttl_ns", "delay_ns", "flags", "sender"},
        {NULL}};
    PyObject *values[SHMQ_PY_PARAMETERS_MAX];
    struct shmq_draft draft;
    int64_t start = 0, published = 0;
    if (shmq_py_sort(&signature, args, n, names, values) < 0 || shmq_py_draft(values + 2, &draft) < 0)
        return NULL;
    if (values[1] && shmq_py_integer(values[1], "start", 0, INT64_MAX, &start) < 0)
        return NULL;
    if (values[7] && shmq_py_sign(q, values[7], &draft.sender) < 0)
        return NULL;
    PyObject *bodies = PySequence_Fast(values[0], "bodies must be a sequence");
    if (!bodies)
        return NULL;
    int r = publish_from(q, &draft, bodies, start, &published);
    Py_DECREF(bodies);
    return r < 0 ? NULL : Py_BuildValue("(Li)", (long long)published, r);
}

PyObject *shmq_py_queue_loan(QueueObject *q, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    static struct shmq_py_signature signature = {
        "loan", 6, 1, {"body_bytes", "level", "envelope", "ttl_ns", "delay_ns", "flags"}, {NULL}};
    PyObject *values[SHMQ_PY_PARAMETERS_MAX];
    struct shmq_draft draft;
    int64_t bytes;
    if (shmq_py_sort(&signature, args, n, names, values) < 0 || shmq_py_draft(values + 1, &draft) < 0)
        return NULL;
    if (shmq_py_integer(values[0], "body_bytes", 0, INT64_MAX, &bytes) < 0)
        return NULL;
    draft.body_bytes = (uint64_t)bytes;
    return shmq_py_loan_new(q, &draft);
}
