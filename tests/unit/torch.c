/* Files that torch.save wrote (tests/oracle/torch_files.py): every tensor is what safetensors holds under its name. */
#include "check.h"
#include "core/alloc.h"
#include "unit/temporary.h"

#define DATA "tests/unit/data/torch/"

/* Every tensor of `path` is in `expected` with the same type, shape and bytes, and no other. */
static void compare(const char *path, const char *expected) {
    syz_weights *weights = syz_weights_open(path), *reference = syz_weights_open(expected);
    check_ok(weights);
    check_ok(reference);
    assert_int_equal(syz_weights_count(weights), syz_weights_count(reference));
    for (int64_t i = 0; i < syz_weights_count(reference); i++) {
        syz_weight_info got = syz_weights_info(weights, i), want = syz_weights_info(reference, i);
        assert_string_equal(got.name, want.name);
        assert_string_equal(got.dtype, want.dtype);
        assert_true(syz_shape_equal(got.shape, want.shape));
        assert_int_equal(got.bytes, want.bytes);
        syz_tensor *a = syz_weights_get(weights, got.name), *b = syz_weights_get(reference, got.name);
        check_ok(a);
        check_ok(b);
        assert_int_equal(syz_nbytes(a), want.bytes);
        if (want.bytes) assert_memory_equal(syz_data(a), syz_data(b), want.bytes);
    }
    syz_weights_close(weights);
    syz_weights_close(reference);
}

static void real_files(void **state) {
    (void)state;
    static const char *const names[] = {"types", "views", "nested", "training", "parallel", "protocol4", "legacy"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[256], expected[256];
        snprintf(path, sizeof path, DATA "%s.pt", names[i]);
        snprintf(expected, sizeof expected, DATA "%s.safetensors", names[i]);
        compare(path, expected);
    }
}

/* Contiguous tensors lie in the file's mapping, and what shares a storage shares memory; others are copies. */
static void memory_is_shared(void **state) {
    (void)state;
    syz_weights *weights = syz_weights_open(DATA "views.pt");
    check_ok(weights);
    const float *whole = syz_data(syz_weights_get(weights, "whole"));
    assert_non_null(whole);
    assert_int_equal((uintptr_t)whole % 64, 0);
    assert_ptr_equal(syz_data(syz_weights_get(weights, "again")), whole);
    assert_ptr_equal(syz_data(syz_weights_get(weights, "rows")), whole + 8);
    assert_ptr_equal(syz_data(syz_weights_get(weights, "last")), whole + 23);
    const float *copy = syz_data(syz_weights_get(weights, "transposed"));
    assert_non_null(copy);
    assert_true(copy < whole || copy >= whole + 24);
    syz_tensor *kept = syz_weights_get(weights, "rows");
    syz_weights_close(weights);
    assert_true(syz_f32(kept)[0] == syz_f32(kept)[0]); /* the mapping lives as long as its tensors */
}

static void types_that_are_only_listed(void **state) {
    (void)state;
    syz_weights *weights = syz_weights_open(DATA "float8.pt");
    check_ok(weights);
    assert_string_equal(syz_weights_info(weights, 0).dtype, "F8_E4M3");
    assert_string_equal(syz_weights_info(weights, 2).dtype, "U16");
    assert_null(syz_weights_get(weights, "f8"));
    assert_failed(SYZ_EUNSUPPORTED, "tensor \"f8\": dtype F8_E4M3 is not supported");
    check_ok(syz_weights_get(weights, "half"));
    syz_weights_close(weights);
    assert_null(syz_weights_open(DATA "compressed.pt"));
    assert_failed(SYZ_EUNSUPPORTED, "entry \"archive/");
}

/* An index of .bin files; a name that begins with "module." stays, since the index has it so. */
static void shards(void **state) {
    (void)state;
    compare(DATA "shard.bin.index.json", DATA "shard.safetensors");
    static const char wrong[] = "{\"weight_map\":{\"a\":\"m.safetensors\"}}";
    assert_null(syz_weights_open(temporary_file("x.bin.index.json", wrong, strlen(wrong))));
    assert_failed(SYZ_EFORMAT, "weight_map \"a\" must name a .bin file in the same folder");
}

/* A folder without safetensors: PyTorch's files are found under the names of both libraries, sharded ones by their
 * index. */
static void models(void **state) {
    (void)state;
    static const char index[] = "{\"weight_map\":{}}", config[] = "model-of-bin/config.json";
    static const struct {
        const char *name;
        bool sharded;
    } cases[] = {
        {"pytorch_model.bin.index.json", true},
        {"diffusion_pytorch_model.bin.index.json", true},
        {"pytorch_model.bin", false},
        {"diffusion_pytorch_model.bin", false},
    };
    uint8_t *text, *bytes;
    size_t length, size;
    assert_int_equal(syz_make_folders(temporary_path("model-of-bin")), SYZ_OK);
    assert_int_equal(syz_file_read(&text, &length, DATA "model/config.json", 1 << 20), SYZ_OK);
    assert_int_equal(syz_file_read(&bytes, &size, DATA "model/pytorch_model.bin", 1 << 20), SYZ_OK);
    temporary_file(config, text, length);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[128];
        syz_model *m;
        snprintf(name, sizeof name, "model-of-bin/%s", cases[i].name);
        temporary_file(name, cases[i].sharded ? (const void *)index : bytes, cases[i].sharded ? strlen(index) : size);
        syz_status status = syz_model_load(&m, temporary_path("model-of-bin"));
        if (cases[i].sharded) { /* the index is the one that was opened, and lists nothing */
            assert_int_equal(status, SYZ_EFORMAT);
            assert_failed(SYZ_EFORMAT, cases[i].name);
        } else {
            assert_int_equal(status, SYZ_OK);
            syz_weights *expected = syz_weights_open(DATA "model.safetensors");
            for (int64_t k = 0; k < syz_model_param_count(m); k++) {
                syz_tensor *t = syz_weights_get(expected, syz_model_param_name(m, k));
                check_close(syz_model_param(m, k), t, 0);
            }
            syz_weights_close(expected);
        }
        syz_model_release(m);
        remove(temporary_path(name));
    }
    free(text);
    free(bytes);
}

