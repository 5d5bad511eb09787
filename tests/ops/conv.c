#include "ops/reference.h"

static const struct {
    int64_t h, w, c, o, k, stride, top, left, bottom, right;
} cases[] = {
    {5, 6, 3, 4, 3, 1, 1, 1, 1, 1},   {6, 4, 4, 3, 3, 2, 0, 0, 1, 1}, {4, 3, 5, 6, 1, 1, 0, 0, 0, 0},
    {8, 4, 3, 5, 4, 4, 0, 0, 0, 0},   {6, 7, 2, 3, 3, 2, 1, 0, 2, 1}, {7, 9, 2, 2, 2, 3, 0, 0, 0, 0},
    {5, 5, 16, 16, 3, 1, 1, 1, 1, 1},
};
static size_t chosen;

static syz_tensor *f_conv(syz_tensor *const in[]) {
    return syz_conv2d(in[0], in[1], in[2], cases[chosen].stride, cases[chosen].top, cases[chosen].left,
                      cases[chosen].bottom, cases[chosen].right);
}

static void make_inputs(syz_tensor *in[3]) {
    in[0] = check_leaf(SYZ_SHAPE(2, cases[chosen].h, cases[chosen].w, cases[chosen].c), 1);
    in[1] = check_leaf(SYZ_SHAPE(cases[chosen].o, cases[chosen].c, cases[chosen].k, cases[chosen].k), 2);
    in[2] = check_leaf(SYZ_SHAPE(cases[chosen].o), 3);
}

static double window(const syz_tensor *const in[], int64_t n, int64_t y, int64_t x, int64_t o) {
    const int64_t *s = in[0]->shape.dim, *w = in[1]->shape.dim;
    double sum = syz_f32(in[2])[o];
    for (int64_t i = 0; i < w[2]; i++) {
        for (int64_t j = 0; j < w[3]; j++) {
            int64_t row = y * cases[chosen].stride - cases[chosen].top + i;
            int64_t column = x * cases[chosen].stride - cases[chosen].left + j;
            if (row < 0 || row >= s[1] || column < 0 || column >= s[2]) continue;
            for (int64_t c = 0; c < s[3]; c++)
                sum += (double)syz_f32(in[0])[((n * s[1] + row) * s[2] + column) * s[3] + c] *
                       syz_f32(in[1])[((o * w[1] + c) * w[2] + i) * w[3] + j];
        }
    }
    return sum;
}

/* Against the definition, in double. */
static void values(void **state) {
    (void)state;
    for (chosen = 0; chosen < sizeof cases / sizeof *cases; chosen++) {
        syz_tensor *in[3];
        make_inputs(in);
        syz_tensor *y = f_conv(in);
        check_ok(y);
        const syz_tensor *host[] = {check_host(in[0]), check_host(in[1]), check_host(in[2])};
        syz_tensor *expected = syz_host_zeros(SYZ_F32, y->shape);
        const int64_t *s = y->shape.dim;
        assert_int_equal(
            s[1],
            (cases[chosen].h + cases[chosen].top + cases[chosen].bottom - cases[chosen].k) / cases[chosen].stride + 1);
        for (int64_t i = 0; i < syz_numel(y); i++)
            syz_f32(expected)[i] =
                (float)window(host, i / s[3] / s[2] / s[1], i / s[3] / s[2] % s[1], i / s[3] % s[2], i % s[3]);
        check_close(y, expected, 2e-6);
    }
}

static void gradients(void **state) {
    (void)state;
    for (chosen = 0; chosen < sizeof cases / sizeof *cases - 1; chosen++) {
        syz_tensor *in[3];
        make_inputs(in);
        check_gradients(f_conv, in, 3, 1e-1, 1e-3); /* linear in each input: the step may be large */
    }
}

/* Every combination of wanted gradients gives the same ones. */
static void single_gradients(void **state) {
    (void)state;
    syz_tensor *all[3];
    chosen = 0;
    for (int only = -1; only < 3; only++) {
        syz_tensor *in[3];
        make_inputs(in);
        for (int k = 0; k < 3; k++)
            syz_set_requires_grad(in[k], only < 0 || only == k);
        syz_tensor *y = f_conv(in);
        check_ok(y);
        assert_int_equal(syz_backward(y, check_randn(y->shape, 4)), SYZ_OK);
        for (int k = 0; k < 3; k++) {
            if (only < 0) all[k] = syz_copy(in[k]->grad);
            if (only == k) check_close(in[k]->grad, all[k], 1e-6);
            if (only >= 0 && only != k) assert_null(in[k]->grad);
        }
    }
}

