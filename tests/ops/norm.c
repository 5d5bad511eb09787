#include "ops/reference.h"

static syz_tensor *f_layer_norm(syz_tensor *const in[]) {
    return syz_layer_norm(in[0], in[1], in[2], 1e-5);
}
static syz_tensor *f_layer_norm_plain(syz_tensor *const in[]) {
    return syz_layer_norm(in[0], NULL, NULL, 1e-6);
}
static syz_tensor *f_rms_norm(syz_tensor *const in[]) {
    return syz_rms_norm(in[0], in[1], 1e-6);
}
static syz_tensor *f_rms_norm_plain(syz_tensor *const in[]) {
    return syz_rms_norm(in[0], NULL, 1e-6);
}
static syz_tensor *f_normalize(syz_tensor *const in[]) {
    return syz_normalize(in[0], 1e-12);
}
static syz_tensor *f_group_norm(syz_tensor *const in[]) {
    return syz_group_norm(in[0], in[1], in[2], 3, 1e-6, false);
}
static syz_tensor *f_group_norm_silu(syz_tensor *const in[]) {
    return syz_group_norm(in[0], in[1], in[2], 3, 1e-6, true);
}

static void gradients(void **state) {
    (void)state;
    static const struct {
        check_function function;
        int inputs;
    } cases[] = {{f_layer_norm, 3}, {f_layer_norm_plain, 1}, {f_rms_norm, 2},       {f_rms_norm_plain, 1},
                 {f_normalize, 1},  {f_group_norm, 3},       {f_group_norm_silu, 3}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        syz_tensor *in[] = {check_leaf(SYZ_SHAPE(2, 9, 12), 1), check_leaf(SYZ_SHAPE(12), 2),
                            check_leaf(SYZ_SHAPE(12), 3)};
        check_gradients(cases[k].function, in, cases[k].inputs, 1e-2, 5e-3);
    }
}

/* Mean and variance of each row of x (or of each group), in double. */
static void expect_unit(const float *x, int64_t n, int64_t run, int64_t step) {
    double sum = 0, square = 0;
    for (int64_t i = 0; i < n; i += run)
        for (int64_t k = 0; k < run; k++)
            sum += x[i / run * step + k], square += (double)x[i / run * step + k] * x[i / run * step + k];
    assert_float_equal(sum / (double)n, 0, 2e-4);
    assert_float_equal(square / (double)n, 1, 1e-3);
}

/* Rows far from zero keep their precision. */
static void statistics_far_from_zero(void **state) {
    (void)state;
    syz_tensor *x = syz_affine(check_randn(SYZ_SHAPE(40, 1000), 4), 1, 300);
    syz_tensor *y = syz_layer_norm(x, NULL, NULL, 1e-5);
    check_ok(y);
    for (int64_t row = 0; row < 40; row++)
        expect_unit(check_f32(y) + row * 1000, 1000, 1000, 0);
    syz_tensor *one = syz_full(SYZ_F32, SYZ_SHAPE(8), 1), *zero = syz_full(SYZ_F32, SYZ_SHAPE(8), 0);
    x = syz_affine(check_randn(SYZ_SHAPE(3, 40, 41, 8), 5), 1, 300);
    y = syz_group_norm(x, one, zero, 4, 1e-5, false);
    check_ok(y);
    for (int64_t n = 0; n < 3; n++)
        for (int64_t g = 0; g < 4; g++)
            expect_unit(check_f32(y) + n * 40 * 41 * 8 + g * 2, 40 * 41 * 2, 2, 8);
}

/* Weight gradients do not depend on how many threads run, and one large sample goes the same way as many. */
static void threads_do_not_matter(void **state) {
    (void)state;
    int threads = syz_threads();
    syz_tensor *first[3], *output = NULL;
    for (int run = 0; run < 3; run++) {
        syz_set_threads(run + 1);
        syz_tensor *x = check_leaf(SYZ_SHAPE(2, 33, 35, 16), 1), *w = check_leaf(SYZ_SHAPE(16), 2),
                   *b = check_leaf(SYZ_SHAPE(16), 3);
        syz_tensor *y = syz_layer_norm(syz_group_norm(x, w, b, 4, 1e-6, true), w, b, 1e-6);
        check_ok(y);
        assert_int_equal(syz_backward(y, check_randn(y->shape, 4)), SYZ_OK);
        if (run == 0) {
            output = y;
            first[0] = x->grad, first[1] = w->grad, first[2] = b->grad;
        }
        check_close(y, output, 0);
        check_close(x->grad, first[0], 0);
        check_close(w->grad, first[1], 0);
        check_close(b->grad, first[2], 0);
        for (int k = 0; run == 0 && k < 3; k++)
            first[k] = syz_copy(first[k]);
    }
    syz_set_threads(threads);
}

