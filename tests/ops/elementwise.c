#include "check.h"

static syz_tensor *f_add(syz_tensor *const in[]) {
    return syz_add(in[0], in[1]);
}
static syz_tensor *f_sub(syz_tensor *const in[]) {
    return syz_sub(in[0], in[1]);
}
static syz_tensor *f_mul(syz_tensor *const in[]) {
    return syz_mul(in[0], in[1]);
}
static syz_tensor *f_div(syz_tensor *const in[]) {
    return syz_div(in[0], syz_affine(syz_square(in[1]), 1, 0.5));
}
static syz_tensor *f_maximum(syz_tensor *const in[]) {
    return syz_maximum(in[0], in[1]);
}
static syz_tensor *f_minimum(syz_tensor *const in[]) {
    return syz_minimum(in[0], in[1]);
}
static syz_tensor *f_affine(syz_tensor *const in[]) {
    return syz_affine(in[0], -2.5, 0.25);
}
static syz_tensor *f_pow(syz_tensor *const in[]) {
    return syz_pow(syz_affine(syz_square(in[0]), 1, 1), 1.7);
}
static syz_tensor *f_clamp(syz_tensor *const in[]) {
    return syz_clamp(in[0], -0.5, 0.8);
}

/* Every pair of shapes exercises another path of the loop nest. */
static const syz_shape pairs[][2] = {
    {SYZ_SHAPE(3, 4), SYZ_SHAPE(3, 4)},       {SYZ_SHAPE(3, 4), SYZ_SHAPE(4)},
    {SYZ_SHAPE(3, 4), SYZ_SHAPE(3, 1)},       {SYZ_SHAPE(1), SYZ_SHAPE(2, 3)},
    {SYZ_SHAPE(2, 1, 3), SYZ_SHAPE(1, 4, 1)}, {SYZ_SHAPE(2, 3, 4), SYZ_SHAPE(2, 1, 4)},
};

static void binary_gradients(void **state) {
    (void)state;
    check_function functions[] = {f_add, f_sub, f_mul, f_div, f_maximum, f_minimum};
    for (size_t f = 0; f < sizeof functions / sizeof *functions; f++) {
        for (size_t p = 0; p < sizeof pairs / sizeof *pairs; p++) {
            syz_tensor *in[] = {check_leaf(pairs[p][0], 1), check_leaf(pairs[p][1], 2)};
            check_gradients(functions[f], in, 2, 1e-3, 5e-3);
        }
    }
}

static void number_gradients(void **state) {
    (void)state;
    check_function functions[] = {f_affine, f_pow, f_clamp};
    for (size_t f = 0; f < sizeof functions / sizeof *functions; f++) {
        syz_tensor *in[] = {check_leaf(SYZ_SHAPE(5, 7), 3)};
        check_gradients(functions[f], in, 1, 1e-3, 5e-3);
    }
}

static void broadcast_values(void **state) {
    (void)state;
    syz_tensor *a = check_tensor(SYZ_SHAPE(2, 1), 1, 2), *b = check_tensor(SYZ_SHAPE(3), 10, 20, 30);
    check_close(syz_add(a, b), check_tensor(SYZ_SHAPE(2, 3), 11, 21, 31, 12, 22, 32), 0);
    check_close(syz_sub(b, a), check_tensor(SYZ_SHAPE(2, 3), 9, 19, 29, 8, 18, 28), 0);
}

static void large_rows_are_cut(void **state) {
    (void)state;
    syz_tensor *a = check_randn(SYZ_SHAPE(100003), 5), *y = syz_mul(a, a);
    check_ok(y);
    const float *square = check_f32(y), *root = check_f32(a);
    for (int64_t i = 0; i < syz_numel(a); i++)
        assert_true(square[i] == root[i] * root[i]);
}

static void empty_tensors(void **state) {
    (void)state;
    syz_tensor *a = syz_zeros(SYZ_F32, SYZ_SHAPE(0, 3)), *b = check_randn(SYZ_SHAPE(3), 1);
    check_ok(syz_add(a, b));
}

static void mismatches_are_named(void **state) {
    (void)state;
    syz_tensor *a = check_randn(SYZ_SHAPE(2, 3), 1), *b = check_randn(SYZ_SHAPE(4), 2);
    assert_null(syz_add(a, b));
    assert_non_null(strstr(syz_error_message(), "[2,3] and [4]"));
    assert_null(syz_mul(a, a)); /* an error is pending: nothing runs and the first message stays */
    check_fails(syz_mul(a, a), SYZ_ESHAPE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(binary_gradients),   CHECK_TEST(number_gradients), CHECK_TEST(broadcast_values),
        CHECK_TEST(large_rows_are_cut), CHECK_TEST(empty_tensors),    CHECK_TEST(mismatches_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
