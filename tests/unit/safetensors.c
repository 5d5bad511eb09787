/* Weight files: what is read back is what was written, bytes are deterministic, and every rule of the format holds. */
#include "check.h"
#include "core/alloc.h"
#include "io/file.h"
#include "unit/temporary.h"

#include <unistd.h>

/* A file image: header size, header, `data` bytes of 0, 1, 2, ... */
static const char *make_file(const char *header, size_t data) {
    static uint8_t image[1 << 16];
    size_t length = strlen(header);
    memset(image, 0, 8);
    image[0] = (uint8_t)length;
    image[1] = (uint8_t)(length >> 8);
    memcpy(image + 8, header, length);
    for (size_t i = 0; i < data; i++)
        image[8 + length + i] = (uint8_t)i;
    return temporary_file("x.safetensors", image, 8 + length + data);
}

static void test_round_trip(void **state) {
    (void)state;
    const char *path = temporary_path("round.safetensors");
    const char *names[] = {"b.weight", "a.bias", "scalar", "empty", "\xc3\xa9 \"quoted\""};
    syz_tensor *tensors[] = {
        syz_from(SYZ_F32, SYZ_SHAPE(2, 3), (float[]){1, 2, 3, 4, 5, 6}),
        syz_from(SYZ_BF16, SYZ_SHAPE(3), (uint16_t[]){0x3f80, 0x4000, 0x4040}),
        syz_from(SYZ_I64, (syz_shape){0}, (int64_t[]){-7}),
        syz_zeros(SYZ_F32, SYZ_SHAPE(4, 0)),
        syz_from(SYZ_U8, SYZ_SHAPE(5), "hello"),
    };
    const char *metadata[][2] = {{"step", "10"}, {"format", "pt"}};
    assert_int_equal(syz_weights_save(path, names, tensors, 5, metadata, 2), SYZ_OK);

    syz_weights *weights = syz_weights_open(path);
    check_ok(weights);
    assert_int_equal(syz_weights_count(weights), 5);
    assert_string_equal(syz_weights_info(weights, 0).name, "a.bias");
    assert_string_equal(syz_weights_info(weights, 0).dtype, "BF16");
    assert_int_equal(syz_weights_info(weights, 1).bytes, 24);
    assert_null(syz_weights_info(weights, 5).name);
    assert_string_equal(syz_weights_metadata(weights, "step"), "10");
    assert_null(syz_weights_metadata(weights, "absent"));
    syz_tensor *back[5];
    for (int i = 0; i < 5; i++)
        check_ok(back[i] = syz_weights_get(weights, names[i]));
    assert_int_equal((uintptr_t)syz_data(back[0]) % 8, 0);
    check_fails(syz_weights_get(weights, "absent"), SYZ_ENOTFOUND);
    syz_weights_close(weights);
    for (int i = 0; i < 5; i++) { /* the mapping lives as long as its tensors */
        assert_int_equal(syz_tensor_dtype(back[i]), syz_tensor_dtype(tensors[i]));
        assert_true(syz_shape_equal(syz_tensor_shape(back[i]), syz_tensor_shape(tensors[i])));
        if (syz_nbytes(back[i])) assert_memory_equal(syz_data(back[i]), syz_data(tensors[i]), syz_nbytes(back[i]));
    }
}

/* The same content in another order gives the same bytes; a write into a tensor changes no file. */
static void test_deterministic(void **state) {
    (void)state;
    syz_tensor *a = check_randn(SYZ_SHAPE(4, 4), 1), *b = check_randn(SYZ_SHAPE(3), 2);
    const char *one = temporary_path("one.safetensors"), *two = temporary_path("two.safetensors");
    const char *notes_one[][2] = {{"x", "1"}, {"y", "2"}}, *notes_two[][2] = {{"y", "2"}, {"x", "1"}};
    assert_int_equal(syz_weights_save(one, (const char *[]){"a", "b"}, (syz_tensor *[]){a, b}, 2, notes_one, 2),
                     SYZ_OK);
    assert_int_equal(syz_weights_save(two, (const char *[]){"b", "a"}, (syz_tensor *[]){b, a}, 2, notes_two, 2),
                     SYZ_OK);
    char first[SYZ_SHA256_TEXT], second[SYZ_SHA256_TEXT];
    assert_int_equal(syz_sha256_file(first, one), SYZ_OK);
    assert_int_equal(syz_sha256_file(second, two), SYZ_OK);
    assert_string_equal(first, second);

    syz_weights *weights = syz_weights_open(one);
    syz_tensor *mapped = syz_weights_get(weights, "a");
    check_ok(mapped);
    memset(syz_data(mapped), 0, syz_nbytes(mapped));
    syz_weights_close(weights);
    assert_int_equal(syz_sha256_file(second, one), SYZ_OK);
    assert_string_equal(first, second);
}

