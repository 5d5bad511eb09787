/* The comm of one process, the environment, and the arguments that every kind refuses. */
#include "core/alloc.h"
#include "ranks.h"

static const syz_comm_options alone = {.size = 1, .timeout = 1};

static syz_comm *open_single(void) {
    syz_comm *comm;
    assert_int_equal(syz_comm_create(&comm, "single", &alone), SYZ_OK);
    return comm;
}

static void refuses(syz_status expected, syz_status status, const char *part) {
    assert_int_equal(status, expected);
    assert_says(syz_error_message(), part);
    syz_error_clear();
}

static void test_one_process_keeps_its_values(void **state) {
    (void)state;
    syz_comm *comm = open_single();
    syz_tensor *x = check_tensor(SYZ_SHAPE(3), 1, -2, 0.5f), *y = syz_zeros(SYZ_F32, SYZ_SHAPE(3));
    float values[3] = {1, -2, 0.5f};
    assert_int_equal(syz_comm_all_reduce(comm, x, SYZ_MEAN), SYZ_OK);
    assert_int_equal(syz_comm_broadcast(comm, x, 0), SYZ_OK);
    assert_memory_equal(syz_data(x), values, sizeof values);
    assert_int_equal(syz_comm_reduce_scatter(comm, y, x, SYZ_SUM), SYZ_OK);
    assert_memory_equal(syz_data(y), values, sizeof values);
    syz_tensor *ids = syz_from(SYZ_I64, SYZ_SHAPE(2), (int64_t[]){7, -9}), *gathered = syz_zeros(SYZ_I64, SYZ_SHAPE(2));
    assert_int_equal(syz_comm_all_gather(comm, gathered, ids), SYZ_OK);
    assert_memory_equal(syz_data(gathered), syz_data(ids), 16);
    assert_int_equal(syz_comm_barrier(comm), SYZ_OK);
    assert_string_equal(syz_comm_kind(comm), "single");
    assert_int_equal(syz_comm_rank(comm), 0);
    assert_int_equal(syz_comm_size(comm), 1);
    syz_comm_free(comm);
    syz_comm_free(NULL);
}

static void test_tcp_of_one_needs_no_port(void **state) {
    (void)state;
    syz_comm *comm;
    assert_int_equal(syz_comm_create(&comm, "tcp", &alone), SYZ_OK);
    syz_tensor *x = check_tensor(SYZ_SHAPE(2), 1, 2);
    assert_int_equal(syz_comm_all_reduce(comm, x, SYZ_SUM), SYZ_OK);
    assert_float_equal(syz_f32(x)[1], 2, 0);
    syz_comm_free(comm);
}

static void keep(void *owner) {
    (void)owner;
}

