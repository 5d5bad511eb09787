#include "check.h"

enum { INPUTS = 12, STREAM = 5, COS = 10, SIN = 11, MAX_ANGLES = 270 * 32 };

static syz_tensor *f_joint(syz_tensor *const in[]) {
    return syz_joint_attention(in[0], in[1], in[2], in[3], in[4], in[5], in[6], in[7], in[8], in[9], in[COS], in[SIN],
                               1e-6);
}

/* [B,T,C] -> [B,T,H,D] */
static syz_tensor *heads(syz_tensor *x, int64_t dim) {
    const int64_t *n = x->shape.dim;
    return syz_reshape(x, SYZ_SHAPE(n[0], n[1], n[2] / dim, dim));
}

/* The same by the operations that it joins. */
static syz_tensor *composed(syz_tensor *const in[]) {
    int streams = in[STREAM] ? 2 : 1;
    int64_t dim = 2 * in[COS]->shape.dim[1];
    syz_tensor *joined[3];
    for (int k = 0; k < 3; k++) {
        syz_tensor *part[2] = {0};
        for (int n = 0; n < streams; n++) {
            part[n] = heads(in[n * STREAM + k], dim);
            if (k < 2) part[n] = syz_rms_norm(part[n], in[n * STREAM + 3 + k], 1e-6);
        }
        joined[k] = streams == 2 ? syz_concat(part, 2, 1) : part[0];
        if (k < 2) joined[k] = syz_rope(joined[k], in[COS], in[SIN]);
    }
    syz_tensor *y = syz_attention(joined[0], joined[1], joined[2], NULL, 0, false);
    const int64_t *n = y->shape.dim;
    return syz_reshape(y, SYZ_SHAPE(n[0], n[1], n[2] * n[3]));
}

/* Inputs with gradients for streams of `first` and `second` tokens (-1: none), and tables. */
static void take_inputs(syz_tensor *in[INPUTS], int64_t batch, int64_t first, int64_t second, int64_t count,
                        int64_t dim) {
    int64_t tokens[] = {first, second}, total = first + (second > 0 ? second : 0);
    for (int n = 0; n < 2; n++) {
        for (int k = 0; k < STREAM; k++) {
            syz_shape shape = k < 3 ? SYZ_SHAPE(batch, tokens[n], count * dim) : SYZ_SHAPE(dim);
            in[n * STREAM + k] = tokens[n] < 0 ? NULL : check_leaf(shape, (uint64_t)(n * STREAM + k + 1));
        }
    }
    static float cosine[MAX_ANGLES], sine[MAX_ANGLES];
    syz_shape table = SYZ_SHAPE(total, dim / 2);
    const float *angle = check_f32(check_randn(table, 20));
    for (int64_t i = 0; i < total * dim / 2; i++) {
        cosine[i] = cosf(angle[i]);
        sine[i] = sinf(angle[i]);
    }
    in[COS] = syz_from(SYZ_F32, table, cosine);
    in[SIN] = syz_from(SYZ_F32, table, sine);
}

/* Streams long enough for several blocks and threads, one sample and more. */
static const int64_t sizes[][5] = {{1, 3, -1, 2, 4}, {2, 9, 5, 3, 6}, {2, 70, 200, 2, 64}, {1, 150, -1, 3, 40}};

static void equals_the_composed_operations(void **state) {
    (void)state;
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        const int64_t *n = sizes[k];
        syz_tensor *in[INPUTS], *grad[2][INPUTS] = {0}, *y[2];
        take_inputs(in, n[0], n[1], n[2], n[3], n[4]);
        for (int way = 0; way < 2; way++) {
            y[way] = way ? f_joint(in) : composed(in);
            check_ok(y[way]);
            assert_int_equal(syz_backward(y[way], check_randn(y[way]->shape, 30)), SYZ_OK);
            for (int i = 0; i < COS; i++) {
                grad[way][i] = in[i] && in[i]->grad ? syz_copy(in[i]->grad) : NULL;
                if (in[i]) syz_set_grad(in[i], NULL);
            }
        }
        check_close(y[1], y[0], 2e-6);
        for (int i = 0; i < COS; i++)
            if (in[i]) check_close(grad[1][i], grad[0][i], 5e-6);
    }
}

static void gradients(void **state) {
    (void)state;
    syz_tensor *in[INPUTS];
    take_inputs(in, 2, 5, -1, 2, 4);
    check_gradients(f_joint,
                    (syz_tensor *[]){in[0], in[1], in[2], in[3], in[4], NULL, NULL, NULL, NULL, NULL, in[COS], in[SIN]},
                    5, 1e-2, 3e-3);
    take_inputs(in, 2, 3, 4, 2, 4);
    check_gradients(f_joint, in, 10, 1e-2, 3e-3);
}

