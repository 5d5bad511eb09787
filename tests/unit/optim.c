#include "check.h"

static void give(syz_tensor *p, const float *grad) {
    syz_set_grad(p, grad ? syz_from(SYZ_F32, p->shape, grad) : NULL);
}

/* torch.optim.AdamW(lr as below, betas (.9, .99), eps 1e-6, weight_decay .05) on the same gradients; b has none in the
 * second step. */
static void adamw_is_torchs(void **state) {
    (void)state;
    syz_tensor *a = check_tensor(SYZ_SHAPE(4), 0.5, -1.25, 2.0, 0.03125), *b = check_tensor(SYZ_SHAPE(2), 1.0, -0.5);
    const float ga[3][4] = {{0.5, -2.0, 1e-4f, 3.0}, {1.0, 0.25, -1e-4f, -1.0}, {-0.75, 0.0, 2.0, 0.5}};
    const float gb[3][2] = {{1.0, 2.0}, {0}, {-3.0, 0.125}};
    const double lr[3] = {0.1, 0.05, 0.2};
    syz_adamw *optimizer;
    syz_adamw_options options = {.lr = 0.1, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-6, .weight_decay = 0.05};
    assert_int_equal(syz_adamw_create(&optimizer, (syz_tensor *[]){a, b}, 2, options), SYZ_OK);
    for (int k = 0; k < 3; k++) {
        give(a, ga[k]);
        give(b, k == 1 ? NULL : gb[k]);
        assert_int_equal(syz_adamw_step(optimizer, lr[k]), SYZ_OK);
    }
    check_close(a, check_tensor(SYZ_SHAPE(4), 0.292179316f, -1.01216817f, 1.74279213f, -0.169293255f), 3e-7);
    check_close(b, check_tensor(SYZ_SHAPE(2), 0.98470968f, -0.734885812f), 3e-7);
    check_close(syz_adamw_moment(optimizer, 0, SYZ_ADAMW_M),
                check_tensor(SYZ_SHAPE(4), 0.055499997f, -0.139500007f, 0.199999094f, 0.203000009f), 3e-7);
    check_close(syz_adamw_moment(optimizer, 1, SYZ_ADAMW_V), check_tensor(SYZ_SHAPE(2), 0.0998999998f, 0.0397562496f),
                3e-7);
    assert_int_equal(syz_adamw_steps(optimizer, 0), 3);
    assert_int_equal(syz_adamw_steps(optimizer, 1), 2);
    syz_adamw_zero_grad(optimizer);
    assert_null(syz_grad(a));
    syz_adamw_free(optimizer);
}

