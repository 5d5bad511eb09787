#include "check.h"

static syz_shape dims;
static int64_t keep;

static syz_tensor *f_sum(syz_tensor *const in[]) {
    return syz_sum(in[0], dims, keep);
}
static syz_tensor *f_mean(syz_tensor *const in[]) {
    return syz_mean(in[0], dims, keep);
}

static void gradients(void **state) {
    (void)state;
    const syz_shape choices[] = {{0}, SYZ_SHAPE(0), SYZ_SHAPE(1), SYZ_SHAPE(-1), SYZ_SHAPE(0, 2), SYZ_SHAPE(1, 2)};
    for (size_t c = 0; c < sizeof choices / sizeof *choices; c++) {
        for (keep = 0; keep < 2; keep++) {
            dims = choices[c];
            syz_tensor *in[] = {check_leaf(SYZ_SHAPE(3, 4, 5), c)};
            check_gradients(f_sum, in, 1, 1e-2, 1e-3);
            check_gradients(f_mean, in, 1, 1e-2, 1e-3);
        }
    }
}

static void values(void **state) {
    (void)state;
    syz_tensor *x = check_tensor(SYZ_SHAPE(2, 3), 1, 2, 3, 4, 5, 6);
    check_close(syz_sum(x, SYZ_SHAPE(0), 0), check_tensor(SYZ_SHAPE(3), 5, 7, 9), 0);
    check_close(syz_mean(x, SYZ_SHAPE(1), 1), check_tensor(SYZ_SHAPE(2, 1), 2, 5), 0);
    check_close(syz_sum(x, (syz_shape){0}, 0), check_tensor((syz_shape){0}, 21), 0);
    check_fails(syz_sum(x, SYZ_SHAPE(2), 0), SYZ_ESHAPE);
}

static void long_sums_stay_exact(void **state) {
    (void)state;
    syz_tensor *x = syz_full(SYZ_F32, SYZ_SHAPE(1 << 24), 0.1);
    double total;
    assert_int_equal(syz_item(&total, syz_sum(x, (syz_shape){0}, 0)), SYZ_OK);
    assert_true(fabs(total - (1 << 24) * (double)0.1f) < 1);
}

static void largest_index(void **state) {
    (void)state;
    syz_tensor *x = check_tensor(SYZ_SHAPE(2, 3), 1, 5, 5, 9, NAN, 10);
    const int64_t rows[] = {1, 1}, columns[] = {1, 1, 1};
    syz_tensor *y = syz_argmax(x, -1), *z = syz_argmax(x, 0);
    check_ok(z);
    assert_memory_equal(check_f32(y), rows, sizeof rows);
    assert_memory_equal(check_f32(z), columns, sizeof columns);
    check_fails(syz_argmax(x, 2), SYZ_ESHAPE);
}

int main(void) {
    const struct CMUnitTest tests[] = {CHECK_TEST(gradients), CHECK_TEST(values), CHECK_TEST(long_sums_stay_exact),
                                       CHECK_TEST(largest_index)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
