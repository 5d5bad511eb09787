#include "check.h"

static int64_t dim;

static syz_tensor *f_softmax(syz_tensor *const in[]) {
    return syz_softmax(in[0], dim);
}
static syz_tensor *f_log_softmax(syz_tensor *const in[]) {
    return syz_log_softmax(in[0], dim);
}

static void gradients(void **state) {
    (void)state;
    for (dim = -2; dim <= 1; dim++) {
        syz_tensor *in[] = {check_leaf(SYZ_SHAPE(3, 5, 4), 1)};
        check_gradients(f_softmax, in, 1, 1e-2, 2e-3);
        check_gradients(f_log_softmax, in, 1, 1e-2, 2e-3);
    }
}

static void torch_references(void **state) {
    (void)state;
    syz_weights *file = syz_weights_open("tests/ops/data/ops.safetensors");
    check_ok(file);
    syz_tensor *x = syz_weights_get(file, "softmax.input"), *expected = syz_weights_get(file, "softmax.output");
    syz_set_requires_grad(x, true);
    syz_tensor *y = syz_softmax(x, -1);
    check_close(y, expected, 5e-6); /* one row is near 200, where the file's f32 is that coarse */
    assert_int_equal(syz_backward(y, syz_weights_get(file, "softmax.grad_output")), SYZ_OK);
    check_close(x->grad, syz_weights_get(file, "softmax.grad.input"), 5e-6);
    syz_weights_close(file);
}

/* A dimension in the middle, wider than one strip of columns: the logarithm of each column's exponentials sums to 1. */
static void columns_sum_to_one(void **state) {
    (void)state;
    syz_tensor *x = syz_affine(check_randn(SYZ_SHAPE(2, 7, 150), 2), 20, 0);
    syz_tensor *ones = syz_full(SYZ_F32, SYZ_SHAPE(2, 150), 1);
    check_close(syz_sum(syz_softmax(x, 1), SYZ_SHAPE(1), false), ones, 1e-6);
    check_close(syz_exp(syz_log_softmax(x, 1)), syz_softmax(x, 1), 2e-5);
}

static void wrong_dimension(void **state) {
    (void)state;
    check_fails(syz_softmax(check_randn(SYZ_SHAPE(2, 3), 1), 2), SYZ_ESHAPE);
}

int main(void) {
    const struct CMUnitTest tests[] = {CHECK_TEST(gradients), CHECK_TEST(torch_references),
                                       CHECK_TEST(columns_sum_to_one), CHECK_TEST(wrong_dimension)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
