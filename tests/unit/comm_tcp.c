/* Operations between processes over TCP: values against sums written out here, and what each rank says when another
 * one fails. */
#include "core/alloc.h"
#include "kernels/half.h"
#include "ranks.h"

/* ---- values ------------------------------------------------------------------------------------------------------ */

/* Element i of rank r's tensor: sums of these depend on their order. */
static float value(int rank, int64_t i, syz_dtype dtype) {
    uint32_t h = (uint32_t)i * 2654435761u + (uint32_t)rank * 40503u;
    float x = (float)(h >> 8) / 1000003.0f - 8.0f;
    return dtype == SYZ_BF16 ? syz_bf16_to_f32(syz_f32_to_bf16(x)) : x;
}

static double get(const syz_tensor *t, int64_t i) {
    return t->dtype == SYZ_BF16 ? syz_bf16_to_f32(((uint16_t *)syz_data(t))[i]) : syz_f32(t)[i];
}

static void put(syz_tensor *t, int64_t i, float x) {
    if (t->dtype == SYZ_BF16)
        ((uint16_t *)syz_data(t))[i] = syz_f32_to_bf16(x);
    else
        syz_f32(t)[i] = x;
}

static syz_tensor *values_of(int rank, int64_t n, syz_dtype dtype) {
    syz_tensor *t = syz_empty(dtype, SYZ_SHAPE(n));
    for (int64_t i = 0; t && i < n; i++)
        put(t, i, value(rank, i, dtype));
    return t;
}

static float expected_sum(int size, int64_t i, syz_dtype dtype, syz_reduction how) {
    float sum = value(0, i, dtype);
    for (int r = 1; r < size; r++)
        sum = sum + value(r, i, dtype);
    if (how == SYZ_MEAN) sum = sum / (float)size;
    return dtype == SYZ_BF16 ? syz_bf16_to_f32(syz_f32_to_bf16(sum)) : sum;
}

static const char *wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));
static const char *wrong(const char *format, ...) {
    static char text[1000];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return text;
}

#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        if ((call) != SYZ_OK) return wrong("%s: %s", #call, syz_error_message());                                      \
    } while (0)

#define NEED(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) return wrong("line %d: %s", __LINE__, #condition);                                           \
    } while (0)

static const char *check_reductions(syz_comm *comm, int64_t n, syz_dtype dtype, syz_reduction how) {
    int rank = syz_comm_rank(comm), size = syz_comm_size(comm);
    syz_tensor *x = values_of(rank, n, dtype);
    TRY(syz_comm_all_reduce(comm, x, how));
    for (int64_t i = 0; i < n; i++)
        if (get(x, i) != expected_sum(size, i, dtype, how))
            return wrong("all_reduce of %lld %s: element %lld is %.9g, not %.9g", (long long)n, syz_dtype_name(dtype),
                         (long long)i, get(x, i), expected_sum(size, i, dtype, how));
    syz_tensor *large = values_of(rank, n * size, dtype), *small = syz_empty(dtype, SYZ_SHAPE(n));
    TRY(syz_comm_reduce_scatter(comm, small, large, how));
    for (int64_t i = 0; i < n; i++)
        NEED(get(small, i) == expected_sum(size, rank * n + i, dtype, how));
    for (int64_t i = 0; i < n * size; i++)
        NEED(get(large, i) == value(rank, i, dtype)); /* only read */
    return NULL;
}

static const char *check_moves(syz_comm *comm, int64_t n, syz_dtype dtype) {
    int rank = syz_comm_rank(comm), size = syz_comm_size(comm);
    syz_tensor *small = values_of(rank, n, dtype), *large = syz_zeros(dtype, SYZ_SHAPE(n * size));
    TRY(syz_comm_all_gather(comm, large, small));
    for (int64_t i = 0; i < n * size; i++)
        NEED(get(large, i) == value((int)(i / n), i % n, dtype));
    for (int root = 0; root < size; root++) {
        syz_tensor *x = values_of(rank, n, dtype);
        TRY(syz_comm_broadcast(comm, x, root));
        for (int64_t i = 0; i < n; i++)
            NEED(get(x, i) == value(root, i, dtype));
    }
    return NULL;
}

/* Larger than what travels at once, by a prime. */
#define LARGE ((1 << 18) * 5 + 13)

