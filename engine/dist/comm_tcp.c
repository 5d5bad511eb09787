/* Tensors in host memory, over a connection between every two ranks.
 *
 * Sums are made where they belong: of every array each rank owns a part, receives that part from all others, adds in
 * the order of ranks, and sends the sum to all. Each rank sends and receives what a ring would, in fewer steps, and the
 * bits do not depend on timing. Before an operation the ranks tell each other what they are about to do, so that a
 * difference is an error and not a wrong sum. */
#include "core/alloc.h"
#include "dist/comm.h"
#include "dist/meeting.h"
#include "dist/sockets.h"
#include "kernels/half.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PIECE  ((int64_t)1 << 18)  /* elements of one rank's part that travel at once */
#define BUCKET ((int64_t)25 << 20) /* bytes of small arrays that travel together */
#define NAMES  512

static const char *const names[] = {[SYZ_ALL_REDUCE] = "all_reduce",
                                    [SYZ_REDUCE_SCATTER] = "reduce_scatter",
                                    [SYZ_ALL_GATHER] = "all_gather",
                                    [SYZ_BROADCAST] = "broadcast",
                                    [SYZ_BARRIER] = "barrier"};

const char *syz_comm_operation_name(syz_comm_operation operation) {
    return names[operation];
}

typedef struct {
    syz_comm base;
    double timeout;
    uint64_t sequence;              /* of operations */
    int *fd;                        /* [size], -1 at the own rank */
    syz_transfer *transfers;        /* [size] */
    syz_comm_intention *intentions; /* [size] */
    bool *chosen;                   /* [size], for messages */
    char *received;                 /* [size,PIECE] elements of f32 */
    char *bucket;                   /* [BUCKET] bytes; NULL until small arrays have been reduced */
} tcp;

/* ---- moving bytes ------------------------------------------------------------------------------------------------ */

static void plan(tcp *t, int rank, const void *out, size_t out_bytes, void *in, size_t in_bytes) {
    t->transfers[rank] =
        (syz_transfer){.fd = t->fd[rank], .out = out, .out_left = out_bytes, .in = in, .in_left = in_bytes};
}

/* Whoever is gone now, too: a rank that notices another's end soon ends itself. */
static syz_status peers_gone(tcp *t, const char *name) {
    char text[NAMES];
    int count = 0;
    for (int r = 0; r < t->base.size; r++) {
        t->chosen[r] = t->fd[r] >= 0 && (t->transfers[r].closed || syz_has_closed(t->fd[r]));
        count += t->chosen[r];
    }
    if (count == 0) return SYZ_OK;
    return syz_fail(SYZ_EIO, "%s: %s of %d %s ended: %s messages tell why", name,
                    syz_rank_names(text, sizeof text, t->chosen, t->base.size), t->base.size,
                    count == 1 ? "has" : "have", count == 1 ? "its" : "their");
}

static syz_status peers_silent(tcp *t, const char *name) {
    char text[NAMES];
    for (int r = 0; r < t->base.size; r++)
        t->chosen[r] = t->transfers[r].fd >= 0 && t->transfers[r].in_left + t->transfers[r].out_left > 0;
    return syz_fail(SYZ_EIO, "%s: %s of %d did not answer within %g s (SYZ_COMM_TIMEOUT)", name,
                    syz_rank_names(text, sizeof text, t->chosen, t->base.size), t->base.size, t->timeout);
}

static size_t bytes_left(const tcp *t) {
    size_t left = 0;
    for (int r = 0; r < t->base.size; r++)
        left += t->fd[r] < 0 ? 0 : t->transfers[r].in_left + t->transfers[r].out_left;
    return left;
}

/* The time-out is for silence: a large array may take longer. */
static syz_status move(tcp *t, const char *name) {
    syz_outcome outcome;
    size_t left;
    do {
        left = bytes_left(t);
        outcome = syz_exchange(t->transfers, t->base.size, syz_seconds() + t->timeout);
    } while (outcome == SYZ_TOO_LATE && bytes_left(t) < left);
    switch (outcome) {
    case SYZ_EXCHANGED:
        return SYZ_OK;
    case SYZ_PEER_CLOSED:
        return peers_gone(t, name);
    case SYZ_TOO_LATE:
        return peers_silent(t, name);
    default:
        return syz_error_status();
    }
}