static void test_bad_save(void **state) {
    (void)state;
    const char *path = temporary_path("bad.safetensors");
    syz_tensor *t = check_randn(SYZ_SHAPE(2), 1);
    syz_weights_save(path, (const char *[]){"a", "a"}, (syz_tensor *[]){t, t}, 2, NULL, 0);
    assert_failed(SYZ_EINVAL, "two tensors are named \"a\"");
    syz_weights_save(path, (const char *[]){"__metadata__"}, (syz_tensor *[]){t}, 1, NULL, 0);
    assert_failed(SYZ_EINVAL, "cannot name a tensor");
    syz_weights_save(path, (const char *[]){"\xff"}, (syz_tensor *[]){t}, 1, NULL, 0);
    assert_failed(SYZ_EINVAL, "not UTF-8");
    syz_weights_save(path, (const char *[]){"a"}, (syz_tensor *[]){NULL}, 1, NULL, 0);
    assert_failed(SYZ_EINVAL, "scope has ended");
    syz_weights_save(temporary_path("absent/x.safetensors"), (const char *[]){"a"}, (syz_tensor *[]){t}, 1, NULL, 0);
    assert_failed(SYZ_ENOTFOUND, "cannot create");
    assert_int_not_equal(access(path, F_OK), 0);
}

static void test_legal(void **state) {
    (void)state;
    syz_weights *weights = syz_weights_open(make_file("{}", 0));
    check_ok(weights);
    assert_int_equal(syz_weights_count(weights), 0);
    syz_weights_close(weights);
    /* spaces after the header; a tensor that is not aligned to its elements is copied */
    weights = syz_weights_open(make_file("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                                         "\"b\":{\"dtype\":\"I32\",\"shape\":[1],\"data_offsets\":[1,5]}, "
                                         "\"c\":{\"dtype\":\"F8_E4M3\",\"shape\":[3],\"data_offsets\":[5,8]}, "
                                         "\"d\":{\"dtype\":\"BOOL\",\"shape\":[2],\"data_offsets\":[8,10]}}   ",
                                         10));
    check_ok(weights);
    syz_tensor *b = syz_weights_get(weights, "b");
    check_ok(b);
    assert_int_equal(*(int32_t *)syz_data(b), 0x04030201);
    syz_weights_get(weights, "c");
    assert_failed(SYZ_EUNSUPPORTED, "x.safetensors: tensor \"c\": dtype F8_E4M3 is not supported");
    assert_int_equal(syz_tensor_dtype(syz_weights_get(weights, "d")), SYZ_U8);
    syz_weights_close(weights);
}