static const char *all_primitives(const syz_comm_options *options, const void *context) {
    static const int64_t sizes[] = {0, 1, 2, 3, 7, 1023, 1025, 70001};
    static const syz_dtype dtypes[] = {SYZ_F32, SYZ_BF16};
    syz_comm *comm;
    const char *bad = NULL;
    (void)context;
    TRY(syz_comm_create(&comm, NULL, options));
    NEED(strcmp(syz_comm_kind(comm), "tcp") == 0);
    NEED(syz_comm_rank(comm) == options->rank && syz_comm_size(comm) == options->size);
    for (int k = 0; k < 2 && !bad; k++) {
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes && !bad; s++) {
            bad = check_reductions(comm, sizes[s], dtypes[k], SYZ_SUM);
            if (!bad) bad = check_reductions(comm, sizes[s], dtypes[k], SYZ_MEAN);
            if (!bad) bad = check_moves(comm, sizes[s], dtypes[k]);
        }
        if (!bad) bad = check_reductions(comm, LARGE, dtypes[k], SYZ_SUM);
        if (!bad) bad = check_moves(comm, LARGE, dtypes[k]);
    }
    if (bad) return bad;
    TRY(syz_comm_barrier(comm));
    syz_comm_free(comm);
    return NULL;
}

static void test_two(void **state) {
    (void)state;
    run_ranks(2, all_primitives, NULL);
}

static void test_three(void **state) {
    (void)state;
    run_ranks(3, all_primitives, NULL);
}

static void test_four(void **state) {
    (void)state;
    run_ranks(4, all_primitives, NULL);
}

static const char *integers(const syz_comm_options *options, const void *context) {
    syz_comm *comm;
    (void)context;
    TRY(syz_comm_create(&comm, "tcp", options));
    syz_tensor *mine = syz_from(SYZ_I64, SYZ_SHAPE(1), (int64_t[]){INT64_C(1) << 60 | options->rank});
    syz_tensor *all = syz_zeros(SYZ_I64, SYZ_SHAPE(options->size));
    TRY(syz_comm_all_gather(comm, all, mine));
    for (int r = 0; r < options->size; r++)
        NEED(syz_i64(all)[r] == (INT64_C(1) << 60 | r));
    TRY(syz_comm_broadcast(comm, mine, 1));
    NEED(syz_i64(mine)[0] == (INT64_C(1) << 60 | 1));
    syz_comm_free(comm);
    return NULL;
}

static void test_other_dtypes_are_moved(void **state) {
    (void)state;
    run_ranks(3, integers, NULL);
}

/* No rank leaves before the last has come: each adds itself to a file, and after the barrier all are in it. */
static const char *barrier(const syz_comm_options *options, const void *context) {
    int fd = *(const int *)context;
    syz_comm *comm;
    TRY(syz_comm_create(&comm, "tcp", options));
    for (int round = 1; round <= 20; round++) {
        if (options->rank == round % options->size) usleep(2000);
        if (write(fd, "x", 1) != 1) return wrong("write");
        TRY(syz_comm_barrier(comm));
        NEED(lseek(fd, 0, SEEK_END) >= (off_t)round * options->size);
        TRY(syz_comm_barrier(comm));
    }
    syz_comm_free(comm);
    return NULL;
}

static void test_barrier(void **state) {
    (void)state;
    char path[] = "/tmp/syz-comm-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    unlink(path);
    run_ranks(3, barrier, &fd);
    close(fd);
}

/* ---- gradients --------------------------------------------------------------------------------------------------- */

static syz_tensor *parameter(int64_t n) {
    syz_tensor *t = syz_zeros(SYZ_F32, SYZ_SHAPE(n));
    if (t) syz_set_requires_grad(t, true);
    return t;
}

/* Small ones that share a bucket, one beyond it, one without a gradient on rank 0, one without on all, two that share
 * one gradient. */
