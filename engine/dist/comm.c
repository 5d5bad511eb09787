/* The interface: arguments are checked here, once for all kinds; and the kind of one process. */
#include "dist/comm.h"
#include "core/alloc.h"
#include "optim/group.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* ---- the environment --------------------------------------------------------------------------------------------- */

/* An integer variable; `missing` when it is not set. */
static syz_status read_variable(int *value, const char *name, int low, int high, int missing) {
    const char *text = getenv(name);
    char *end;
    *value = missing;
    if (!text || !*text) return SYZ_OK;
    long number = strtol(text, &end, 10);
    if (*end || number < low || number > high)
        return syz_fail(SYZ_EINVAL, "%s is \"%.40s\": a whole number from %d to %d expected", name, text, low, high);
    *value = (int)number;
    return SYZ_OK;
}

/* The agent of torchrun listens at MASTER_PORT itself, and says so. */
static bool port_is_taken_by_launcher(void) {
    const char *store = getenv("TORCHELASTIC_USE_AGENT_STORE");
    return store && strcmp(store, "True") == 0;
}

syz_status syz_comm_environment(syz_comm_options *options) {
    int seconds, port;
    *options = (syz_comm_options){.size = 1, .address = getenv("MASTER_ADDR")};
    SYZ_TRY(read_variable(&options->size, "WORLD_SIZE", 1, SYZ_COMM_MAX_SIZE, 1));
    SYZ_TRY(read_variable(&options->rank, "RANK", 0, options->size - 1, -1));
    SYZ_TRY(read_variable(&options->local_rank, "LOCAL_RANK", 0, options->size - 1, -1));
    SYZ_TRY(read_variable(&port, "MASTER_PORT", 1, 65535, 0));
    if (port && port_is_taken_by_launcher()) port = port < 65535 ? port + 1 : 1024;
    SYZ_TRY(read_variable(&options->port, "SYZ_COMM_PORT", 1, 65535, port));
    SYZ_TRY(read_variable(&seconds, "SYZ_COMM_TIMEOUT", 1, 1000000, 1800));
    options->timeout = seconds;
    if (options->size == 1) options->rank = 0;
    if (options->rank < 0)
        return syz_fail(SYZ_EINVAL, "WORLD_SIZE is %d but RANK is not set: start every process with its RANK, 0 to %d",
                        options->size, options->size - 1);
    if (options->local_rank < 0) options->local_rank = options->rank; /* as on one machine */
    if (options->size > 1 && !options->port)
        return syz_fail(SYZ_EINVAL, "WORLD_SIZE is %d but MASTER_PORT is not set: choose one port, the same for all",
                        options->size);
    return SYZ_OK;
}

/* ---- creation ---------------------------------------------------------------------------------------------------- */

static syz_status check_options(const syz_comm_options *o) {
    if (o->size < 1 || o->size > SYZ_COMM_MAX_SIZE)
        return syz_fail(SYZ_EINVAL, "comm: size is %d: 1 to %d expected", o->size, SYZ_COMM_MAX_SIZE);
    if (o->rank < 0 || o->rank >= o->size)
        return syz_fail(SYZ_EINVAL, "comm: rank is %d: 0 to %d expected", o->rank, o->size - 1);
    if (o->local_rank < 0) return syz_fail(SYZ_EINVAL, "comm: local_rank is %d: it begins at 0", o->local_rank);
    if (o->size > 1 && (o->port < 1 || o->port > 65535))
        return syz_fail(SYZ_EINVAL, "comm: port is %d: 1 to 65535 expected", o->port);
    if (!(o->timeout > 0 && o->timeout <= 1e6))
        return syz_fail(SYZ_EINVAL, "comm: timeout is %g: seconds above 0 expected", o->timeout);
    return SYZ_OK;
}

#ifndef SYZ_NCCL /* comm_nccl.c is left out */
syz_status syz_comm_nccl(syz_comm **comm, const syz_comm_options *options) {
    (void)comm, (void)options;
    return syz_fail(SYZ_EUNSUPPORTED, "comm: this build has no NCCL: build it with cmake --preset cuda where NCCL is "
                                      "installed (docs/distributed.md), or take tcp");
}
#endif

