/* child.c - the traced child. The operation stands between two breakpoint instructions. Its instructions are recorded once, by single
 * steps; later children are brought to instruction n by a hardware breakpoint at its address, hit as often as the record says,
 * and a few single steps; the depth of the stack must agree with the record. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "stepping.h"
#include "support.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if !defined(__x86_64__)
#error "the stepping harness knows the registers of x86-64 only"
#endif

#define LOOK_BACK 48u /* single steps taken rather than many hits of a breakpoint in a loop */

struct point {
    uint64_t rip, depth; /* depth: of the stack, from where the operation began */
    uint32_t hits; /* of a breakpoint at rip, from instruction 1 on, up to and with this one */
};
struct seen {
    uint64_t rip;
    uint32_t n;
};
enum { SEEN_BITS = 16 }; /* different addresses, at most half of it */
static struct point *trace;
static struct seen *seen;
static uint32_t trace_n;
extern const char step_begin[], step_end[];

/* The clock, read the same way each time: that of the vDSO loops now and then. */
int clock_gettime(clockid_t clock, struct timespec *t)
{
    return (int)syscall(SYS_clock_gettime, clock, t);
}

/* Not inlined and not cloned: the labels must be unique. */
__attribute__((noinline, noclone)) static void act(struct stage *st)
{
    __asm__ volatile("int3\n.globl step_begin\nstep_begin:" ::: "memory");
    int r = st->scene->act(st);
    __asm__ volatile(".globl step_end\nstep_end:\n int3" ::"r"(r) : "memory");
    if (r == SHMQ_OK && st->scene->kind == TAKES)
        st->report->whole = body_is(st->report->copy, st->report->delivery.body_bytes, st->report->id);
    atomic_store(&st->report->result, r);
    __asm__ volatile("int3" ::: "memory");
}

static void die(const char *what)
{
    perror(what);
    exit(2);
}

static struct user_regs_struct registers(pid_t pid)
{
    struct user_regs_struct r;
    if (ptrace(PTRACE_GETREGS, pid, NULL, &r) < 0)
        die("PTRACE_GETREGS");
    return r;
}

static bool resume(pid_t pid, long how) /* until the next stop; false: it is no more, or an unexpected signal came */
{
    int status;
    if (ptrace((enum __ptrace_request)how, pid, NULL, NULL) < 0)
        die("ptrace resume");
    if (waitpid(pid, &status, 0) < 0)
        die("waitpid");
    return WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP;
}

/* In its own copy of the stage a second child stands where the first one does. */
static void become_second(struct stage *st, const struct scene *does, uint64_t own_id)
{
    memcpy(&st->q[CHILD], &st->q[SECOND], sizeof st->q[CHILD]);
    st->scene = does;
    st->report = st->second;
    st->own_id = own_id;
    st->own_bytes = 24;
    body_fill(st->own_body, st->own_bytes, own_id);
}

static void start(struct stage *st, struct child *c, const struct scene *second, uint64_t own_id)
{
    int status;
    c->pid = fork();
    if (c->pid < 0)
        die("fork");
    if (c->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        if (second)
            become_second(st, second, own_id);
        act(st);
        _exit(0);
    }
    if (waitpid(c->pid, &status, 0) < 0 || !WIFSTOPPED(status))
        die("the child did not stop");
    c->stack = registers(c->pid).rsp;
}

static void breakpoint(pid_t pid, uint64_t address)
{
    long at = (long)offsetof(struct user, u_debugreg);
    if (ptrace(PTRACE_POKEUSER, pid, at, address) < 0 || ptrace(PTRACE_POKEUSER, pid, at + 7 * 8, address ? 1 : 0) < 0)
        die("hardware breakpoint");
}

void child_kill(struct child *c)
{
    if (!c->pid)
        return;
    kill(c->pid, SIGKILL);
    waitpid(c->pid, NULL, 0);
    c->pid = 0;
}

/* ---- the record ---- */
static void *not_for_children(size_t bytes) /* what a fork need not copy */
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || madvise(p, bytes, MADV_DONTFORK) < 0)
        die("mmap");
    return p;
}

