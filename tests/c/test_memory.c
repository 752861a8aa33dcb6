/* test_memory.c - a full file system is an answer, never a signal; attaching to what is not ours; memory given back. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "support.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)

static struct world w;

static struct shmq_geometry roomy(void)
{
    struct shmq_geometry g = sized(300, 4);
    g.levels = 40;
    g.arena_bytes = 4 * MIB;
    return g;
}

/* ---- a file system without room ---- */
static int fill_file(int dir, uint64_t bytes)
{
    int fd = openat(dir, "ballast", O_CREAT | O_RDWR, 0600);
    CHECK(fd >= 0);
    EQ(fallocate(fd, 0, 0, (off_t)bytes), 0);
    return fd;
}

/* Publishes of all kinds until there is no memory for any; what was published comes out whole. */
static uint64_t publish_all_kinds(struct shmq_queue *q, uint64_t *refused)
{
    static const uint64_t sizes[] = {24, 3000, 100000, 24, 600, 1500000};
    uint64_t published = 0;
    for (uint32_t i = 0; i < 250; i++) {
        int r = publish_sized(q, i + 1, i % 40, sizes[i % 6]);
        CHECK(r == SHMQ_OK || r == SHMQ_NO_MEMORY || r == SHMQ_FULL);
        published += r == SHMQ_OK;
        *refused += r == SHMQ_NO_MEMORY;
    }
    return published;
}

static uint64_t use_with_room(int dir, uint64_t pages, uint64_t *refused)
{
    struct shmq_layout layout;
    struct shmq_geometry g = roomy();
    struct shmq_queue q;
    struct shmq_heal_report report;
    int ballast = fill_file(dir, 4 * MIB - pages * SHMQ_PAGE), fd = openat(dir, "segment", O_CREAT | O_RDWR, 0600);
    EQ(shmq_layout_of(&g, &layout), 0);
    EQ(ftruncate(fd, (off_t)layout.bytes), 0);
    int r = shmq_attach(&q, fd, &g, 1, 7, true, false);
    CHECK(r == 0 || r == -ENOSPC);
    uint64_t published = 0, got = 0;
    if (r == 0) {
        published = publish_all_kinds(&q, refused);
        for (int round = 0; round < 5; round++) {
            while (take_ack(&q))
                got++;
            for (int look = 0; look < 2; look++)
                EQ(shmq_heal_step(&q, shmq_now() + LATER * (uint64_t)(2 * round + look), true, &report), 0);
        }
        EQ(got, published);
        EQ(shmq_check(&q, NULL, NULL), 0);
        EQ(close(ballast) + unlinkat(dir, "ballast", 0), 0); /* there is room again */
        uint64_t none = 0;
        CHECK(publish_all_kinds(&q, &none) >= published);
        shmq_detach(&q);
    }
    if (r)
        EQ(close(ballast) + unlinkat(dir, "ballast", 0), 0);
    close(fd);
    unlinkat(dir, "segment", 0);
    return published;
}

static void a_file_system_full_at_any_point_is_an_answer(void)
{
    char path[] = "/tmp/shmq-test-XXXXXX";
    CHECK(mkdtemp(path));
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("tmpfs", path, "tmpfs", 0, "size=4m") < 0) {
        rmdir(path);
        CHECK(getenv("CI") == NULL);
        printf("skipped, as this user cannot mount: %s\n", __func__);
        return;
    }
    int dir = open(path, O_DIRECTORY | O_RDONLY);
    uint64_t refused = 0, points = 0, most = 0;
    for (uint64_t pages = 0; pages <= 1000; pages += pages < 150 ? 1 : 17, points++) {
        uint64_t published = use_with_room(dir, pages, &refused);
        most = published > most ? published : most;
    }
    close(dir);
    EQ(umount(path), 0);
    rmdir(path);
    CHECK(points >= 200 && refused > 1000 && most > 100);
}

/* The n-th allocation fails, n = 0, 1, .. until nothing fails: an answer each time, nothing lost, nothing left. */
static void each_allocation_may_fail(void)
{
    for (int64_t n = 0; n < 200; n += n < 20 ? 1 : 9) {
        struct shmq_layout layout;
        struct shmq_geometry g = roomy();
        EQ(shmq_layout_of(&g, &layout), 0);
        w = (struct world){.geometry = g, .fd = memfd_create("shmq-test", MFD_CLOEXEC), .handles = 1};
        EQ(ftruncate(w.fd, (off_t)layout.bytes), 0);
        fallocate_left = n;
        int r = shmq_attach(&w.q[0], w.fd, &g, 1, 7, true, false);
        CHECK(r == 0 || r == -ENOSPC);
        if (r == 0) {
            uint64_t refused = 0, published = publish_all_kinds(&w.q[0], &refused), got = 0;
            fallocate_left = -1;
            w.now = shmq_now();
            for (int round = 0; round < 3; round++, world_heal(&w))
                while (take_ack(&w.q[0]))
                    got++;
            EQ(got, published);
            world_close(&w);
        } else {
            close(w.fd);
        }
    }
}

