/* py_epoll.c - one descriptor for many: for event loops that poll it themselves. Nothing here waits. Python's own epoll
 * is taken away by those who replace the standard library's waiting by their own. */
#include <Python.h>

#include "binding.h"

#include <sys/epoll.h>
#include <unistd.h>

#define READY_MAX 256

PyObject *shmq_py_epoll_open(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    int fd = epoll_create1(EPOLL_CLOEXEC);
    return fd < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(fd);
}

/* Not there any more, or there already, is fine. */
PyObject *shmq_py_epoll_watch(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    int64_t epoll, fd;
    bool watched;
    (void)module;
    if (n != 3) {
        PyErr_Format(PyExc_TypeError, "epoll_watch() takes 3 arguments (%zd given)", n);
        return NULL;
    }
    if (shmq_py_integer(args[0], "epoll", 0, INT32_MAX, &epoll) < 0 ||
        shmq_py_integer(args[1], "fd", 0, INT32_MAX, &fd) < 0 || shmq_py_truth(args[2], &watched) < 0)
        return NULL;
    struct epoll_event event = {.events = EPOLLIN, .data = {.fd = (int)fd}};
    int r = epoll_ctl((int)epoll, watched ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, (int)fd, &event);
    bool is_fine = watched ? errno == EEXIST : errno == ENOENT || errno == EBADF; /* closed: gone with it */
    if (r < 0 && !is_fine)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

PyObject *shmq_py_epoll_ready(PyObject *module, PyObject *value)
{
    int64_t epoll;
    struct epoll_event events[READY_MAX];
    (void)module;
    if (shmq_py_integer(value, "epoll", 0, INT32_MAX, &epoll) < 0)
        return NULL;
    int count = epoll_wait((int)epoll, events, READY_MAX, 0);
    if (count < 0 && errno != EINTR)
        return PyErr_SetFromErrno(PyExc_OSError);
    PyObject *list = PyList_New(0);
    for (int i = 0; list && i < count; i++) {
        PyObject *fd = PyLong_FromLong(events[i].data.fd);
        if (!fd || PyList_Append(list, fd) < 0)
            Py_CLEAR(list);
        Py_XDECREF(fd);
    }
    return list;
}
