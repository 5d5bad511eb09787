/* Sums and means over any set of dimensions. */
#include "kernels/kernels.h"
#include "ops/broadcast.h"
#include "ops/ops.h"

/* The input's shape with every reduced dimension set to 1, and without them. */
static syz_status reduced_shapes(const syz_call *c, syz_shape *kept, syz_shape *dropped) {
    bool reduce[SYZ_MAX_DIMS] = {false};
    syz_shape x = c->in[0]->shape;
    for (int k = 0; k < c->shape.n; k++) {
        int64_t d = c->shape.dim[k];
        if (!syz_dim_normalize(&d, x.n))
            return syz_fail(SYZ_ESHAPE, "%s: there is no dimension %lld in shape %s", syz_call_name(c),
                            (long long)c->shape.dim[k], syz_dims(c->in[0]));
        reduce[d] = true;
    }
    *kept = x;
    *dropped = (syz_shape){0};
    for (int d = 0; d < x.n; d++) {
        if (reduce[d] || c->shape.n == 0)
            kept->dim[d] = 1;
        else
            dropped->dim[dropped->n++] = x.dim[d];
    }
    return SYZ_OK;
}

static syz_status reduce(syz_call *c, bool mean) {
    syz_shape kept, dropped;
    SYZ_TRY(syz_need_real(c, 0));
    SYZ_TRY(reduced_shapes(c, &kept, &dropped));
    if (!(c->out = syz_zeros(c->real, c->i[0] ? kept : dropped))) return syz_error_status();
    int64_t n = syz_numel(c->in[0]), m = syz_numel(c->out);
    if (n == 0) return SYZ_OK;
    syz_nest nest;
    syz_reduction_nest(&nest, c->in[0]->shape, kept);
    return syz_ran(
        c, c->kernels->sum(syz_reals(c->out), syz_reals(c->in[0]), &nest, mean ? (float)m / (float)n : 1.0f, m));
}

static syz_status reduce_backward(syz_call *c, syz_tensor *gout, syz_tensor *gin[], bool mean) {
    syz_shape kept, dropped;
    SYZ_TRY(reduced_shapes(c, &kept, &dropped));
    syz_tensor *g = syz_view(gout, kept);
    if (mean && g) g = syz_affine(g, (double)syz_numel(g) / (double)syz_numel(c->in[0]), 0);
    gin[0] = syz_add(g, syz_zeros(gout->dtype, c->in[0]->shape)); /* broadcast */
    return SYZ_OK;
}

syz_status syz_forward_sum(syz_call *c) {
    return reduce(c, false);
}

syz_status syz_backward_sum(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    return reduce_backward(c, gout, gin, false);
}

syz_status syz_forward_mean(syz_call *c) {
    return reduce(c, true);
}

syz_status syz_backward_mean(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    return reduce_backward(c, gout, gin, true);
}

syz_status syz_forward_argmax(syz_call *c) {
    syz_shape x = c->in[0]->shape, y = {0};
    int64_t d = c->i[0], outer = 1, inner = 1;
    SYZ_TRY(syz_need_real(c, 0));
    SYZ_TRY(syz_need_dim(c, &d));
    for (int k = 0; k < x.n; k++) {
        if (k != d) y.dim[y.n++] = x.dim[k];
        outer *= k < d ? x.dim[k] : 1;
        inner *= k > d ? x.dim[k] : 1;
    }
    if (x.dim[d] == 0) return syz_fail(SYZ_ESHAPE, "argmax: there are no values along dimension %d", (int)d);
    if (!(c->out = syz_empty(SYZ_I64, y))) return syz_error_status();
    return syz_ran(c, c->kernels->argmax(syz_i64(c->out), syz_reals(c->in[0]), outer, x.dim[d], inner));
}
