/* How the processes of a run find each other. */
#ifndef SYZ_DIST_MEETING_H
#define SYZ_DIST_MEETING_H

#include "core/error.h"
#include "syzygy.h"

/* Connect every rank with every other: fd [size], -1 at the own rank; the caller closes them.
 *
 * Rank 0 listens at the run's address. Every other rank listens at a port of its own, tells it to rank 0, and is told
 * those of all; then each rank calls those below it. What rank 0 finds wrong, it tells to all who are there, so that
 * each ends with the cause: SYZ_EIO for ranks that did not come in time or went away, SYZ_EINVAL for two processes of
 * one rank or of different sizes. Callers that do not speak the protocol are ignored. */
syz_status syz_meet(int fd[], const syz_comm_options *options);

/* "rank 2", "ranks 1 and 3": those of 0..size-1 for which `chosen` is true. */
const char *syz_rank_names(char *text, size_t capacity, const bool chosen[], int size);

#endif
