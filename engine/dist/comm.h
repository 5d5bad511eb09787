/* What one kind of comm implements. comm.c checks arguments before it calls; kinds trust them. */
#ifndef SYZ_DIST_COMM_H
#define SYZ_DIST_COMM_H

#include "core/error.h"
#include "syzygy.h"

/* Pointers are in the kind's memory (host or GPU); counts are elements. */
typedef struct {
    const char *name;
    /* every array in place; f32 or bf16 */
    syz_status (*all_reduce)(syz_comm *comm, void *const data[], const int64_t n[], int64_t arrays, syz_dtype dtype,
                             syz_reduction how);
    /* small [n], large [size,n]; f32 or bf16 */
    syz_status (*reduce_scatter)(syz_comm *comm, void *small, const void *large, int64_t n, syz_dtype dtype,
                                 syz_reduction how);
    /* these two move elements of any dtype */
    syz_status (*all_gather)(syz_comm *comm, void *large, const void *small, int64_t n, syz_dtype dtype);
    syz_status (*broadcast)(syz_comm *comm, void *data, int64_t n, syz_dtype dtype, int root);
    syz_status (*barrier)(syz_comm *comm);
    /* Wait until what was queued is done. OPTIONAL: NULL where nothing is queued. */
    syz_status (*wait)(syz_comm *comm);
    /* SYZ_EINVAL unless the tensor is in this kind's memory; `name` is the operation, for the message. */
    syz_status (*check_memory)(const syz_tensor *t, const char *name);
    void (*abandon)(syz_comm *comm); /* after a failure: let the other ranks notice */
    void (*free)(syz_comm *comm);
} syz_comm_ops;

/* The first member of each kind's own struct. */
struct syz_comm {
    const syz_comm_ops *ops;
    int rank, size;
    syz_comm *host; /* the comm for values in host memory: itself, or one that this kind owns */
    char *broken;   /* what ended it; NULL while it works */
};

/* Each sets *comm, or fails and leaves it as it was. */
syz_status syz_comm_single(syz_comm **comm, const syz_comm_options *options);
syz_status syz_comm_tcp(syz_comm **comm, const syz_comm_options *options);
syz_status syz_comm_nccl(syz_comm **comm, const syz_comm_options *options);

/* For kinds in host memory. */
syz_status syz_comm_host_memory(const syz_tensor *t, const char *name);

/* ---- what kinds that are built on tcp need of it ---- */

typedef enum { SYZ_ALL_REDUCE, SYZ_REDUCE_SCATTER, SYZ_ALL_GATHER, SYZ_BROADCAST, SYZ_BARRIER } syz_comm_operation;
const char *syz_comm_operation_name(syz_comm_operation operation);

/* What the ranks are about to do, the same on all of them. */
typedef struct {
    uint64_t sequence, n; /* sequence: which operation it is; filled in by syz_comm_agree() */
    uint32_t operation, dtype, how;
    uint32_t root; /* of a broadcast; of all_reduce the number of arrays */
} syz_comm_intention;

/* Returns once all ranks of a tcp comm have called it with the same. SYZ_EINVAL names what differs; SYZ_EIO who is gone
 * or silent. */
syz_status syz_comm_agree(syz_comm *comm, syz_comm_intention mine);

/* SYZ_EIO with the ranks whose connection to this tcp comm has closed; returns at once. `name` is what waits. */
syz_status syz_comm_tcp_alive(syz_comm *comm, const char *name);

#endif
