/* sender.c - who published a message, as an administrator asks for him: his pid in the slot, his uid and gid in a table of the header, of
 * which the slot has the number. Entries are claimed once and never change. */
#include "shmq_core.h"

#define NOBODY UINT32_MAX /* no uid: setresuid's "as it is" */

uint64_t shmq_sender(struct shmq_queue *q, struct shmq_identity of) {
    uint64_t wanted = ((uint64_t)of.uid + 1) << 32 | of.gid;
    for (uint32_t n = 0; of.uid != NOBODY && n < SHMQ_SENDERS; n++) {
        uint64_t there = shmq_load(&q->header->sender[n]);
        if (!there) {
            if (shmq_cas(&q->header->sender[n], 0, wanted)) there = wanted;
            else there = shmq_load(&q->header->sender[n]);
        }
        if (there == wanted) return shmq_origin(of.pid, n + 1, 0);
    }
    return 0;
}

bool shmq_sender_of(const struct shmq_queue *q, uint64_t origin, struct shmq_identity *out) {
    uint32_t number = shmq_origin_sender(origin), pid = shmq_origin_pid(origin);
    uint64_t there = number ? shmq_load(&q->header->sender[number - 1]) : 0;
    *out = (struct shmq_identity){.uid = (uint32_t)(there >> 32) - 1, .gid = (uint32_t)there, .pid = pid};
    return there >> 32 && pid <= INT32_MAX; /* whoever wrote it */
}
