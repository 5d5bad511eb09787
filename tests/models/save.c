/* Saving weights: one file or shards, always one whole save in the folder, one tensor in memory at a time. */
#include "core/alloc.h"
#include "io/file.h"
#include "models/reference.h"
#include "unit/temporary.h"

#include <dirent.h>
#include <unistd.h>

#define BASE "diffusion_pytorch_model"

static const char *in_folder(const char *folder, const char *name) {
    static char path[4][1200];
    static int next;
    char *text = path[next++ % 4];
    snprintf(text, sizeof path[0], "%s/%s", folder, name);
    return text;
}

static int not_dots(const struct dirent *entry) {
    return entry->d_name[0] != '.';
}

/* The files of a folder, sorted, as one text. */
static const char *list(const char *folder) {
    static char text[4096];
    struct dirent **entries;
    int n = scandir(folder, &entries, not_dots, alphasort);
    text[0] = '\0';
    for (int i = 0; i < n; i++) {
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s ", entries[i]->d_name);
        free(entries[i]);
    }
    if (n >= 0) free(entries);
    return text;
}

static syz_model *load(const char *folder) {
    syz_model *m;
    syz_model_load(&m, folder);
    check_ok(m);
    return m;
}

/* The folder holds exactly the values of `expected`. */
static void check_saved(const char *folder, const syz_model *expected) {
    syz_model *m = load(folder);
    for (int64_t i = 0; i < syz_model_param_count(m); i++)
        reference_same(syz_model_param(m, i), syz_model_param(expected, i));
    syz_model_release(m);
}

static syz_model *open_model(void) {
    return load(reference_folder("flux_b"));
}

/* The bytes of all parameters, and of the largest. */
static uint64_t sizes(const syz_model *m, uint64_t *largest) {
    uint64_t total = 0;
    *largest = 0;
    for (int64_t i = 0; i < syz_model_param_count(m); i++) {
        uint64_t bytes = syz_nbytes(syz_model_param(m, i));
        total += bytes;
        if (bytes > *largest) *largest = bytes;
    }
    return total;
}

static void shards_hold_everything(void **state) {
    (void)state;
    syz_model *m = open_model();
    const char *folder = temporary_path("shards");
    uint64_t largest, total = sizes(m, &largest), most = total / 3;
    assert_int_equal(syz_model_save_sharded(m, folder, SYZ_F32, most), SYZ_OK);
    check_saved(folder, m);
    assert_string_equal(list(folder), "config.json " BASE "-00001-of-00004.safetensors " BASE
                                      "-00002-of-00004.safetensors " BASE "-00003-of-00004.safetensors " BASE
                                      "-00004-of-00004.safetensors " BASE ".safetensors.index.json ");
    uint64_t sum = 0;
    for (int k = 1; k <= 4; k++) {
        char name[128];
        snprintf(name, sizeof name, BASE "-%05d-of-00004.safetensors", k);
        syz_weights *shard = syz_weights_open(in_folder(folder, name));
        check_ok(shard);
        assert_string_equal(syz_weights_metadata(shard, "format"), "pt");
        uint64_t bytes = 0;
        for (int64_t i = 0; i < syz_weights_count(shard); i++)
            bytes += syz_weights_info(shard, i).bytes;
        assert_in_range(bytes, 1, most);
        sum += bytes;
        syz_weights_close(shard);
    }
    assert_int_equal(sum, total);
    uint8_t *index;
    size_t size;
    char expected[64];
    assert_int_equal(syz_file_read(&index, &size, in_folder(folder, BASE ".safetensors.index.json"), 1 << 20), SYZ_OK);
    snprintf(expected, sizeof expected, "\"total_size\": %llu", (unsigned long long)total);
    assert_non_null(strstr((char *)index, expected));
    free(index);
    syz_model_release(m);
}

/* A tensor that is larger than a shard may be has one of its own. */
static void large_tensors_stand_alone(void **state) {
    (void)state;
    syz_model *m = open_model();
    const char *folder = temporary_path("alone");
    assert_int_equal(syz_model_save_sharded(m, folder, SYZ_BF16, 1), SYZ_OK);
    syz_model *back = load(folder);
    for (int64_t i = 0; i < syz_model_param_count(m); i++)
        reference_same(syz_model_param(back, i), syz_cast(syz_cast(syz_model_param(m, i), SYZ_BF16), SYZ_F32));
    char last[128];
    snprintf(last, sizeof last, BASE "-%05d-of-%05d.safetensors", (int)syz_model_param_count(m),
             (int)syz_model_param_count(m));
    assert_int_equal(access(in_folder(folder, last), F_OK), 0);
    syz_model_release(back);
    syz_model_release(m);
}