static void count_hits(void)
{
    memset(seen, 0, sizeof *seen << SEEN_BITS);
    for (uint32_t i = 1; i < trace_n; i++) {
        uint32_t at = (uint32_t)(trace[i].rip * UINT64_C(0x9e3779b97f4a7c15) >> (64 - SEEN_BITS));
        while (seen[at].rip && seen[at].rip != trace[i].rip)
            at = (at + 1) & ((1u << SEEN_BITS) - 1);
        seen[at].rip = trace[i].rip;
        if (i == 1 || trace[i - 1].rip != trace[i].rip) /* an instruction that repeats itself hits once */
            seen[at].n++;
        trace[i].hits = seen[at].n;
    }
}

uint32_t child_trace(struct stage *st)
{
    struct child c;
    trace = trace ? trace : not_for_children(sizeof *trace * TRACE_MAX);
    seen = seen ? seen : not_for_children(sizeof *seen << SEEN_BITS);
    start(st, &c, NULL, 0);
    for (trace_n = 0;;) {
        struct user_regs_struct r = registers(c.pid);
        if (trace_n >= TRACE_MAX)
            fault(st, "the operation does not end", trace_n, r.rip);
        trace[trace_n++] = (struct point){.rip = r.rip, .depth = c.stack - r.rsp};
        if (r.rip == (uint64_t)(uintptr_t)step_end)
            break;
        if (!resume(c.pid, PTRACE_SINGLESTEP))
            fault(st, "the child died", trace_n, r.rip);
    }
    child_kill(&c);
    count_hits();
    return trace_n - 1;
}

uint64_t child_address(uint32_t n)
{
    return trace[n].rip;
}

/* ---- to instruction n ---- */
static uint32_t anchor_of(uint32_t n)
{
    uint32_t best = n, cost = UINT32_MAX;
    for (uint32_t m = n; m > 0 && n - m < LOOK_BACK; m--) {
        if (m > 1 && trace[m].rip == trace[m - 1].rip)
            continue;
        if (trace[m].hits + (n - m) < cost) {
            cost = trace[m].hits + (n - m);
            best = m;
        }
    }
    return best;
}

static bool is_at(struct child *c, uint32_t n)
{
    struct user_regs_struct r = registers(c->pid);
    return r.rip == trace[n].rip && c->stack - r.rsp == trace[n].depth;
}

static bool go_to(struct child *c, uint32_t n)
{
    if (n == 0)
        return is_at(c, 0);
    uint32_t m = anchor_of(n);
    if (!resume(c->pid, PTRACE_SINGLESTEP))
        return false;
    if (m > 1) {
        breakpoint(c->pid, trace[m].rip);
        for (uint32_t hits = 0; hits < trace[m].hits; hits++)
            if (!resume(c->pid, PTRACE_CONT))
                return false;
        breakpoint(c->pid, 0);
    }
    if (!is_at(c, m))
        return false;
    for (uint32_t i = m; i < n; i++)
        if (!resume(c->pid, PTRACE_SINGLESTEP))
            return false;
    return is_at(c, n);
}

bool child_start_at(struct stage *st, struct child *c, uint32_t n)
{
    for (int attempt = 0; attempt < 3; attempt++) {
        start(st, c, NULL, 0);
        if (go_to(c, n))
            return true;
        child_kill(c); /* the clock was read in another way: once more */
        stage_reset(st);
    }
    return false;
}

void child_start_second(struct stage *st, struct child *c, const struct scene *does, uint64_t own_id, uint32_t steps)
{
    start(st, c, does, own_id);
    while (steps-- && registers(c->pid).rip != (uint64_t)(uintptr_t)step_end)
        if (!resume(c->pid, PTRACE_SINGLESTEP))
            fault(st, "the second child died", steps, registers(c->pid).rip);
}

void child_continue(struct stage *st, struct child *c, const struct report *report)
{
    for (int stops = 0; stops < 3; stops++) {
        if (!resume(c->pid, PTRACE_CONT))
            fault(st, "the child died as it went on", 0, registers(c->pid).rip);
        if (atomic_load(&report->result) != INT32_MIN)
            return;
    }
    fault(st, "the child did not come to its end", 0, registers(c->pid).rip);
}
