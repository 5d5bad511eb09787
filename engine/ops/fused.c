/* What adaptive layer norm does around attention and MLP, in one pass each. */
#include "kernels/kernels.h"
#include "ops/norm.h"
#include "ops/ops.h"

/* in[k] is [B,T,C], in[first] (and in[second]) are [B,C]. */
static syz_status batch_rows(const syz_call *c, int k, int first, int second, syz_norm_shape *s) {
    for (int j = 0; j < 3; j++)
        SYZ_TRY(syz_need_real(c, j));
    SYZ_TRY(syz_need_rank(c, k, 3));
    SYZ_TRY(syz_need_rank(c, first, 2));
    SYZ_TRY(syz_need_same_shape(c, first, second));
    syz_shape x = c->in[k]->shape, w = c->in[first]->shape;
    if (x.dim[0] != w.dim[0] || x.dim[2] != w.dim[1] || syz_numel(c->in[k]) == 0)
        return syz_fail(SYZ_ESHAPE, "%s: shapes %s and %s are not [B,T,C] and [B,C]", syz_call_name(c),
                        syz_dims(c->in[k]), syz_dims(c->in[first]));
    *s = (syz_norm_shape){.rows = x.dim[0] * x.dim[1], .width = x.dim[2], .span = x.dim[1], .offset = 1};
    return SYZ_OK;
}

/* dx, dscale and dshift into gin[x], gin[scale], gin[shift] as far as they are needed; x is what scale multiplies.
 * shift < 0: there is none. */
static syz_status scale_gradient(syz_call *c, const syz_norm_shape *s, syz_tensor *gout, syz_tensor *gin[], int x,
                                 int scale, int shift) {
    int index[3] = {x, scale, shift};
    syz_tensor *d[3] = {0};
    for (int k = 0; k < 3; k++) {
        if (index[k] < 0 || !c->needs[index[k]]) continue;
        syz_dtype dtype = k == 0 ? c->real : SYZ_F32;
        if (!(d[k] = gin[index[k]] = syz_empty(dtype, c->in[index[k]]->shape))) return syz_error_status();
    }
    syz_real *dx = d[0] ? syz_reals(d[0]) : NULL;
    float *dscale = d[1] ? syz_f32(d[1]) : NULL, *dshift = d[2] ? syz_f32(d[2]) : NULL;
    return syz_ran(c, c->kernels->modulate_backward(dx, dscale, dshift, syz_reals(gout), syz_reals(c->in[x]),
                                                    syz_reals(c->in[scale]), s));
}

syz_status syz_forward_modulate(syz_call *c) {
    syz_norm_shape s = {0};
    SYZ_TRY(batch_rows(c, 0, 1, 2, &s));
    if (!(c->out = syz_empty_like(c->in[0]))) return syz_error_status();
    return syz_ran(
        c, c->kernels->modulate(syz_reals(c->out), syz_reals(c->in[0]), syz_reals(c->in[1]), syz_reals(c->in[2]), &s));
}

syz_status syz_backward_modulate(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    syz_norm_shape s = {0};
    SYZ_TRY(batch_rows(c, 0, 1, 2, &s));
    return scale_gradient(c, &s, gout, gin, 0, 2, 1);
}

syz_status syz_forward_layer_norm_modulate(syz_call *c) {
    syz_norm_shape s = {0};
    SYZ_TRY(batch_rows(c, 0, 1, 2, &s));
    return syz_norm_forward(c, &s, c->in[2], c->in[1], true);
}

syz_status syz_backward_layer_norm_modulate(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    syz_norm_shape s = {0};
    SYZ_TRY(batch_rows(c, 0, 1, 2, &s));
    return syz_norm_gradient(c, &s, gout, gin, 2, 1);
}

syz_status syz_forward_gated_residual(syz_call *c) {
    syz_norm_shape s = {0};
    SYZ_TRY(batch_rows(c, 0, 1, 1, &s));
    SYZ_TRY(syz_need_same_shape(c, 0, 2));
    if (!(c->out = syz_empty_like(c->in[0]))) return syz_error_status();
    return syz_ran(
        c, c->kernels->gate(syz_reals(c->out), syz_reals(c->in[0]), syz_reals(c->in[1]), syz_reals(c->in[2]), &s));
}

syz_status syz_backward_gated_residual(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    syz_norm_shape s = {0};
    SYZ_TRY(batch_rows(c, 0, 1, 1, &s));
    s.offset = 0;
    if (c->needs[0]) gin[0] = gout;
    return c->needs[1] || c->needs[2] ? scale_gradient(c, &s, gout, gin, 2, 1, -1) : SYZ_OK;
}
