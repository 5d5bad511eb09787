/* Scaled dot-product attention over packed heads: no transposes before or after it. */
#include "core/flops.h"
#include "kernels/kernels.h"
#include "ops/ops.h"

#include <math.h>

/* The mask's steps along batch, heads and queries; a size of 1 is shared. */
static syz_status mask_steps(const syz_call *c, syz_attention_shape *p) {
    const syz_tensor *mask = c->in[3];
    if (!mask) return SYZ_OK;
    SYZ_TRY(syz_need_dtype(c, 3, SYZ_F32));
    if (c->needs[3])
        return syz_fail(SYZ_EUNSUPPORTED, "attention: the mask gets no gradient, pass one that requires none");
    syz_shape s = mask->shape;
    bool fits = s.n == 4 && (s.dim[0] == p->b || s.dim[0] == 1) && (s.dim[1] == p->h || s.dim[1] == 1) &&
                (s.dim[2] == p->tq || s.dim[2] == 1) && s.dim[3] == p->tk;
    if (!fits)
        return syz_fail(SYZ_ESHAPE, "attention: mask %s is not [%lld or 1,%lld or 1,%lld or 1,%lld]", syz_dims(mask),
                        (long long)p->b, (long long)p->h, (long long)p->tq, (long long)p->tk);
    p->mask_q = s.dim[2] == 1 ? 0 : s.dim[3];
    p->mask_h = s.dim[1] == 1 ? 0 : s.dim[2] * s.dim[3];
    p->mask_b = s.dim[0] == 1 ? 0 : s.dim[1] * s.dim[2] * s.dim[3];
    return SYZ_OK;
}

/* Checks q [B,Tq,H,D], k and v [B,Tk,H,D], mask. */
static syz_status problem(const syz_call *c, syz_attention_shape *p) {
    for (int n = 0; n < 3; n++) {
        SYZ_TRY(syz_need_real(c, n));
        SYZ_TRY(syz_need_rank(c, n, 4));
    }
    SYZ_TRY(syz_need_same_shape(c, 1, 2));
    const int64_t *q = c->in[0]->shape.dim, *k = c->in[1]->shape.dim;
    if (q[0] != k[0] || q[2] != k[2] || q[3] != k[3])
        return syz_fail(SYZ_ESHAPE, "attention: queries %s and keys %s differ in more than their length",
                        syz_dims(c->in[0]), syz_dims(c->in[1]));
    if (syz_numel(c->in[1]) == 0) return syz_fail(SYZ_ESHAPE, "attention: there are no keys in %s", syz_dims(c->in[1]));
    *p = (syz_attention_shape){.b = q[0], .tq = q[1], .tk = k[1], .h = q[2], .d = q[3], .causal = c->i[0]};
    for (int n = 0; n < 2; n++) {
        p->q[n] = n ? p->h * p->d : p->tq * p->h * p->d;
        p->k[n] = p->v[n] = n ? p->h * p->d : p->tk * p->h * p->d;
    }
    p->scale = c->f[0] != 0 ? (float)c->f[0] : 1.0f / sqrtf((float)p->d);
    return mask_steps(c, p);
}

/* Products of size Tq x Tk x D per head; a causal mask is not taken off, as papers count. */
static void count(const syz_attention_shape *p, int products) {
    syz_flops_count(2.0 * products * (double)(p->b * p->h) * (double)(p->tq * p->tk * p->d));
}

/* out = softmax(scale q k^T + mask) v per head; saved: out and the log of each row's sum of exponentials [B,H,Tq] */
syz_status syz_forward_attention(syz_call *c) {
    syz_attention_shape p;
    SYZ_TRY(problem(c, &p));
    syz_tensor *lse = syz_empty(SYZ_F32, SYZ_SHAPE(p.b, p.h, p.tq));
    c->out = syz_empty_like(c->in[0]);
    if (!lse || !c->out) return syz_error_status();
    c->saved[0] = c->out;
    c->saved[1] = lse;
    const float *mask = c->in[3] ? syz_f32(c->in[3]) : NULL;
    count(&p, 2);
    if (syz_numel(c->out) > 0 && c->kernels->attention(syz_reals(c->out), syz_f32(lse), syz_reals(c->in[0]),
                                                       syz_reals(c->in[1]), syz_reals(c->in[2]), mask, &p) != 0)
        return syz_attention_failed(c, "blocks", c->in[0]);
    return SYZ_OK;
}

/* With P = exp(scale q k^T + mask - lse): dv = P^T g, dS = P (g v^T - rowsum(g out)), dq = scale dS k,
 * dk = scale dS^T q */
syz_status syz_backward_attention(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    syz_attention_shape p;
    syz_real *grad[3] = {0};
    SYZ_TRY(problem(c, &p));
    for (int n = 0; n < 3; n++) {
        if (!c->needs[n]) continue;
        gin[n] = syz_numel(gout) > 0 ? syz_empty_like(c->in[n]) : syz_zeros_like(c->in[n]);
        if (!gin[n]) return syz_error_status();
        grad[n] = syz_reals(gin[n]);
    }
    if (syz_numel(gout) == 0) return SYZ_OK;
    count(&p, 5);
    const float *mask = c->in[3] ? syz_f32(c->in[3]) : NULL;
    if (c->kernels->attention_backward(grad[0], grad[1], grad[2], syz_reals(c->in[0]), syz_reals(c->in[1]),
                                       syz_reals(c->in[2]), mask, syz_reals(c->saved[0]), syz_f32(c->saved[1]),
                                       syz_reals(gout), &p) != 0)
        return syz_attention_failed(c, "the gradient", c->in[0]);
    return SYZ_OK;
}
