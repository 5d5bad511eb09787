#include "check.h"

static syz_tensor *f_modulate(syz_tensor *const in[]) {
    return syz_modulate(in[0], in[1], in[2]);
}
static syz_tensor *f_layer_norm_modulate(syz_tensor *const in[]) {
    return syz_layer_norm_modulate(in[0], in[1], in[2], 1e-6);
}
static syz_tensor *f_gated_residual(syz_tensor *const in[]) {
    return syz_gated_residual(in[0], in[1], in[3]);
}
static syz_tensor *plain_modulate(syz_tensor *x, syz_tensor *shift, syz_tensor *scale) {
    syz_shape s = SYZ_SHAPE(x->shape.dim[0], 1, x->shape.dim[2]);
    return syz_add(syz_mul(x, syz_affine(syz_reshape(scale, s), 1, 1)), syz_reshape(shift, s));
}
static syz_tensor *g_modulate(syz_tensor *const in[]) {
    return plain_modulate(in[0], in[1], in[2]);
}
static syz_tensor *g_layer_norm_modulate(syz_tensor *const in[]) {
    return plain_modulate(syz_layer_norm(in[0], NULL, NULL, 1e-6), in[1], in[2]);
}
static syz_tensor *g_gated_residual(syz_tensor *const in[]) {
    syz_shape s = SYZ_SHAPE(in[0]->shape.dim[0], 1, in[0]->shape.dim[2]);
    return syz_add(in[0], syz_mul(syz_reshape(in[1], s), in[3]));
}

static const struct {
    check_function fused, plain;
} cases[] = {
    {f_modulate, g_modulate}, {f_layer_norm_modulate, g_layer_norm_modulate}, {f_gated_residual, g_gated_residual}};

static void make_inputs(syz_tensor *in[4], int64_t b, int64_t t, int64_t c) {
    in[0] = check_leaf(SYZ_SHAPE(b, t, c), 1);
    in[1] = check_leaf(SYZ_SHAPE(b, c), 2);
    in[2] = check_leaf(SYZ_SHAPE(b, c), 3);
    in[3] = check_leaf(SYZ_SHAPE(b, t, c), 4);
}

static void gradients(void **state) {
    (void)state;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        syz_tensor *in[4];
        make_inputs(in, 2, 3, 10);
        syz_set_requires_grad(in[2], k < 2);
        syz_set_requires_grad(in[3], k == 2);
        check_gradients(cases[k].fused, in, 4, 1e-2, 5e-3);
    }
}

/* Against the chain of simple operations, with one sample (its rows are cut into blocks) and with many. */
static void same_as_plain(void **state) {
    (void)state;
    const int64_t batch[] = {1, 3, 33};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        for (size_t b = 0; b < 3; b++) {
            syz_tensor *x[4], *z[4];
            make_inputs(x, batch[b], 37, 50);
            make_inputs(z, batch[b], 37, 50);
            syz_tensor *y = cases[k].fused(x), *expected = cases[k].plain(z);
            check_close(y, expected, 1e-6);
            syz_tensor *seed = check_randn(y->shape, 9);
            assert_int_equal(syz_backward(y, seed), SYZ_OK);
            assert_int_equal(syz_backward(expected, seed), SYZ_OK);
            for (int i = 0; i < 4; i++)
                if (z[i]->grad) check_close(x[i]->grad, z[i]->grad, 5e-6);
        }
    }
}

static void mismatches_are_named(void **state) {
    (void)state;
    syz_tensor *in[4];
    make_inputs(in, 2, 3, 4);
    check_fails(syz_modulate(in[0], in[1], syz_slice(in[1], 1, 0, 2)), SYZ_ESHAPE);
    check_fails(syz_modulate(in[1], in[1], in[1]), SYZ_ESHAPE);
    check_fails(syz_gated_residual(in[0], in[1], syz_slice(in[3], 1, 0, 2)), SYZ_ESHAPE);
    check_fails(syz_layer_norm_modulate(syz_transpose(in[0], 0, 1), in[1], in[1], 1e-6), SYZ_ESHAPE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(gradients),
        CHECK_TEST(same_as_plain),
        CHECK_TEST(mismatches_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
