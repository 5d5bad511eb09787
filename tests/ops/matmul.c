#include "check.h"
#include "core/alloc.h"

static syz_tensor *f_linear(syz_tensor *const in[]) {
    return syz_linear(in[0], in[1], in[2]);
}
static syz_tensor *f_plain(syz_tensor *const in[]) {
    return syz_matmul(in[0], in[1], false, false);
}
static syz_tensor *f_left(syz_tensor *const in[]) {
    return syz_matmul(in[0], in[1], true, false);
}
static syz_tensor *f_right(syz_tensor *const in[]) {
    return syz_matmul(in[0], in[1], false, true);
}
static syz_tensor *f_both(syz_tensor *const in[]) {
    return syz_matmul(in[0], in[1], true, true);
}

static const check_function products[] = {f_plain, f_left, f_right, f_both};

static syz_shape exchange(syz_shape s, bool really) {
    int64_t last = s.dim[s.n - 1];
    if (really) {
        s.dim[s.n - 1] = s.dim[s.n - 2];
        s.dim[s.n - 2] = last;
    }
    return s;
}

static const syz_shape pairs[][2] = {
    {SYZ_SHAPE(3, 5), SYZ_SHAPE(5, 4)},       {SYZ_SHAPE(2, 3, 5), SYZ_SHAPE(2, 5, 4)},
    {SYZ_SHAPE(2, 3, 5), SYZ_SHAPE(5, 4)},    {SYZ_SHAPE(2, 2, 1, 3), SYZ_SHAPE(2, 2, 3, 6)},
    {SYZ_SHAPE(1, 3, 5), SYZ_SHAPE(1, 5, 1)}, {SYZ_SHAPE(2, 2, 3, 1), SYZ_SHAPE(1, 2)},
};

/* Sum over k in double, element by element. */
static syz_tensor *slow_product(const syz_tensor *a, const syz_tensor *b, bool ta, bool tb, syz_shape shape) {
    int64_t m = shape.dim[shape.n - 2], n = shape.dim[shape.n - 1];
    int64_t k = a->shape.dim[ta ? a->shape.n - 2 : a->shape.n - 1];
    syz_tensor *y = syz_host_zeros(SYZ_F32, shape);
    const float *left = check_f32(a), *right = check_f32(b);
    for (int64_t e = 0; e < syz_numel(y); e++) {
        int64_t j = e % n, i = e / n % m, batch = e / (m * n);
        const float *p = left + batch * m * k, *q = right + (b->shape.n == 2 ? 0 : batch * k * n);
        double sum = 0;
        for (int64_t t = 0; t < k; t++)
            sum += (double)p[ta ? t * m + i : i * k + t] * q[tb ? j * k + t : t * n + j];
        syz_f32(y)[e] = (float)sum;
    }
    return y;
}

static void products_and_gradients(void **state) {
    (void)state;
    for (size_t f = 0; f < 4; f++) {
        bool ta = f & 1, tb = f & 2;
        for (size_t p = 0; p < sizeof pairs / sizeof *pairs; p++) {
            syz_tensor *a = check_leaf(exchange(pairs[p][0], ta), 1), *b = check_leaf(exchange(pairs[p][1], tb), 2);
            syz_tensor *in[] = {a, b}, *y = products[f](in);
            check_ok(y);
            check_close(y, slow_product(a, b, ta, tb, y->shape), 1e-6);
            check_gradients(products[f], in, 2, 1e-2, 1e-3);
        }
    }
}

static void linear_gradients(void **state) {
    (void)state;
    syz_shape inputs[] = {SYZ_SHAPE(6), SYZ_SHAPE(5, 6), SYZ_SHAPE(2, 3, 6), SYZ_SHAPE(2, 1, 2, 6)};
    for (size_t s = 0; s < 4; s++) {
        syz_tensor *in[] = {check_leaf(inputs[s], 1), check_leaf(SYZ_SHAPE(4, 6), 2), check_leaf(SYZ_SHAPE(4), 3)};
        check_gradients(f_linear, in, 3, 1e-2, 1e-3);
        in[2] = NULL;
        check_gradients(f_linear, in, 2, 1e-2, 1e-3);
    }
}

