/* stale.h - included before all else in the harnesses' builds of the core: a scene says how many stale references a walk through the returned
 * ring may pass before it gathers what is live. */
#ifndef SHMQ_CRASH_STALE_H
#define SHMQ_CRASH_STALE_H

extern unsigned stale_max; /* as in the core, unless a state says otherwise */
#define SHMQ_STALE_MAX stale_max

#endif