/* ---- attaching ---- */
static int attach_as(struct shmq_geometry g, uint64_t queue_id)
{
    struct shmq_queue q;
    int r = shmq_attach(&q, w.fd, &g, 5, queue_id, false, true);
    if (r == 0)
        shmq_detach(&q);
    return r;
}

static void only_the_very_queue_is_attached(void)
{
    struct shmq_geometry other;
    world_open(&w, 1, roomy());
    EQ(attach_as(roomy(), 7), 0);
    EQ(attach_as(roomy(), 8), -EPROTO);
    other = roomy();
    other.levels = 39;
    EQ(attach_as(other, 7), -EPROTO);
    other = roomy();
    other.slots = 299;
    EQ(attach_as(other, 7), -EPROTO);
    other = roomy();
    other.arena_bytes = 3 * MIB;
    EQ(attach_as(other, 7), -EPROTO);
    other.arena_bytes = 3 * MIB + 1;
    EQ(attach_as(other, 7), -EINVAL);
    atomic_store(&w.q[0].header->layout, SHMQ_LAYOUT + 1);
    EQ(attach_as(roomy(), 7), -EPROTO);
    atomic_store(&w.q[0].header->layout, SHMQ_LAYOUT);
    atomic_store(&w.q[0].header->magic, 0);
    EQ(attach_as(roomy(), 7), -EPROTO);
    atomic_store(&w.q[0].header->magic, SHMQ_MAGIC);
    EQ(ftruncate(w.fd, (off_t)w.q[0].layout.bytes - 1), 0);
    EQ(attach_as(roomy(), 7), -EPROTO);
    EQ(ftruncate(w.fd, (off_t)w.q[0].layout.bytes), 0);
    world_close(&w);
}