static syz_status disagreement(const tcp *t, int rank) {
    const syz_comm_intention *mine = &t->intentions[t->base.rank], *theirs = &t->intentions[rank];
    char text[2][NAMES];
    const syz_comm_intention *both[2] = {mine, theirs};
    for (int k = 0; k < 2; k++) {
        const syz_comm_intention *i = both[k];
        const char *name = i->operation <= SYZ_BARRIER ? names[i->operation] : "?";
        int used = snprintf(text[k], NAMES, "%s of %llu %s", name, (unsigned long long)i->n,
                            i->dtype < SYZ_DTYPE_COUNT ? syz_dtype_name((syz_dtype)i->dtype) : "?");
        if (i->operation == SYZ_BROADCAST) snprintf(text[k] + used, NAMES - (size_t)used, " from rank %u", i->root);
        if (i->operation <= SYZ_REDUCE_SCATTER)
            snprintf(text[k] + used, NAMES - (size_t)used, " as a %s", i->how == SYZ_MEAN ? "mean" : "sum");
    }
    return syz_fail(SYZ_EINVAL,
                    "operation %llu is %s on rank %d, and %s on rank %d: ranks must call the same ones in "
                    "the same order",
                    (unsigned long long)mine->sequence, text[0], t->base.rank, text[1], rank);
}

syz_status syz_comm_agree(syz_comm *comm, syz_comm_intention mine) {
    tcp *t = (tcp *)comm;
    mine.sequence = ++t->sequence;
    t->intentions[t->base.rank] = mine;
    for (int r = 0; r < t->base.size; r++)
        plan(t, r, &t->intentions[t->base.rank], sizeof mine, &t->intentions[r], sizeof mine);
    SYZ_TRY(move(t, names[mine.operation]));
    for (int r = 0; r < t->base.size; r++)
        if (memcmp(&t->intentions[r], &t->intentions[t->base.rank], sizeof mine) != 0) return disagreement(t, r);
    return SYZ_OK;
}

/* ---- sums -------------------------------------------------------------------------------------------------------- */

