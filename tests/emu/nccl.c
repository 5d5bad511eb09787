/* NCCL between forked processes, as strict as the real one is silent:
 *
 * - Non-blocking: a call returns ncclInProgress, and nothing else may be called until ncclCommGetAsyncError() says that
 *   it is done; neither may the stream be asked.
 * - Stream order: an operation does nothing until the stream is waited for, so that results that are read too early are
 *   the old ones; it is done once every rank has come to it.
 * - The ranks' calls must be equal in kind, count, type, reduction and root; all memory must be the GPU's; a reduction
 *   is of f32 or bf16; a count of zero or a second comm of a rank is refused.
 *
 * What is refused ends the process with a line: the code under test must never do it. */
#include "nccl.h"
#include "kernels/half.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define RANKS  8
#define ROOM   ((size_t)4 << 20) /* bytes that one operation of one rank may send */
#define QUEUE  64
#define RANGES 256

enum kind { ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER, BROADCAST };

typedef struct {
    enum kind kind;
    size_t count;
    int type, op, root;
} call;

/* What all ranks see. Operation number s of a rank waits until everybody has read what was sent for s - 1. */
static struct {
    atomic_int joined[RANKS], sent[RANKS], read[RANKS];
    call calls[RANKS];
    char data[RANKS][ROOM];
} * shared;

struct ncclComm {
    int size, rank, queued, begun, done; /* begun, done: operations of the queue */
    bool joining, grouped;
    int in_progress; /* so many times more will ncclCommGetAsyncError() say so */
    ncclResult_t failure;
    struct {
        call call;
        const void *send;
        void *receive;
    } queue[QUEUE];
};

static struct ncclComm *only; /* of this process */
static int gpus = RANKS, current, aborts, groups;
static ncclResult_t next_failure;
static struct {
    const char *at;
    size_t bytes;
    int device;
} ranges[RANGES];
static int nranges;

static void demand(bool condition, const char *what) {
    if (condition) return;
    fprintf(stderr, "NCCL was misused: %s\n", what);
    _exit(3);
}

void emulated_nccl_share(void) {
    if (shared) munmap(shared, sizeof *shared);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    demand(shared != MAP_FAILED, "no memory to share");
}

void emulated_gpus(int count) {
    gpus = count;
}

void emulated_gpu_memory(const void *at, size_t bytes) {
    demand(nranges < RANGES, "too many ranges");
    ranges[nranges].at = at;
    ranges[nranges].bytes = bytes;
    ranges[nranges++].device = current;
}

void emulated_nccl_fail_next(ncclResult_t result) {
    next_failure = result;
}

int emulated_nccl_aborts(void) {
    return aborts;
}

/* ---- CUDA -------------------------------------------------------------------------------------------------------- */

void *emulated_stream(void) {
    return NULL;
}

