/* engine/dist/comm_nccl.c against the emulation of NCCL (tests/emu/nccl.c), which ends a process that misuses it. */
#include "dist/comm.h"
#include "kernels/half.h"
#include "nccl.h"
#include "ranks.h"

/* comm_nccl.c is compiled for this test under this name; the library's may be the real one, or that it is missing. */
syz_status emulated_comm_nccl(syz_comm **comm, const syz_comm_options *options);

#define NEED(condition)                                                                                                \
    do {                                                                                                               \
        static char text_[1200];                                                                                       \
        if (!(condition)) {                                                                                            \
            snprintf(text_, sizeof text_, "line %d: %s (%s)", __LINE__, #condition, syz_error_message());              \
            return text_;                                                                                              \
        }                                                                                                              \
    } while (0)

static syz_tensor *on_gpu(syz_tensor *t) {
    if (t) emulated_gpu_memory(syz_data(t), syz_nbytes(t));
    return t;
}

/* Whole numbers, exact in bf16, so that the order of a sum does not matter. */
static syz_tensor *numbers(int64_t n, syz_dtype dtype, int from) {
    syz_tensor *t = syz_empty(dtype, SYZ_SHAPE(n));
    for (int64_t i = 0; t && i < n; i++) {
        float x = (float)((i * 7 + from * 3) % 31);
        if (dtype == SYZ_BF16)
            ((uint16_t *)syz_data(t))[i] = syz_f32_to_bf16(x);
        else
            syz_f32(t)[i] = x;
    }
    return on_gpu(t);
}

static float at(const syz_tensor *t, int64_t i) {
    return t->dtype == SYZ_BF16 ? syz_bf16_to_f32(((uint16_t *)syz_data(t))[i]) : syz_f32(t)[i];
}

static float sum_at(int64_t i, int size) {
    float sum = 0;
    for (int r = 0; r < size; r++)
        sum += (float)((i * 7 + r * 3) % 31);
    return sum;
}

static const char *check_size(syz_comm *comm, int64_t n, syz_dtype dtype) {
    int rank = comm->rank, size = comm->size;
    syz_tensor *x = numbers(n, dtype, rank), *y = numbers(n, dtype, rank), *large = numbers(n * size, dtype, rank);
    syz_tensor *part = on_gpu(syz_zeros(dtype, SYZ_SHAPE(n))), *all = on_gpu(syz_zeros(dtype, SYZ_SHAPE(n * size)));
    syz_tensor *sent = numbers(n, dtype, rank);
    NEED(syz_comm_all_reduce(comm, x, SYZ_SUM) == SYZ_OK);
    NEED(syz_comm_all_reduce(comm, y, SYZ_MEAN) == SYZ_OK);
    NEED(syz_comm_reduce_scatter(comm, part, large, SYZ_SUM) == SYZ_OK);
    NEED(syz_comm_all_gather(comm, all, sent) == SYZ_OK);
    NEED(syz_comm_broadcast(comm, sent, size - 1) == SYZ_OK);
    NEED(syz_comm_barrier(comm) == SYZ_OK);
    for (int64_t i = 0; i < n; i++) {
        float mean = sum_at(i, size) / (float)size;
        NEED(at(x, i) == sum_at(i, size));
        NEED(at(y, i) == (dtype == SYZ_BF16 ? syz_bf16_to_f32(syz_f32_to_bf16(mean)) : mean));
        NEED(at(part, i) == sum_at(rank * n + i, size));
        NEED(at(sent, i) == (float)((i * 7 + (size - 1) * 3) % 31));
    }
    for (int64_t i = 0; i < n * size; i++)
        NEED(at(all, i) == (float)(((i % n) * 7 + (i / n) * 3) % 31));
    return NULL;
}

static const char *all_primitives(const syz_comm_options *options, const void *context) {
    static const int64_t sizes[] = {0, 1, 3, 1023, 70001};
    syz_comm *comm;
    (void)context;
    NEED(emulated_comm_nccl(&comm, options) == SYZ_OK);
    NEED(strcmp(syz_comm_kind(comm), "nccl") == 0);
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int k = 0; k < 2; k++) {
            const char *wrong = check_size(comm, sizes[s], k ? SYZ_BF16 : SYZ_F32);
            if (wrong) return wrong;
        }
    syz_tensor *ids = on_gpu(syz_from(SYZ_I64, SYZ_SHAPE(1), (int64_t[]){INT64_C(1) << 40 | options->rank}));
    NEED(syz_comm_broadcast(comm, ids, 1) == SYZ_OK && syz_comm_barrier(comm) == SYZ_OK);
    NEED(syz_i64(ids)[0] == (INT64_C(1) << 40 | 1));
    syz_comm_free(comm);
    return NULL;
}