static void geometries_out_of_range_are_refused(void)
{
    struct shmq_layout layout;
    static const struct shmq_geometry wrong[] = {
        {0, 1, 64, 4, 0},       {257, 1, 64, 4, 0}, {1, 0, 64, 4, 0},   {1, SHMQ_SLOTS_MAX + 1, 64, 4, 0},
        {1, 1, 63, 4, 0},       {1, 1, 64, 2, 0},   {1, 1, 64, 6, 0},   {1, 1, 64, 131072, 0},
        {1, 1, 2 << 20, 4, 0},  {1, 1, 64, 4, 512}, {1, UINT32_MAX, UINT32_MAX & ~63u, 4, 0},
        {1, 1, 64, 4, UINT64_C(2) << 40},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        EQ(shmq_layout_of(&wrong[i], &layout), -EINVAL);
    struct shmq_geometry largest = {256, SHMQ_SLOTS_MAX, 1 << 20, 65536, UINT64_C(1) << 40};
    EQ(shmq_layout_of(&largest, &layout), 0);
    CHECK(layout.bytes < UINT64_C(1) << 46);
    largest.ring_entries = 4;
    EQ(shmq_layout_of(&largest, &layout), 0);
}

static void a_reader_sees_without_writing(void)
{
    struct shmq_queue reader;
    struct shmq_stats stats;
    world_open(&w, 1, roomy());
    publish(&w.q[0], 1);
    EQ(shmq_attach(&reader, w.fd, &w.geometry, 0, 7, false, true), 0);
    EQ(shmq_check(&reader, NULL, NULL), 0);
    shmq_stats(&reader, &stats);
    EQ(stats.ready, 1);
    CHECK(shmq_may_have(&reader));
    shmq_detach(&reader);
    EQ(take_ack(&w.q[0]), 1);
    world_close(&w);
}

/* ---- giving back ---- */
static uint64_t file_bytes(void)
{
    struct stat st;
    EQ(fstat(w.fd, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

/* All that can be given back, in steps that keep nobody waiting. */
static uint64_t shrunk_wholly(struct shmq_queue *q)
{
    uint64_t given = 0, step;
    while ((step = shmq_arena_shrink(q))) {
        CHECK(step <= 16 * MIB);
        given += step;
    }
    return given;
}

static void the_free_end_of_the_arena_is_given_back(void)
{
    struct shmq_geometry g = roomy();
    g.arena_bytes = 64 * MIB;
    world_open(&w, 2, g);
    for (uint64_t id = 1; id <= 7; id++)
        EQ(publish_sized(&w.q[0], id, 0, 8 * MIB), SHMQ_OK);
    shrunk_wholly(&w.q[1]); /* what lies behind the last of them */
    uint64_t before = file_bytes();
    EQ(shmq_arena_shrink(&w.q[1]), 0);
    for (uint64_t id = 1; id <= 7; id++)
        EQ(take_ack(&w.q[1]), id);
    CHECK(shrunk_wholly(&w.q[1]) >= 56 * MIB);
    CHECK(file_bytes() + 56 * MIB <= before);
    for (uint64_t id = 1; id <= 7; id++)
        EQ(publish_sized(&w.q[0], id, 0, 8 * MIB), SHMQ_OK);
    for (uint64_t id = 1; id <= 7; id++)
        EQ(take_ack(&w.q[1]), id);
    world_close(&w);
}

/* An extender stands between its allocation and its swap while the hole is punched: what it then raises must have memory. */
static sem_t lowered, go_on, shrunk;
static pthread_t shrinker;
static bool punching, dying;
static jmp_buf death;
static struct shmq_write behind; /* a body for which the tier was extended again, before the hole was punched */

int fallocate(int fd, int mode, off_t offset, off_t bytes)
{
    if (mode && punching) {
        sem_post(&lowered);
        sem_wait(&go_on);
    }
    if (mode && dying) {
        dying = false;
        EQ(shmq_write_begin(&w.q[0], &(struct shmq_draft){.body_bytes = 4 * MIB, .ttl_ns = -1}, &behind), SHMQ_OK);
        EQ((int)syscall(SYS_fallocate, fd, mode, offset, bytes), 0);
        longjmp(death, 1);
    }
    return (int)syscall(SYS_fallocate, fd, mode, offset, bytes);
}

static void *shrink(void *unused)
{
    shmq_arena_shrink(&w.q[1]);
    sem_post(&shrunk);
    return unused;
}

static void let_the_shrinker_finish(off_t offset, off_t bytes)
{
    (void)bytes;
    if ((uint64_t)offset < w.q[0].layout.tier[1].data)
        return; /* owner words */
    after_fallocate = NULL;
    sem_post(&go_on);
    sem_wait(&shrunk);
}

static void memory_extended_while_a_hole_is_punched_is_there(void)
{
    struct shmq_geometry g = roomy();
    struct shmq_write write;
    g.arena_bytes = 64 * MIB;
    world_open(&w, 2, g);
    EQ(publish_sized(&w.q[0], 1, 0, 8 * MIB), SHMQ_OK);
    EQ(take_ack(&w.q[0]), 1);
    sem_init(&lowered, 0, 0);
    sem_init(&go_on, 0, 0);
    sem_init(&shrunk, 0, 0);
    punching = true;
    EQ(pthread_create(&shrinker, NULL, shrink, NULL), 0);
    sem_wait(&lowered);
    uint64_t before = file_bytes();
    after_fallocate = let_the_shrinker_finish;
    EQ(shmq_write_begin(&w.q[0], &(struct shmq_draft){.body_bytes = 4 * MIB, .ttl_ns = -1}, &write), SHMQ_OK);
    pthread_join(shrinker, NULL);
    punching = false;
    uint64_t committed = (uint64_t)shmq_tier_committed(&w.q[0], 1) << w.q[0].layout.tier[1].shift;
    EQ(committed, 4 * MIB);
    EQ(file_bytes() + 8 * MIB, before + committed);
    shmq_write_abort(&w.q[0], &write);
    world_close(&w);
}

static void a_supervisor_that_died_over_a_hole_holds_it_until_there_is_memory(void)
{
    struct shmq_geometry g = roomy();
    struct shmq_counts counts;
    g.arena_bytes = 64 * MIB;
    world_open(&w, 3, g);
    EQ(publish_sized(&w.q[0], 1, 0, 8 * MIB), SHMQ_OK);
    EQ(take_ack(&w.q[0]), 1);
    dying = true;
    if (setjmp(death) == 0)
        shmq_arena_shrink(&w.q[1]);
    EQ(dying, false);
    uint64_t committed = (uint64_t)shmq_tier_committed(&w.q[0], 1) << w.q[0].layout.tier[1].shift;
    CHECK(committed >= 12 * MIB); /* the body lies behind what the dead one holds */
    uint64_t punched = file_bytes();
    fallocate_left = 0;
    EQ(shmq_reap(&w.q[2], NULL, 2, true, false, &counts), 0);
    EQ(counts.freed, 0);
    EQ(world_count(&w, SHMQ_WRITING), 2);
    fallocate_left = -1;
    EQ(shmq_reap(&w.q[2], NULL, 2, true, false, &counts), 0);
    EQ(counts.freed, 1);
    EQ(file_bytes(), punched + 8 * MIB);
    shmq_write_abort(&w.q[0], &behind);
    world_close(&w);
}

int main(void)
{
    RUN(each_allocation_may_fail);
    RUN(only_the_very_queue_is_attached);
    RUN(geometries_out_of_range_are_refused);
    RUN(a_reader_sees_without_writing);
    RUN(the_free_end_of_the_arena_is_given_back);
    RUN(memory_extended_while_a_hole_is_punched_is_there);
    RUN(a_supervisor_that_died_over_a_hole_holds_it_until_there_is_memory);
    RUN(a_file_system_full_at_any_point_is_an_answer); /* last: it leaves the mount namespace */
    return done();
}
