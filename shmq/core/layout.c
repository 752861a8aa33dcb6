/* layout.c - where everything lies in a segment: offsets derived from the geometry alone, and the assertions that pin the shared
 * structures. Owns no memory, touches no segment. A change here is a new SHMQ_LAYOUT. */
#include "shmq_core.h"

_Static_assert(sizeof(struct shmq_slot) == 64, "slot metadata is one line");
_Static_assert(offsetof(struct shmq_slot, ctl) == 0 && offsetof(struct shmq_slot, shape) == 40, "slot");
_Static_assert(offsetof(struct shmq_slot, place) == 48 && offsetof(struct shmq_slot, origin) == 56, "slot");
_Static_assert(offsetof(struct shmq_part, tail) == SHMQ_LINE, "head and tail apart");
_Static_assert(offsetof(struct shmq_part, entry) == 2 * SHMQ_LINE, "entries after tail");
_Static_assert(sizeof(struct shmq_ends) == SHMQ_LINE, "ends of a series have a line");
_Static_assert(sizeof(struct shmq_tally) == SHMQ_LINE, "a shard of statistics is one line pair");
_Static_assert(offsetof(struct shmq_header, flags) == 0x80, "header");
_Static_assert(offsetof(struct shmq_header, slots_committed) == 0x100, "header");
_Static_assert(offsetof(struct shmq_header, registered) == 0x180, "header");
_Static_assert(offsetof(struct shmq_header, arena_used) == 0x280, "header");
_Static_assert(offsetof(struct shmq_header, tier) == 0x300, "header");
_Static_assert(offsetof(struct shmq_header, gate) == 0x480, "header");
_Static_assert(offsetof(struct shmq_header, dead) == 0x580, "header");
_Static_assert(offsetof(struct shmq_header, delayed) == 0x600, "header");
_Static_assert(offsetof(struct shmq_header, tally) == 0x680, "header");
_Static_assert(offsetof(struct shmq_header, histogram) == 0xe80, "header");
_Static_assert(offsetof(struct shmq_header, counting) == 0x2280, "header");
_Static_assert(offsetof(struct shmq_header, sender) == 0x2480, "header");
_Static_assert(sizeof(struct shmq_header) <= 3 * SHMQ_PAGE, "header");
_Static_assert(sizeof(shmq_word) == 8 && ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2, "lock-free words");

static uint64_t align_up(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }

/* Index of the smallest ring of the series that has at least `entries`. */
static uint32_t last_part(uint32_t first_entries, uint64_t entries) {
    uint32_t k = 0;
    while ((uint64_t)first_entries << k < entries) k++;
    return k;
}

/* Bytes of the rings 1..last of a series. */
static uint64_t series_bytes(uint32_t first_entries, uint32_t last) {
    uint64_t bytes = 0;
    for (uint32_t k = 1; k <= last; k++) bytes += align_up(sizeof(struct shmq_part) + ((uint64_t)first_entries << k) * 8, SHMQ_LINE);
    return align_up(bytes, SHMQ_PAGE);
}

static bool in_range(const struct shmq_geometry *g) {
    return g->levels >= 1 && g->levels <= SHMQ_LEVELS_MAX && g->slots >= 1 && g->slots <= SHMQ_SLOTS_MAX &&
           g->inline_bytes % 64 == 0 && g->inline_bytes <= 1u << 20 && g->ring_entries >= 4 && g->ring_entries <= 65536 &&
           (g->ring_entries & (g->ring_entries - 1)) == 0 && g->arena_bytes % (1u << 20) == 0 && g->arena_bytes <= UINT64_C(1) << 40;
}

static uint64_t lay_tiers(const struct shmq_geometry *g, struct shmq_layout *out, uint64_t at) {
    static const uint32_t shifts[SHMQ_TIERS] = {9, 14, 20};
    for (uint32_t t = 0; t < SHMQ_TIERS; t++) {
        uint64_t bytes = g->arena_bytes ? g->arena_bytes + (1u << 20) : 0; /* room for the envelope of a largest body */
        uint64_t granules = bytes >> shifts[t];
        if (granules > UINT32_MAX) granules = UINT32_MAX;
        out->tier[t] = (struct shmq_tier){.owners = at, .data = 0, .granules = (uint32_t)granules, .shift = shifts[t]};
        out->tier[t].data = align_up(at + granules * 8, SHMQ_PAGE);
        at = align_up(out->tier[t].data + (granules << shifts[t]), SHMQ_PAGE);
    }
    return at;
}

int shmq_layout_of(const struct shmq_geometry *g, struct shmq_layout *out) {
    if (!in_range(g)) return -EINVAL;
    uint64_t at = 3 * SHMQ_PAGE;
    out->part_bytes = sizeof(struct shmq_part) + (uint64_t)g->ring_entries * 8;
    out->part_bytes = align_up(out->part_bytes, SHMQ_LINE);
    out->main_last = last_part(g->ring_entries, g->slots);
    out->returned_last = last_part(g->ring_entries, 2 * (uint64_t)g->slots);
    if (out->returned_last >= SHMQ_PARTS_MAX) return -EINVAL;
    out->main_stride = series_bytes(g->ring_entries, out->main_last);
    out->returned_stride = series_bytes(g->ring_entries, out->returned_last);
    /* the first rings of the dead and delayed series lie beside level 0, committed with it */
    out->dead = at;
    out->delayed = at + out->part_bytes;
    at = align_up(at + 2 * out->part_bytes, SHMQ_LINE);
    out->levels = at;
    out->level_stride = 2 * sizeof(struct shmq_ends) + 2 * out->part_bytes;
    at = align_up(at + out->level_stride * g->levels, SHMQ_PAGE);
    out->series = at; /* per level: main, returned; then dead, delayed */
    at += (out->main_stride + out->returned_stride) * g->levels + 2 * out->returned_stride;
    out->bitmap_words = (g->slots + 63) / 64;
    out->summary_words = (out->bitmap_words + 63) / 64;
    out->summary = at;
    at = align_up(at + (uint64_t)out->summary_words * 8, SHMQ_LINE);
    out->bitmap = at;
    at = align_up(at + (uint64_t)out->bitmap_words * 8, SHMQ_PAGE);
    out->slots = at;
    out->slot_stride = sizeof(struct shmq_slot) + g->inline_bytes;
    at = align_up(at + out->slot_stride * g->slots, SHMQ_PAGE);
    out->bytes = lay_tiers(g, out, at);
    return 0;
}
