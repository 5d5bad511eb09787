#include "check.h"

/* What f_attention passes along: set before use. */
static double scale;
static bool causal;

static syz_tensor *f_attention(syz_tensor *const in[]) {
    return syz_attention(in[0], in[1], in[2], in[3], scale, causal);
}

/* torch's [B,H,T,D] as [B,T,H,D]. */
static syz_tensor *heads_inside(syz_tensor *t) {
    check_ok(t);
    const int64_t *n = t->shape.dim;
    syz_tensor *y = syz_host_zeros(SYZ_F32, SYZ_SHAPE(n[0], n[2], n[1], n[3]));
    for (int64_t b = 0; b < n[0]; b++)
        for (int64_t h = 0; h < n[1]; h++)
            for (int64_t i = 0; i < n[2]; i++)
                memcpy(syz_f32(y) + ((b * n[2] + i) * n[1] + h) * n[3], syz_f32(t) + ((b * n[1] + h) * n[2] + i) * n[3],
                       (size_t)n[3] * sizeof(float));
    return check_placed(y);
}

static syz_tensor *reference(const syz_weights *file, const char *name, const char *part) {
    char key[64];
    snprintf(key, sizeof key, "%s.%s", name, part);
    return heads_inside(syz_weights_get(file, key));
}

static void torch_references(void **state) {
    (void)state;
    static const char *const cases[] = {"attention", "attention_causal", "attention_mask", "attention_cross",
                                        "attention_wide"};
    static const char *const inputs[] = {"query", "key", "value"};
    syz_weights *file = syz_weights_open("tests/ops/data/ops.safetensors");
    check_ok(file);
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        syz_tensor *in[4] = {0};
        for (int n = 0; n < 3; n++)
            syz_set_requires_grad(in[n] = reference(file, cases[k], inputs[n]), true);
        if (!strcmp(cases[k], "attention_mask")) in[3] = check_placed(syz_weights_get(file, "attention_mask.mask"));
        scale = 0;
        causal = !strcmp(cases[k], "attention_causal");
        syz_tensor *y = f_attention(in);
        check_close(y, reference(file, cases[k], "output"), 2e-6);
        assert_int_equal(syz_backward(y, reference(file, cases[k], "grad_output")), SYZ_OK);
        check_close(in[0]->grad, reference(file, cases[k], "grad.query"), 5e-6);
        check_close(in[1]->grad, reference(file, cases[k], "grad.key"), 5e-6);
        check_close(in[2]->grad, reference(file, cases[k], "grad.value"), 5e-6);
    }
    syz_weights_close(file);
}

static void gradients(void **state) {
    (void)state;
    scale = 0.4;
    for (int k = 0; k < 4; k++) {
        causal = k & 1;
        syz_tensor *mask = k & 2 ? check_randn(SYZ_SHAPE(1, 3, 1, 9), 4) : NULL;
        syz_tensor *in[] = {check_leaf(SYZ_SHAPE(2, 7, 3, 5), 1), check_leaf(SYZ_SHAPE(2, 9, 3, 5), 2),
                            check_leaf(SYZ_SHAPE(2, 9, 3, 5), 3), mask};
        check_gradients(f_attention, in, 3, 1e-2, 2e-3);
    }
}

/* Frozen keys: only the query's gradient exists. */
static void one_gradient(void **state) {
    (void)state;
    scale = 0;
    causal = false;
    syz_tensor *in[] = {check_leaf(SYZ_SHAPE(1, 4, 2, 8), 1), check_randn(SYZ_SHAPE(1, 5, 2, 8), 2),
                        check_randn(SYZ_SHAPE(1, 5, 2, 8), 3), NULL};
    check_gradients(f_attention, in, 3, 1e-2, 2e-3);
    assert_null(in[1]->grad);
}