/* A damaged byte of one storage is found when its tensor is asked for, and harms no other. */
static void checksums(void **state) {
    (void)state;
    uint8_t *bytes;
    size_t size;
    assert_int_equal(syz_file_read(&bytes, &size, DATA "types.pt", 1 << 20), SYZ_OK);
    syz_weights *weights = syz_weights_open(DATA "types.pt");
    syz_tensor *t = syz_weights_get(weights, "f64");
    check_ok(t);
    uint8_t *place = memmem(bytes, size, syz_data(t), syz_nbytes(t));
    assert_non_null(place);
    place[7] ^= 1;
    syz_weights_close(weights);
    weights = syz_weights_open(temporary_file("damaged.pt", bytes, size));
    check_ok(weights);
    assert_null(syz_weights_get(weights, "f64"));
    assert_failed(SYZ_EFORMAT, "damaged.pt: tensor \"f64\": its bytes do not match their CRC-32");
    check_ok(syz_weights_get(weights, "f32"));
    syz_weights_close(weights);
    free(bytes);
}

/* Cut after every byte, no file opens. */
static void torn_files(void **state) {
    (void)state;
    static const char *const names[] = {DATA "parallel.pt", DATA "legacy.pt"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        uint8_t *bytes;
        size_t size;
        assert_int_equal(syz_file_read(&bytes, &size, names[i], 1 << 20), SYZ_OK);
        for (size_t cut = 0; cut < size; cut++) {
            assert_null(syz_weights_open(temporary_file("torn.pt", bytes, cut)));
            if (!strstr(syz_error_message(), "torn.pt: ")) fail_msg("cut at %zu: %s", cut, syz_error_message());
            syz_error_clear();
        }
        free(bytes);
    }
}

/* Whichever byte of an archive changes, each tensor is the same as before or an error: none is silently another. */
static void changed_bytes(void **state) {
    (void)state;
    uint8_t *bytes;
    size_t size;
    int errors = 0;
    assert_int_equal(syz_file_read(&bytes, &size, DATA "parallel.pt", 1 << 20), SYZ_OK);
    syz_weights *reference = syz_weights_open(DATA "parallel.safetensors");
    check_ok(reference);
    for (size_t at = 0; at < size; at++) {
        bytes[at] ^= 0x20;
        syz_weights *weights = syz_weights_open(temporary_file("changed.pt", bytes, size));
        for (int64_t i = 0; weights && i < 2; i++) {
            const char *name = syz_weights_info(reference, i).name;
            syz_tensor *want = syz_weights_get(reference, name), *got = syz_weights_get(weights, name);
            if (got) assert_memory_equal(syz_data(got), syz_data(want), syz_nbytes(want));
        }
        errors += syz_failed();
        syz_error_clear();
        syz_weights_close(weights);
        bytes[at] ^= 0x20;
    }
    assert_in_range(errors, 600, size);
    syz_weights_close(reference);
    free(bytes);
}

static void other_files(void **state) {
    (void)state;
    static const struct {
        const char *bytes, *message;
    } cases[] = {
        {"<!DOCTYPE html>", "x.pt: is not a file of torch.save: neither a zip archive nor the older stream"},
        {"\x80\x04\x95\x0f\x0f\x0f\x0f\x0f", "x.pt: is not a file of torch.save"},
        {"version https://git-lfs.github.com/spec/v1", "x.pt: is a Git LFS pointer"},
        {"PK", "x.pt: has 2 bytes, too few"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_null(syz_weights_open(temporary_file("x.pt", cases[i].bytes, strlen(cases[i].bytes))));
        assert_failed(SYZ_EFORMAT, cases[i].message);
    }
}

static void survive_allocations(const char *path, const char *name) {
    int failures = 0;
    for (int64_t n = 0; n < 2000; n++) {
        syz_fault_set(n, n % 2);
        syz_weights *weights = syz_weights_open(path);
        syz_tensor *t = weights ? syz_weights_get(weights, name) : NULL;
        syz_fault_set(-1, false);
        syz_weights_close(weights);
        if (t) break;
        assert_failed(SYZ_ENOMEM, "out of memory");
        failures++;
    }
    assert_in_range(failures, 20, 1900);
}

static void out_of_memory(void **state) {
    (void)state;
    survive_allocations(DATA "views.pt", "transposed");
    survive_allocations(DATA "legacy.pt", "x");
    survive_allocations(DATA "shard.bin.index.json", "module.a");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(real_files),    CHECK_TEST(memory_is_shared), CHECK_TEST(types_that_are_only_listed),
        CHECK_TEST(shards),        CHECK_TEST(models),           CHECK_TEST(checksums),
        CHECK_TEST(torn_files),    CHECK_TEST(changed_bytes),    CHECK_TEST(other_files),
        CHECK_TEST(out_of_memory),
    };
    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
