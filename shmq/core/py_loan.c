/* py_loan.c - a body written in place: its slot is WRITING from the loan to commit or abort.
 *
 * The end of a `with` takes the memoryview back. Commit does not wait for other buffers that are still exported (a
 * numpy array over the loan): who writes through one afterwards writes into a published message. Abort does wait: the
 * memory is given back when the last of them is gone. */
#include <Python.h>

#include "binding.h"

enum shmq_py_loan_state { LOAN_OPEN, LOAN_COMMITTED, LOAN_ABORTING, LOAN_ABORTED };

static char nothing[1]; /* where the empty body is */

PyObject *shmq_py_loan_new(QueueObject *q, struct shmq_draft *draft)
{
    LoanObject *loan = PyObject_GC_New(LoanObject, &shmq_py_Loan);
    if (!loan)
        return NULL;
    loan->entered = NULL;
    loan->queue = NULL;
    loan->exports = 0;
    loan->state = LOAN_ABORTED;
    loan->body_bytes = draft->body_bytes;
    PyObject_GC_Track(loan);
    /* only now: making it may collect garbage, whose end may close the queue */
    int r = shmq_py_is_writable(q) ? shmq_write_begin(&q->core, draft, &loan->write) : shmq_py_refuse(q);
    if (r) {
        Py_DECREF(loan);
        if (r > 0)
            return PyLong_FromLong(r);
        if (!PyErr_Occurred())
            shmq_py_raise(r);
        return NULL;
    }
    loan->queue = (QueueObject *)Py_NewRef(q);
    loan->state = LOAN_OPEN;
    q->under_way++;
    return (PyObject *)loan;
}

/* ---- commit, abort ---- */
static void give_back(LoanObject *loan)
{
    loan->state = LOAN_ABORTED;
    loan->queue->under_way--;
    if (shmq_py_is_ours(loan->queue))
        shmq_write_abort(&loan->queue->core, &loan->write);
}

static void abort_loan(LoanObject *loan)
{
    loan->state = LOAN_ABORTING;
    if (!loan->exports)
        give_back(loan);
}

static int check_open(const LoanObject *loan)
{
    if (loan->state != LOAN_OPEN)
        return shmq_py_fail(ERROR_SETTLED,
                            loan->state == LOAN_COMMITTED ? "this loan was committed" : "this loan was aborted");
    return shmq_py_is_writable(loan->queue) ? 0 : shmq_py_refuse(loan->queue);
}

static int commit_loan(LoanObject *loan)
{
    if (check_open(loan) < 0)
        return -1;
    int r = shmq_write_commit(&loan->queue->core, &loan->write);
    loan->state = LOAN_COMMITTED; /* or refused and given back: nothing is ours any more */
    loan->queue->under_way--;
    return r < 0 ? shmq_py_raise(r) : r;
}

static PyObject *loan_commit(LoanObject *loan, PyObject *unused)
{
    (void)unused;
    int r = commit_loan(loan);
    return r < 0 ? NULL : PyLong_FromLong(r);
}

static PyObject *loan_abort(LoanObject *loan, PyObject *unused)
{
    (void)unused;
    if (loan->state == LOAN_COMMITTED) {
        shmq_py_fail(ERROR_SETTLED, "this loan was committed");
        return NULL;
    }
    if (loan->state == LOAN_OPEN && !shmq_py_is_ours(loan->queue)) {
        shmq_py_refuse(loan->queue);
        return NULL;
    }
    if (loan->state == LOAN_OPEN)
        abort_loan(loan);
    Py_RETURN_NONE;
}

static PyObject *loan_view(LoanObject *loan, PyObject *unused)
{
    (void)unused;
    return PyMemoryView_FromObject((PyObject *)loan);
}

static PyObject *loan_enter(LoanObject *loan, PyObject *unused)
{
    if (loan->entered) {
        shmq_py_fail(ERROR_SETTLED, "this loan was entered before");
        return NULL;
    }
    PyObject *view = loan_view(loan, unused);
    loan->entered = Py_XNewRef(view);
    return view;
}

