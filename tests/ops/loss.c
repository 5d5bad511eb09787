#include "check.h"

static syz_tensor *f_cross_entropy(syz_tensor *const in[]) {
    return syz_cross_entropy(in[0], check_ids(SYZ_SHAPE(3), 4, 0, 2));
}
static syz_tensor *f_mse_loss(syz_tensor *const in[]) {
    return syz_mse_loss(in[0], in[1]);
}
static syz_tensor *f_l1_loss(syz_tensor *const in[]) {
    return syz_l1_loss(in[0], in[1]);
}

static void gradients(void **state) {
    (void)state;
    syz_tensor *logits[] = {check_leaf(SYZ_SHAPE(3, 5), 1)};
    check_gradients(f_cross_entropy, logits, 1, 1e-2, 2e-3);
    syz_tensor *in[] = {check_leaf(SYZ_SHAPE(2, 4), 2), check_leaf(SYZ_SHAPE(2, 4), 3)};
    check_gradients(f_mse_loss, in, 2, 1e-2, 2e-3);
    check_gradients(f_l1_loss, in, 2, 1e-3, 2e-3);
}

static void torch_reference(void **state) {
    (void)state;
    syz_weights *file = syz_weights_open("tests/ops/data/ops.safetensors");
    check_ok(file);
    syz_tensor *x = syz_weights_get(file, "cross_entropy.input"),
               *target = syz_weights_get(file, "cross_entropy.target");
    syz_set_requires_grad(x, true);
    syz_tensor *y = syz_cross_entropy(x, target);
    check_close(y, syz_weights_get(file, "cross_entropy.output"), 1e-6);
    assert_int_equal(syz_backward(y, syz_weights_get(file, "cross_entropy.grad_output")), SYZ_OK);
    check_close(x->grad, syz_weights_get(file, "cross_entropy.grad.input"), 1e-6);
    syz_weights_close(file);
}

static void hand_computed(void **state) {
    (void)state;
    syz_tensor *a = check_tensor(SYZ_SHAPE(2, 2), 1, 2, 3, 4), *b = check_tensor(SYZ_SHAPE(2, 2), 1, 0, 4, 8);
    check_close(syz_mse_loss(a, b), check_tensor((syz_shape){0}, 21.0f / 4), 0);
    check_close(syz_l1_loss(a, b), check_tensor((syz_shape){0}, 7.0f / 4), 0);
}

/* Averages do not depend on how many threads share the work. */
static void any_number_of_threads(void **state) {
    (void)state;
    syz_tensor *a = check_randn(SYZ_SHAPE(100001), 1), *b = check_randn(SYZ_SHAPE(100001), 2);
    int threads = syz_threads();
    syz_set_threads(1);
    syz_tensor *one = syz_mse_loss(a, b);
    syz_set_threads(3);
    syz_tensor *three = syz_mse_loss(a, b);
    syz_set_threads(threads);
    check_close(three, one, 0);
    check_close(one, syz_mean(syz_square(syz_sub(a, b)), (syz_shape){0}, false), 1e-6);
}

static void misuse_is_named(void **state) {
    (void)state;
    syz_tensor *x = check_randn(SYZ_SHAPE(2, 3), 1);
    check_fails(syz_cross_entropy(x, check_ids(SYZ_SHAPE(2), 0, 3)), SYZ_EINVAL);
    check_fails(syz_cross_entropy(x, check_ids(SYZ_SHAPE(1), 0)), SYZ_ESHAPE);
    check_fails(syz_mse_loss(x, check_randn(SYZ_SHAPE(3), 1)), SYZ_ESHAPE);
}

int main(void) {
    const struct CMUnitTest tests[] = {CHECK_TEST(gradients), CHECK_TEST(torch_reference), CHECK_TEST(hand_computed),
                                       CHECK_TEST(any_number_of_threads), CHECK_TEST(misuse_is_named)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