/* Only what is asked for is computed, and it is the same. */
static void single_gradients(void **state) {
    (void)state;
    check_function functions[] = {f_layer_norm, f_group_norm_silu};
    for (size_t f = 0; f < 2; f++) {
        syz_tensor *all[3];
        for (int only = -1; only < 3; only++) {
            syz_tensor *in[] = {check_randn(SYZ_SHAPE(2, 9, 12), 1), check_randn(SYZ_SHAPE(12), 2),
                                check_randn(SYZ_SHAPE(12), 3)};
            for (int k = 0; k < 3; k++)
                syz_set_requires_grad(in[k], only < 0 || only == k);
            syz_tensor *y = functions[f](in);
            check_ok(y);
            assert_int_equal(syz_backward(y, check_randn(y->shape, 4)), SYZ_OK);
            for (int k = 0; k < 3; k++) {
                if (only < 0) all[k] = syz_copy(in[k]->grad);
                if (only == k) check_close(in[k]->grad, all[k], 0);
                if (only >= 0 && only != k) assert_null(in[k]->grad);
            }
        }
    }
}

static void zero_vectors(void **state) {
    (void)state;
    syz_tensor *x = syz_zeros(SYZ_F32, SYZ_SHAPE(2, 3));
    syz_set_requires_grad(x, true);
    syz_tensor *y = syz_normalize(x, 1e-3);
    check_close(y, x, 0);
    assert_int_equal(syz_backward(syz_sum(y, (syz_shape){0}, false), NULL), SYZ_OK);
    check_close(x->grad, syz_full(SYZ_F32, SYZ_SHAPE(2, 3), 1e3), 1e-6);
}

static void mismatches_are_named(void **state) {
    (void)state;
    syz_tensor *x = check_randn(SYZ_SHAPE(2, 4, 6), 1), *w = check_randn(SYZ_SHAPE(4), 2);
    check_fails(syz_layer_norm(x, w, NULL, 1e-5), SYZ_ESHAPE);
    check_fails(syz_rms_norm(syz_zeros(SYZ_F32, SYZ_SHAPE(0, 4)), w, 1e-5), SYZ_ESHAPE);
    check_fails(syz_group_norm(x, w, w, 2, 1e-5, false), SYZ_ESHAPE);
    w = check_randn(SYZ_SHAPE(6), 2);
    check_fails(syz_group_norm(x, w, w, 4, 1e-5, false), SYZ_ESHAPE);
}

static void torch(void **state) {
    (void)state;
    const char *arguments[] = {"input", "weight", "bias"};
    const char *names[] = {"layer_norm", "layer_norm_plain", "rms_norm", "group_norm_silu"};
    const int inputs[] = {3, 1, 2, 3};
    for (int k = 0; k < 4; k++) {
        syz_tensor *in[3] = {0}, *y = NULL;
        for (int a = 0; a < inputs[k]; a++)
            in[a] = reference_leaf(names[k], arguments[a]);
        if (k < 2) y = syz_layer_norm(in[0], in[1], in[2], k == 0 ? 1e-5 : 1e-6);
        if (k == 2) y = syz_rms_norm(in[0], in[1], 1e-6);
        if (k == 3) y = to_nchw(syz_group_norm(to_nhwc(in[0]), in[1], in[2], 4, 1e-6, true));
        check_reference(names[k], y, in, arguments, inputs[k], 2e-6);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(torch),
        CHECK_TEST(gradients),
        CHECK_TEST(statistics_far_from_zero),
        CHECK_TEST(threads_do_not_matter),
        CHECK_TEST(single_gradients),
        CHECK_TEST(zero_vectors),
        CHECK_TEST(mismatches_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