static const char *gradients(const syz_comm_options *options, const void *context) {
    enum { COUNT = 8, NOWHERE = 6 };
    static const int64_t sizes[COUNT] = {5, 1, 4000003, 3000017, 6600001, 31, 17, 31};
    syz_comm *comm;
    syz_tensor *params[COUNT];
    int size = options->size;
    (void)context;
    TRY(syz_comm_create(&comm, "tcp", options));
    for (int k = 0; k < COUNT; k++) {
        params[k] = parameter(sizes[k]);
        NEED(params[k]);
        if (k == NOWHERE || (k == 1 && options->rank == 0)) continue;
        syz_scope_push(); /* as after a backward pass: nobody else holds the gradient */
        syz_set_grad(params[k], k == 7 ? params[5]->grad : values_of(options->rank, sizes[k], SYZ_F32));
        syz_scope_pop();
    }
    const syz_tensor *held = syz_alias(params[0]->grad); /* by a script: keeps its values */
    TRY(syz_comm_all_reduce_grads(comm, params, COUNT));
    NEED(params[5]->grad != params[7]->grad);
    for (int64_t i = 0; i < sizes[0]; i++)
        NEED(syz_f32(held)[i] == value(options->rank, i, SYZ_F32));
    for (int k = 0; k < COUNT; k++) {
        const syz_tensor *grad = params[k]->grad;
        if (k == NOWHERE) {
            NEED(!grad);
            continue;
        }
        for (int64_t i = 0; i < sizes[k]; i++) {
            float expected = expected_sum(size, i, SYZ_F32, SYZ_MEAN);
            if (k == 1) { /* rank 0 counts as zero */
                expected = 0;
                for (int r = 1; r < size; r++)
                    expected += value(r, i, SYZ_F32);
                expected /= (float)size;
            }
            if (syz_f32(grad)[i] != expected)
                return wrong("gradient %d, element %lld: %.9g, not %.9g", k, (long long)i, syz_f32(grad)[i], expected);
        }
    }
    syz_comm_free(comm);
    return NULL;
}

static void test_gradients(void **state) {
    (void)state;
    run_ranks(3, gradients, NULL);
}

static const char *other_models(const syz_comm_options *options, const void *context) {
    syz_comm *comm;
    (void)context;
    TRY(syz_comm_create(&comm, "tcp", options));
    syz_tensor *params[] = {parameter(4 + options->rank)};
    TRY(syz_comm_all_reduce_grads(comm, params, 1));
    return NULL;
}

static void test_ranks_of_other_models(void **state) {
    (void)state;
    rank_results results;
    run_some_ranks(&results, ~0u, other_models, (syz_comm_options){.size = 2, .timeout = 60}, NULL);
    assert_says(results.said[0], "1 parameters of 4 numbers here (rank 0), 1 of 5 on rank 1");
    assert_says(results.said[1], "1 parameters of 5 numbers here (rank 1), 1 of 4 on rank 0");
}

/* Rank 1 runs out of memory at allocation n, if there is one. */
static const char *out_of_memory(const syz_comm_options *options, const void *context) {
    syz_comm *comm;
    syz_tensor *params[] = {parameter(3), parameter(4)};
    TRY(syz_comm_create(&comm, "tcp", options));
    syz_scope_push();
    syz_set_grad(params[0], values_of(options->rank, 3, SYZ_F32)); /* the other one counts as zero on rank 1 */
    if (options->rank == 0) syz_set_grad(params[1], values_of(options->rank, 4, SYZ_F32));
    syz_scope_pop();
    if (options->rank == 1) syz_fault_set(*(const int *)context, false);
    syz_status status = syz_comm_all_reduce_grads(comm, params, 2);
    syz_fault_set(-1, false);
    syz_comm_free(comm);
    return status == SYZ_OK ? NULL : syz_error_message();
}

static void test_failed_allocations(void **state) {
    (void)state;
    rank_results results;
    int n = 0;
    do {
        run_some_ranks(&results, ~0u, out_of_memory, (syz_comm_options){.size = 2, .timeout = 60}, &n);
        if (!results.said[1][0]) break;
        assert_says(results.said[1], "out of memory");
        assert_says(results.said[0], "rank 1 of 2 has ended");
    } while (++n < 100);
    assert_string_equal(results.said[0], "");
    assert_true(n >= 7);
}

/* ---- ranks that fail --------------------------------------------------------------------------------------------- */

typedef struct {
    int rank;      /* who fails */
    bool silently; /* by doing nothing, for longer than the time-out; else by its end */
} failure;

static const char *one_fails(const syz_comm_options *options, const void *context) {
    const failure *f = context;
    syz_comm *comm;
    TRY(syz_comm_create(&comm, "tcp", options));
    syz_tensor *x = values_of(options->rank, 1000, SYZ_F32);
    TRY(syz_comm_all_reduce(comm, x, SYZ_SUM));
    if (options->rank == f->rank) {
        if (!f->silently) return NULL;
        sleep(7);
        return NULL;
    }
    syz_status status = syz_comm_all_reduce(comm, x, SYZ_SUM);
    NEED(status == SYZ_EIO);
    static char first[512];
    snprintf(first, sizeof first, "%s", syz_error_message());
    syz_error_clear();
    NEED(syz_comm_barrier(comm) == SYZ_EIO); /* at once, with the cause */
    NEED(strstr(syz_error_message(), "barrier: the comm has ended: all_reduce: rank"));
    syz_comm_free(comm);
    return first;
}