static void test_primitives(void **state) {
    (void)state;
    for (int size = 2; size <= 4; size++) {
        emulated_nccl_share();
        run_ranks(size, all_primitives, NULL);
    }
}

static const char *gradients(const syz_comm_options *options, const void *context) {
    syz_comm *comm;
    syz_tensor *params[5];
    static const int64_t sizes[5] = {1, 38, 0, 75, 112};
    (void)context;
    NEED(emulated_comm_nccl(&comm, options) == SYZ_OK);
    for (int k = 0; k < 5; k++) {
        params[k] = syz_zeros(SYZ_F32, SYZ_SHAPE(sizes[k]));
        syz_set_requires_grad(params[k], true);
        syz_scope_push(); /* as after a backward pass: nobody else holds the gradient */
        if (k != 3) syz_set_grad(params[k], numbers(sizes[k], SYZ_F32, options->rank));
        syz_scope_pop();
    }
    NEED(syz_comm_all_reduce_grads(comm, params, 5) == SYZ_OK); /* waits: the values are there */
    for (int k = 0; k < 5; k++)
        for (int64_t i = 0; i < syz_numel(params[k]) && k != 3; i++)
            NEED(at(params[k]->grad, i) == sum_at(i, options->size) / (float)options->size);
    NEED(!params[3]->grad);
    syz_comm_free(comm);
    return NULL;
}

static void test_gradients(void **state) {
    (void)state;
    emulated_nccl_share();
    run_ranks(3, gradients, NULL);
}

/* ---- refusals and failures --------------------------------------------------------------------------------------- */

static const char *host_memory(const syz_comm_options *options, const void *context) {
    syz_comm *comm;
    (void)context;
    NEED(emulated_comm_nccl(&comm, options) == SYZ_OK);
    syz_tensor *x = check_tensor(SYZ_SHAPE(2), 1, 2);
    NEED(syz_comm_all_reduce(comm, x, SYZ_SUM) == SYZ_EINVAL);
    NEED(strcmp(syz_error_message(), "all_reduce: the tensor [2] is in host memory; nccl takes tensors on the GPU, tcp "
                                     "those on the host") == 0);
    syz_error_clear();
    cudaSetDevice(7);
    on_gpu(x);
    cudaSetDevice(options->rank);
    NEED(syz_comm_all_reduce(comm, x, SYZ_SUM) == SYZ_EINVAL);
    NEED(strstr(syz_error_message(), "the tensor [2] is on GPU 7, the comm on GPU "));
    syz_error_clear();
    on_gpu(x);
    NEED(syz_comm_all_reduce(comm, x, SYZ_SUM) == SYZ_OK && syz_comm_barrier(comm) == SYZ_OK);
    NEED(syz_f32(x)[1] == 4);
    syz_comm_free(comm);
    return NULL;
}

static void test_tensors_elsewhere_are_refused(void **state) {
    (void)state;
    emulated_nccl_share();
    run_ranks(2, host_memory, NULL);
}

static void test_gpus_that_are_missing(void **state) {
    (void)state;
    syz_comm *comm = NULL;
    syz_comm_options o = {.size = 1, .local_rank = 2, .timeout = 1};
    emulated_gpus(0);
    assert_int_equal(emulated_comm_nccl(&comm, &o), SYZ_EUNSUPPORTED);
    assert_string_equal(syz_error_message(), "comm: no GPU to use: no CUDA-capable device is detected");
    syz_error_clear();
    emulated_gpus(2);
    assert_int_equal(emulated_comm_nccl(&comm, &o), SYZ_EINVAL);
    assert_says(syz_error_message(), "local rank 2 has no GPU: this machine shows 2");
    syz_error_clear();
    emulated_gpus(RANKS_MOST);
    assert_null(comm);
}

