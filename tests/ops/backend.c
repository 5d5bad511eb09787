/* Operations take their kernels from the call and report each failure: here every kernel fails, as those of a device do
 * that was lost. */
#include "check.h"

#pragma GCC diagnostic ignored "-Wunused-parameter"

#define REAL syz_real
#define KERNEL(name, params)                                                                                           \
    static int lost_##name params {                                                                                    \
        return -1;                                                                                                     \
    }
#include "kernels/kernels.def"
#undef KERNEL

static const syz_backend lost = {
#define KERNEL(name, params) .name = lost_##name,
#include "kernels/kernels.def"
#undef KERNEL
};

/* The operation that made `out`, once more on a lost device: an error, and its message says so. */
static void forward_fails(syz_tensor *out) {
    check_ok(out);
    syz_call call = out->node->call;
    call.kernels = &lost;
    if (syz_ops[call.op].forward(&call) == SYZ_OK && !syz_failed())
        fail_msg("%s does not notice that its kernel failed", syz_call_name(&call));
    if (!strstr(syz_error_message(), "failed") && !strstr(syz_error_message(), "no memory"))
        fail_msg("%s: %s", syz_call_name(&call), syz_error_message());
    syz_error_clear();
}

static void both_fail(syz_tensor *out) {
    forward_fails(out);
    syz_call *call = &out->node->call;
    const char *name = syz_call_name(call);
    call->kernels = &lost;
    if (syz_backward(out, syz_full(SYZ_F32, out->shape, 1)) == SYZ_OK)
        fail_msg("the gradient of %s does not notice that its kernel failed", name);
    syz_error_clear();
}

static syz_tensor *ids(int64_t a, int64_t b) {
    return check_ids(SYZ_SHAPE(2), a, b);
}

static void elementwise(void **state) {
    (void)state;
    syz_tensor *x = check_leaf(SYZ_SHAPE(2, 3), 1), *row = check_leaf(SYZ_SHAPE(3), 2);
    both_fail(syz_add(x, row)); /* the gradient of the row is a sum */
    both_fail(syz_sub(x, row));
    forward_fails(syz_mul(x, row));
    forward_fails(syz_affine(x, 2, 1));
    forward_fails(syz_pow(x, 2));
    both_fail(syz_clamp(x, -1, 1));
    both_fail(syz_tanh(x));
    both_fail(syz_softmax(x, 1));
    both_fail(syz_log_softmax(x, 1));
    forward_fails(syz_sum(x, (syz_shape){0}, false));
}

static void moving(void **state) {
    (void)state;
    syz_tensor *x = check_leaf(SYZ_SHAPE(2, 3), 1);
    both_fail(syz_transpose(x, 0, 1));
    both_fail(syz_slice(x, 1, 0, 2));
    both_fail(syz_concat((syz_tensor *[]){x, x}, 2, 1));
    both_fail(syz_broadcast_to(x, SYZ_SHAPE(2, 2, 3)));
    both_fail(syz_index_select(x, 1, ids(0, 2)));
    both_fail(syz_embedding(x, ids(1, 0)));
    both_fail(syz_gather_rows(check_leaf(SYZ_SHAPE(2, 3, 4), 2), ids(1, 2)));
    forward_fails(syz_cast(x, SYZ_BF16));
}

static void products(void **state) {
    (void)state;
    syz_tensor *x = check_leaf(SYZ_SHAPE(2, 3), 1), *w = check_leaf(SYZ_SHAPE(4, 3), 2);
    syz_tensor *q = check_leaf(SYZ_SHAPE(1, 2, 1, 4), 3), *image = check_leaf(SYZ_SHAPE(1, 4, 4, 2), 4);
    syz_tensor *filter = check_leaf(SYZ_SHAPE(3, 2, 3, 3), 5), *angles = check_randn(SYZ_SHAPE(2, 2), 6);
    both_fail(syz_linear(x, w, NULL));
    both_fail(syz_linear_gelu(x, w, check_leaf(SYZ_SHAPE(4), 6)));
    syz_tensor *t = check_leaf(SYZ_SHAPE(1, 2, 4), 7), *norm = check_leaf(SYZ_SHAPE(4), 8);
    both_fail(syz_joint_attention(t, t, t, norm, norm, NULL, NULL, NULL, NULL, NULL, angles, angles, 1e-6));
    both_fail(syz_linear_concat(x, check_leaf(SYZ_SHAPE(4, 6), 9), check_leaf(SYZ_SHAPE(4), 6), x));
    both_fail(syz_matmul(x, w, false, true));
    both_fail(syz_attention(q, q, q, NULL, 1, false));
    both_fail(syz_rope(q, angles, angles));
    both_fail(syz_conv2d(image, filter, NULL, 1, 1, 1, 1, 1));
    both_fail(syz_upsample_nearest(image, 2));
    both_fail(syz_resize(image, 3, 3, 0, true));
}

static void norms_and_losses(void **state) {
    (void)state;
    syz_tensor *x = check_leaf(SYZ_SHAPE(2, 3), 1), *w = check_leaf(SYZ_SHAPE(3), 2);
    syz_tensor *rows = check_leaf(SYZ_SHAPE(2, 2, 3), 3), *scale = check_leaf(SYZ_SHAPE(2, 3), 4);
    both_fail(syz_layer_norm(x, w, w, 1e-5));
    both_fail(syz_rms_norm(x, w, 1e-5));
    both_fail(syz_group_norm(rows, w, w, 3, 1e-5, false));
    both_fail(syz_normalize(x, 1e-5));
    both_fail(syz_modulate(rows, scale, scale));
    both_fail(syz_layer_norm_modulate(rows, scale, scale, 1e-5));
    both_fail(syz_gated_residual(rows, scale, rows));
    both_fail(syz_cross_entropy(x, ids(2, 0)));
    both_fail(syz_mse_loss(x, scale));
    both_fail(syz_l1_loss(x, scale));
}

int main(void) {
    const struct CMUnitTest tests[] = {CHECK_TEST(elementwise), CHECK_TEST(moving), CHECK_TEST(products),
                                       CHECK_TEST(norms_and_losses)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
