/* Normalisations. Statistics are f32 or better and saved for the backward pass. */
#include "ops/norm.h"
#include "kernels/kernels.h"
#include "ops/ops.h"

/* ---- over the last dimension ---- */

static syz_status need_weight(const syz_call *c, int k, int64_t size) {
    if (!c->in[k]) return SYZ_OK;
    SYZ_TRY(syz_need_real(c, k));
    SYZ_TRY(syz_need_rank(c, k, 1));
    if (c->in[k]->shape.dim[0] == size) return SYZ_OK;
    return syz_fail(SYZ_ESHAPE, "%s: argument %d has shape %s, [%lld] is needed", syz_call_name(c), k + 1,
                    syz_dims(c->in[k]), (long long)size);
}

static syz_status rows_of(const syz_call *c, syz_norm_shape *s) {
    syz_tensor *x = c->in[0];
    SYZ_TRY(syz_need_real(c, 0));
    if (x->shape.n == 0 || syz_numel(x) == 0)
        return syz_fail(SYZ_ESHAPE, "%s: shape %s has nothing to normalise", syz_call_name(c), syz_dims(x));
    s->width = x->shape.dim[x->shape.n - 1];
    s->rows = s->span = syz_numel(x) / s->width;
    s->offset = 0;
    return SYZ_OK;
}

syz_status syz_norm_forward(syz_call *c, const syz_norm_shape *s, syz_tensor *weight, syz_tensor *bias, bool centred) {
    syz_tensor *mean = centred ? syz_empty(SYZ_F32, SYZ_SHAPE(s->rows)) : NULL;
    syz_tensor *rstd = syz_empty(SYZ_F32, SYZ_SHAPE(s->rows));
    if (!(c->out = syz_empty_like(c->in[0]))) return syz_error_status();
    c->saved[0] = rstd;
    c->saved[1] = mean;
    return syz_ran(c, c->kernels->norm(syz_reals(c->out), mean ? syz_f32(mean) : NULL, syz_f32(rstd),
                                       syz_reals(c->in[0]), weight ? syz_reals(weight) : NULL,
                                       bias ? syz_reals(bias) : NULL, s, (float)c->f[0]));
}

syz_status syz_norm_gradient(syz_call *c, const syz_norm_shape *s, syz_tensor *gout, syz_tensor *gin[], int weight,
                             int bias) {
    bool want_w = weight && c->needs[weight], want_b = bias && c->needs[bias];
    if (c->needs[0]) gin[0] = syz_empty_like(c->in[0]);
    if (want_w) gin[weight] = syz_empty(SYZ_F32, c->in[weight]->shape);
    if (want_b) gin[bias] = syz_empty(SYZ_F32, c->in[bias]->shape);
    if (syz_failed()) return syz_error_status();
    syz_tensor *mean = c->saved[1];
    return syz_ran(c, c->kernels->norm_backward(c->needs[0] ? syz_reals(gin[0]) : NULL,
                                                want_w ? syz_f32(gin[weight]) : NULL,
                                                want_b ? syz_f32(gin[bias]) : NULL, syz_reals(gout),
                                                syz_reals(c->in[0]), mean ? syz_f32(mean) : NULL, syz_f32(c->saved[0]),
                                                weight && c->in[weight] ? syz_reals(c->in[weight]) : NULL, s));
}

syz_status syz_forward_layer_norm(syz_call *c) {
    syz_norm_shape s = {0};
    SYZ_TRY(rows_of(c, &s));
    SYZ_TRY(need_weight(c, 1, s.width));
    SYZ_TRY(need_weight(c, 2, s.width));
    return syz_norm_forward(c, &s, c->in[1], c->in[2], true);
}

syz_status syz_backward_layer_norm(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    syz_norm_shape s = {0};
    SYZ_TRY(rows_of(c, &s));
    return syz_norm_gradient(c, &s, gout, gin, 1, 2);
}

syz_status syz_forward_rms_norm(syz_call *c) {
    syz_norm_shape s = {0};
    SYZ_TRY(rows_of(c, &s));
    SYZ_TRY(need_weight(c, 1, s.width));
    return syz_norm_forward(c, &s, c->in[1], NULL, false);
}