static void test_rank_that_dies(void **state) {
    (void)state;
    for (int dead = 0; dead < 3; dead += 2) {
        rank_results results;
        char part[64];
        run_some_ranks(&results, ~0u, one_fails, (syz_comm_options){.size = 3, .timeout = 60},
                       &(failure){.rank = dead});
        assert_string_equal(results.said[dead], "");
        for (int r = 0; r < 3; r++) {
            snprintf(part, sizeof part, "%d", dead);
            if (r == dead) continue;
            assert_says(results.said[r], "all_reduce: rank");
            assert_says(results.said[r], part);
            assert_says(results.said[r], "ended");
        }
    }
}

static void test_rank_that_is_silent(void **state) {
    (void)state;
    rank_results results;
    run_some_ranks(&results, ~0u, one_fails, (syz_comm_options){.size = 2, .timeout = 2},
                   &(failure){.rank = 1, .silently = true});
    assert_string_equal(results.said[1], "");
    assert_string_equal(results.said[0], "all_reduce: rank 1 of 2 did not answer within 2 s (SYZ_COMM_TIMEOUT)");
}

/* Rank 1 differs from the others in what it calls. */
static const char *disagrees(const syz_comm_options *options, const void *context) {
    int way = *(const int *)context;
    syz_comm *comm;
    TRY(syz_comm_create(&comm, "tcp", options));
    bool other = options->rank == 1;
    TRY(syz_comm_barrier(comm));
    syz_tensor *x = syz_zeros(way == 2 && other ? SYZ_BF16 : SYZ_F32, SYZ_SHAPE(way == 1 && other ? 6 : 5));
    syz_status status = way == 0 && other ? syz_comm_broadcast(comm, x, 2)
                                          : syz_comm_all_reduce(comm, x, way == 3 && other ? SYZ_MEAN : SYZ_SUM);
    NEED(status == SYZ_EINVAL || status == SYZ_EIO); /* EIO: another has noticed first, and ended */
    return syz_error_message();
}

static void test_ranks_that_disagree(void **state) {
    (void)state;
    static const char *const parts[] = {"broadcast of 5 f32 from rank 2", "all_reduce of 6 f32 as a sum",
                                        "all_reduce of 5 bf16 as a sum", "all_reduce of 5 f32 as a mean"};
    for (int way = 0; way < 4; way++) {
        rank_results results;
        run_some_ranks(&results, ~0u, disagrees, (syz_comm_options){.size = 3, .timeout = 60}, &way);
        int told = 0;
        for (int r = 0; r < 3; r++) {
            assert_true(results.said[r][0] != '\0');
            if (!strstr(results.said[r], "operation 2 is")) continue;
            told++;
            assert_says(results.said[r], parts[way]);
            assert_says(results.said[r], "on rank 1");
            assert_says(results.said[r], "all_reduce of 5 f32 as a sum on rank");
        }
        assert_true(told > 0);
    }
}

/* What asks a rank to stop ends its waiting; the others learn that it has ended. */
static const char *canceled(const syz_comm_options *options, const void *context) {
    syz_comm *comm;
    (void)context;
    TRY(syz_comm_create(&comm, "tcp", options));
    if (options->rank == 0) syz_cancel();
    if (options->rank == 1) usleep(50000);
    syz_status status = syz_comm_barrier(comm);
    NEED(status == (options->rank == 0 ? SYZ_ECANCELED : SYZ_EIO));
    return syz_error_message();
}

static void test_cancel(void **state) {
    (void)state;
    rank_results results;
    run_some_ranks(&results, ~0u, canceled, (syz_comm_options){.size = 2, .timeout = 60}, NULL);
    assert_string_equal(results.said[0], "interrupted");
    assert_says(results.said[1], "barrier: rank 0 of 2 has ended");
}

/* ---- the start --------------------------------------------------------------------------------------------------- */

static const char *meets(const syz_comm_options *options, const void *context) {
    syz_comm *comm;
    (void)context;
    if (syz_comm_create(&comm, "tcp", options) != SYZ_OK) return syz_error_message();
    if (syz_comm_barrier(comm) != SYZ_OK) return syz_error_message();
    syz_comm_free(comm);
    return NULL;
}

