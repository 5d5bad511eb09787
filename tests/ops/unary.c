#include "check.h"

/* The reference formula in double, per function; inputs are kept inside each function's domain. */
typedef struct {
    const char *name;
    syz_tensor *(*f)(syz_tensor *x);
    double (*reference)(double x);
    bool positive;
} unary_case;

static double r_rsqrt(double x) {
    return 1 / sqrt(x);
}
static double r_square(double x) {
    return x * x;
}
static double r_relu(double x) {
    return x > 0 ? x : 0;
}
static double r_sigmoid(double x) {
    return 1 / (1 + exp(-x));
}
static double r_silu(double x) {
    return x * r_sigmoid(x);
}
static double r_gelu(double x) {
    return 0.5 * x * (1 + erf(x / sqrt(2)));
}
static double r_gelu_tanh(double x) {
    return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}
static double r_quick_gelu(double x) {
    return x * r_sigmoid(1.702 * x);
}

static const unary_case cases[] = {
    {"exp", syz_exp, exp, false},
    {"log", syz_log, log, true},
    {"sqrt", syz_sqrt, sqrt, true},
    {"rsqrt", syz_rsqrt, r_rsqrt, true},
    {"abs", syz_abs, fabs, false},
    {"square", syz_square, r_square, false},
    {"relu", syz_relu, r_relu, false},
    {"sigmoid", syz_sigmoid, r_sigmoid, false},
    {"tanh", syz_tanh, tanh, false},
    {"silu", syz_silu, r_silu, false},
    {"gelu", syz_gelu, r_gelu, false},
    {"gelu_tanh", syz_gelu_tanh, r_gelu_tanh, false},
    {"quick_gelu", syz_quick_gelu, r_quick_gelu, false},
    {"sin", syz_sin, sin, false},
    {"cos", syz_cos, cos, false},
};

static void values(void **state) {
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        syz_tensor *x = syz_affine(check_randn(SYZ_SHAPE(4001), c + 1), 2, 0);
        if (cases[c].positive) x = syz_affine(syz_square(x), 1, 0.01);
        syz_tensor *y = cases[c].f(x);
        check_ok(y);
        const float *at = check_f32(x), *value = check_f32(y);
        for (int64_t i = 0; i < syz_numel(x); i++) {
            double want = cases[c].reference(at[i]), error = fabs(value[i] - want);
            if (!(error <= 1e-6 * fabs(want) + 5e-7))
                fail_msg("%s(%g) = %g, not %g", cases[c].name, at[i], value[i], want);
        }
    }
}

static const unary_case *current;

static syz_tensor *apply_current(syz_tensor *const in[]) {
    return current->f(current->positive ? syz_affine(syz_square(in[0]), 1, 0.3) : in[0]);
}

static void gradients(void **state) {
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        current = &cases[c];
        syz_tensor *in[] = {check_leaf(SYZ_SHAPE(6, 5), c + 20)};
        check_gradients(apply_current, in, 1, 2e-3, 5e-3);
    }
}

static void extremes(void **state) {
    (void)state;
    syz_tensor *x = check_tensor(SYZ_SHAPE(5), -200, 200, 0, NAN, -88);
    const float *e = check_f32(syz_exp(x)), *t = check_f32(syz_tanh(x));
    assert_true(e[0] == 0 && isinf(e[1]) && e[2] == 1 && isnan(e[3]));
    assert_true(t[0] == -1 && t[1] == 1 && t[2] == 0 && isnan(t[3]));
}

int main(void) {
    const struct CMUnitTest tests[] = {CHECK_TEST(values), CHECK_TEST(gradients), CHECK_TEST(extremes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
