/* Losses: scalars, averaged over every element (cross entropy: over the rows). */
#include "kernels/kernels.h"
#include "ops/ops.h"

/* ---- cross_entropy: mean over rows of log sum exp(logits) - logits[target] ---- */

static syz_status check_targets(const syz_call *c) {
    SYZ_TRY(syz_need_real(c, 0));
    SYZ_TRY(syz_need_dtype(c, 1, SYZ_I64));
    SYZ_TRY(syz_need_rank(c, 0, 2));
    SYZ_TRY(syz_need_rank(c, 1, 1));
    int64_t n = c->in[0]->shape.dim[0], classes = c->in[0]->shape.dim[1];
    if (c->in[1]->shape.dim[0] != n || n == 0)
        return syz_fail(SYZ_ESHAPE, "cross_entropy: logits %s need one target per row, not %s", syz_dims(c->in[0]),
                        syz_dims(c->in[1]));
    for (int64_t i = 0; i < n && c->in[1]->device == 0; i++) { /* a GPU trusts them */
        int64_t t = syz_i64(c->in[1])[i];
        if (t < 0 || t >= classes)
            return syz_fail(SYZ_EINVAL, "cross_entropy: target %lld of row %lld is not one of %lld classes",
                            (long long)t, (long long)i, (long long)classes);
    }
    return SYZ_OK;
}

syz_status syz_forward_cross_entropy(syz_call *c) {
    SYZ_TRY(check_targets(c));
    const int64_t *n = c->in[0]->shape.dim;
    c->saved[0] = syz_empty(SYZ_F32, SYZ_SHAPE(n[0]));
    const int64_t *targets = syz_indices(c, 1);
    if (!targets || !(c->out = syz_empty(SYZ_F32, (syz_shape){0}))) return syz_error_status();
    return syz_ran(
        c, c->kernels->cross_entropy(syz_f32(c->out), syz_f32(c->saved[0]), syz_reals(c->in[0]), targets, n[0], n[1]));
}

syz_status syz_backward_cross_entropy(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    const int64_t *n = c->in[0]->shape.dim;
    const int64_t *targets = syz_indices(c, 1);
    if (!targets || !(gin[0] = syz_empty_like(c->in[0]))) return syz_error_status();
    return syz_ran(c, c->kernels->cross_entropy_backward(syz_reals(gin[0]), syz_f32(gout), syz_reals(c->in[0]),
                                                         syz_f32(c->saved[0]), targets, n[0], n[1]));
}

/* ---- mse_loss: mean (a - b)^2; l1_loss: mean |a - b| ---- */

static syz_status distance(syz_call *c, bool squared) {
    SYZ_TRY(syz_need_real(c, 0));
    SYZ_TRY(syz_need_real(c, 1));
    SYZ_TRY(syz_need_same_shape(c, 0, 1));
    int64_t n = syz_numel(c->in[0]);
    if (n == 0) return syz_fail(SYZ_ESHAPE, "%s: there is nothing to average", syz_call_name(c));
    if (!(c->out = syz_empty(SYZ_F32, (syz_shape){0}))) return syz_error_status();
    return syz_ran(c, c->kernels->distance(syz_f32(c->out), syz_reals(c->in[0]), syz_reals(c->in[1]), n, squared));
}

static syz_status distance_backward(syz_call *c, syz_tensor *gout, syz_tensor *gin[], bool squared) {
    int64_t n = syz_numel(c->in[0]);
    for (int k = 0; k < 2; k++) {
        if (!c->needs[k]) continue;
        if (!(gin[k] = syz_empty_like(c->in[k]))) return syz_error_status();
        SYZ_TRY(syz_ran(c, c->kernels->distance_backward(syz_reals(gin[k]), syz_f32(gout), syz_reals(c->in[k]),
                                                         syz_reals(c->in[1 - k]), n, squared)));
    }
    return SYZ_OK;
}

syz_status syz_forward_mse_loss(syz_call *c) {
    return distance(c, true);
}

syz_status syz_backward_mse_loss(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    return distance_backward(c, gout, gin, true);
}

syz_status syz_forward_l1_loss(syz_call *c) {
    return distance(c, false);
}

syz_status syz_backward_l1_loss(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    return distance_backward(c, gout, gin, false);
}