/* Rank 1 differs, by what it calls (way 0) or by its end before (1) or after it has queued its part (2). */
static const char *one_fails(const syz_comm_options *options, const void *context) {
    int way = *(const int *)context;
    syz_comm *comm;
    NEED(emulated_comm_nccl(&comm, options) == SYZ_OK);
    syz_tensor *x = numbers(5, SYZ_F32, options->rank);
    NEED(syz_comm_all_reduce(comm, x, SYZ_SUM) == SYZ_OK && syz_comm_barrier(comm) == SYZ_OK);
    if (options->rank == 1 && way == 1) return NULL;
    syz_status status =
        options->rank == 1 && way == 0 ? syz_comm_broadcast(comm, x, 0) : syz_comm_all_reduce(comm, x, SYZ_SUM);
    if (options->rank == 1 && way == 2) return NULL; /* its part was never sent */
    if (status == SYZ_OK) status = syz_comm_barrier(comm);
    NEED(status != SYZ_OK);
    NEED(emulated_nccl_aborts() == 1);
    static char first[512];
    snprintf(first, sizeof first, "%s", syz_error_message());
    syz_error_clear();
    NEED(syz_comm_all_reduce(comm, x, SYZ_SUM) == SYZ_EIO);
    NEED(strstr(syz_error_message(), "all_reduce: the comm has ended: "));
    syz_comm_free(comm);
    return first;
}

static void test_ranks_that_fail(void **state) {
    (void)state;
    static const char *const parts[] = {"on rank 1", "all_reduce: rank 1 of 2 has ended",
                                        "barrier: rank 1 of 2 has ended"};
    for (int way = 0; way < 3; way++) {
        rank_results results;
        emulated_nccl_share();
        run_some_ranks(&results, ~0u, one_fails, (syz_comm_options){.size = 2, .timeout = 60}, &way);
        assert_says(results.said[0], parts[way]);
        if (way) assert_string_equal(results.said[1], "");
    }
}

static const char *never_done(const syz_comm_options *options, const void *context) {
    syz_comm *comm;
    (void)context;
    NEED(emulated_comm_nccl(&comm, options) == SYZ_OK);
    syz_tensor *x = numbers(5, SYZ_F32, options->rank);
    NEED(syz_comm_all_reduce(comm, x, SYZ_SUM) == SYZ_OK);
    if (options->rank == 1) { /* its GPU does nothing, its host waits */
        sleep(5);
        return NULL;
    }
    NEED(syz_comm_barrier(comm) == SYZ_EIO);
    return syz_error_message();
}

static void test_gpu_that_hangs(void **state) {
    (void)state;
    rank_results results;
    emulated_nccl_share();
    run_some_ranks(&results, ~0u, never_done, (syz_comm_options){.size = 2, .timeout = 2}, NULL);
    assert_string_equal(results.said[0], "barrier: the GPUs did not finish within 2 s (SYZ_COMM_TIMEOUT)");
}

static const char *remote_error(const syz_comm_options *options, const void *context) {
    syz_comm *comm;
    (void)context;
    NEED(emulated_comm_nccl(&comm, options) == SYZ_OK);
    syz_tensor *x = numbers(5, SYZ_F32, options->rank);
    emulated_nccl_fail_next(ncclRemoteError);
    NEED(syz_comm_all_reduce(comm, x, SYZ_SUM) == SYZ_EIO);
    NEED(emulated_nccl_aborts() == 1);
    return syz_error_message();
}

static void test_errors_of_nccl(void **state) {
    (void)state;
    rank_results results;
    emulated_nccl_share();
    run_some_ranks(&results, ~0u, remote_error, (syz_comm_options){.size = 1, .timeout = 60}, NULL);
    assert_string_equal(results.said[0], "all_reduce: NCCL: remote process exited or there was a network error: socket "
                                         "closed by peer (NCCL_DEBUG=INFO tells more)");
}

#ifndef SYZ_NCCL
static void test_build_without_nccl(void **state) {
    (void)state;
    syz_comm *comm;
    assert_int_equal(syz_comm_create(&comm, "nccl", &(syz_comm_options){.size = 1, .timeout = 1}), SYZ_EUNSUPPORTED);
    assert_says(syz_error_message(), "this build has no NCCL: build it with cmake --preset cuda");
    syz_error_clear();
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(test_primitives),
        CHECK_TEST(test_gradients),
        CHECK_TEST(test_tensors_elsewhere_are_refused),
        CHECK_TEST(test_gpus_that_are_missing),
        CHECK_TEST(test_ranks_that_fail),
        CHECK_TEST(test_gpu_that_hangs),
        CHECK_TEST(test_errors_of_nccl),
#ifndef SYZ_NCCL
        CHECK_TEST(test_build_without_nccl),
#endif
    };
    return cmocka_run_group_tests_name("comm_nccl", tests, NULL, NULL);
}
