#include "check.h"
#include "core/alloc.h"

static void shared_inputs_accumulate(void **state) {
    (void)state;
    syz_tensor *x = check_leaf(SYZ_SHAPE(3), 1);
    syz_tensor *y = syz_add(syz_mul(x, x), x); /* dy/dx = 2x + 1 */
    assert_int_equal(syz_backward(syz_sum(y, (syz_shape){0}, 0), NULL), SYZ_OK);
    check_close(syz_grad(x), syz_affine(syz_alias(x), 2, 1), 1e-6);
}

static void frozen_inputs_get_nothing(void **state) {
    (void)state;
    syz_tensor *x = check_leaf(SYZ_SHAPE(3), 1), *w = check_randn(SYZ_SHAPE(3), 2);
    assert_int_equal(syz_backward(syz_mul(x, w), w), SYZ_OK);
    assert_non_null(syz_grad(x));
    assert_null(syz_grad(w));
}

static void no_grad_records_nothing(void **state) {
    (void)state;
    syz_tensor *x = check_leaf(SYZ_SHAPE(3), 1);
    syz_no_grad_push();
    syz_tensor *y = syz_mul(x, x);
    syz_no_grad_pop();
    assert_false(syz_requires_grad(y));
    check_fails(syz_backward(y, y), SYZ_EINVAL);
}

static void a_graph_is_used_once(void **state) {
    (void)state;
    syz_tensor *x = check_leaf(SYZ_SHAPE(1), 1), *y = syz_mul(x, x);
    assert_int_equal(syz_backward(y, NULL), SYZ_OK);
    check_fails(syz_backward(y, NULL), SYZ_EINVAL);
}

/* Long chains must not recurse, neither in the pass nor when they are thrown away. */
static void long_chains(void **state) {
    (void)state;
    for (int use = 0; use < 2; use++) {
        syz_scope_push();
        syz_tensor *x = check_leaf(SYZ_SHAPE(1), 1), *y = x;
        for (int i = 0; i < 200000; i++) {
            syz_scope_push();
            y = syz_scope_return(syz_affine(y, 1, 1e-9));
            syz_scope_pop();
        }
        if (use) assert_int_equal(syz_backward(y, NULL), SYZ_OK);
        syz_scope_pop();
    }
}

static syz_tensor *cube(void *context, int64_t index, syz_tensor *const in[], int nin) {
    (void)nin;
    syz_tensor *w = context;
    return syz_mul(syz_pow(in[0], (double)index), syz_mul(w, in[1]));
}

static void checkpoint_equals_direct(void **state) {
    (void)state;
    syz_tensor *grads[2][3];
    for (int run = 0; run < 2; run++) {
        syz_tensor *x = syz_affine(syz_square(check_randn(SYZ_SHAPE(4), 1)), 1, 1), *w = check_leaf(SYZ_SHAPE(4), 2);
        syz_set_requires_grad(x, true);
        syz_tensor *z = check_leaf(SYZ_SHAPE(4), 3), *in[] = {x, z};
        syz_tensor *y = run ? syz_checkpoint(cube, w, 3, in, 2) : cube(w, 3, in, 2);
        assert_int_equal(syz_backward(syz_mul(y, y), syz_alias(w)), SYZ_OK);
        grads[run][0] = syz_grad(x), grads[run][1] = syz_grad(w), grads[run][2] = syz_grad(z);
        for (int k = 0; k < 3; k++)
            grads[run][k] = syz_copy(grads[run][k]);
    }
    for (int k = 0; k < 3; k++)
        check_close(grads[1][k], grads[0][k], 0);
}

static void half_precision_flows(void **state) {
    (void)state;
    syz_tensor *x = check_leaf(SYZ_SHAPE(8), 1), *h = syz_cast(x, SYZ_BF16), *y = syz_mul(h, h);
    assert_int_equal(y->dtype, SYZ_BF16);
    assert_int_equal(syz_backward(y, syz_cast(syz_full(SYZ_F32, SYZ_SHAPE(8), 1), SYZ_BF16)), SYZ_OK);
    check_close(syz_grad(x), syz_affine(syz_alias(x), 2, 0), 1e-2);
}

/* Whatever allocation fails, the operation reports it and leaks nothing. */
static void every_allocation_may_fail(void **state) {
    (void)state;
    size_t before = syz_memory_stats().live;
    for (int n = 0;; n++) {
        assert_true(n < 1000);
        syz_scope_push();
        syz_fault_set(n, false);
        syz_tensor *x = check_randn(SYZ_SHAPE(3, 4), 1);
        if (x) syz_set_requires_grad(x, true);
        syz_tensor *y = syz_sum(syz_mul(x, syz_exp(x)), (syz_shape){0}, 0);
        bool ok = y && syz_backward(y, NULL) == SYZ_OK;
        syz_fault_set(-1, false);
        syz_scope_pop();
        assert_int_equal(syz_memory_stats().live, before);
        if (ok) break;
        assert_int_equal(syz_error_status(), SYZ_ENOMEM);
        syz_error_clear();
    }
}

/* A bf16 parameter collects the f32 gradient that an f32 parameter of the same values gets, also where it is first
 * moved as it is stored, and adds further ones in f32. */
static void half_leaves_collect_f32(void **state) {
    (void)state;
    syz_tensor *half = syz_cast(check_randn(SYZ_SHAPE(5, 6), 1), SYZ_BF16), *whole = syz_cast(half, SYZ_F32);
    syz_tensor *x = check_randn(SYZ_SHAPE(4, 6), 2), *leaves[] = {whole, half};
    for (int k = 0; k < 2; k++) {
        syz_set_requires_grad(leaves[k], true);
        for (int pass = 0; pass < 2; pass++)
            assert_int_equal(
                syz_backward(syz_mean(syz_square(syz_linear(x, leaves[k], NULL)), (syz_shape){0}, false), NULL),
                SYZ_OK);
    }
    assert_int_equal(half->grad->dtype, SYZ_F32);
    assert_memory_equal(syz_data(half->grad), syz_data(whole->grad), syz_nbytes(whole->grad));
    syz_set_grad(half, NULL);
    assert_int_equal(syz_backward(syz_transpose(half, 0, 1), syz_cast(syz_full(SYZ_F32, SYZ_SHAPE(6, 5), 1), SYZ_BF16)),
                     SYZ_OK);
    assert_int_equal(half->grad->dtype, SYZ_F32);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(shared_inputs_accumulate),
        CHECK_TEST(frozen_inputs_get_nothing),
        CHECK_TEST(no_grad_records_nothing),
        CHECK_TEST(a_graph_is_used_once),
        CHECK_TEST(long_chains),
        CHECK_TEST(checkpoint_equals_direct),
        CHECK_TEST(half_precision_flows),
        CHECK_TEST(half_leaves_collect_f32),
        CHECK_TEST(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