#define TENSOR(name, dtype, shape, offsets)                                                                            \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void test_malformed(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t data;
        const char *message;
    } cases[] = {
        {"", 0, "must start with '{'"},
        {"[]", 0, "must start with '{'"},
        {" {}", 0, "must start with '{'"},
        {"{", 0, "not valid JSON"},
        {"{} x", 0, "not valid JSON"},
        {"{\"\xff\":1}", 0, "not valid JSON"},
        {"{" TENSOR("a", "F32", "[1]", "[0,4]") "," TENSOR("a", "F32", "[1]", "[4,8]") "}", 8, "duplicate object key"},
        {"{\"a\":1}", 0, "tensor \"a\": must be an object"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 0, "must have exactly dtype, shape and data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"offsets\":[0,4]}}", 4, "\"data_offsets\" must be two integers"},
        {"{" TENSOR("a", "F31", "[1]", "[0,4]") "}", 4, "unknown dtype \"F31\""},
        {"{\"a\":{\"dtype\":1,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "\"dtype\" must be a string"},
        {"{" TENSOR("a", "F32", "1", "[0,4]") "}", 4, "\"shape\" must be an array"},
        {"{" TENSOR("a", "F32", "[-1]", "[0,4]") "}", 4, "shape[0] must be an integer of at least 0"},
        {"{" TENSOR("a", "F32", "[1,1.0]", "[0,4]") "}", 4, "shape[1] must be an integer of at least 0"},
        {"{" TENSOR("a", "F32", "[1,1,1,1,1,1,1]", "[0,4]") "}", 4, "7 dimensions, at most 6"},
        {"{" TENSOR("a", "F32", "[4294967296,4294967296]", "[0,0]") "}", 0, "overflows"},
        {"{" TENSOR("a", "F32", "[9223372036854775807]", "[0,0]") "}", 0, "overflows"},
        {"{" TENSOR("a.b", "F32", "[4]", "[0,12]") "}", 12,
         "x.safetensors: tensor \"a.b\": data_offsets [0, 12] hold 12 bytes, its shape needs 16"},
        {"{" TENSOR("a", "F4", "[3]", "[0,1]") "}", 1, "does not fill whole bytes"},
        {"{" TENSOR("a", "F32", "[1]", "[4,0]") "}", 4, "must be 0 <= begin <= end"},
        {"{" TENSOR("a", "F32", "[1]", "[-4,0]") "}", 4, "must be 0 <= begin <= end"},
        {"{" TENSOR("a", "F32", "[1]", "[0,4,8]") "}", 4, "\"data_offsets\" must be two integers"},
        {"{" TENSOR("a", "F32", "[1]", "[0,4.0]") "}", 4, "\"data_offsets\" must be two integers"},
        {"{" TENSOR("a", "F32", "[1]", "[4,8]") "}", 8, "a hole"},
        {"{" TENSOR("a", "F32", "[1]", "[0,4]") "," TENSOR("b", "F32", "[1]", "[8,12]") "}", 12, "a hole"},
        {"{" TENSOR("a", "F32", "[2]", "[0,8]") "," TENSOR("b", "F32", "[1]", "[4,8]") "}", 8, "an overlap"},
        {"{" TENSOR("a", "F32", "[2]", "[0,8]") "}", 7, "end at data byte 8, the file holds 7 (torn download?)"},
        {"{" TENSOR("a", "F32", "[2]", "[0,8]") "}", 9, "end at data byte 8, the file holds 9"},
        {"{\"__metadata__\":[]}", 0, "__metadata__ must be an object"},
        {"{\"__metadata__\":{\"a\":1}}", 0, "__metadata__ \"a\" must be a string"},
        {"{\"line\\nbreak\":1}", 0, "tensor \"line?break\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_null(syz_weights_open(make_file(cases[i].header, cases[i].data)));
        assert_failed(SYZ_EFORMAT, cases[i].message);
    }
}

static void test_bad_prefix(void **state) {
    (void)state;
    assert_null(syz_weights_open(temporary_path("absent.safetensors")));
    assert_failed(SYZ_ENOTFOUND, "absent.safetensors: cannot open");
    assert_null(syz_weights_open(temporary_folder()));
    assert_failed(SYZ_EIO, "not a regular file");
    assert_null(syz_weights_open(temporary_file("x.safetensors", "", 0)));
    assert_failed(SYZ_EFORMAT, "has 0 bytes, too few");
    assert_null(syz_weights_open(temporary_file("x.safetensors", "\x09\0\0\0\0\0\0\0{}      ", 16)));
    assert_failed(SYZ_EFORMAT, "header of 9 bytes runs past the end");
    assert_null(syz_weights_open(temporary_file("x.safetensors", "\xff\xff\xff\xff\xff\xff\xff\xff{}", 10)));
    assert_failed(SYZ_EFORMAT, "at most 100000000 are allowed");
    char header[2048], name[1101];
    memset(name, 'n', 1100);
    name[1100] = 0;
    snprintf(header, sizeof header, "{\"%s\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", name);
    assert_null(syz_weights_open(make_file(header, 0)));
    assert_failed(SYZ_EFORMAT, "name longer than 1024 bytes");
}