/* Each input alone: its gradient has the bits that it has beside the others, and frozen ones get none. */
static void one_gradient(void **state) {
    (void)state;
    for (int64_t second = -1; second < 4; second += 4) {
        syz_tensor *in[INPUTS], *all[INPUTS] = {0};
        take_inputs(in, 2, 5, second, 2, 4);
        syz_tensor *y = f_joint(in), *dy = check_randn(y->shape, 30);
        assert_int_equal(syz_backward(y, dy), SYZ_OK);
        for (int k = 0; k < COS; k++) {
            if (!in[k]) continue;
            all[k] = syz_copy(in[k]->grad);
            syz_set_grad(in[k], NULL);
            syz_set_requires_grad(in[k], false);
        }
        for (int k = 0; k < COS && in[k]; k++) {
            syz_set_requires_grad(in[k], true);
            assert_int_equal(syz_backward(f_joint(in), dy), SYZ_OK);
            assert_memory_equal(check_f32(in[k]->grad), check_f32(all[k]), syz_nbytes(all[k]));
            for (int other = 0; other < COS; other++)
                if (other != k && in[other]) assert_null(in[other]->grad);
            syz_set_grad(in[k], NULL);
            syz_set_requires_grad(in[k], false);
        }
    }
}

/* Between forward and backward the graph holds the result and one number for each row and head beside the inputs. */
static void queries_and_keys_are_not_kept(void **state) {
    (void)state;
    syz_set_device(0);
    syz_tensor *in[INPUTS];
    take_inputs(in, 1, 60, 68, 2, 16);
    size_t before = syz_memory_stats().live;
    syz_tensor *y = f_joint(in);
    check_ok(y);
    assert_true(syz_memory_stats().live - before <= syz_nbytes(y) + 128 * 2 * sizeof(float) + 256);
}

/* In bf16, which a GPU computes in, to bf16's precision; the tables stay f32. */
static void half_precision(void **state) {
    (void)state;
    for (int64_t second = -1; second < 5; second += 5) {
        syz_tensor *in[INPUTS], *half[INPUTS] = {0};
        take_inputs(in, 2, 5, second, 2, 8);
        for (int k = 0; k < INPUTS; k++) {
            if (in[k]) half[k] = k < COS ? syz_copy(syz_cast(in[k], SYZ_BF16)) : in[k];
            if (in[k] && k < COS) syz_set_requires_grad(half[k], true);
        }
        syz_tensor *y = f_joint(in), *z = f_joint(half);
        check_ok(y);
        check_ok(z);
        syz_tensor *dy = check_randn(y->shape, 30);
        check_close(syz_cast(z, SYZ_F32), y, 2e-2);
        assert_int_equal(syz_backward(y, dy), SYZ_OK);
        assert_int_equal(syz_backward(z, syz_cast(dy, z->dtype)), SYZ_OK);
        for (int k = 0; k < COS; k++)
            if (in[k]) check_close(syz_cast(half[k]->grad, SYZ_F32), in[k]->grad, 4e-2);
    }
}

static void check_message(syz_tensor *const in[], syz_status status, const char *part) {
    assert_null(f_joint(in));
    assert_int_equal(syz_error_status(), status);
    if (!strstr(syz_error_message(), part)) fail_msg("\"%s\" is not in: %s", part, syz_error_message());
    syz_error_clear();
}

/* Input k as another tensor: an error that says so. */
static void refused(int k, syz_tensor *other, syz_status status, const char *part) {
    syz_tensor *in[INPUTS];
    take_inputs(in, 1, 5, 4, 2, 8);
    in[k] = other;
    check_message(in, status, part);
}

static void mismatches_are_named(void **state) {
    (void)state;
    refused(1, check_randn(SYZ_SHAPE(1, 6, 16), 1), SYZ_ESHAPE, "must be equal");
    refused(0, check_randn(SYZ_SHAPE(5, 16), 1), SYZ_ESHAPE, "3 dimensions");
    refused(3, check_randn(SYZ_SHAPE(16), 1), SYZ_ESHAPE, "norm weight [16] is not [8]");
    refused(7, NULL, SYZ_EINVAL, "the second stream needs");
    refused(5, check_randn(SYZ_SHAPE(2, 4, 16), 1), SYZ_ESHAPE, "must be equal");
    refused(COS, check_randn(SYZ_SHAPE(9, 3), 1), SYZ_ESHAPE, "must be equal");
    refused(COS, check_leaf(SYZ_SHAPE(9, 4), 1), SYZ_EUNSUPPORTED, "no gradient");
    refused(2, syz_empty(SYZ_I64, SYZ_SHAPE(1, 5, 16)), SYZ_EDTYPE, "f32 is needed");
    syz_tensor *in[INPUTS];
    take_inputs(in, 1, 5, 4, 2, 8);
    for (int k = 0; k < 3; k++)
        in[STREAM + k] = check_randn(SYZ_SHAPE(2, 4, 16), 1);
    check_message(in, SYZ_ESHAPE, "differ in more than their length");
    take_inputs(in, 1, 5, 4, 2, 8);
    in[COS] = in[SIN] = check_randn(SYZ_SHAPE(8, 4), 1);
    check_message(in, SYZ_ESHAPE, "[8,4] for 9 tokens");
    in[COS] = in[SIN] = check_randn(SYZ_SHAPE(9, 5), 1);
    check_message(in, SYZ_ESHAPE, "heads of 10");
    take_inputs(in, 1, 0, -1, 2, 8);
    check_message(in, SYZ_ESHAPE, "no tokens in [1,0,16]");
    take_inputs(in, 1, 3, 0, 2, 8);
    check_message(in, SYZ_ESHAPE, "no tokens in [1,0,16]");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(equals_the_composed_operations), CHECK_TEST(gradients),      CHECK_TEST(one_gradient),
        CHECK_TEST(queries_and_keys_are_not_kept),  CHECK_TEST(half_precision), CHECK_TEST(mismatches_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