static void test_refused_arguments(void **state) {
    (void)state;
    syz_comm *comm = open_single();
    syz_tensor *x = check_tensor(SYZ_SHAPE(3), 1, 2, 3), *ids = syz_zeros(SYZ_I64, SYZ_SHAPE(3));
    syz_tensor *half = syz_zeros(SYZ_BF16, SYZ_SHAPE(3)), *two = syz_zeros(SYZ_F32, SYZ_SHAPE(2));
    static const float file[3] = {0};
    syz_tensor *mapped = syz_wrap(SYZ_F32, SYZ_SHAPE(3), file, keep, NULL);
    refuses(SYZ_EDTYPE, syz_comm_all_reduce(comm, ids, SYZ_SUM), "all_reduce: the tensor is i64");
    refuses(SYZ_EDTYPE, syz_comm_reduce_scatter(comm, syz_copy(ids), ids, SYZ_SUM),
            "reduce_scatter: the tensor is i64");
    refuses(SYZ_EDTYPE, syz_comm_reduce_scatter(comm, half, x, SYZ_SUM), "the tensors are bf16 and f32");
    refuses(SYZ_ESHAPE, syz_comm_reduce_scatter(comm, two, x, SYZ_SUM), "[3] is not 1 times as large as [2]");
    refuses(SYZ_ESHAPE, syz_comm_all_gather(comm, two, x), "[2] is not 1 times as large as [3]");
    refuses(SYZ_EINVAL, syz_comm_all_gather(comm, syz_alias(x), x), "share one memory");
    refuses(SYZ_EINVAL, syz_comm_broadcast(comm, x, 1), "there is no rank 1: 0 to 0");
    refuses(SYZ_EINVAL, syz_comm_broadcast(comm, x, -1), "there is no rank -1");
    refuses(SYZ_EINVAL, syz_comm_all_reduce(comm, mapped, SYZ_SUM), "mapped from a file and read-only");
    refuses(SYZ_EINVAL, syz_comm_all_reduce(comm, NULL, SYZ_SUM), "all_reduce: no tensor");
    refuses(SYZ_EINVAL, syz_comm_barrier(NULL), "barrier: no comm");
    syz_scope_push();
    syz_tensor *dead = syz_zeros(SYZ_F32, SYZ_SHAPE(3));
    syz_handle_retain(dead);
    syz_scope_pop();
    refuses(SYZ_EINVAL, syz_comm_broadcast(comm, dead, 0), "freed when its scope ended");
    syz_handle_release(dead);
    syz_tensor *elsewhere = syz_alias(x);
    elsewhere->device = 1;
    refuses(SYZ_EINVAL, syz_comm_all_reduce(comm, elsewhere, SYZ_SUM),
            "[3] is on cuda:0; a comm of kind nccl takes it");
    elsewhere->device = 0;
    assert_int_equal(syz_comm_all_reduce(comm, x, SYZ_SUM), SYZ_OK); /* it still works */
    syz_comm_free(comm);
}

static void test_refused_options(void **state) {
    (void)state;
    syz_comm *comm = (syz_comm *)&alone;
    static const struct {
        const char *kind;
        syz_comm_options options;
        const char *part;
    } cases[] = {
        {"mpi", {.size = 1, .timeout = 1}, "unknown kind \"mpi\": single, tcp or nccl"},
        {"single", {.size = 2, .port = 9, .timeout = 1}, "of one process, not 2: take tcp or nccl"},
        {"tcp", {.size = 0, .timeout = 1}, "size is 0: 1 to 1024"},
        {"tcp", {.size = 2, .rank = 2, .port = 9, .timeout = 1}, "rank is 2: 0 to 1"},
        {"tcp", {.size = 2, .rank = -1, .port = 9, .timeout = 1}, "rank is -1"},
        {"tcp", {.size = 2, .local_rank = -1, .port = 9, .timeout = 1}, "local_rank is -1"},
        {"tcp", {.size = 2, .timeout = 1}, "port is 0: 1 to 65535"},
        {"tcp", {.size = 2, .port = 9}, "timeout is 0: seconds above 0"},
        {"tcp", {.size = 2, .port = 9, .timeout = NAN}, "timeout is"},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        refuses(SYZ_EINVAL, syz_comm_create(&comm, cases[k].kind, &cases[k].options), cases[k].part);
        assert_null(comm);
    }
}

static void test_failed_allocations(void **state) {
    (void)state;
    for (int64_t n = 0;; n++) {
        syz_comm *comm;
        syz_fault_set(n, false);
        syz_status status = syz_comm_create(&comm, n % 2 ? "single" : "tcp", &alone);
        syz_fault_set(-1, false);
        syz_comm_free(comm);
        if (status == SYZ_OK && n % 2 == 0) break;
        if (n % 2 == 0) assert_int_equal(status, SYZ_ENOMEM);
        syz_error_clear();
    }
}

/* ---- the environment --------------------------------------------------------------------------------------------- */

static const char *const variables[] = {"WORLD_SIZE",
                                        "RANK",
                                        "LOCAL_RANK",
                                        "MASTER_ADDR",
                                        "MASTER_PORT",
                                        "TORCHELASTIC_USE_AGENT_STORE",
                                        "SYZ_COMM_PORT",
                                        "SYZ_COMM_TIMEOUT",
                                        NULL};

/* "WORLD_SIZE=2 RANK=1": exactly these are set. */
static syz_status read_environment(syz_comm_options *options, const char *settings) {
    char copy[256], *rest = copy;
    snprintf(copy, sizeof copy, "%s", settings);
    for (int k = 0; variables[k]; k++)
        unsetenv(variables[k]);
    for (char *word; (word = strsep(&rest, " "));) {
        char *value = strchr(word, '=');
        if (!value) continue;
        *value++ = '\0';
        setenv(word, value, 1);
    }
    return syz_comm_environment(options);
}

