/* Tensors in GPU memory, by NCCL. Built where NCCL is found.
 *
 * A comm over TCP goes with it: it carries NCCL's identifier from rank 0 to the others; before each operation the ranks
 * agree by it on what they do, since NCCL would wait for ever where they differ; and it tells when a rank has died. So
 * NCCL runs in its non-blocking mode, and every wait ends.
 *
 * Operations are queued in the current stream. Their results may be used in that stream; whoever reads them on the host
 * calls syz_comm_barrier() or synchronises the stream first. */
#include "core/alloc.h"
#include "core/threads.h"
#include "dist/comm.h"
#include "dist/sockets.h"
#include "kernels/device.h"
#include "tensor/tensor.h"

#include <nccl.h>
#include <stdlib.h>
#include <time.h>

typedef struct {
    syz_comm base;
    ncclComm_t comm; /* NULL once aborted */
    double timeout;
} nccl;

/* The stream that operations of this thread run in. */
static cudaStream_t current_stream(void) {
    return syz_cuda_stream();
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

static syz_status failed(const nccl *self, ncclResult_t result, const char *name) {
    const char *detail = self->comm ? ncclGetLastError(self->comm) : NULL;
    return syz_fail(SYZ_EIO, "%s: NCCL: %s%s%.400s (NCCL_DEBUG=INFO tells more)", name, ncclGetErrorString(result),
                    detail && *detail ? ": " : "", detail ? detail : "");
}

/* A look at what may have ended the wait that began at `since`. */
static syz_status go_on_waiting(const nccl *self, double since, const char *name) {
    const struct timespec pause = {.tv_nsec = 20000};
    SYZ_TRY(syz_check_cancel());
    SYZ_TRY(syz_comm_tcp_alive(self->base.host, name));
    if (syz_seconds() - since > self->timeout)
        return syz_fail(SYZ_EIO, "%s: the GPUs did not finish within %g s (SYZ_COMM_TIMEOUT)", name, self->timeout);
    nanosleep(&pause, NULL);
    return SYZ_OK;
}

/* A call to NCCL returned `result`: wait until what it began is under way. */
static syz_status settle(const nccl *self, ncclResult_t result, const char *name) {
    double since = syz_seconds();
    while (result == ncclInProgress) {
        SYZ_TRY(go_on_waiting(self, since, name));
        ncclResult_t asked = ncclCommGetAsyncError(self->comm, &result);
        if (asked != ncclSuccess) result = asked;
    }
    return result == ncclSuccess ? SYZ_OK : failed(self, result, name);
}

static syz_status wait_for_stream(nccl *self, const char *name) {
    double since = syz_seconds();
    for (;;) {
        cudaError_t done = cudaStreamQuery(current_stream());
        ncclResult_t state;
        if (done == cudaSuccess) return SYZ_OK;
        if (done != cudaErrorNotReady) return syz_fail(SYZ_EIO, "%s: CUDA: %s", name, cudaGetErrorString(done));
        ncclResult_t asked = ncclCommGetAsyncError(self->comm, &state);
        if (asked != ncclSuccess) state = asked;
        if (state != ncclSuccess) return failed(self, state, name);
        SYZ_TRY(go_on_waiting(self, since, name));
    }
}

static syz_status nccl_wait(syz_comm *comm) {
    return wait_for_stream((nccl *)comm, "waiting for the GPUs");
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

static ncclDataType_t type_of(syz_dtype dtype) {
    return dtype == SYZ_BF16 ? ncclBfloat16 : ncclFloat32;
}

static ncclRedOp_t reduction_of(syz_reduction how) {
    return how == SYZ_MEAN ? ncclAvg : ncclSum;
}

/* Many arrays are one group, of which NCCL makes few launches: they need no copies into buckets. */
static syz_status nccl_all_reduce(syz_comm *comm, void *const data[], const int64_t n[], int64_t arrays,
                                  syz_dtype dtype, syz_reduction how) {
    nccl *self = (nccl *)comm;
    syz_comm_intention mine = {.operation = SYZ_ALL_REDUCE, .dtype = dtype, .how = how, .root = (uint32_t)arrays};
    for (int64_t k = 0; k < arrays; k++)
        mine.n += (uint64_t)n[k];
    SYZ_TRY(syz_comm_agree(comm->host, mine));
    if (mine.n == 0) return SYZ_OK;
    ncclResult_t result = ncclGroupStart();
    for (int64_t k = 0; k < arrays && (result == ncclSuccess || result == ncclInProgress); k++)
        if (n[k])
            result = ncclAllReduce(data[k], data[k], (size_t)n[k], type_of(dtype), reduction_of(how), self->comm,
                                   current_stream());
    ncclResult_t ended = ncclGroupEnd();
    if (result == ncclSuccess || result == ncclInProgress) result = ended;
    return settle(self, result, "all_reduce");
}

static syz_status nccl_reduce_scatter(syz_comm *comm, void *small, const void *large, int64_t n, syz_dtype dtype,
                                      syz_reduction how) {
    nccl *self = (nccl *)comm;
    SYZ_TRY(syz_comm_agree(
        comm->host,
        (syz_comm_intention){.operation = SYZ_REDUCE_SCATTER, .dtype = dtype, .how = how, .n = (uint64_t)n}));
    if (n == 0) return SYZ_OK;
    ncclResult_t result =
        ncclReduceScatter(large, small, (size_t)n, type_of(dtype), reduction_of(how), self->comm, current_stream());
    return settle(self, result, "reduce_scatter");
}

static syz_status nccl_all_gather(syz_comm *comm, void *large, const void *small, int64_t n, syz_dtype dtype) {
    nccl *self = (nccl *)comm;
    SYZ_TRY(syz_comm_agree(comm->host,
                           (syz_comm_intention){.operation = SYZ_ALL_GATHER, .dtype = dtype, .n = (uint64_t)n}));
    if (n == 0) return SYZ_OK;
    size_t bytes = (size_t)n * syz_dtype_size(dtype);
    return settle(self, ncclAllGather(small, large, bytes, ncclUint8, self->comm, current_stream()), "all_gather");
}

static syz_status nccl_broadcast(syz_comm *comm, void *data, int64_t n, syz_dtype dtype, int root) {
    nccl *self = (nccl *)comm;
    SYZ_TRY(syz_comm_agree(
        comm->host,
        (syz_comm_intention){.operation = SYZ_BROADCAST, .dtype = dtype, .root = (uint32_t)root, .n = (uint64_t)n}));
    if (n == 0) return SYZ_OK;
    size_t bytes = (size_t)n * syz_dtype_size(dtype);
    return settle(self, ncclBroadcast(data, data, bytes, ncclUint8, root, self->comm, current_stream()), "broadcast");
}

static syz_status nccl_barrier(syz_comm *comm) {
    SYZ_TRY(wait_for_stream((nccl *)comm, "barrier"));
    return comm->host->ops->barrier(comm->host);
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static syz_status nccl_check_memory(const syz_tensor *t, const char *name) {
    struct cudaPointerAttributes found;
    int device = 0;
    if (syz_numel(t) == 0) return SYZ_OK;
    cudaError_t error = cudaPointerGetAttributes(&found, syz_data(t));
    if (error == cudaSuccess) error = cudaGetDevice(&device);
    if (error != cudaSuccess) return syz_fail(SYZ_EIO, "%s: CUDA: %s", name, cudaGetErrorString(error));
    if (found.type != cudaMemoryTypeDevice)
        return syz_fail(SYZ_EINVAL,
                        "%s: the tensor %s is in host memory; nccl takes tensors on the GPU, tcp those on "
                        "the host",
                        name, syz_dims(t));
    if (found.device != device)
        return syz_fail(SYZ_EINVAL, "%s: the tensor %s is on GPU %d, the comm on GPU %d", name, syz_dims(t),
                        found.device, device);
    return SYZ_OK;
}

/* ---- life -------------------------------------------------------------------------------------------------------- */

static void nccl_abandon(syz_comm *comm) {
    nccl *self = (nccl *)comm;
    comm->host->ops->abandon(comm->host); /* first: an abort may take its time, and the others are to know */
    if (self->comm) ncclCommAbort(self->comm);
    self->comm = NULL;
}

/* Whether NCCL could end what it has begun. Not so once another rank has left, which is no error. */
static bool finalize(nccl *self) {
    if (syz_failed()) return false;
    bool done = settle(self, ncclCommFinalize(self->comm), "end") == SYZ_OK;
    syz_error_clear();
    return done;
}

static void nccl_free(syz_comm *comm) {
    nccl *self = (nccl *)comm;
    if (self->comm) {
        if (finalize(self))
            ncclCommDestroy(self->comm);
        else
            ncclCommAbort(self->comm);
    }
    syz_comm_free(comm->host);
    free(self);
}

static const syz_comm_ops nccl_ops = {
    .name = "nccl",
    .all_reduce = nccl_all_reduce,
    .reduce_scatter = nccl_reduce_scatter,
    .all_gather = nccl_all_gather,
    .broadcast = nccl_broadcast,
    .barrier = nccl_barrier,
    .wait = nccl_wait,
    .check_memory = nccl_check_memory,
    .abandon = nccl_abandon,
    .free = nccl_free,
};

static syz_status take_gpu(int local_rank) {
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess) return syz_fail(SYZ_EUNSUPPORTED, "comm: no GPU to use: %s", cudaGetErrorString(error));
    if (local_rank >= count)
        return syz_fail(SYZ_EINVAL,
                        "comm: local rank %d has no GPU: this machine shows %d; each rank needs one of its "
                        "own (LOCAL_RANK)",
                        local_rank, count);
    error = cudaSetDevice(local_rank);
    if (error != cudaSuccess)
        return syz_fail(SYZ_EIO, "comm: GPU %d cannot be used: %s", local_rank, cudaGetErrorString(error));
    return SYZ_OK;
}

static syz_status join(nccl *self) {
    syz_comm *host = self->base.host;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclUniqueId id = {{0}};
    config.blocking = 0;
    if (self->base.rank == 0) {
        ncclResult_t result = ncclGetUniqueId(&id);
        if (result != ncclSuccess) return failed(self, result, "comm");
    }
    SYZ_TRY(host->ops->broadcast(host, &id, sizeof id, SYZ_U8, 0));
    return settle(self, ncclCommInitRankConfig(&self->comm, self->base.size, id, self->base.rank, &config), "comm");
}

syz_status syz_comm_nccl(syz_comm **comm, const syz_comm_options *options) {
    SYZ_TRY(take_gpu(options->local_rank));
    nccl *self = syz_alloc(1, sizeof *self);
    if (!self) return SYZ_ENOMEM;
    self->base = (syz_comm){.ops = &nccl_ops, .rank = options->rank, .size = options->size};
    self->timeout = options->timeout;
    syz_status status = syz_comm_tcp(&self->base.host, options);
    if (status == SYZ_OK) status = join(self);
    if (status != SYZ_OK) {
        nccl_free(&self->base);
        return status;
    }
    *comm = &self->base;
    return SYZ_OK;
}
