#include "check.h"

#include "core/alloc.h"

static void give(syz_tensor *p, const float *grad) {
    syz_set_grad(p, grad ? syz_from(SYZ_F32, p->shape, grad) : NULL);
}

static void assert_same(const syz_tensor *a, const syz_tensor *b) {
    check_ok(a);
    check_ok(b);
    assert_int_equal(a->dtype, b->dtype);
    assert_memory_equal(syz_data(check_host(a)), syz_data(check_host(b)), syz_nbytes(a));
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
    check_close(syz_adamw_state(optimizer, 0, SYZ_ADAMW_M),
                check_tensor(SYZ_SHAPE(4), 0.055499997f, -0.139500007f, 0.199999094f, 0.203000009f), 3e-7);
    check_close(syz_adamw_state(optimizer, 1, SYZ_ADAMW_V), check_tensor(SYZ_SHAPE(2), 0.0998999998f, 0.0397562496f),
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
        assert_int_equal(syz_assign(syz_adamw_state(second, 0, kind), syz_adamw_state(first, 0, kind)), SYZ_OK);
    syz_adamw_set_steps(second, 0, syz_adamw_steps(first, 0));
    syz_adamw_step(second, 0.02);
    assert_same(p, q);
    syz_adamw_free(one);
    syz_adamw_free(first);
    syz_adamw_free(second);
}

/* A tensor that lies in a file is read-only, so it is no parameter. */
static void release_nothing(void *owner) {
    (void)owner;
}

static void adamw_refuses(void **state) {
    (void)state;
    syz_adamw *optimizer;
    syz_tensor *p = check_randn(SYZ_SHAPE(2), 1), *half = syz_cast(p, SYZ_F16), *mapped = syz_cast(p, SYZ_BF16);
    check_fails(syz_adamw_create(&optimizer, &p, 1, (syz_adamw_options){.beta1 = 1}), SYZ_EINVAL);
    check_fails(syz_adamw_create(&optimizer, &p, 1, (syz_adamw_options){.moments = (syz_moments)3}), SYZ_EINVAL);
    syz_adamw_create(&optimizer, &half, 1, (syz_adamw_options){0});
    assert_non_null(strstr(syz_error_message(), "parameter 0 is f16: f32 and bf16 parameters can be trained"));
    check_fails(SYZ_OK, SYZ_EDTYPE);
    mapped->storage->release = release_nothing;
    syz_adamw_create(&optimizer, &mapped, 1, (syz_adamw_options){0});
    assert_non_null(strstr(syz_error_message(), "parameter 0 lies in a file that is mapped, read-only"));
    check_fails(SYZ_OK, SYZ_EINVAL);
    mapped->storage->release = NULL;
    assert_null(optimizer);
    assert_int_equal(syz_adamw_create(&optimizer, &p, 1, (syz_adamw_options){0}), SYZ_OK);
    check_fails(syz_adamw_set_master(optimizer, 0, half), SYZ_ESHAPE);
    syz_set_grad(p, half);
    double norm;
    check_fails(syz_adamw_step(optimizer, 1), SYZ_EDTYPE);
    check_fails(syz_adamw_limit(&norm, optimizer, 1), SYZ_EDTYPE);
    syz_adamw_free(optimizer);
}

/* ---- bf16 parameters, 8-bit moments ---- */

static const syz_adamw_options usual = {.lr = 1e-2, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.01};

static syz_adamw *optimizer_of(syz_tensor *p, syz_moments moments) {
    syz_adamw *a;
    syz_adamw_options options = usual;
    options.moments = moments;
    assert_int_equal(syz_adamw_create(&a, &p, 1, options), SYZ_OK);
    return a;
}

static void give_random(syz_tensor *p, uint64_t seed) {
    syz_set_grad(p, check_randn(p->shape, seed));
}

/* 1000 clipped steps on the same gradients: weight and remainder are the f32 parameter, bit by bit, and the weight is
 * what rounding it gives (but for ties). */
static void split_master_is_f32(void **state) {
    (void)state;
    syz_tensor *half = syz_cast(check_randn(SYZ_SHAPE(3, 97), 1), SYZ_BF16), *whole = syz_cast(half, SYZ_F32);
    syz_adamw *a = optimizer_of(whole, SYZ_MOMENTS_F32), *b = optimizer_of(half, SYZ_MOMENTS_HOST);
    assert_same(syz_adamw_master(b, 0), whole);
    for (uint64_t t = 1; t <= 1000; t++) {
        double norm[2];
        assert_int_equal(syz_scope_push(), SYZ_OK);
        give_random(whole, t);
        give_random(half, t);
        assert_int_equal(syz_adamw_limit(&norm[0], a, 10), SYZ_OK);
        assert_int_equal(syz_adamw_limit(&norm[1], b, 10), SYZ_OK);
        assert_true(norm[0] == norm[1] && norm[0] > 10);
        assert_int_equal(syz_adamw_step(a, 1e-3), SYZ_OK);
        assert_int_equal(syz_adamw_step(b, 1e-3), SYZ_OK);
        syz_scope_pop();
    }
    assert_same(syz_adamw_master(b, 0), whole);
    check_close(syz_cast(half, SYZ_F32), whole, 0x1p-8);
    assert_true(check_error(syz_cast(half, SYZ_F32), whole) > 0); /* the weight alone is not */
    for (int kind = SYZ_ADAMW_M; kind <= SYZ_ADAMW_V; kind++)
        assert_same(syz_adamw_state(b, 0, (syz_adamw_state_kind)kind),
                    syz_adamw_state(a, 0, (syz_adamw_state_kind)kind));
    assert_null(syz_adamw_state(a, 0, SYZ_ADAMW_REMAINDER));
    assert_null(syz_adamw_state(b, 0, SYZ_ADAMW_M_SCALE));
    syz_adamw_free(a);
    syz_adamw_free(b);
}

/* f32 and bf16 parameters take the same 8-bit steps, and a second optimizer goes on from the states of the first. */
static void states_of_8bit_moments(void **state) {
    (void)state;
    syz_tensor *half = syz_cast(check_randn(SYZ_SHAPE(300), 1), SYZ_BF16), *whole = syz_cast(half, SYZ_F32);
    syz_tensor *next = syz_copy(half);
    syz_adamw *a = optimizer_of(whole, SYZ_MOMENTS_8BIT), *b = optimizer_of(half, SYZ_MOMENTS_8BIT);
    syz_adamw *c = optimizer_of(next, SYZ_MOMENTS_8BIT);
    assert_int_equal(syz_numel(syz_adamw_state(b, 0, SYZ_ADAMW_M_SCALE)), 2);
    for (uint64_t t = 1; t <= 20; t++) {
        give_random(whole, t);
        give_random(half, t);
        syz_adamw_step(a, 1e-3);
        syz_adamw_step(b, 1e-3);
        if (t == 10) {
            syz_assign(next, half);
            for (int kind = 0; kind < SYZ_ADAMW_STATES; kind++)
                syz_assign(syz_adamw_state(c, 0, (syz_adamw_state_kind)kind),
                           syz_adamw_state(b, 0, (syz_adamw_state_kind)kind));
            syz_adamw_set_steps(c, 0, syz_adamw_steps(b, 0));
        } else if (t > 10) {
            give_random(next, t);
            syz_adamw_step(c, 1e-3);
        }
    }
    assert_same(syz_adamw_master(b, 0), whole);
    assert_same(syz_adamw_master(c, 0), whole);
    for (int kind = 0; kind < SYZ_ADAMW_STATES; kind++)
        assert_same(syz_adamw_state(b, 0, (syz_adamw_state_kind)kind),
                    syz_adamw_state(c, 0, (syz_adamw_state_kind)kind));
    syz_adamw_free(a);
    syz_adamw_free(b);
    syz_adamw_free(c);
}

/* What the device holds for optimizers. */
static size_t optimizer_bytes(void) {
    syz_device_use use;
    assert_int_equal(syz_device_memory(check_device(), &use), SYZ_OK);
    assert_string_equal(use.uses[SYZ_MEMORY_OPTIMIZER].name, "optimizer");
    return use.uses[SYZ_MEMORY_OPTIMIZER].live;
}

/* A GPU's steps are the CPU's: all states, bit by bit where the processor fuses products. What it holds for them is
 * counted as the optimizer's. */
static void devices_agree(void **state) {
    (void)state;
    if (!check_device()) skip(); /* the CPU has nobody to agree with; device_optim runs it */
    syz_tensor *here = check_randn(SYZ_SHAPE(700), 1), *p[2];
    for (int which = 0; which < 6; which++) {
        syz_adamw *a[2];
        p[0] = which % 2 ? syz_cast(here, SYZ_BF16) : syz_copy(here);
        p[1] = syz_copy_to(p[0], 0);
        size_t before = optimizer_bytes();
        for (int k = 0; k < 2; k++)
            a[k] = optimizer_of(p[k], (syz_moments)(which / 2));
        const size_t moments[] = {2 * 700 * sizeof(float), 2 * (700 + 3 * sizeof(float)), 0};
        size_t scalars = 2 * sizeof(double) + sizeof(float);
        assert_int_equal(optimizer_bytes() - before, moments[which / 2] + scalars + (which % 2 ? 2 * 700 : 0));
        for (uint64_t t = 1; t <= 20; t++) {
            syz_tensor *g = check_randn(SYZ_SHAPE(700), t);
            for (int k = 0; k < 2; k++) {
                syz_set_grad(p[k], syz_copy_to(g, syz_tensor_device(p[k])));
                assert_int_equal(syz_adamw_step(a[k], 1e-3), SYZ_OK);
            }
        }
        check_close(syz_adamw_master(a[0], 0), syz_adamw_master(a[1], 0), 1e-3);
#ifdef __FP_FAST_FMAF
        assert_same(syz_adamw_master(a[0], 0), syz_adamw_master(a[1], 0));
        for (int kind = 0; kind < SYZ_ADAMW_STATES; kind++)
            if (syz_adamw_state(a[0], 0, (syz_adamw_state_kind)kind))
                assert_same(syz_adamw_state(a[0], 0, (syz_adamw_state_kind)kind),
                            syz_adamw_state(a[1], 0, (syz_adamw_state_kind)kind));
#endif
        syz_adamw_free(a[0]);
        syz_adamw_free(a[1]);
    }
}

enum { BOWL = 4096 };

/* The gradient of a bowl with curvatures over two decades in every block of 256, at a point that noise displaces. */
static void give_bowl(syz_tensor *p, const float *at, const syz_tensor *target, const syz_tensor *noise) {
    static float g[BOWL];
    const float *wanted = check_f32(target), *moved = check_f32(noise);
    for (int64_t i = 0; i < BOWL; i++)
        g[i] = powf(10, -2 * (float)(i % 256) / 256) * (at[i] - wanted[i] + 0.3f * moved[i]);
    give(p, g);
}

/* Root mean square of a - b over that of b - start. */
static double apart(const float *a, const float *b, const float *start) {
    double off = 0, gone = 0;
    for (int64_t i = 0; i < BOWL; i++) {
        off += (a[i] - b[i]) * (a[i] - b[i]);
        gone += (b[i] - start[i]) * (b[i] - start[i]);
    }
    return sqrt(off / gone);
}

/* 1000 steps into a noisy bowl, each run following its own gradients: the 8-bit run ends beside the f32 run, 2.4 % of
 * the way apart. With v rounded to nearest it is 5 %, with 3 bits of mantissa 3.4 %. */
static void moments_in_8_bits_stay_close(void **state) {
    (void)state;
    syz_tensor *p = check_randn(SYZ_SHAPE(BOWL), 1), *target = check_randn(SYZ_SHAPE(BOWL), 2);
    p = syz_cast(syz_cast(syz_affine(p, 0.5, 0), SYZ_BF16), SYZ_F32);
    target = syz_affine(target, 0.5, 0);
    syz_tensor *start = syz_copy(p), *half = syz_cast(p, SYZ_BF16);
    syz_adamw *a = optimizer_of(p, SYZ_MOMENTS_F32), *b = optimizer_of(half, SYZ_MOMENTS_8BIT);
    for (uint64_t t = 1; t <= 1000; t++) {
        assert_int_equal(syz_scope_push(), SYZ_OK);
        syz_tensor *noise = check_randn(SYZ_SHAPE(BOWL), 100 + t), *at = syz_adamw_master(b, 0);
        give_bowl(p, check_f32(p), target, noise);
        give_bowl(half, check_f32(at), target, noise);
        syz_adamw_step(a, 1e-3);
        syz_adamw_step(b, 1e-3);
        syz_scope_pop();
    }
    double error = apart(check_f32(syz_adamw_master(b, 0)), check_f32(p), check_f32(start));
    print_message("8-bit moments: %.2f %% of the way from f32\n", 100 * error);
    assert_true(error < 0.03);
    syz_adamw_free(a);
    syz_adamw_free(b);
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
    assert_true(norm == 5 && check_f32(b->grad)[0] == -4);
    assert_int_equal(syz_clip_grad_norm(&norm, params, 3, 1), SYZ_OK);
    check_close(a->grad, check_tensor(SYZ_SHAPE(2), 0.6f, 0), 1e-6);
    check_close(b->grad, check_tensor(SYZ_SHAPE(1), -0.8f), 1e-6);
    give(b, (float[]){NAN});
    assert_int_equal(syz_clip_grad_norm(&norm, params, 3, 0.1), SYZ_OK);
    assert_true(isnan(norm));
    check_close(a->grad, check_tensor(SYZ_SHAPE(2), 0.6f, 0), 1e-6);
}

/* What the next step multiplies gradients by is what clipping in place multiplies them by; it is for one step. */
static void limiting_is_clipping(void **state) {
    (void)state;
    double norm[2];
    syz_tensor *p = check_randn(SYZ_SHAPE(1000), 1), *q = syz_copy(p), *g = check_randn(SYZ_SHAPE(1000), 3);
    syz_adamw *a = optimizer_of(p, SYZ_MOMENTS_F32), *b = optimizer_of(q, SYZ_MOMENTS_F32);
    for (uint64_t t = 1; t <= 5; t++) {
        give_random(p, t);
        give_random(q, t);
        assert_int_equal(syz_clip_grad_norm(&norm[0], &p, 1, 0.1 * (double)t), SYZ_OK);
        assert_int_equal(syz_adamw_limit(&norm[1], b, 0.1 * (double)t), SYZ_OK);
        assert_true(norm[0] == norm[1]);
        assert_int_equal(syz_adamw_step(a, 1e-2), SYZ_OK);
        assert_int_equal(syz_adamw_step(b, 1e-2), SYZ_OK);
    }
    give_random(p, 6);
    give_random(q, 6);
    syz_adamw_step(a, 1e-2);
    syz_adamw_step(b, 1e-2);
    assert_same(q, p);
    give_random(q, 5);
    assert_same(q->grad, check_randn(SYZ_SHAPE(1000), 5)); /* gradients stay */
    syz_adamw_limit(&norm[1], b, 0.1);
    syz_adamw_zero_grad(b); /* and so does the factor no longer */
    syz_set_grad(p, g);
    syz_set_grad(q, g);
    syz_adamw_step(a, 1e-2);
    syz_adamw_step(b, 1e-2);
    assert_same(q, p);
    give(q, (float[1000]){NAN});
    assert_int_equal(syz_adamw_limit(&norm[1], b, 1), SYZ_OK);
    assert_true(isnan(norm[1]));
    syz_adamw_free(a);
    syz_adamw_free(b);
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

/* The average of bf16 parameters is that of their masters; exchanged twice, both are what they were, to the bit. */
static void averages_of_bf16(void **state) {
    (void)state;
    syz_ema *ema, *expected;
    syz_tensor *half = syz_cast(check_randn(SYZ_SHAPE(500), 1), SYZ_BF16), *whole = syz_cast(half, SYZ_F32);
    syz_adamw *a = optimizer_of(whole, SYZ_MOMENTS_F32), *b = optimizer_of(half, SYZ_MOMENTS_F32);
    check_fails(syz_ema_create(&ema, &half, 1), SYZ_EDTYPE);
    assert_null(ema);
    assert_int_equal(syz_ema_create_for(&ema, b), SYZ_OK);
    assert_int_equal(syz_ema_create(&expected, &whole, 1), SYZ_OK);
    for (uint64_t t = 1; t <= 5; t++) {
        give_random(whole, t);
        give_random(half, t);
        syz_adamw_step(a, 1e-3);
        syz_adamw_step(b, 1e-3);
        assert_int_equal(syz_ema_update(ema, 0.9), SYZ_OK);
        assert_int_equal(syz_ema_update(expected, 0.9), SYZ_OK);
    }
    syz_tensor *shadow = syz_copy(syz_ema_shadow(expected, 0)), *weight = syz_copy(half);
    assert_same(syz_ema_shadow(ema, 0), shadow);
    assert_int_equal(syz_ema_swap(ema), SYZ_OK);
    assert_same(syz_adamw_master(b, 0), shadow);
    check_close(syz_cast(half, SYZ_F32), shadow, 0x1p-8);
    assert_int_equal(syz_ema_swap(ema), SYZ_OK);
    assert_same(half, weight);
    assert_same(syz_adamw_master(b, 0), whole);
    assert_same(syz_ema_shadow(ema, 0), shadow);
    syz_ema_free(ema);
    syz_ema_free(expected);
    syz_adamw_free(a);
    syz_adamw_free(b);
}

/* All that an optimizer of bf16 parameters with 8-bit moments does, and its average. */
static syz_status life(syz_tensor *half) {
    syz_adamw *a = NULL;
    syz_ema *ema = NULL;
    syz_adamw_options options = usual;
    options.moments = SYZ_MOMENTS_8BIT;
    double norm;
    syz_status status = syz_adamw_create(&a, &half, 1, options);
    if (status == SYZ_OK) status = syz_ema_create_for(&ema, a);
    if (status == SYZ_OK) status = syz_adamw_limit(&norm, a, 1);
    if (status == SYZ_OK) status = syz_adamw_step(a, 1e-3);
    if (status == SYZ_OK) status = syz_ema_update(ema, 0.5);
    if (status == SYZ_OK) status = syz_ema_swap(ema);
    if (status == SYZ_OK) status = syz_adamw_master(a, 0) ? SYZ_OK : syz_error_status();
    syz_ema_free(ema);
    syz_adamw_free(a);
    return status;
}

/* Whatever allocation fails, it is reported and nothing leaks. */
static void every_allocation_may_fail(void **state) {
    (void)state;
    syz_tensor *half = syz_cast(check_randn(SYZ_SHAPE(300), 1), SYZ_BF16);
    give_random(half, 2);
    size_t before = syz_memory_stats().live;
    for (int n = 0;; n++) {
        assert_true(n < 1000);
        assert_int_equal(syz_scope_push(), SYZ_OK);
        syz_fault_set(n, false);
        syz_status status = life(half);
        syz_fault_set(-1, false);
        syz_scope_pop();
        assert_int_equal(syz_memory_stats().live, before);
        if (status == SYZ_OK) break;
        check_fails(status, SYZ_ENOMEM);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(adamw_is_torchs),
        CHECK_TEST(adamw_state_carries_over),
        CHECK_TEST(adamw_refuses),
        CHECK_TEST(split_master_is_f32),
        CHECK_TEST(states_of_8bit_moments),
        CHECK_TEST(clipping),
        CHECK_TEST(limiting_is_clipping),
        CHECK_TEST(moments_in_8_bits_stay_close),
        CHECK_TEST(averages),
        CHECK_TEST(clipping_shared_gradients),
        CHECK_TEST(averages_of_bf16),
        CHECK_TEST(every_allocation_may_fail),
        CHECK_TEST(devices_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
