#include "check.h"

#include <string.h>

static syz_tensor *f_linear_gelu(syz_tensor *const in[]) {
    return syz_linear_gelu(in[0], in[1], in[2]);
}

/* What it stands for. */
static syz_tensor *in_two(syz_tensor *const in[]) {
    return syz_gelu_tanh(syz_linear(in[0], in[1], in[2]));
}

/* On the CPU to the bit; elsewhere a library sums in its own order and has its own tanh. */
static void check_equal(const syz_tensor *a, const syz_tensor *b) {
    check_ok(a);
    check_ok(b);
    assert_true(syz_shape_equal(a->shape, b->shape) && a->dtype == b->dtype);
    check_close(a, b, check_device() ? 2e-6 : 0);
    if (check_device() == 0) assert_memory_equal(syz_data(a), syz_data(b), syz_nbytes(a));
}

static const syz_shape inputs[] = {SYZ_SHAPE(6), SYZ_SHAPE(5, 6), SYZ_SHAPE(2, 3, 6), SYZ_SHAPE(2, 1, 2, 6)};

static void gradients(void **state) {
    (void)state;
    for (size_t s = 0; s < 4; s++) {
        syz_tensor *in[] = {check_leaf(inputs[s], 1), check_leaf(SYZ_SHAPE(4, 6), 2), check_leaf(SYZ_SHAPE(4), 3)};
        check_gradients(f_linear_gelu, in, 3, 1e-2, 1e-3);
        in[2] = NULL;
        check_gradients(f_linear_gelu, in, 2, 1e-2, 1e-3);
    }
}

/* Values and gradients are those of the two operations, to the bit; also for one column, a long batch, and each input
 * alone. */
static void the_two_operations(void **state) {
    (void)state;
    static const int64_t sizes[][3] = {{5, 6, 4}, {300, 7, 1}, {1, 3, 5}, {64, 33, 40}};
    for (size_t s = 0; s < 4; s++)
        for (int wanted = 0; wanted < 8; wanted++) {
            syz_shape shapes[] = {SYZ_SHAPE(sizes[s][0], sizes[s][1]), SYZ_SHAPE(sizes[s][2], sizes[s][1]),
                                  SYZ_SHAPE(sizes[s][2])};
            syz_tensor *one[3], *two[3];
            for (int k = 0; k < 3; k++) {
                bool needs = wanted >> k & 1;
                one[k] = needs ? check_leaf(shapes[k], k + 1) : check_randn(shapes[k], k + 1);
                two[k] = needs ? check_leaf(shapes[k], k + 1) : one[k];
            }
            syz_tensor *y = f_linear_gelu(one), *expected = in_two(two);
            check_equal(y, expected);
            if (!wanted) continue;
            syz_tensor *g = check_randn(y->shape, 9);
            assert_int_equal(syz_backward(y, g), SYZ_OK);
            assert_int_equal(syz_backward(expected, g), SYZ_OK);
            for (int k = 0; k < 3; k++)
                if (wanted >> k & 1) check_equal(one[k]->grad, two[k]->grad);
        }
}

/* The bias gradient of linear is the sum of the rows, whether or not it comes out of a product. */
static void bias_gradient(void **state) {
    (void)state;
    for (int64_t n = 1; n < 80; n += 26) {
        syz_tensor *x = check_randn(SYZ_SHAPE(500, 3), 1), *w = check_leaf(SYZ_SHAPE(n, 3), 2);
        syz_tensor *b = check_leaf(SYZ_SHAPE(n), 3), *g = check_randn(SYZ_SHAPE(500, n), 4);
        assert_int_equal(syz_backward(syz_linear(x, w, b), g), SYZ_OK);
        check_equal(b->grad, syz_sum(g, SYZ_SHAPE(0), false));
    }
}

static void empty_and_half(void **state) {
    (void)state;
    /* no features: gelu_tanh of the bias in every row; no rows: nothing, and gradients of zero */
    syz_tensor *in[] = {check_leaf(SYZ_SHAPE(3, 0), 1), check_leaf(SYZ_SHAPE(2, 0), 2), check_leaf(SYZ_SHAPE(2), 3)};
    syz_tensor *y = f_linear_gelu(in);
    check_equal(y, in_two(in));
    check_equal(syz_slice(y, 0, 2, 3), syz_view(syz_gelu_tanh(in[2]), SYZ_SHAPE(1, 2)));
    assert_int_equal(syz_backward(y, syz_full(SYZ_F32, y->shape, 1)), SYZ_OK);
    assert_true(check_f32(in[2]->grad)[1] != 0);
    in[2] = NULL;
    check_equal(f_linear_gelu(in), syz_zeros(SYZ_F32, SYZ_SHAPE(3, 2)));
    syz_tensor *none[] = {check_leaf(SYZ_SHAPE(0, 3), 1), check_leaf(SYZ_SHAPE(2, 3), 2), check_leaf(SYZ_SHAPE(2), 3)};
    y = f_linear_gelu(none);
    check_ok(y);
    assert_int_equal(syz_backward(y, syz_zeros(SYZ_F32, y->shape)), SYZ_OK);
    check_equal(none[2]->grad, syz_zeros(SYZ_F32, SYZ_SHAPE(2)));
    /* a frozen bf16 weight is read as stored */
    syz_tensor *half[] = {check_leaf(SYZ_SHAPE(5, 6), 1), syz_cast(check_randn(SYZ_SHAPE(4, 6), 2), SYZ_BF16), NULL};
    check_equal(f_linear_gelu(half), in_two(half));
}

static void check_message(syz_status status, const char *message) {
    assert_int_equal(syz_error_status(), status);
    assert_string_equal(syz_error_message(), message);
    syz_error_clear();
}

static void refusals(void **state) {
    (void)state;
    syz_tensor *x = check_randn(SYZ_SHAPE(2, 3), 1), *w = check_randn(SYZ_SHAPE(4, 5), 2);
    syz_linear_gelu(x, w, NULL);
    check_message(SYZ_ESHAPE, "linear_gelu: input [2,3] does not end in the 5 features of weight [4,5]");
    syz_tensor *fits = check_randn(SYZ_SHAPE(4, 3), 2);
    syz_linear_gelu(x, fits, w);
    check_message(SYZ_ESHAPE, "linear_gelu: bias [4,5] does not fit weight [4,3]");
}

int main(void) {
    const struct CMUnitTest tests[] = {CHECK_TEST(gradients), CHECK_TEST(the_two_operations), CHECK_TEST(bias_gradient),
                                       CHECK_TEST(empty_and_half), CHECK_TEST(refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
