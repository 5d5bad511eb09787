#include "check.h"

#include <stdlib.h>

enum { TOKENS = 5, IN = 128, OUT = 160 };

static syz_tensor *rounded(syz_tensor *y) {
    assert_int_equal(syz_set_fp8(false), SYZ_OK);
    return y;
}

static void begin(void) {
    syz_no_grad_push();
    assert_int_equal(syz_set_fp8(true), SYZ_OK);
}

static void end(void) {
    syz_set_fp8(false);
    syz_no_grad_pop();
}

static bool equal(const syz_tensor *a, const syz_tensor *b) {
    check_ok(a);
    check_ok(b);
    return check_error(a, b) == 0;
}

/* Close to the product that it stands for, and not that product; with the bias, GELU and a second input too. */
static void layers(void **state) {
    (void)state;
    syz_tensor *x = check_randn(SYZ_SHAPE(2, TOKENS, IN), 1), *w = check_randn(SYZ_SHAPE(OUT, IN), 2);
    syz_tensor *bias = check_randn(SYZ_SHAPE(OUT), 3), *x2 = check_randn(SYZ_SHAPE(2, TOKENS, 144), 4);
    syz_tensor *wide = check_randn(SYZ_SHAPE(OUT, IN + 144), 5);
    for (int way = 0; way < 4; way++) {
        syz_tensor *y[2];
        for (int fp8 = 0; fp8 < 2; fp8++) {
            syz_no_grad_push();
            syz_set_fp8(fp8);
            y[fp8] = way == 0   ? syz_linear(x, w, NULL)
                     : way == 1 ? syz_linear(x, w, bias)
                     : way == 2 ? syz_linear_gelu(x, w, bias)
                                : syz_linear_concat(x, wide, bias, x2);
            end();
        }
        check_close(y[1], y[0], 0.06);
        assert_false(equal(y[1], y[0]));
    }
}

/* Powers of two in a row for every token lose nothing. */
static void exact_where_the_format_is(void **state) {
    (void)state;
    float *x = malloc(sizeof *x * TOKENS * IN), *w = malloc(sizeof *w * OUT * IN);
    for (int i = 0; i < TOKENS * IN; i++)
        x[i] = ldexpf(i % 3 ? 448 : -448, -(i % 7));
    for (int i = 0; i < OUT * IN; i++)
        w[i] = ldexpf(i % 5 ? -448 : 448, -3 - i % 4);
    syz_tensor *a = syz_from(SYZ_F32, SYZ_SHAPE(1, TOKENS, IN), x), *b = syz_from(SYZ_F32, SYZ_SHAPE(OUT, IN), w);
    free(x);
    free(w);
    syz_tensor *expected = syz_linear(a, b, NULL);
    begin();
    check_close(rounded(syz_linear(a, b, NULL)), expected, 1e-6);
    end();
}

/* Conditions [B,I], narrow layers, odd sizes, and whatever records gradients. */
static void others_stay(void **state) {
    (void)state;
    static const int64_t odd[][2] = {{IN, 112}, {112, OUT}, {136, OUT}, {IN, 152}};
    syz_tensor *x = check_randn(SYZ_SHAPE(40, IN), 1), *w = check_randn(SYZ_SHAPE(OUT, IN), 2);
    syz_tensor *expected = syz_linear(x, w, NULL), *tokens = syz_reshape(x, SYZ_SHAPE(8, 5, IN)), *y;
    begin();
    assert_true(equal(syz_linear(x, w, NULL), expected));
    for (int k = 0; k < 4; k++) {
        syz_tensor *in = check_randn(SYZ_SHAPE(2, 3, odd[k][0]), 3),
                   *weight = check_randn(SYZ_SHAPE(odd[k][1], odd[k][0]), 4);
        y = syz_linear(in, weight, NULL);
        syz_set_fp8(false);
        assert_true(equal(y, syz_linear(in, weight, NULL)));
        syz_set_fp8(true);
    }
    int depth = syz_no_grad_swap(0);
    y = syz_linear(tokens, w, NULL);
    assert_true(equal(syz_reshape(y, SYZ_SHAPE(40, OUT)), expected));
    assert_int_equal(syz_set_fp8(true), SYZ_EINVAL);
    syz_error_clear();
    syz_no_grad_swap(depth);
    end();
}

/* The kept codes follow the weight; so does a weight in half precision, which a file stores. */
static void codes_follow_the_weight(void **state) {
    (void)state;
    syz_tensor *x = check_randn(SYZ_SHAPE(1, TOKENS, IN), 1), *w = check_randn(SYZ_SHAPE(OUT, IN), 2);
    syz_tensor *other = check_randn(SYZ_SHAPE(OUT, IN), 3), *half = syz_cast(w, SYZ_BF16);
    begin();
    syz_tensor *first = syz_linear(x, w, NULL), *wanted = syz_linear(x, other, NULL);
    assert_true(equal(syz_linear(x, w, NULL), first));
    check_close(syz_linear(x, half, NULL), first, 0.06);
    assert_int_equal(syz_assign(w, other), SYZ_OK);
    assert_true(equal(syz_linear(x, w, NULL), wanted));
    end();
}

static void older_devices_say_so(void **state) {
    (void)state;
    if (check_device() == 0) return; /* the CPU has every type */
    syz_tensor *x = check_randn(SYZ_SHAPE(1, TOKENS, IN), 1), *w = check_randn(SYZ_SHAPE(OUT, IN), 2);
    setenv("EMULATED_COMPUTE", "80", 1);
    begin();
    syz_tensor *y = syz_linear(x, w, NULL);
    unsetenv("EMULATED_COMPUTE");
    assert_null(y);
    assert_non_null(strstr(syz_error_message(), "leave rollout = \"fp8\" out"));
    syz_error_clear();
    end();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(layers),
        CHECK_TEST(exact_where_the_format_is),
        CHECK_TEST(others_stay),
        CHECK_TEST(codes_follow_the_weight),
        CHECK_TEST(older_devices_say_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