/* Reduced precision stays within bf16's, in all three directions. */
static void bf16_precision(void **state) {
    (void)state;
    syz_tensor *first[4] = {0};
    chosen = 6;
    for (int half = 0; half < 2; half++) {
        assert_int_equal(syz_set_matmul_precision(half ? SYZ_BF16 : SYZ_F32), SYZ_OK);
        syz_tensor *in[3];
        make_inputs(in);
        syz_tensor *y = f_conv(in);
        check_ok(y);
        assert_int_equal(syz_backward(y, check_randn(y->shape, 4)), SYZ_OK);
        syz_tensor *now[] = {y, in[0]->grad, in[1]->grad, in[2]->grad};
        for (int k = 0; k < 4; k++) {
            if (half)
                check_close(now[k], first[k], 1e-2);
            else
                first[k] = syz_copy(now[k]);
        }
    }
    syz_set_matmul_precision(SYZ_F32);
}

static syz_tensor *f_upsample(syz_tensor *const in[]) {
    return syz_upsample_nearest(in[0], 3);
}

static void upsampling(void **state) {
    (void)state;
    check_gradients(f_upsample, (syz_tensor *[]){check_leaf(SYZ_SHAPE(2, 3, 2, 5), 1)}, 1, 1e-1, 1e-4);
    check_close(syz_upsample_nearest(check_tensor(SYZ_SHAPE(1, 1, 2, 1), 1, 2), 2),
                check_tensor(SYZ_SHAPE(1, 2, 4, 1), 1, 1, 2, 2, 1, 1, 2, 2), 0);
}

static void mismatches_are_named(void **state) {
    (void)state;
    syz_tensor *x = check_randn(SYZ_SHAPE(1, 4, 4, 3), 1), *w = check_randn(SYZ_SHAPE(2, 3, 3, 3), 2);
    check_fails(syz_conv2d(x, check_randn(SYZ_SHAPE(2, 4, 3, 3), 2), NULL, 1, 1, 1, 1, 1), SYZ_ESHAPE);
    check_fails(syz_conv2d(x, w, check_randn(SYZ_SHAPE(3), 1), 1, 1, 1, 1, 1), SYZ_ESHAPE);
    check_fails(syz_conv2d(x, w, NULL, 0, 1, 1, 1, 1), SYZ_EINVAL);
    check_fails(syz_conv2d(x, w, NULL, 1, -1, 1, 1, 1), SYZ_EINVAL);
    check_fails(syz_conv2d(syz_slice(x, 1, 0, 2), w, NULL, 1, 0, 0, 0, 0), SYZ_ESHAPE);
    check_fails(syz_upsample_nearest(x, 0), SYZ_EINVAL);
}

static void torch(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int64_t stride, before, after;
    } convolutions[] = {{"conv3x3", 1, 1, 1}, {"conv3x3_down", 2, 0, 1}, {"conv1x1", 1, 0, 0}, {"conv_patch", 4, 0, 0}};
    const char *arguments[] = {"input", "weight", "bias"};
    for (int k = 0; k < 4; k++) {
        const char *name = convolutions[k].name;
        int64_t before = convolutions[k].before, after = convolutions[k].after;
        syz_tensor *in[3] = {0};
        for (int a = 0; a < (k == 3 ? 2 : 3); a++)
            in[a] = reference_leaf(name, arguments[a]);
        syz_tensor *y = syz_conv2d(to_nhwc(in[0]), in[1], in[2], convolutions[k].stride, before, before, after, after);
        check_reference(name, to_nchw(y), in, arguments, k == 3 ? 2 : 3, 2e-6);
    }
    syz_tensor *x = reference_leaf("nearest_x2", "input");
    check_reference("nearest_x2", to_nchw(syz_upsample_nearest(to_nhwc(x), 2)), &x, arguments, 1, 1e-6);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(torch),
        CHECK_TEST(values),
        CHECK_TEST(gradients),
        CHECK_TEST(single_gradients),
        CHECK_TEST(bf16_precision),
        CHECK_TEST(upsampling),
        CHECK_TEST(mismatches_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
