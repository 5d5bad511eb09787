#include "check.h"

static syz_tensor *f_linear_concat(syz_tensor *const in[]) {
    return syz_linear_concat(in[0], in[1], in[2], in[3]);
}

/* What it stands for. */
static syz_tensor *in_two(syz_tensor *const in[]) {
    return syz_linear(syz_concat((syz_tensor *[]){in[0], in[3]}, 2, in[0]->shape.n - 1), in[1], in[2]);
}

static void gradients(void **state) {
    (void)state;
    syz_tensor *in[] = {check_leaf(SYZ_SHAPE(2, 3, 5), 1), check_leaf(SYZ_SHAPE(4, 7), 2), check_leaf(SYZ_SHAPE(4), 3),
                        check_leaf(SYZ_SHAPE(2, 3, 2), 4)};
    check_gradients(f_linear_concat, in, 4, 1e-2, 1e-3);
}

/* Values and gradients of the two operations, with each set of inputs that need one; also one row, one column, and more
 * than a block of each. */
static void the_two_operations(void **state) {
    (void)state;
    static const int64_t sizes[][4] = {{5, 6, 3, 4}, {1, 3, 1, 5}, {300, 7, 33, 1}, {64, 40, 160, 48}};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        for (int wanted = 0; wanted < 32; wanted++) {
            const int64_t *n = sizes[s];
            syz_shape shapes[] = {SYZ_SHAPE(n[0], n[1]), SYZ_SHAPE(n[3], n[1] + n[2]), SYZ_SHAPE(n[3]),
                                  SYZ_SHAPE(n[0], n[2])};
            syz_tensor *one[4], *two[4];
            for (int k = 0; k < 4; k++) {
                one[k] = check_randn(shapes[k], (uint64_t)k + 1);
                two[k] = syz_copy(one[k]);
                syz_set_requires_grad(one[k], wanted >> k & 1);
                syz_set_requires_grad(two[k], wanted >> k & 1);
            }
            if (wanted & 16) one[2] = two[2] = NULL;
            syz_tensor *y = f_linear_concat(one), *expected = in_two(two), *g = check_randn(expected->shape, 9);
            check_close(y, expected, 2e-6);
            if (!syz_requires_grad(y)) continue;
            assert_int_equal(syz_backward(y, g), SYZ_OK);
            assert_int_equal(syz_backward(expected, g), SYZ_OK);
            for (int k = 0; k < 4; k++) {
                if (!one[k]) continue;
                assert_int_equal(one[k]->grad != NULL, wanted >> k & 1);
                if (one[k]->grad) check_close(one[k]->grad, two[k]->grad, 2e-6);
            }
        }
    }
}

/* In bf16, which a GPU computes in, to bf16's precision. */
static void half_precision(void **state) {
    (void)state;
    syz_shape shapes[] = {SYZ_SHAPE(33, 40), SYZ_SHAPE(24, 100), SYZ_SHAPE(24), SYZ_SHAPE(33, 60)};
    syz_tensor *in[4], *half[4];
    for (int k = 0; k < 4; k++) {
        in[k] = check_leaf(shapes[k], (uint64_t)k + 1);
        half[k] = syz_copy(syz_cast(in[k], SYZ_BF16));
        syz_set_requires_grad(half[k], true);
    }
    syz_tensor *y = f_linear_concat(in), *z = f_linear_concat(half), *dy = check_randn(y->shape, 9);
    check_close(syz_cast(z, SYZ_F32), y, 1e-2);
    assert_int_equal(syz_backward(y, dy), SYZ_OK);
    assert_int_equal(syz_backward(z, syz_cast(dy, z->dtype)), SYZ_OK);
    for (int k = 0; k < 4; k++)
        check_close(syz_cast(half[k]->grad, SYZ_F32), in[k]->grad, 1e-2);
}

/* Products in bf16: of f32 weights, of weights whose rounding is kept, and of frozen ones that are stored so. */
static void bf16_products(void **state) {
    (void)state;
    syz_set_device(0);
    syz_tensor *in[] = {check_leaf(SYZ_SHAPE(33, 40), 1), check_randn(SYZ_SHAPE(24, 100), 2),
                        check_randn(SYZ_SHAPE(24), 3), check_leaf(SYZ_SHAPE(33, 60), 4)};
    syz_tensor *exact = f_linear_concat(in), *g = check_randn(exact->shape, 5), *grad[2][2];
    assert_int_equal(syz_set_matmul_precision(SYZ_BF16), SYZ_OK);
    for (int way = 0; way < 3; way++) {
        if (way == 1) syz_keep_rounded(in[1]);
        if (way == 2) in[1] = syz_cast(in[1], SYZ_F16);
        for (int two = 0; two < 2; two++) {
            syz_tensor *y = two ? in_two(in) : f_linear_concat(in);
            check_close(y, exact, 2e-2);
            assert_int_equal(syz_backward(y, g), SYZ_OK);
            for (int k = 0; k < 2; k++) {
                grad[two][k] = syz_copy(in[3 * k]->grad);
                syz_set_grad(in[3 * k], NULL);
            }
        }
        for (int k = 0; k < 2; k++)
            check_close(grad[0][k], grad[1][k], 1e-6);
    }
    assert_int_equal(syz_set_matmul_precision(SYZ_F32), SYZ_OK);
}

static void mismatches_are_named(void **state) {
    (void)state;
    syz_tensor *x = check_randn(SYZ_SHAPE(2, 3), 1), *w = check_randn(SYZ_SHAPE(4, 6), 2);
    check_fails(syz_linear_concat(x, w, NULL, check_randn(SYZ_SHAPE(2, 2), 3)), SYZ_ESHAPE);
    check_fails(syz_linear_concat(x, w, NULL, check_randn(SYZ_SHAPE(3, 3), 3)), SYZ_ESHAPE);
    check_fails(syz_linear_concat(x, w, NULL, check_randn(SYZ_SHAPE(2, 1, 3), 3)), SYZ_ESHAPE);
    check_fails(syz_linear_concat(x, w, check_randn(SYZ_SHAPE(3), 3), x), SYZ_ESHAPE);
    check_fails(syz_linear_concat(syz_empty(SYZ_F32, SYZ_SHAPE(0, 3)), w, NULL, syz_empty(SYZ_F32, SYZ_SHAPE(0, 3))),
                SYZ_ESHAPE);
    check_fails(syz_linear_concat(x, syz_empty(SYZ_I64, SYZ_SHAPE(4, 6)), NULL, x), SYZ_EDTYPE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(gradients),     CHECK_TEST(the_two_operations),   CHECK_TEST(half_precision),
        CHECK_TEST(bf16_products), CHECK_TEST(mismatches_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