cudaError_t cudaGetDeviceCount(int *count) {
    *count = gpus;
    return gpus ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t cudaSetDevice(int device) {
    if (device < 0 || device >= gpus) return cudaErrorInvalidValue;
    current = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device) {
    *device = current;
    return cudaSuccess;
}

static const char *range_of(const void *pointer, size_t bytes, int *device) {
    const char *p = pointer;
    for (int k = nranges - 1; k >= 0; k--) {
        if (p < ranges[k].at || p + bytes > ranges[k].at + ranges[k].bytes) continue;
        *device = ranges[k].device;
        return ranges[k].at;
    }
    return NULL;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *pointer) {
    *attributes = (struct cudaPointerAttributes){.type = cudaMemoryTypeUnregistered};
    if (range_of(pointer, 1, &attributes->device)) attributes->type = cudaMemoryTypeDevice;
    return cudaSuccess;
}

const char *cudaGetErrorString(cudaError_t error) {
    return error == cudaErrorNoDevice ? "no CUDA-capable device is detected" : "a CUDA error";
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

static size_t bytes_of(int type) {
    return type == ncclUint8 ? 1 : type == ncclBfloat16 ? 2 : 4;
}

static float element(const void *x, size_t i, int type) {
    return type == ncclBfloat16 ? syz_bf16_to_f32(((const uint16_t *)x)[i]) : ((const float *)x)[i];
}

static void reduce(const struct ncclComm *comm, const call *c, void *y) {
    size_t first = c->kind == REDUCE_SCATTER ? (size_t)comm->rank * c->count : 0;
    for (size_t i = 0; i < c->count; i++) {
        float sum = 0;
        for (int r = comm->size - 1; r >= 0; r--) /* NCCL's order is its own */
            sum += element(shared->data[r], first + i, c->type);
        if (c->op == ncclAvg) sum /= (float)comm->size;
        if (c->type == ncclBfloat16)
            ((uint16_t *)y)[i] = syz_f32_to_bf16(sum);
        else
            ((float *)y)[i] = sum;
    }
}

static void finish(const struct ncclComm *comm, const call *c, void *receive) {
    size_t bytes = c->count * bytes_of(c->type);
    if (c->kind == ALL_REDUCE || c->kind == REDUCE_SCATTER) reduce(comm, c, receive);
    if (c->kind == BROADCAST) memcpy(receive, shared->data[c->root], bytes);
    for (int r = 0; r < comm->size && c->kind == ALL_GATHER; r++)
        memcpy((char *)receive + (size_t)r * bytes, shared->data[r], bytes);
}

static bool all_at_least(const struct ncclComm *comm, const atomic_int *counters, int value) {
    for (int r = 0; r < comm->size; r++)
        if (atomic_load(&counters[r]) < value) return false;
    return true;
}

/* One look at the operation at the head of the queue; true when it is done. */
static bool progress(struct ncclComm *comm) {
    int number = comm->done + 1, at = comm->done % QUEUE;
    const call *c = &comm->queue[at].call;
    if (comm->begun < number) {
        if (!all_at_least(comm, shared->read, number - 1)) return false;
        size_t sent = c->count * bytes_of(c->type) * (c->kind == REDUCE_SCATTER ? (size_t)comm->size : 1);
        demand(sent <= ROOM, "more is sent than the emulation has room for");
        memcpy(shared->data[comm->rank], comm->queue[at].send, sent);
        shared->calls[comm->rank] = *c;
        atomic_store(&shared->sent[comm->rank], comm->begun = number);
    }
    if (!all_at_least(comm, shared->sent, number)) return false;
    for (int r = 0; r < comm->size; r++)
        demand(memcmp(&shared->calls[r], c, sizeof *c) == 0, "the ranks call different operations");
    finish(comm, c, comm->queue[at].receive);
    atomic_store(&shared->read[comm->rank], comm->done = number);
    return true;
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
    demand(stream == NULL, "another stream than the current one");
    if (!only) return cudaSuccess;
    demand(!only->in_progress && !only->joining, "the stream is used while a call is in progress");
    if (only->done < only->queued && !only->failure) progress(only); /* one at a time */
    return only->done < only->queued ? cudaErrorNotReady : cudaSuccess;
}

static ncclResult_t enqueue(ncclComm_t comm, call c, const void *send, void *receive, cudaStream_t stream) {
    int device;
    size_t bytes = c.count * bytes_of(c.type), large = bytes * (size_t)comm->size;
    demand(comm && comm == only, "not the comm of this process");
    demand(stream == NULL, "another stream than the current one");
    demand(!comm->in_progress && !comm->joining, "a call while another is in progress");
    demand(c.count > 0, "a count of zero");
    demand(c.kind >= ALL_GATHER || c.type != ncclUint8, "a sum of bytes");
    demand(range_of(send, c.kind == REDUCE_SCATTER ? large : bytes, &device) && device == current, "host memory sent");
    demand(range_of(receive, c.kind == ALL_GATHER ? large : bytes, &device) && device == current,
           "host memory received");
    demand(comm->queued - comm->done < QUEUE, "too many operations in flight for the emulation");
    int at = comm->queued++ % QUEUE;
    comm->queue[at].call = c;
    comm->queue[at].send = send;
    comm->queue[at].receive = receive;
    if (groups) {
        comm->grouped = true;
        return ncclSuccess;
    }
    comm->in_progress = 2;
    return ncclInProgress;
}

/* Padding included: calls are compared as bytes. */
static call make_call(enum kind kind, size_t count, ncclDataType_t type, int op, int root) {
    call c;
    memset(&c, 0, sizeof c);
    c.kind = kind, c.count = count, c.type = (int)type, c.op = op, c.root = root;
    return c;
}

ncclResult_t ncclAllReduce(const void *send, void *receive, size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream) {
    return enqueue(comm, make_call(ALL_REDUCE, count, type, (int)op, 0), send, receive, stream);
}

ncclResult_t ncclReduceScatter(const void *send, void *receive, size_t count, ncclDataType_t type, ncclRedOp_t op,
                               ncclComm_t comm, cudaStream_t stream) {
    return enqueue(comm, make_call(REDUCE_SCATTER, count, type, (int)op, 0), send, receive, stream);
}

ncclResult_t ncclAllGather(const void *send, void *receive, size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
    return enqueue(comm, make_call(ALL_GATHER, count, type, 0, 0), send, receive, stream);
}

ncclResult_t ncclBroadcast(const void *send, void *receive, size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream) {
    return enqueue(comm, make_call(BROADCAST, count, type, 0, root), send, receive, stream);
}

ncclResult_t ncclGroupStart(void) {
    groups++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void) {
    demand(groups > 0, "a group ends that has not begun");
    if (--groups || !only || !only->grouped) return ncclSuccess;
    only->grouped = false;
    only->in_progress = 2;
    return ncclInProgress;
}

/* ---- comms ------------------------------------------------------------------------------------------------------- */

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
    memset(id, 0x5a, sizeof *id);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int size, ncclUniqueId id, int rank, ncclConfig_t *config) {
    demand(shared, "emulated_nccl_share() was not called");
    demand(!only, "a second comm in one process");
    demand(size >= 1 && size <= RANKS && rank >= 0 && rank < size, "a rank out of range");
    demand(id.internal[0] == 0x5a && id.internal[127] == 0x5a, "an identifier that is not rank 0's");
    demand(config->size == sizeof *config && config->magic == 0xcafebeef, "a config without its initializer");
    demand(config->blocking == 0, "a blocking comm: its waits would have no end");
    *comm = only = calloc(1, sizeof *only);
    demand(only, "no memory");
    only->size = size;
    only->rank = rank;
    only->joining = true;
    atomic_store(&shared->joined[rank], 1);
    return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *state) {
    demand(comm && comm == only, "not the comm of this process");
    if (comm->joining) comm->joining = !all_at_least(comm, shared->joined, 1);
    if (comm->in_progress && --comm->in_progress == 0 && next_failure) {
        comm->failure = next_failure;
        next_failure = ncclSuccess;
    }
    *state = comm->joining || comm->in_progress ? ncclInProgress : comm->failure;
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
    demand(comm && comm == only && !comm->in_progress, "an end while a call is in progress");
    comm->in_progress = 2;
    return ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    demand(comm && comm == only && !comm->in_progress, "destroyed before its end");
    free(comm);
    only = NULL;
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
    demand(comm && comm == only, "not the comm of this process");
    aborts++;
    free(comm);
    only = NULL;
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result) {
    return result == ncclRemoteError ? "remote process exited or there was a network error" : "an NCCL error";
}

const char *ncclGetLastError(ncclComm_t comm) {
    return comm && comm->failure ? "socket closed by peer" : "";
}