static void linear_values(void **state) {
    (void)state;
    syz_tensor *x = check_tensor(SYZ_SHAPE(2, 3), 1, 2, 3, 4, 5, 6);
    syz_tensor *weight = check_tensor(SYZ_SHAPE(2, 3), 1, 0, -1, 2, 1, 0), *bias = check_tensor(SYZ_SHAPE(2), 10, 20);
    check_close(syz_linear(x, weight, bias), check_tensor(SYZ_SHAPE(2, 2), 8, 24, 8, 33), 0);
    check_close(syz_linear(x, weight, NULL), check_tensor(SYZ_SHAPE(2, 2), -2, 4, -2, 13), 0);
}

/* A frozen layer passes the gradient through and computes none for its weight. */
static void frozen_weights(void **state) {
    (void)state;
    syz_tensor *x = check_leaf(SYZ_SHAPE(3, 4), 1), *weight = check_randn(SYZ_SHAPE(2, 4), 2);
    syz_tensor *in[] = {x, weight, check_randn(SYZ_SHAPE(2), 3)};
    check_gradients(f_linear, in, 3, 1e-2, 1e-3);
    assert_null(weight->grad);
}

/* The same product twice, large enough for every thread and blocking path. */
static void large_products_repeat(void **state) {
    (void)state;
    syz_tensor *a = check_randn(SYZ_SHAPE(300, 517), 1), *b = check_randn(SYZ_SHAPE(517, 260), 2);
    syz_tensor *y = syz_matmul(a, b, false, false), *z = syz_matmul(a, b, false, false);
    check_ok(z);
    assert_memory_equal(check_f32(y), check_f32(z), syz_nbytes(y));
    check_close(y, slow_product(a, b, false, false, y->shape), 2e-6);
}

static void empty_products(void **state) {
    (void)state;
    syz_tensor *weight = check_randn(SYZ_SHAPE(2, 3), 1), *bias = check_tensor(SYZ_SHAPE(2), 1, 2);
    check_ok(syz_linear(syz_zeros(SYZ_F32, SYZ_SHAPE(0, 3)), weight, NULL));
    syz_tensor *y = syz_linear(syz_zeros(SYZ_F32, SYZ_SHAPE(2, 0)), syz_zeros(SYZ_F32, SYZ_SHAPE(2, 0)), bias);
    check_close(y, check_tensor(SYZ_SHAPE(2, 2), 1, 2, 1, 2), 0);
}

static void bf16_where_the_processor_has_it(void **state) {
    (void)state;
    syz_tensor *a = check_randn(SYZ_SHAPE(3, 40, 64), 1), *b = check_randn(SYZ_SHAPE(3, 48, 64), 2);
    syz_tensor *exact = syz_matmul(a, b, false, true);
    assert_int_equal(syz_set_matmul_precision(SYZ_BF16), SYZ_OK);
    syz_tensor *y = syz_matmul(a, b, false, true);
    check_close(y, exact, syz_matmul_precision() == SYZ_BF16 ? 1e-2 : 0);
    assert_int_equal(syz_set_matmul_precision(SYZ_F32), SYZ_OK);
    assert_int_equal(syz_matmul_precision(), SYZ_F32);
    check_fails(syz_set_matmul_precision(SYZ_I32), SYZ_EDTYPE);
}

/* A weight's kept rounding: the same bits as a fresh conversion, forward and backward, and anew after every way in
 * which values change. */