static void load(float *y, const void *x, int64_t at, int64_t n, syz_dtype dtype) {
    const uint16_t *half = x;
    if (dtype == SYZ_F32) {
        memcpy(y, (const float *)x + at, (size_t)n * sizeof *y);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        y[i] = syz_bf16_to_f32(half[at + i]);
}

static void store(void *y, int64_t at, const float *x, int64_t n, syz_dtype dtype) {
    uint16_t *half = y;
    if (dtype == SYZ_F32) {
        memcpy((float *)y + at, x, (size_t)n * sizeof *x);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        half[at + i] = syz_f32_to_bf16(x[i]);
}

/* Room for PIECE elements of f32 or bf16. */
static void *received_from(const tcp *t, int rank) {
    return t->received + (size_t)(rank * PIECE) * sizeof(float);
}

/* y [n] = the sum, in the order of ranks, of what was received and, at the own rank, of x [n]; y may be x. */
static void add_up(tcp *t, void *y, const void *x, int64_t n, syz_dtype dtype, syz_reduction how) {
    float sum[1024], next[1024];
    int size = t->base.size;
    for (int64_t at = 0; at < n; at += 1024) {
        int64_t m = n - at < 1024 ? n - at : 1024;
        for (int r = 0; r < size; r++) {
            load(r == 0 ? sum : next, r == t->base.rank ? x : received_from(t, r), at, m, dtype);
            for (int64_t i = 0; i < m && r > 0; i++)
                sum[i] += next[i];
        }
        for (int64_t i = 0; i < m && how == SYZ_MEAN; i++)
            sum[i] /= (float)size;
        store(y, at, sum, m, dtype);
    }
}

/* Rank r owns the elements of part_start(r) to part_start(r + 1) - 1. */
static int64_t part_start(const tcp *t, int64_t total, int rank) {
    return total * rank / t->base.size;
}

static int64_t clamp(int64_t n) {
    return n < 0 ? 0 : n > PIECE ? PIECE : n;
}

/* y [own part] = that part of the sum of every rank's x [total]. Pieces travel one after the other, so that the memory
 * for what is received is bounded. y may be the own part of x, which is not sent. */
static syz_status sum_part(tcp *t, void *y, const char *x, int64_t total, syz_dtype dtype, syz_reduction how,
                           const char *name) {
    size_t bytes = syz_dtype_size(dtype);
    int64_t start = part_start(t, total, t->base.rank), own = part_start(t, total, t->base.rank + 1) - start;
    int64_t longest = (total + t->base.size - 1) / t->base.size;
    for (int64_t at = 0; at < longest; at += PIECE) {
        int64_t mine = clamp(own - at);
        for (int r = 0; r < t->base.size; r++) {
            int64_t from = part_start(t, total, r) + at, theirs = clamp(part_start(t, total, r + 1) - from);
            plan(t, r, x + (size_t)from * bytes, (size_t)theirs * bytes, received_from(t, r), (size_t)mine * bytes);
        }
        SYZ_TRY(move(t, name));
        add_up(t, (char *)y + (size_t)at * bytes, x + (size_t)(start + at) * bytes, mine, dtype, how);
    }
    return SYZ_OK;
}

/* Every rank sends its own part of x [total], which all then have. */
static syz_status spread_parts(tcp *t, char *x, int64_t total, syz_dtype dtype, const char *name) {
    size_t bytes = syz_dtype_size(dtype);
    int64_t start = part_start(t, total, t->base.rank), own = part_start(t, total, t->base.rank + 1) - start;
    for (int r = 0; r < t->base.size; r++) {
        int64_t from = part_start(t, total, r), theirs = part_start(t, total, r + 1) - from;
        plan(t, r, x + (size_t)start * bytes, (size_t)own * bytes, x + (size_t)from * bytes, (size_t)theirs * bytes);
    }
    return move(t, name);
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

static syz_status reduce_array(tcp *t, char *x, int64_t n, syz_dtype dtype, syz_reduction how) {
    char *own = x + (size_t)part_start(t, n, t->base.rank) * syz_dtype_size(dtype);
    SYZ_TRY(sum_part(t, own, x, n, dtype, how, names[SYZ_ALL_REDUCE]));
    return spread_parts(t, x, n, dtype, names[SYZ_ALL_REDUCE]);
}

/* Small arrays as one: a message costs its latency, however short it is. */
static syz_status reduce_bucket(tcp *t, void *const data[], const int64_t n[], int64_t arrays, int64_t total,
                                syz_dtype dtype, syz_reduction how) {
    size_t bytes = syz_dtype_size(dtype), at = 0;
    if (!t->bucket && !(t->bucket = syz_alloc(1, BUCKET))) return SYZ_ENOMEM;
    for (int64_t k = 0; k < arrays; at += (size_t)n[k++] * bytes)
        memcpy(t->bucket + at, data[k], (size_t)n[k] * bytes);
    SYZ_TRY(reduce_array(t, t->bucket, total, dtype, how));
    at = 0;
    for (int64_t k = 0; k < arrays; at += (size_t)n[k++] * bytes)
        memcpy(data[k], t->bucket + at, (size_t)n[k] * bytes);
    return SYZ_OK;
}

static syz_status tcp_all_reduce(syz_comm *comm, void *const data[], const int64_t n[], int64_t arrays, syz_dtype dtype,
                                 syz_reduction how) {
    tcp *t = (tcp *)comm;
    syz_comm_intention mine = {.operation = SYZ_ALL_REDUCE, .dtype = dtype, .how = how, .root = (uint32_t)arrays};
    for (int64_t k = 0; k < arrays; k++)
        mine.n += (uint64_t)n[k];
    SYZ_TRY(syz_comm_agree(comm, mine));
    for (int64_t first = 0, last = 0; first < arrays; first = last) {
        int64_t total = 0, most = BUCKET / (int64_t)syz_dtype_size(dtype);
        while (last < arrays && (last == first || total + n[last] <= most))
            total += n[last++];
        syz_status status = last - first == 1
                                ? reduce_array(t, data[first], total, dtype, how)
                                : reduce_bucket(t, data + first, n + first, last - first, total, dtype, how);
        if (status != SYZ_OK) return status;
    }
    return SYZ_OK;
}

static syz_status tcp_reduce_scatter(syz_comm *comm, void *small, const void *large, int64_t n, syz_dtype dtype,
                                     syz_reduction how) {
    tcp *t = (tcp *)comm;
    SYZ_TRY(syz_comm_agree(
        comm, (syz_comm_intention){.operation = SYZ_REDUCE_SCATTER, .dtype = dtype, .how = how, .n = (uint64_t)n}));
    return sum_part(t, small, large, n * comm->size, dtype, how, names[SYZ_REDUCE_SCATTER]);
}

static syz_status tcp_all_gather(syz_comm *comm, void *large, const void *small, int64_t n, syz_dtype dtype) {
    tcp *t = (tcp *)comm;
    size_t bytes = (size_t)n * syz_dtype_size(dtype);
    SYZ_TRY(syz_comm_agree(comm, (syz_comm_intention){.operation = SYZ_ALL_GATHER, .dtype = dtype, .n = (uint64_t)n}));
    if (n) memcpy((char *)large + (size_t)comm->rank * bytes, small, bytes);
    return spread_parts(t, large, n * comm->size, dtype, names[SYZ_ALL_GATHER]);
}

static syz_status tcp_broadcast(syz_comm *comm, void *data, int64_t n, syz_dtype dtype, int root) {
    tcp *t = (tcp *)comm;
    size_t bytes = (size_t)n * syz_dtype_size(dtype);
    SYZ_TRY(syz_comm_agree(
        comm,
        (syz_comm_intention){.operation = SYZ_BROADCAST, .dtype = dtype, .root = (uint32_t)root, .n = (uint64_t)n}));
    for (int r = 0; r < comm->size; r++)
        plan(t, r, data, comm->rank == root ? bytes : 0, data, r == root ? bytes : 0);
    return move(t, names[SYZ_BROADCAST]);
}

/* To agree is to have heard from all. */
static syz_status tcp_barrier(syz_comm *comm) {
    return syz_comm_agree(comm, (syz_comm_intention){.operation = SYZ_BARRIER});
}

syz_status syz_comm_tcp_alive(syz_comm *comm, const char *name) {
    tcp *t = (tcp *)comm;
    for (int r = 0; r < comm->size; r++)
        t->transfers[r] = (syz_transfer){.fd = -1};
    return peers_gone(t, name);
}

/* ---- life -------------------------------------------------------------------------------------------------------- */

static void tcp_abandon(syz_comm *comm) {
    tcp *t = (tcp *)comm;
    for (int r = 0; r < comm->size && t->fd; r++) {
        if (t->fd[r] >= 0) close(t->fd[r]);
        t->fd[r] = -1;
    }
}

static void tcp_free(syz_comm *comm) {
    tcp *t = (tcp *)comm;
    tcp_abandon(comm);
    free(t->fd);
    free(t->transfers);
    free(t->intentions);
    free(t->chosen);
    free(t->received);
    free(t->bucket);
    free(t);
}

static const syz_comm_ops tcp_ops = {
    .name = "tcp",
    .all_reduce = tcp_all_reduce,
    .reduce_scatter = tcp_reduce_scatter,
    .all_gather = tcp_all_gather,
    .broadcast = tcp_broadcast,
    .barrier = tcp_barrier,
    .check_memory = syz_comm_host_memory,
    .abandon = tcp_abandon,
    .free = tcp_free,
};

syz_status syz_comm_tcp(syz_comm **comm, const syz_comm_options *options) {
    size_t size = (size_t)options->size;
    tcp *t = syz_alloc(1, sizeof *t);
    if (!t) return SYZ_ENOMEM;
    t->base = (syz_comm){.ops = &tcp_ops, .rank = options->rank, .size = options->size, .host = &t->base};
    t->timeout = options->timeout;
    t->transfers = syz_alloc(size, sizeof *t->transfers);
    t->intentions = syz_alloc(size, sizeof *t->intentions);
    t->chosen = syz_alloc(size, sizeof *t->chosen);
    t->received = syz_alloc(size, PIECE * sizeof(float));
    int *fd = syz_alloc(size, sizeof *fd);
    syz_status status = fd && t->transfers && t->intentions && t->chosen && t->received ? SYZ_OK : SYZ_ENOMEM;
    if (status == SYZ_OK) status = syz_meet(fd, options);
    if (status != SYZ_OK) {
        free(fd);
        syz_comm_free(&t->base);
        return status;
    }
    t->fd = fd;
    *comm = &t->base;
    return SYZ_OK;
}