static void test_environment(void **state) {
    (void)state;
    syz_comm_options o;
    assert_int_equal(read_environment(&o, ""), SYZ_OK);
    assert_true(o.size == 1 && o.rank == 0 && o.local_rank == 0 && o.timeout == 1800);
    assert_int_equal(read_environment(&o, "WORLD_SIZE=16 RANK=9 LOCAL_RANK=1 MASTER_ADDR=node7 MASTER_PORT=29500"),
                     SYZ_OK);
    assert_true(o.size == 16 && o.rank == 9 && o.local_rank == 1 && o.port == 29500);
    assert_string_equal(o.address, "node7");
    assert_int_equal(read_environment(&o, "WORLD_SIZE=4 RANK=3 MASTER_PORT=1 SYZ_COMM_TIMEOUT=7"), SYZ_OK);
    assert_true(o.local_rank == 3 && o.timeout == 7 && o.address == NULL);
    /* torchrun's own agent listens at its port */
    const char *torchrun = "WORLD_SIZE=2 RANK=0 MASTER_PORT=29500 TORCHELASTIC_USE_AGENT_STORE=";
    char settings[256];
    snprintf(settings, sizeof settings, "%sTrue", torchrun);
    assert_int_equal(read_environment(&o, settings), SYZ_OK);
    assert_int_equal(o.port, 29501);
    snprintf(settings, sizeof settings, "%sFalse", torchrun);
    assert_int_equal(read_environment(&o, settings), SYZ_OK);
    assert_int_equal(o.port, 29500);
    assert_int_equal(read_environment(&o, "WORLD_SIZE=2 RANK=0 SYZ_COMM_PORT=30000"), SYZ_OK);
    assert_int_equal(o.port, 30000);
    syz_comm *comm;
    read_environment(&o, "");
    assert_int_equal(syz_comm_create(&comm, NULL, NULL), SYZ_OK);
    assert_string_equal(syz_comm_kind(comm), "single");
    syz_comm_free(comm);
}

static void test_refused_environments(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"WORLD_SIZE=two", "WORLD_SIZE is \"two\": a whole number from 1 to 1024"},
        {"WORLD_SIZE=0", "WORLD_SIZE is \"0\""},
        {"WORLD_SIZE=2 MASTER_PORT=1", "RANK is not set: start every process with its RANK, 0 to 1"},
        {"WORLD_SIZE=2 RANK=2 MASTER_PORT=1", "RANK is \"2\": a whole number from 0 to 1"},
        {"WORLD_SIZE=2 RANK=1x MASTER_PORT=1", "RANK is \"1x\""},
        {"WORLD_SIZE=2 RANK=1", "MASTER_PORT is not set"},
        {"WORLD_SIZE=2 RANK=1 MASTER_PORT=70000", "MASTER_PORT is \"70000\": a whole number from 1 to 65535"},
        {"WORLD_SIZE=2 RANK=1 MASTER_PORT=1 LOCAL_RANK=-1", "LOCAL_RANK is \"-1\""},
        {"SYZ_COMM_TIMEOUT=0", "SYZ_COMM_TIMEOUT is \"0\""},
    };
    syz_comm_options o;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
        refuses(SYZ_EINVAL, read_environment(&o, cases[k][0]), cases[k][1]);
    syz_comm *comm;
    refuses(SYZ_EINVAL, syz_comm_create(&comm, NULL, NULL), "SYZ_COMM_TIMEOUT");
    read_environment(&o, "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(test_one_process_keeps_its_values),
        CHECK_TEST(test_tcp_of_one_needs_no_port),
        CHECK_TEST(test_refused_arguments),
        CHECK_TEST(test_refused_options),
        CHECK_TEST(test_failed_allocations),
        CHECK_TEST(test_environment),
        CHECK_TEST(test_refused_environments),
    };
    return cmocka_run_group_tests_name("comm", tests, NULL, NULL);
}
