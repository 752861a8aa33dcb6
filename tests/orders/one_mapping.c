/* one_mapping.c - ThreadSanitizer knows memory by its address. The handles of a test map the same file several times, and what one of
 * them writes the others would read elsewhere, unseen. Linked with --wrap=mmap,--wrap=munmap: one mapping for each file. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define FILES_MAX 64

void *__real_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *at, size_t bytes);
void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
int __wrap_munmap(void *at, size_t bytes);

static struct file {
    ino_t inode;
    void *at;
    int users;
} files[FILES_MAX];
static atomic_flag busy = ATOMIC_FLAG_INIT;

/* Relaxed, and unseen by the sanitizer: this lock must not order what the tests do. */
__attribute__((no_sanitize("thread"))) static void lock(void)
{
    while (atomic_flag_test_and_set_explicit(&busy, memory_order_relaxed))
        ;
}

__attribute__((no_sanitize("thread"))) static void unlock(void)
{
    atomic_flag_clear_explicit(&busy, memory_order_relaxed);
}

__attribute__((no_sanitize("thread"))) static struct file *of_inode(ino_t inode)
{
    struct file *unused = NULL;
    for (int i = 0; i < FILES_MAX; i++) {
        if (files[i].users && files[i].inode == inode)
            return &files[i];
        if (!files[i].users)
            unused = &files[i];
    }
    if (!unused)
        abort();
    unused->inode = inode;
    return unused;
}

__attribute__((no_sanitize("thread"))) void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int fd,
                                                         off_t offset)
{
    struct stat st;
    if (fd < 0 || !(protection & PROT_WRITE) || fstat(fd, &st) < 0)
        return __real_mmap(at, bytes, protection, flags, fd, offset);
    lock();
    struct file *f = of_inode(st.st_ino);
    if (f->users == 0)
        f->at = __real_mmap(at, bytes, protection, flags, fd, offset);
    f->users += f->at != MAP_FAILED;
    void *there = f->at;
    unlock();
    return there;
}

__attribute__((no_sanitize("thread"))) int __wrap_munmap(void *at, size_t bytes)
{
    lock();
    for (int i = 0; i < FILES_MAX; i++)
        if (files[i].users && files[i].at == at) {
            int left = --files[i].users;
            unlock();
            return left ? 0 : __real_munmap(at, bytes);
        }
    unlock();
    return __real_munmap(at, bytes);
}
