/* shmq_words.h - the fields of the words that shmq_core.h draws: control word, ring entry, shape and place of a message. Included there, where
 * the states are named; pure functions of one word that was loaded once. */
#ifndef SHMQ_WORDS_H
#define SHMQ_WORDS_H

/* ---- control word -------------------------------------------------------------------------------------------------- */
static inline uint64_t shmq_ctl(uint64_t generation, uint32_t owner, uint32_t deliveries, uint32_t failures, uint32_t state) {
    return (generation & 0xfffffffu) << 36 | (uint64_t)(owner & 0xffffu) << 20 | (uint64_t)(deliveries & 0xffu) << 12 |
           (uint64_t)(failures & 0xffu) << 4 | (state & 0xfu);
}
static inline uint32_t shmq_ctl_generation(uint64_t c) { return (uint32_t)(c >> 36); }
static inline uint32_t shmq_ctl_owner(uint64_t c) { return (uint32_t)(c >> 20) & 0xffffu; }
static inline uint32_t shmq_ctl_deliveries(uint64_t c) { return (uint32_t)(c >> 12) & 0xffu; }
static inline uint32_t shmq_ctl_failures(uint64_t c) { return (uint32_t)(c >> 4) & 0xffu; }
static inline uint32_t shmq_ctl_state(uint64_t c) { return (uint32_t)c & 0xfu; }
/* The word of the next life of the slot. */
static inline uint64_t shmq_ctl_freed(uint64_t c) {
    return shmq_ctl((uint64_t)shmq_ctl_generation(c) + (SHMQ_BROKEN(GENERATION_KEPT) ? 0 : 1), 0, 0, 0, SHMQ_FREE);
}
/* Same message, other owner and state. */
static inline uint64_t shmq_ctl_moved(uint64_t c, uint32_t owner, uint32_t state) {
    return (c & ~(UINT64_C(0xffff) << 20 | 0xfu)) | (uint64_t)(owner & 0xffffu) << 20 | state;
}

/* ---- ring entry ---- */
static inline uint64_t shmq_entry_full(uint64_t lap, uint32_t generation, uint32_t slot) {
    return (lap & 0xfffffu) << 44 | (uint64_t)(generation & 0xfffffu) << 24 | (uint64_t)slot << 1 | 1u;
}
static inline uint64_t shmq_entry_empty(uint64_t lap) { return (lap & 0xfffffu) << 44; }
static inline uint64_t shmq_entry_sealed(uint64_t lap) { return (lap & 0xfffffu) << 44 | (uint64_t)SHMQ_NO_SLOT << 1; }
static inline uint32_t shmq_entry_lap(uint64_t e) { return (uint32_t)(e >> 44); }
static inline uint32_t shmq_entry_generation(uint64_t e) { return (uint32_t)(e >> 24) & 0xfffffu; }
static inline uint32_t shmq_entry_slot(uint64_t e) { return (uint32_t)(e >> 1) & 0x7fffffu; }
static inline bool shmq_entry_is_full(uint64_t e) { return e & 1u; }

/* ---- where a message comes from ---- */
static inline uint64_t shmq_origin(uint32_t pid, uint32_t sender, uint32_t priority) {
    return (uint64_t)pid << 32 | (uint64_t)(sender & 0xffu) << 8 | (priority & 0xffu);
}
static inline uint32_t shmq_origin_pid(uint64_t o) { return (uint32_t)(o >> 32); }
static inline uint32_t shmq_origin_sender(uint64_t o) { return (uint32_t)(o >> 8) & 0xffu; }
static inline uint8_t shmq_origin_priority(uint64_t o) { return (uint8_t)o; }

/* ---- who is counting ---- */
static inline uint32_t shmq_counting_owner(uint64_t c) { return (uint32_t)c & 0xffffu; }
static inline uint64_t shmq_counted(uint64_t c) { return (c | 0xffffu) + 1; } /* once more, and nobody is */

/* ---- times ---- */
static inline uint64_t shmq_time(uint64_t ns) { return ns & INT64_MAX; } /* whoever wrote it: one that a signed number holds */

/* ---- shape and place of a message ---- */
static inline uint32_t shmq_shape_body(uint64_t s) { return (uint32_t)(s >> 32); }
static inline uint32_t shmq_shape_envelope(uint64_t s) { return (uint32_t)(s >> 16) & 0xffffu; }
static inline uint8_t shmq_shape_level(uint64_t s) { return (uint8_t)(s >> 8); }
static inline uint8_t shmq_shape_flags(uint64_t s) { return (uint8_t)s; }
static inline uint32_t shmq_place_start(uint64_t p) { return (uint32_t)(p >> 32); }
static inline uint32_t shmq_place_count(uint64_t p) { return (uint32_t)(p >> 16) & 0xffffu; }
static inline uint32_t shmq_place_tier(uint64_t p) { return (uint32_t)(p >> 8) & 0xffu; }

#endif
