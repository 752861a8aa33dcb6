/* py_sender.c - who published: (uid, gid, pid) from Python and to it. */
#include <Python.h>

#include "binding.h"

/* None: 0. */
int shmq_py_sign(QueueObject *q, PyObject *value, uint64_t *sender)
{
    static const char *const names[] = {"uid", "gid", "pid"};
    int64_t of[3];
    *sender = 0;
    if (value == Py_None)
        return 0;
    if (!PyTuple_Check(value) || PyTuple_GET_SIZE(value) != 3) {
        PyErr_SetString(PyExc_TypeError, "sender must be (uid, gid, pid) or None");
        return -1;
    }
    for (int i = 0; i < 3; i++)
        if (shmq_py_integer(PyTuple_GET_ITEM(value, i), names[i], 0, i < 2 ? UINT32_MAX : INT32_MAX, &of[i]) < 0)
            return -1;
    if (!shmq_py_is_writable(q))
        return shmq_py_refuse(q);
    *sender = shmq_sender(&q->core, (struct shmq_identity){(uint32_t)of[0], (uint32_t)of[1], (uint32_t)of[2]});
    return 0;
}

PyObject *shmq_py_queue_sign(QueueObject *q, PyObject *value)
{
    uint64_t sender;
    if (shmq_py_sign(q, value, &sender) < 0)
        return NULL;
    q->core.sender = sender;
    Py_RETURN_NONE;
}

PyObject *shmq_py_sender(const QueueObject *q, uint64_t origin)
{
    struct shmq_identity of;
    if (!q->core.header || !shmq_sender_of(&q->core, origin, &of))
        Py_RETURN_NONE;
    return Py_BuildValue("(III)", of.uid, of.gid, of.pid);
}