syz_status syz_comm_create(syz_comm **comm, const char *kind, const syz_comm_options *options) {
    syz_comm_options environment;
    *comm = NULL;
    if (syz_failed()) return syz_error_status();
    if (!options) {
        SYZ_TRY(syz_comm_environment(&environment));
        options = &environment;
    }
    SYZ_TRY(check_options(options));
    if (!kind) kind = options->size == 1 ? "single" : "tcp";
    if (strcmp(kind, "single") == 0) return syz_comm_single(comm, options);
    if (strcmp(kind, "tcp") == 0) return syz_comm_tcp(comm, options);
    if (strcmp(kind, "nccl") == 0) return syz_comm_nccl(comm, options);
    return syz_fail(SYZ_EINVAL, "comm: unknown kind \"%.40s\": single, tcp or nccl", kind);
}

void syz_comm_free(syz_comm *comm) {
    if (!comm) return;
    free(comm->broken);
    comm->ops->free(comm);
}

const char *syz_comm_kind(const syz_comm *comm) {
    return comm->ops->name;
}

int syz_comm_rank(const syz_comm *comm) {
    return comm->rank;
}

int syz_comm_size(const syz_comm *comm) {
    return comm->size;
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

static syz_status check_comm(const syz_comm *comm, const char *name) {
    if (syz_failed()) return syz_error_status();
    if (!comm) return syz_fail(SYZ_EINVAL, "%s: no comm", name);
    if (comm->broken) return syz_fail(SYZ_EIO, "%s: the comm has ended: %s", name, comm->broken);
    return SYZ_OK;
}

/* A living tensor in the kind's memory that may be written, where `writes`. */
static syz_status check_tensor(const syz_comm *comm, const syz_tensor *t, const char *name, bool writes) {
    if (!t) return syz_fail(SYZ_EINVAL, "%s: no tensor", name);
    if (!syz_alive(t)) return syz_fail(SYZ_EINVAL, "%s: the tensor was freed when its scope ended", name);
    if (writes && t->storage->release)
        return syz_fail(SYZ_EINVAL, "%s: the tensor is mapped from a file and read-only; :copy() it first", name);
    return comm->ops->check_memory(t, name);
}

static syz_status check_reducible(const syz_tensor *t, const char *name) {
    if (t->dtype == SYZ_F32 || t->dtype == SYZ_BF16) return SYZ_OK;
    return syz_fail(SYZ_EDTYPE, "%s: the tensor is %s; sums are of f32 or bf16", name, syz_dtype_name(t->dtype));
}

static syz_status check_parts(const syz_comm *comm, const syz_tensor *small, const syz_tensor *large,
                              const char *name) {
    if (small->dtype != large->dtype)
        return syz_fail(SYZ_EDTYPE, "%s: the tensors are %s and %s; they must have one dtype", name,
                        syz_dtype_name(small->dtype), syz_dtype_name(large->dtype));
    if (syz_numel(large) != comm->size * syz_numel(small))
        return syz_fail(SYZ_ESHAPE, "%s: %s is not %d times as large as %s", name, syz_dims(large), comm->size,
                        syz_dims(small));
    if (small->storage == large->storage)
        return syz_fail(SYZ_EINVAL, "%s: both tensors share one memory; the result needs its own", name);
    return SYZ_OK;
}

/* What went wrong inside a kind leaves the ranks at different places of the sequence: nothing can follow. */
static syz_status concluded(syz_comm *comm, syz_status status) {
    if (status == SYZ_OK) return SYZ_OK;
    comm->broken = strdup(syz_error_message());
    comm->ops->abandon(comm);
    return status;
}

syz_status syz_comm_all_reduce(syz_comm *comm, syz_tensor *t, syz_reduction how) {
    SYZ_TRY(check_comm(comm, "all_reduce"));
    SYZ_TRY(check_tensor(comm, t, "all_reduce", true));
    SYZ_TRY(check_reducible(t, "all_reduce"));
    int64_t n = syz_numel(t);
    syz_touch(t);
    return concluded(comm, comm->ops->all_reduce(comm, (void *[]){syz_data(t)}, &n, 1, t->dtype, how));
}

syz_status syz_comm_reduce_scatter(syz_comm *comm, syz_tensor *small, const syz_tensor *large, syz_reduction how) {
    SYZ_TRY(check_comm(comm, "reduce_scatter"));
    SYZ_TRY(check_tensor(comm, small, "reduce_scatter", true));
    SYZ_TRY(check_tensor(comm, large, "reduce_scatter", false));
    SYZ_TRY(check_reducible(large, "reduce_scatter"));
    SYZ_TRY(check_parts(comm, small, large, "reduce_scatter"));
    syz_touch(small);
    return concluded(
        comm, comm->ops->reduce_scatter(comm, syz_data(small), syz_data(large), syz_numel(small), small->dtype, how));
}

syz_status syz_comm_all_gather(syz_comm *comm, syz_tensor *large, const syz_tensor *small) {
    SYZ_TRY(check_comm(comm, "all_gather"));
    SYZ_TRY(check_tensor(comm, large, "all_gather", true));
    SYZ_TRY(check_tensor(comm, small, "all_gather", false));
    SYZ_TRY(check_parts(comm, small, large, "all_gather"));
    syz_touch(large);
    return concluded(comm,
                     comm->ops->all_gather(comm, syz_data(large), syz_data(small), syz_numel(small), small->dtype));
}

syz_status syz_comm_broadcast(syz_comm *comm, syz_tensor *t, int root) {
    SYZ_TRY(check_comm(comm, "broadcast"));
    SYZ_TRY(check_tensor(comm, t, "broadcast", comm->rank != root));
    if (root < 0 || root >= comm->size)
        return syz_fail(SYZ_EINVAL, "broadcast: there is no rank %d: 0 to %d expected", root, comm->size - 1);
    syz_touch(t);
    return concluded(comm, comm->ops->broadcast(comm, syz_data(t), syz_numel(t), t->dtype, root));
}

syz_status syz_comm_barrier(syz_comm *comm) {
    SYZ_TRY(check_comm(comm, "barrier"));
    return concluded(comm, comm->ops->barrier(comm));
}

/* ---- gradients --------------------------------------------------------------------------------------------------- */

/* Ranks with other parameters would go on with wrong sums, or wait for each other. */
static syz_status check_same_parameters(syz_comm *comm, syz_tensor *const params[], int64_t count) {
    int64_t mine[2] = {count, 0}, *all = syz_alloc((size_t)comm->size, sizeof mine);
    if (!all) return SYZ_ENOMEM;
    for (int64_t k = 0; k < count; k++)
        mine[1] += syz_numel(params[k]);
    syz_status status = comm->host->ops->all_gather(comm->host, all, mine, 2, SYZ_I64);
    for (int r = 0; r < comm->size && status == SYZ_OK; r++)
        if (all[2 * r] != mine[0] || all[2 * r + 1] != mine[1])
            status = syz_fail(SYZ_ESHAPE,
                              "all_reduce_grads: %lld parameters of %lld numbers here (rank %d), %lld of %lld on rank "
                              "%d: every rank must train the same model",
                              (long long)mine[0], (long long)mine[1], comm->rank, (long long)all[2 * r],
                              (long long)all[2 * r + 1], r);
    free(all);
    return status;
}

/* A gradient that may be written: zeros where only another rank has one, a copy where somebody else sees the values
 * (two parameters that were added share one gradient). */
static syz_status own_gradient(syz_tensor *param) {
    syz_tensor *grad = param->grad;
    if (grad && grad->refs == 1 && grad->storage->refs == 1) return SYZ_OK;
    grad = grad ? syz_copy(grad) : syz_zeros_beside(param, SYZ_F32, param->shape);
    return grad ? syz_set_grad(param, grad) : syz_error_status();
}

/* present [count]: on how many ranks each parameter has a gradient. */
static syz_status reduce_present(syz_comm *comm, syz_tensor *const params[], int64_t count, const float *present) {
    void **data = syz_alloc((size_t)count + 1, sizeof *data);
    int64_t *n = syz_alloc((size_t)count + 1, sizeof *n), arrays = 0;
    syz_status status = data && n ? SYZ_OK : SYZ_ENOMEM;
    for (int64_t k = 0; k < count && status == SYZ_OK; k++) {
        if (present[k] == 0) continue;
        status = own_gradient(params[k]);
        if (status == SYZ_OK) status = comm->ops->check_memory(params[k]->grad, "all_reduce_grads");
        if (status != SYZ_OK) break;
        data[arrays] = syz_data(params[k]->grad);
        n[arrays++] = syz_numel(params[k]->grad);
    }
    if (status == SYZ_OK) status = comm->ops->all_reduce(comm, data, n, arrays, SYZ_F32, SYZ_MEAN);
    if (status == SYZ_OK && comm->ops->wait) status = comm->ops->wait(comm);
    free(data);
    free(n);
    return status;
}

static syz_status reduce_grads(syz_comm *comm, syz_tensor *const params[], int64_t count) {
    SYZ_TRY(check_same_parameters(comm, params, count));
    float *present = syz_alloc((size_t)count + 1, sizeof *present);
    if (!present) return SYZ_ENOMEM;
    for (int64_t k = 0; k < count; k++)
        present[k] = params[k]->grad != NULL;
    syz_status status = comm->host->ops->all_reduce(comm->host, (void *[]){present}, &count, 1, SYZ_F32, SYZ_SUM);
    if (status == SYZ_OK) status = syz_scope_push();
    if (status == SYZ_OK) {
        status = reduce_present(comm, params, count, present);
        syz_scope_pop();
    }
    free(present);
    return status;
}

syz_status syz_comm_all_reduce_grads(syz_comm *comm, syz_tensor *const params[], int64_t count) {
    SYZ_TRY(check_comm(comm, "all_reduce_grads"));
    for (int64_t k = 0; k < count; k++) {
        const syz_tensor *grad = params[k]->grad;
        if (grad && grad->dtype != SYZ_F32)
            return syz_fail(SYZ_EDTYPE, "all_reduce_grads: the gradient of parameter %lld is %s, not f32", (long long)k,
                            syz_dtype_name(grad->dtype));
    }
    return concluded(comm, reduce_grads(comm, params, count));
}

/* ---- one process ------------------------------------------------------------------------------------------------- */

static syz_status single_all_reduce(syz_comm *comm, void *const data[], const int64_t n[], int64_t arrays,
                                    syz_dtype dtype, syz_reduction how) {
    (void)comm, (void)data, (void)n, (void)arrays, (void)dtype, (void)how;
    return SYZ_OK;
}

static syz_status single_reduce_scatter(syz_comm *comm, void *small, const void *large, int64_t n, syz_dtype dtype,
                                        syz_reduction how) {
    (void)comm, (void)how;
    if (n) memcpy(small, large, (size_t)n * syz_dtype_size(dtype));
    return SYZ_OK;
}

static syz_status single_all_gather(syz_comm *comm, void *large, const void *small, int64_t n, syz_dtype dtype) {
    return single_reduce_scatter(comm, large, small, n, dtype, SYZ_SUM);
}

static syz_status single_broadcast(syz_comm *comm, void *data, int64_t n, syz_dtype dtype, int root) {
    (void)comm, (void)data, (void)n, (void)dtype, (void)root;
    return SYZ_OK;
}

static syz_status single_barrier(syz_comm *comm) {
    (void)comm;
    return SYZ_OK;
}

static void single_abandon(syz_comm *comm) {
    (void)comm;
}

static void single_free(syz_comm *comm) {
    free(comm);
}

syz_status syz_comm_host_memory(const syz_tensor *t, const char *name) {
    if (t->device == 0) return SYZ_OK;
    return syz_fail(SYZ_EINVAL, "%s: the tensor %s is on %s; a comm of kind nccl takes it, others those on the CPU",
                    name, syz_dims(t), syz_device_text(t->device));
}

static const syz_comm_ops single_ops = {
    .name = "single",
    .all_reduce = single_all_reduce,
    .reduce_scatter = single_reduce_scatter,
    .all_gather = single_all_gather,
    .broadcast = single_broadcast,
    .barrier = single_barrier,
    .check_memory = syz_comm_host_memory,
    .abandon = single_abandon,
    .free = single_free,
};

syz_status syz_comm_single(syz_comm **comm, const syz_comm_options *options) {
    if (options->size != 1)
        return syz_fail(SYZ_EINVAL, "a comm of kind single is of one process, not %d: take tcp or nccl", options->size);
    syz_comm *self = syz_alloc(1, sizeof *self);
    if (!self) return SYZ_ENOMEM;
    *self = (syz_comm){.ops = &single_ops, .size = 1, .host = self};
    *comm = self;
    return SYZ_OK;
}