static void test_missing_ranks_are_named(void **state) {
    (void)state;
    rank_results results;
    run_some_ranks(&results, 1u << 0 | 1u << 2, meets, (syz_comm_options){.size = 4, .timeout = 2}, NULL);
    assert_string_equal(results.said[0], "ranks 1 and 3 of 4 did not come within 2 s; rank 2 did");
    assert_string_equal(results.said[2], results.said[0]);
    run_some_ranks(&results, 1u << 0, meets, (syz_comm_options){.size = 4, .timeout = 2}, NULL);
    assert_string_equal(results.said[0], "ranks 1, 2 and 3 of 4 did not come within 2 s: were they started?");
    run_some_ranks(&results, 1u << 1, meets, (syz_comm_options){.size = 2, .timeout = 2}, NULL);
    assert_says(results.said[1], "rank 0 did not come within 2 s (cannot connect to 127.0.0.1:");
    assert_says(results.said[1], "Connection refused");
}

typedef struct {
    int rank, as_rank, as_size; /* `rank` takes itself for another */
} confusion;

static const char *confused(const syz_comm_options *options, const void *context) {
    const confusion *c = context;
    syz_comm_options mine = *options;
    if (options->rank == c->rank) {
        usleep(100000); /* after the others */
        mine.rank = c->as_rank;
        mine.size = c->as_size;
    }
    return meets(&mine, NULL);
}

/* One that comes when rank 0 has already ended cannot know why. */
static bool says_or_is_late(const char *text, const char *said) {
    return strcmp(text, said) == 0 || strstr(text, "rank 0 did not come") || strstr(text, "rank 0 ended before");
}

static void test_confused_ranks(void **state) {
    (void)state;
    rank_results results;
    run_some_ranks(&results, ~0u, confused, (syz_comm_options){.size = 3, .timeout = 60}, &(confusion){2, 1, 3});
    for (int r = 0; r < 3; r++)
        assert_string_equal(results.said[r],
                            "two processes were started as rank 1: each needs a RANK of its own, 0 to 2");
    run_some_ranks(&results, ~0u, confused, (syz_comm_options){.size = 3, .timeout = 5}, &(confusion){2, 2, 4});
    for (int r = 0; r < 3; r += 2)
        assert_string_equal(results.said[r], "rank 2 was started with WORLD_SIZE 4, rank 0 with 3");
    assert_true(says_or_is_late(results.said[1], results.said[0]));
    run_some_ranks(&results, ~0u, confused, (syz_comm_options){.size = 2, .timeout = 2}, &(confusion){1, 0, 2});
    int second = strstr(results.said[1], "Address already in use") != NULL; /* of the two that take themselves for 0 */
    assert_says(results.said[second], "Address already in use; another run uses this port: choose another MASTER_PORT");
    assert_string_equal(results.said[1 - second], "rank 1 of 2 did not come within 2 s: were they started?");
}

static const char *late_zero(const syz_comm_options *options, const void *context) {
    if (options->rank == 0) usleep(300000);
    return meets(options, context);
}

static void test_late_rank_0(void **state) {
    (void)state;
    run_ranks(3, late_zero, NULL);
}

/* Somebody who speaks another protocol, or none. */
static const char *among_strangers(const syz_comm_options *options, const void *context) {
    if (options->rank == 1) {
        struct sockaddr_in to = {.sin_family = AF_INET,
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                 .sin_port = htons((uint16_t)options->port)};
        for (int k = 0; k < 40;) { /* more than are listened to at a time */
            int fd = socket(AF_INET, SOCK_STREAM, 0);
            if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0) {
                close(fd);
                usleep(1000);
                continue;
            }
            static const char get[] = "GET / HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n";
            if (k % 2 && send(fd, get, sizeof get, MSG_NOSIGNAL) < 0) return wrong("send");
            k++;
        }
    }
    return meets(options, context);
}

static void test_strangers_are_ignored(void **state) {
    (void)state;
    run_ranks(2, among_strangers, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(test_two),
        CHECK_TEST(test_three),
        CHECK_TEST(test_four),
        CHECK_TEST(test_other_dtypes_are_moved),
        CHECK_TEST(test_barrier),
        CHECK_TEST(test_gradients),
        CHECK_TEST(test_ranks_of_other_models),
        CHECK_TEST(test_failed_allocations),
        CHECK_TEST(test_rank_that_dies),
        CHECK_TEST(test_rank_that_is_silent),
        CHECK_TEST(test_ranks_that_disagree),
        CHECK_TEST(test_cancel),
        CHECK_TEST(test_missing_ranks_are_named),
        CHECK_TEST(test_confused_ranks),
        CHECK_TEST(test_late_rank_0),
        CHECK_TEST(test_strangers_are_ignored),
    };
    return cmocka_run_group_tests_name("comm_tcp", tests, NULL, NULL);
}