syz_status syz_backward_rms_norm(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    syz_norm_shape s = {0};
    SYZ_TRY(rows_of(c, &s));
    return syz_norm_gradient(c, &s, gout, gin, 1, 0);
}

syz_status syz_forward_normalize(syz_call *c) {
    syz_norm_shape s = {0};
    SYZ_TRY(rows_of(c, &s));
    syz_tensor *inverse = syz_empty(SYZ_F32, SYZ_SHAPE(s.rows));
    if (!(c->out = syz_empty_like(c->in[0]))) return syz_error_status();
    c->saved[0] = c->out;
    c->saved[1] = inverse;
    return syz_ran(c, c->kernels->normalize(syz_reals(c->out), syz_f32(inverse), syz_reals(c->in[0]), s.rows, s.width,
                                            (float)c->f[0]));
}

syz_status syz_backward_normalize(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    syz_norm_shape s = {0};
    SYZ_TRY(rows_of(c, &s));
    if (!(gin[0] = syz_empty_like(gout))) return syz_error_status();
    return syz_ran(c, c->kernels->normalize_backward(syz_reals(gin[0]), syz_reals(gout), syz_reals(c->saved[0]),
                                                     syz_f32(c->saved[1]), s.rows, s.width, (float)c->f[0]));
}

/* ---- over groups of channels ---- */

static syz_status group_shape(const syz_call *c, syz_group_norm_shape *s) {
    syz_tensor *x = c->in[0];
    SYZ_TRY(syz_need_real(c, 0));
    if (x->shape.n < 2 || syz_numel(x) == 0)
        return syz_fail(SYZ_ESHAPE, "group_norm: shape %s is not [N,...,C]", syz_dims(x));
    s->n = x->shape.dim[0];
    s->channels = x->shape.dim[x->shape.n - 1];
    s->area = syz_numel(x) / s->n / s->channels;
    s->groups = c->i[0];
    s->silu = c->i[1];
    if (s->groups < 1 || s->channels % s->groups)
        return syz_fail(SYZ_ESHAPE, "group_norm: %lld channels cannot be cut into %lld groups", (long long)s->channels,
                        (long long)s->groups);
    SYZ_TRY(need_weight(c, 1, s->channels));
    return need_weight(c, 2, s->channels);
}

syz_status syz_forward_group_norm(syz_call *c) {
    syz_group_norm_shape s = {0};
    SYZ_TRY(group_shape(c, &s));
    syz_tensor *mean = syz_empty(SYZ_F32, SYZ_SHAPE(s.n, s.groups)), *rstd = syz_empty_like(mean);
    if (!(c->out = syz_empty_like(c->in[0]))) return syz_error_status();
    c->saved[0] = mean;
    c->saved[1] = rstd;
    return syz_ran(c, c->kernels->group_norm(syz_reals(c->out), syz_f32(mean), syz_f32(rstd), syz_reals(c->in[0]),
                                             syz_reals(c->in[1]), syz_reals(c->in[2]), &s, (float)c->f[0]));
}

syz_status syz_backward_group_norm(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    syz_group_norm_shape s = {0};
    SYZ_TRY(group_shape(c, &s));
    for (int k = 0; k < 3; k++)
        if (c->needs[k]) gin[k] = syz_empty(k == 0 ? c->real : SYZ_F32, c->in[k]->shape);
    if (syz_failed()) return syz_error_status();
    syz_real *dx = gin[0] ? syz_reals(gin[0]) : NULL;
    float *dweight = gin[1] ? syz_f32(gin[1]) : NULL, *dbias = gin[2] ? syz_f32(gin[2]) : NULL;
    return syz_ran(c, c->kernels->group_norm_backward(dx, dweight, dbias, syz_reals(gout), syz_reals(c->in[0]),
                                                      syz_f32(c->saved[0]), syz_f32(c->saved[1]), syz_reals(c->in[1]),
                                                      syz_reals(c->in[2]), &s));
}
