/* Softmax and its logarithm along any dimension. */
#include "kernels/kernels.h"
#include "ops/ops.h"

typedef int64_t extents[3]; /* before the dimension, along it, after it */

static syz_status extents_of(const syz_call *c, extents n) {
    syz_shape x = c->in[0]->shape;
    int64_t d = c->i[0];
    SYZ_TRY(syz_need_dim(c, &d));
    n[0] = n[1] = n[2] = 1;
    for (int k = 0; k < x.n; k++)
        n[k < d ? 0 : k == d ? 1 : 2] *= x.dim[k];
    return SYZ_OK;
}

static syz_status forward(syz_call *c, bool logarithm) {
    extents n;
    SYZ_TRY(syz_need_real(c, 0));
    SYZ_TRY(extents_of(c, n));
    if (!(c->out = syz_empty_like(c->in[0]))) return syz_error_status();
    c->saved[0] = c->out;
    if (syz_numel(c->out) == 0) return SYZ_OK;
    return syz_ran(c, c->kernels->softmax(syz_reals(c->out), syz_reals(c->in[0]), n[0], n[1], n[2], logarithm));
}

static syz_status backward(syz_call *c, syz_tensor *gout, syz_tensor *gin[], bool logarithm) {
    extents n;
    SYZ_TRY(extents_of(c, n));
    if (!(gin[0] = syz_empty_like(gout))) return syz_error_status();
    if (syz_numel(gout) == 0) return SYZ_OK;
    return syz_ran(c, c->kernels->softmax_backward(syz_reals(gin[0]), syz_reals(gout), syz_reals(c->saved[0]), n[0],
                                                   n[1], n[2], logarithm));
}

syz_status syz_forward_softmax(syz_call *c) {
    return forward(c, false);
}

syz_status syz_backward_softmax(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    return backward(c, gout, gin, false);
}

syz_status syz_forward_log_softmax(syz_call *c) {
    return forward(c, true);
}

syz_status syz_backward_log_softmax(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    return backward(c, gout, gin, true);
}