/* What is exported through it (a numpy array) keeps it as it is. */
static void take_view_back(LoanObject *loan)
{
    if (!loan->entered)
        return;
    PyObject *done = PyObject_CallMethod(loan->entered, "release", NULL);
    if (!done)
        PyErr_Clear();
    Py_XDECREF(done);
    Py_CLEAR(loan->entered);
}

static PyObject *loan_exit(LoanObject *loan, PyObject *const *args, Py_ssize_t n)
{
    bool failed = n > 0 && args[0] != Py_None;
    take_view_back(loan);
    if (loan->state != LOAN_OPEN)
        Py_RETURN_NONE; /* committed or aborted by hand */
    if (failed)
        return loan_abort(loan, NULL);
    int r = commit_loan(loan);
    if (r == SHMQ_REFUSED)
        shmq_py_fail(ERROR_REJECTED, NULL);
    else if (r > 0)
        PyErr_SetString(shmq_py_errors[ERROR_DETACHED], "the queue was deleted while its loan was written");
    if (r)
        return NULL;
    Py_RETURN_NONE;
}

/* ---- buffer ---- */
static int loan_getbuffer(LoanObject *loan, Py_buffer *view, int flags)
{
    view->obj = NULL;
    if (check_open(loan) < 0)
        return -1;
    void *body = loan->body_bytes ? (void *)loan->write.body : nothing;
    if (PyBuffer_FillInfo(view, (PyObject *)loan, body, (Py_ssize_t)loan->body_bytes, 0, flags) < 0)
        return -1;
    loan->exports++;
    return 0;
}

static void loan_releasebuffer(LoanObject *loan, Py_buffer *view)
{
    (void)view;
    if (--loan->exports == 0 && loan->state == LOAN_ABORTING)
        give_back(loan);
}

/* ---- the type ---- */
static int loan_traverse(LoanObject *loan, visitproc visit, void *arg)
{
    Py_VISIT(loan->entered);
    Py_VISIT(loan->queue);
    return 0;
}

static int loan_clear(LoanObject *loan)
{
    Py_CLEAR(loan->entered);
    return 0;
}

static void loan_dealloc(LoanObject *loan)
{
    PyObject_GC_UnTrack(loan);
    loan_clear(loan);
    if (loan->state == LOAN_OPEN)
        abort_loan(loan);
    Py_XDECREF(loan->queue);
    PyObject_GC_Del(loan);
}

static PyObject *get_body_bytes(LoanObject *loan, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(loan->body_bytes);
}

static PyBufferProcs buffer = {
    .bf_getbuffer = (getbufferproc)loan_getbuffer,
    .bf_releasebuffer = (releasebufferproc)loan_releasebuffer,
};
static PyMethodDef methods[] = {
    {"view", SHMQ_PY_METHOD(loan_view), METH_NOARGS, NULL},
    {"commit", SHMQ_PY_METHOD(loan_commit), METH_NOARGS, NULL},
    {"abort", SHMQ_PY_METHOD(loan_abort), METH_NOARGS, NULL},
    {"__enter__", SHMQ_PY_METHOD(loan_enter), METH_NOARGS, NULL},
    {"__exit__", SHMQ_PY_METHOD(loan_exit), METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};
static PyGetSetDef properties[] = {
    {"body_bytes", (getter)get_body_bytes, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject shmq_py_Loan = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "shmq.core._core.Loan",
    .tp_basicsize = sizeof(LoanObject),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc = "A body being written in place.",
    .tp_dealloc = (destructor)loan_dealloc,
    .tp_traverse = (traverseproc)loan_traverse,
    .tp_clear = (inquiry)loan_clear,
    .tp_as_buffer = &buffer,
    .tp_methods = methods,
    .tp_getset = properties,
};