static void test_shards(void **state) {
    (void)state;
    syz_tensor *a = check_randn(SYZ_SHAPE(2), 1), *b = check_randn(SYZ_SHAPE(3), 2);
    assert_int_equal(syz_weights_save(temporary_path("m-1.safetensors"), (const char *[]){"a"}, &a, 1, NULL, 0), 0);
    assert_int_equal(syz_weights_save(temporary_path("m-2.safetensors"), (const char *[]){"b"}, &b, 1, NULL, 0), 0);
    const char *index = "{\"metadata\":{\"total_size\":20,\"format\":\"pt\"},"
                        "\"weight_map\":{\"b\":\"m-2.safetensors\",\"a\":\"m-1.safetensors\"}}";
    syz_weights *weights = syz_weights_open(temporary_file("m.safetensors.index.json", index, strlen(index)));
    check_ok(weights);
    assert_int_equal(syz_weights_count(weights), 2);
    assert_string_equal(syz_weights_metadata(weights, "format"), "pt");
    assert_null(syz_weights_metadata(weights, "total_size"));
    check_close(syz_weights_get(weights, "a"), a, 0);
    check_close(syz_weights_get(weights, "b"), b, 0);
    syz_weights_close(weights);

    static const struct {
        const char *map, *message;
        int status;
    } cases[] = {
        {"{\"a\":\"../m-1.safetensors\"}", "must name a .safetensors file in the same folder", SYZ_EFORMAT},
        {"{\"a\":\"/etc/m.safetensors\"}", "must name a .safetensors file in the same folder", SYZ_EFORMAT},
        {"{\"a\":\"..\"}", "must name a .safetensors file in the same folder", SYZ_EFORMAT},
        {"{\"a\":\".safetensors\"}", "must name a .safetensors file in the same folder", SYZ_EFORMAT},
        {"{\"a\":7}", "must name a .safetensors file in the same folder", SYZ_EFORMAT},
        {"{\"a\":\"m-2.safetensors\"}", "places tensor \"a\" in m-2.safetensors, which lacks it", SYZ_EFORMAT},
        {"{\"a\":\"m-3.safetensors\"}", "m-3.safetensors: cannot open", SYZ_ENOTFOUND},
        {"[]", "\"weight_map\" must be an object", SYZ_EFORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[256];
        snprintf(text, sizeof text, "{\"weight_map\":%s}", cases[i].map);
        assert_null(syz_weights_open(temporary_file("m.safetensors.index.json", text, strlen(text))));
        assert_failed(cases[i].status, cases[i].message);
    }
}

/* Each allocation of a save and an open fails once: an error, no crash, and nothing left behind (under ASan). */
static void test_out_of_memory(void **state) {
    (void)state;
    const char *path = temporary_path("oom.safetensors");
    syz_tensor *t = check_randn(SYZ_SHAPE(2), 1);
    int failures = 0;
    for (int64_t n = 0; n < 100; n++) {
        syz_fault_set(n, false);
        syz_weights *weights = NULL;
        if (syz_weights_save(path, (const char *[]){"t"}, &t, 1, NULL, 0) == SYZ_OK) weights = syz_weights_open(path);
        syz_tensor *back = weights ? syz_weights_get(weights, "t") : NULL;
        syz_fault_set(-1, false);
        syz_weights_close(weights);
        if (back) break;
        assert_failed(SYZ_ENOMEM, "out of memory");
        failures++;
    }
    assert_in_range(failures, 5, 50);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(test_round_trip), CHECK_TEST(test_deterministic), CHECK_TEST(test_bad_save),
        CHECK_TEST(test_legal),      CHECK_TEST(test_malformed),     CHECK_TEST(test_bad_prefix),
        CHECK_TEST(test_shards),     CHECK_TEST(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