/* The same by the plain operations of a textbook, head by head: [T,D] slices, products, exp, sum. */
static syz_tensor *textbook(syz_tensor *q, syz_tensor *k, syz_tensor *v, bool only_past) {
    int64_t tq = q->shape.dim[0], tk = k->shape.dim[0];
    syz_tensor *s = syz_affine(syz_matmul(q, k, false, true), 1 / sqrt((double)q->shape.dim[1]), 0);
    syz_tensor *forbidden = syz_host_zeros(SYZ_F32, SYZ_SHAPE(tq, tk));
    for (int64_t e = 0; only_past && e < tq * tk; e++)
        syz_f32(forbidden)[e] = e % tk > e / tk ? -1e9f : 0;
    syz_tensor *p = syz_exp(syz_add(s, check_placed(forbidden)));
    p = syz_div(p, syz_sum(p, SYZ_SHAPE(1), true));
    return syz_matmul(p, v, false, false);
}

/* Long enough for several blocks of queries and keys, with one head (whose keys the threads share) and with more. */
static void many_blocks(void **state) {
    (void)state;
    for (int k = 0; k < 8; k++) {
        bool wide = k & 2;
        causal = k & 1;
        scale = 0;
        int threads = syz_threads();
        syz_set_threads(k & 4 ? 3 : threads);
        syz_shape qs = SYZ_SHAPE(150, wide ? 136 : 64), ks = SYZ_SHAPE(301, wide ? 136 : 64);
        syz_tensor *q = check_leaf(qs, 1), *key = check_leaf(ks, 2), *v = check_leaf(ks, 3);
        syz_tensor *g = check_randn(qs, 4), *y = textbook(q, key, v, causal);
        assert_int_equal(syz_backward(y, g), SYZ_OK);
        syz_tensor *in[4] = {syz_view(q, SYZ_SHAPE(1, qs.dim[0], 1, qs.dim[1])),
                             syz_view(key, SYZ_SHAPE(1, ks.dim[0], 1, ks.dim[1])),
                             syz_view(v, SYZ_SHAPE(1, ks.dim[0], 1, ks.dim[1])), NULL};
        for (int n = 0; n < 3; n++)
            syz_set_requires_grad(in[n], true);
        syz_tensor *z = f_attention(in);
        check_close(syz_view(z, qs), y, 2e-5);
        assert_int_equal(syz_backward(z, syz_view(g, z->shape)), SYZ_OK);
        check_close(syz_view(in[0]->grad, qs), q->grad, 2e-5);
        check_close(syz_view(in[1]->grad, ks), key->grad, 2e-5);
        check_close(syz_view(in[2]->grad, ks), v->grad, 2e-5);
        syz_set_threads(threads);
    }
}

/* Shifting every score by a constant changes nothing, however large. */
static void large_scores(void **state) {
    (void)state;
    scale = 0;
    causal = false;
    syz_tensor *q = check_randn(SYZ_SHAPE(1, 3, 1, 8), 1), *k = check_randn(SYZ_SHAPE(1, 200, 1, 8), 2);
    syz_tensor *plain = syz_attention(q, k, k, NULL, 0, false);
    for (int sign = -1; sign <= 1; sign += 2) {
        syz_tensor *mask = syz_full(SYZ_F32, SYZ_SHAPE(1, 1, 1, 200), sign * 4096.0);
        check_close(syz_attention(q, k, k, mask, 0, false), plain, 1e-3);
    }
}

/* A row that may see no key at all is 0 and passes no gradient. */
static void rows_without_keys(void **state) {
    (void)state;
    syz_tensor *mask = syz_host_zeros(SYZ_F32, SYZ_SHAPE(1, 1, 2, 3));
    for (int j = 0; j < 3; j++)
        syz_f32(mask)[j] = -INFINITY;
    syz_tensor *q = check_leaf(SYZ_SHAPE(1, 2, 1, 4), 1), *k = check_leaf(SYZ_SHAPE(1, 3, 1, 4), 2);
    syz_tensor *y = syz_attention(q, k, k, check_placed(mask), 0, false);
    check_ok(y);
    assert_int_equal(syz_backward(y, syz_full(SYZ_F32, y->shape, 1)), SYZ_OK);
    for (int c = 0; c < 4; c++) {
        assert_true(check_f32(y)[c] == 0);
        assert_true(check_f32(q->grad)[c] == 0);
    }
    assert_true(syz_all_finite(y) && syz_all_finite(q->grad) && syz_all_finite(k->grad));
}