/* Two steps in one go, and two steps with the state carried over into a second optimizer. */
static void adamw_state_carries_over(void **state) {
    (void)state;
    syz_adamw_options options = {.lr = 0.01, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
    syz_tensor *p = check_randn(SYZ_SHAPE(1000), 1), *q = syz_copy(p), *g = check_randn(SYZ_SHAPE(1000), 2);
    syz_adamw *one, *first, *second;
    assert_int_equal(syz_adamw_create(&one, &p, 1, options), SYZ_OK);
    assert_int_equal(syz_adamw_create(&first, &q, 1, options), SYZ_OK);
    assert_int_equal(syz_adamw_create(&second, &q, 1, options), SYZ_OK);
    syz_set_grad(p, g);
    syz_set_grad(q, g);
    syz_adamw_step(one, 0.01);
    syz_adamw_step(one, 0.02);
    syz_adamw_step(first, 0.01);
    for (int kind = SYZ_ADAMW_M; kind <= SYZ_ADAMW_V; kind++)
        assert_int_equal(syz_assign(syz_adamw_moment(second, 0, kind), syz_adamw_moment(first, 0, kind)), SYZ_OK);
    syz_adamw_set_steps(second, 0, syz_adamw_steps(first, 0));
    syz_adamw_step(second, 0.02);
    assert_memory_equal(syz_data(p), syz_data(q), syz_nbytes(p));
    syz_adamw_free(one);
    syz_adamw_free(first);
    syz_adamw_free(second);
}

static void adamw_refuses(void **state) {
    (void)state;
    syz_adamw *optimizer;
    syz_tensor *p = check_randn(SYZ_SHAPE(2), 1), *ids = syz_zeros(SYZ_I64, SYZ_SHAPE(2));
    check_fails(syz_adamw_create(&optimizer, &ids, 1, (syz_adamw_options){0}), SYZ_EDTYPE);
    check_fails(syz_adamw_create(&optimizer, &p, 1, (syz_adamw_options){.beta1 = 1}), SYZ_EINVAL);
    assert_null(optimizer);
}

static void clipping(void **state) {
    (void)state;
    double norm;
    syz_tensor *a = check_randn(SYZ_SHAPE(2), 1), *b = check_randn(SYZ_SHAPE(1), 2), *c = check_randn(SYZ_SHAPE(3), 3);
    syz_tensor *params[] = {a, b, c};
    give(a, (float[]){3, 0});
    give(b, (float[]){-4});
    assert_int_equal(syz_clip_grad_norm(&norm, params, 3, 0), SYZ_OK);
    assert_true(norm == 5);
    assert_int_equal(syz_clip_grad_norm(&norm, params, 3, 6), SYZ_OK);
    assert_true(norm == 5 && syz_f32(b->grad)[0] == -4);
    assert_int_equal(syz_clip_grad_norm(&norm, params, 3, 1), SYZ_OK);
    check_close(a->grad, check_tensor(SYZ_SHAPE(2), 0.6f, 0), 1e-6);
    check_close(b->grad, check_tensor(SYZ_SHAPE(1), -0.8f), 1e-6);
    give(b, (float[]){NAN});
    assert_int_equal(syz_clip_grad_norm(&norm, params, 3, 0.1), SYZ_OK);
    assert_true(isnan(norm));
    check_close(a->grad, check_tensor(SYZ_SHAPE(2), 0.6f, 0), 1e-6);
}

/* The gradient of a + b is one tensor for both: it must be scaled once. */
static void clipping_shared_gradients(void **state) {
    (void)state;
    double norm;
    syz_tensor *a = check_leaf(SYZ_SHAPE(2), 1), *b = check_leaf(SYZ_SHAPE(2), 2), *params[] = {a, b};
    assert_int_equal(syz_backward(syz_add(a, b), check_tensor(SYZ_SHAPE(2), 3, 4)), SYZ_OK);
    assert_int_equal(syz_clip_grad_norm(&norm, params, 2, 1), SYZ_OK);
    assert_int_equal(syz_clip_grad_norm(&norm, params, 2, 0), SYZ_OK);
    assert_true(fabs(norm - 1) < 1e-5);
}

static void averages(void **state) {
    (void)state;
    syz_ema *ema;
    syz_tensor *p = check_tensor(SYZ_SHAPE(2), 1, 2), *next = check_tensor(SYZ_SHAPE(2), 5, -2);
    assert_int_equal(syz_ema_create(&ema, &p, 1), SYZ_OK);
    syz_assign(p, next);
    assert_int_equal(syz_ema_update(ema, 0.75), SYZ_OK);
    check_close(syz_ema_shadow(ema, 0), check_tensor(SYZ_SHAPE(2), 2, 1), 1e-7);
    syz_ema_swap(ema);
    check_close(p, check_tensor(SYZ_SHAPE(2), 2, 1), 1e-7);
    syz_ema_swap(ema);
    check_close(p, next, 0);
    check_fails(syz_ema_update(ema, 1.5), SYZ_EINVAL);
    syz_ema_free(ema);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(adamw_is_torchs), CHECK_TEST(adamw_state_carries_over),  CHECK_TEST(adamw_refuses),
        CHECK_TEST(clipping),        CHECK_TEST(clipping_shared_gradients), CHECK_TEST(averages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