/* Whatever was saved before, only the newest save is in the folder, and what is not of a save stays. */
static void nothing_stale_remains(void **state) {
    (void)state;
    syz_model *m = open_model();
    const char *folder = temporary_path("again");
    uint64_t largest, total = sizes(m, &largest);
    static const char *const others[] = {"notes.txt", BASE ".fp16.safetensors", BASE "-0001-of-0002.safetensors"};
    assert_int_equal(syz_make_folders(folder), SYZ_OK);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_int_equal(syz_file_write(in_folder(folder, others[i]), "x", 1), SYZ_OK);
    const uint64_t limits[] = {total, total / 2, total / 4, total / 4, total, total / 2, 1, total / 3};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        syz_f32(syz_model_param(m, 0))[0] = (float)i;
        assert_int_equal(syz_model_save_sharded(m, folder, SYZ_F32, limits[i]), SYZ_OK);
        check_saved(folder, m);
        const char *names = list(folder);
        bool single = limits[i] == total;
        assert_true(single == !strstr(names, ".index.json"));
        assert_true(single == !!strstr(names, " " BASE ".safetensors "));
        assert_null(strstr(names, ".tmp"));
        for (size_t k = 0; k < sizeof others / sizeof *others; k++)
            assert_non_null(strstr(names, others[k]));
    }
    assert_null(strstr(list(folder), "-of-00005"));
    assert_non_null(strstr(list(folder), BASE "-00004-of-00004.safetensors"));
    assert_int_equal(syz_file_remove(in_folder(folder, BASE "-00003-of-00004.safetensors")), SYZ_OK);
    syz_model *broken;
    check_fails_with(syz_model_load(&broken, folder), SYZ_ENOTFOUND, BASE "-00003-of-00004.safetensors: cannot open");
    syz_model_release(m);
}

/* A save in which one allocation fails: the folder holds the old values or the new ones, whole. */
static void failure_leaves_a_whole_save(void **state) {
    (void)state;
    syz_model *old = open_model(), *new = open_model();
    syz_f32(syz_model_param(new, 0))[0] = 1000;
    syz_f32(syz_model_param(new, syz_model_param_count(new) - 1))[0] = 1000;
    const char *folder = temporary_path("failing");
    uint64_t largest, total = sizes(old, &largest);
    const uint64_t limits[][2] = {{total / 3, total / 3}, {total, total / 3}, {total / 3, total}};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        int kept = 0, replaced = 0;
        for (int64_t n = 0; !replaced || syz_failed(); n++) {
            assert_true(n < 10000);
            assert_int_equal(syz_model_save_sharded(old, folder, SYZ_F32, limits[i][0]), SYZ_OK);
            syz_fault_set(n, n % 2);
            syz_status status = syz_model_save_sharded(new, folder, SYZ_F32, limits[i][1]);
            syz_fault_set(-1, false);
            syz_error_clear();
            syz_model *m = load(folder);
            bool changed = syz_f32(syz_model_param(m, 0))[0] == 1000;
            syz_model_release(m);
            check_saved(folder, changed ? new : old);
            assert_null(strstr(list(folder), ".tmp"));
            if (status == SYZ_OK) assert_true(changed);
            kept += !changed;
            replaced += status == SYZ_OK;
        }
        if (kept < 10) fail_msg("only %d failures", kept);
    }
    syz_model_release(old);
    syz_model_release(new);
}

/* Beside the model, a conversion needs room for its largest tensor, not for all of them. */
static void one_tensor_at_a_time(void **state) {
    (void)state;
    syz_model *m = open_model();
    uint64_t largest, total = sizes(m, &largest);
    assert_true(total > 6 * largest);
    syz_memory_trim();
    syz_memory_reset_peak();
    size_t before = syz_memory_stats().live;
    assert_int_equal(syz_model_save(m, temporary_path("half"), SYZ_BF16), SYZ_OK);
    assert_in_range(syz_memory_stats().peak - before, largest / 2, largest);
    assert_int_equal(syz_memory_stats().live, before);
    syz_model_release(m);
}

static void bad_limits(void **state) {
    (void)state;
    syz_model *m;
    syz_model_create(&m, "{\"_class_name\": \"FluxTransformer2DModel\", \"in_channels\": 4, \"num_layers\": 60,"
                         "\"num_single_layers\": 60, \"num_attention_heads\": 2, \"attention_head_dim\": 6,"
                         "\"axes_dims_rope\": [2, 2, 2], \"joint_attention_dim\": 5, \"pooled_projection_dim\": 3}");
    check_ok(m);
    check_fails_with(syz_model_save_sharded(m, temporary_path("none"), SYZ_F32, 1), SYZ_EINVAL, "has no values yet");
    assert_int_equal(syz_model_init(m, 1), SYZ_OK);
    check_fails_with(syz_model_save_sharded(m, temporary_path("none"), SYZ_F32, 1), SYZ_EINVAL,
                     "shards of at most 1 bytes, at most 1024 are supported");
    assert_string_equal(list(temporary_path("none")), "");
    syz_model_release(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(shards_hold_everything), CHECK_TEST(large_tensors_stand_alone),
        CHECK_TEST(nothing_stale_remains),  CHECK_TEST(failure_leaves_a_whole_save),
        CHECK_TEST(one_tensor_at_a_time),   CHECK_TEST(bad_limits),
    };
    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