static void nan_is_seen(void **state) {
    (void)state;
    syz_tensor *q = check_tensor(SYZ_SHAPE(1, 2, 1, 4), NAN, 1, 2, 3, 4, 5, 6, 7);
    assert_false(syz_all_finite(syz_attention(q, q, q, NULL, 0, false)));
}

/* q, k and v side by side in one product [B,T,3,H,D]: the kernel's results have the same bits, in the same places. */
static void packed_rows(void **state) {
    (void)state;
    syz_set_device(0);
    syz_shape packed = SYZ_SHAPE(2, 70, 3, 2, 5), one = SYZ_SHAPE(2, 70, 2, 5);
    syz_tensor *x = check_randn(packed, 1), *dx = syz_full(SYZ_F32, packed, 7), *part[3], *grad[3];
    syz_tensor *dy = check_randn(one, 2), *lse = syz_empty(SYZ_F32, SYZ_SHAPE(2, 2, 70));
    for (int n = 0; n < 3; n++) {
        part[n] = syz_reshape(syz_slice(x, 2, n, n + 1), one);
        syz_set_requires_grad(part[n], true);
    }
    syz_tensor *expected = syz_attention(part[0], part[1], part[2], NULL, 0, false), *y = syz_empty_like(dy);
    assert_int_equal(syz_backward(expected, dy), SYZ_OK);
    syz_attention_shape p = {.b = 2, .h = 2, .tq = 70, .tk = 70, .d = 5, .scale = 1 / sqrtf(5)};
    for (int n = 0; n < 2; n++)
        p.q[n] = p.k[n] = p.v[n] = n ? 30 : 2100;
    float *f = syz_f32(x), *d = syz_f32(dx);
    assert_int_equal(syz_cpu_attention(syz_f32(y), syz_f32(lse), f, f + 10, f + 20, NULL, &p), 0);
    assert_memory_equal(syz_f32(y), syz_f32(expected), syz_nbytes(y));
    assert_int_equal(syz_cpu_attention_backward(d, d + 10, d + 20, f, f + 10, f + 20, NULL, syz_f32(y), syz_f32(lse),
                                                syz_f32(dy), &p),
                     0);
    for (int n = 0; n < 3; n++) {
        grad[n] = syz_slice(dx, 2, n, n + 1);
        assert_memory_equal(syz_f32(grad[n]), syz_f32(part[n]->grad), syz_nbytes(dy));
    }
}

static void mismatches_are_named(void **state) {
    (void)state;
    syz_tensor *q = check_randn(SYZ_SHAPE(1, 2, 1, 4), 1), *k = check_randn(SYZ_SHAPE(1, 3, 2, 4), 2);
    check_fails(syz_attention(q, k, k, NULL, 0, false), SYZ_ESHAPE);
    check_fails(syz_attention(q, q, k, NULL, 0, false), SYZ_ESHAPE);
    check_fails(syz_attention(q, q, q, check_randn(SYZ_SHAPE(2, 2), 3), 0, false), SYZ_ESHAPE);
    check_fails(syz_attention(q, q, q, check_leaf(SYZ_SHAPE(1, 1, 2, 2), 3), 0, false), SYZ_EUNSUPPORTED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(torch_references), CHECK_TEST(gradients),    CHECK_TEST(one_gradient),
        CHECK_TEST(many_blocks),      CHECK_TEST(large_scores), CHECK_TEST(rows_without_keys),
        CHECK_TEST(nan_is_seen),      CHECK_TEST(packed_rows),  CHECK_TEST(mismatches_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