static void kept_roundings_follow_the_weight(void **state) {
    syz_set_device(0); /* a GPU keeps none */
    (void)state;
    syz_tensor *weight = check_leaf(SYZ_SHAPE(48, 64), 1), *x = check_leaf(SYZ_SHAPE(40, 64), 2), *y[2], *dx[2];
    syz_adamw *optimizer;
    syz_ema *ema;
    assert_int_equal(syz_set_matmul_precision(SYZ_BF16), SYZ_OK);
    syz_keep_rounded(weight);
    syz_adamw_options options = {.lr = 0.1, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
    assert_int_equal(syz_adamw_create(&optimizer, &weight, 1, options), SYZ_OK);
    assert_int_equal(syz_ema_create(&ema, &weight, 1), SYZ_OK);
    for (int change = 0; change < 5; change++) {
        if (change == 1) assert_int_equal(syz_adamw_step(optimizer, 0.1), SYZ_OK);
        if (change == 2) syz_ema_swap(ema);
        if (change == 3) assert_int_equal(syz_assign(weight, check_randn(SYZ_SHAPE(48, 64), 3)), SYZ_OK);
        if (change == 4) syz_f32(weight)[0] += 1, syz_touch(weight);
        for (int fresh = 0; fresh < 2; fresh++) {
            syz_set_grad(x, NULL);
            y[fresh] = syz_linear(x, fresh ? syz_copy(weight) : weight, NULL);
            assert_int_equal(syz_backward(syz_sum(y[fresh], SYZ_SHAPE(0, 1), false), NULL), SYZ_OK);
            dx[fresh] = syz_copy(x->grad);
        }
        check_close(y[0], y[1], 0);
        check_close(dx[0], dx[1], 0);
    }
    syz_adamw_free(optimizer);
    syz_ema_free(ema);
    assert_int_equal(syz_set_matmul_precision(SYZ_F32), SYZ_OK);
}

/* Without memory the product fails with that error, whichever allocation it was, and later succeeds. */
/* y and dx of a linear layer with this weight, and how much the graph holds beyond x and y. */
static size_t run_linear(syz_tensor *weight, syz_tensor *y[2], bool needs_grad) {
    syz_tensor *x = check_leaf(SYZ_SHAPE(5, 64), 1);
    syz_set_requires_grad(weight, needs_grad);
    size_t before = syz_memory_stats().live;
    y[0] = syz_linear(x, weight, check_randn(SYZ_SHAPE(48), 2));
    check_ok(y[0]);
    size_t held = syz_memory_stats().live - before;
    assert_int_equal(syz_backward(y[0], syz_full(SYZ_F32, y[0]->shape, 0.5)), SYZ_OK);
    y[1] = syz_grad(x);
    return held;
}

static void frozen_half_weights_stay_as_stored(void **state) {
    (void)state;
    static const syz_dtype dtypes[] = {SYZ_BF16, SYZ_F16}, precisions[] = {SYZ_F32, SYZ_BF16};
    for (int k = 0; k < 4; k++) {
        assert_int_equal(syz_set_matmul_precision(precisions[k / 2]), SYZ_OK);
        syz_tensor *half = syz_cast(check_randn(SYZ_SHAPE(48, 64), 3), dtypes[k % 2]), *as_half[2], *as_f32[2];
        size_t held = run_linear(half, as_half, false);
        assert_true(held < 48 * 64 * sizeof(float));
        run_linear(syz_cast(half, SYZ_F32), as_f32, false);
        for (int i = 0; i < 2; i++)
            check_close(as_half[i], as_f32[i], 0);
        assert_int_equal(as_half[0]->dtype, SYZ_F32);
        run_linear(half, as_half, true); /* one that is trained gets its gradient, in f32 */
        assert_non_null(syz_grad(half));
        assert_int_equal(syz_grad(half)->dtype, SYZ_F32);
    }
    assert_int_equal(syz_set_matmul_precision(SYZ_F32), SYZ_OK);
}

static void bf16_products_without_memory_fail(void **state) {
    (void)state;
    syz_tensor *weight = check_randn(SYZ_SHAPE(48, 64), 1), *x = check_randn(SYZ_SHAPE(40, 64), 2);
    assert_int_equal(syz_set_matmul_precision(SYZ_BF16), SYZ_OK);
    syz_keep_rounded(weight);
    for (int64_t n = 0; n < 4; n++) {
        syz_memory_trim();
        syz_fault_set(n, true);
        syz_tensor *y = syz_linear(x, weight, NULL);
        syz_fault_set(-1, false);
        assert_int_equal(y == NULL, syz_error_status() == SYZ_ENOMEM);
        syz_error_clear();
    }
    check_close(syz_linear(x, weight, NULL), syz_linear(x, syz_copy(weight), NULL), 0);
    assert_int_equal(syz_set_matmul_precision(SYZ_F32), SYZ_OK);
}

static void mismatches_are_named(void **state) {
    (void)state;
    syz_tensor *a = check_randn(SYZ_SHAPE(2, 3), 1), *b = check_randn(SYZ_SHAPE(2, 4), 2);
    check_fails(syz_linear(a, b, NULL), SYZ_ESHAPE);
    check_fails(syz_linear(a, a, b), SYZ_ESHAPE);
    assert_null(syz_matmul(a, b, false, true));
    assert_non_null(strstr(syz_error_message(), "[2,3] and [2,4] (transposed)"));
    syz_error_clear();
    check_fails(syz_matmul(a, check_randn(SYZ_SHAPE(2, 3, 4), 1), false, false), SYZ_ESHAPE);
}

/* Layers that share an input, and layers that share a weight over two backward passes: products add to the gradient
 * that is there. */
static void gradients_are_added(void **state) {
    (void)state;
    syz_shape shapes[] = {SYZ_SHAPE(9, 16), SYZ_SHAPE(8, 16), SYZ_SHAPE(8)};
    syz_tensor *in[3], *alone[3], *weight = check_randn(SYZ_SHAPE(8, 16), 7), *sum[3] = {0};
    for (int k = 0; k < 3; k++) {
        in[k] = check_leaf(shapes[k], k + 1);
        alone[k] = check_leaf(shapes[k], k + 1);
    }
    for (int pass = 0; pass < 2; pass++) {
        syz_tensor *g = check_randn(SYZ_SHAPE(9, 8), pass + 11), *x = syz_affine(in[0], 2, 0);
        syz_tensor *y = syz_add(syz_linear(x, in[1], in[2]), syz_linear(x, weight, NULL));
        assert_int_equal(syz_backward(syz_add(y, syz_linear_gelu(x, in[1], NULL)), g), SYZ_OK);
        for (int part = 0; part < 3; part++) {
            x = syz_affine(alone[0], 2, 0);
            y = part == 0   ? syz_linear(x, alone[1], alone[2])
                : part == 1 ? syz_linear(x, weight, NULL)
                            : syz_linear_gelu(x, alone[1], NULL);
            assert_int_equal(syz_backward(y, g), SYZ_OK);
            for (int k = 0; k < 3; k++) {
                if (!alone[k]->grad) continue;
                sum[k] = sum[k] ? syz_add(sum[k], alone[k]->grad) : syz_copy(alone[k]->grad);
                syz_set_grad(alone[k], NULL);
            }
        }
    }
    for (int k = 0; k < 3; k++)
        check_close(in[k]->grad, sum[k], 1e-5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(products_and_gradients),
        CHECK_TEST(linear_gradients),
        CHECK_TEST(gradients_are_added),
        CHECK_TEST(linear_values),
        CHECK_TEST(frozen_weights),
        CHECK_TEST(large_products_repeat),
        CHECK_TEST(empty_products),
        CHECK_TEST(bf16_where_the_processor_has_it),
        CHECK_TEST(kept_roundings_follow_the_weight),
        CHECK_TEST(frozen_half_weights_stay_as_stored),
        CHECK_TEST(bf16_products_without_memory_fail),
        CHECK_TEST(mismatches_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
