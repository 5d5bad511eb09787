/* Change of dtype. */
#include "kernels/kernels.h"
#include "ops/ops.h"

syz_status syz_forward_cast(syz_call *c) {
    if (c->i[0] < 0 || c->i[0] >= SYZ_DTYPE_COUNT) return syz_fail(SYZ_EDTYPE, "cast: unknown dtype");
    syz_tensor *x = c->in[0];
    if (!(c->out = syz_empty((syz_dtype)c->i[0], x->shape))) return syz_error_status();
    return syz_ran(c, c->kernels->cast(syz_data(c->out), (int)c->out->dtype, syz_data(x), (int)x->dtype, syz_numel(x)));
}

/* A leaf of half precision collects its gradient in f32: it is a parameter, and small gradients add up. */
syz_status syz_backward_cast(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    const syz_tensor *x = c->in[0];
    if (syz_is_float(x->dtype)) gin[0] = syz_cast(gout, syz_gradient_dtype(x));
    return SYZ_OK;
}
