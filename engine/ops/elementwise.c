/* Broadcasting arithmetic. Shapes align at their last dimensions; sizes are equal or 1, as in NumPy. */
#include "kernels/kernels.h"
#include "ops/broadcast.h"
#include "ops/ops.h"

static syz_status binary(syz_call *c, syz_binary op) {
    syz_nest nest;
    syz_shape shape;
    SYZ_TRY(syz_need_real(c, 0));
    SYZ_TRY(syz_need_real(c, 1));
    SYZ_TRY(syz_broadcast(&nest, &shape, c->in[0], c->in[1], syz_call_name(c)));
    if (!(c->out = syz_empty(c->real, shape))) return syz_error_status();
    if (syz_numel(c->out) == 0) return SYZ_OK;
    return syz_ran(c, c->kernels->binary(syz_reals(c->out), syz_reals(c->in[0]), syz_reals(c->in[1]), &nest, op));
}

syz_status syz_forward_add(syz_call *c) {
    return binary(c, SYZ_BINARY_ADD);
}

syz_status syz_backward_add(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    if (c->needs[0]) gin[0] = syz_sum_to(c, gout, c->in[0]->shape);
    if (c->needs[1]) gin[1] = syz_sum_to(c, gout, c->in[1]->shape);
    return SYZ_OK;
}

syz_status syz_forward_sub(syz_call *c) {
    return binary(c, SYZ_BINARY_SUB);
}

syz_status syz_backward_sub(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    if (c->needs[0]) gin[0] = syz_sum_to(c, gout, c->in[0]->shape);
    if (c->needs[1]) gin[1] = syz_affine(syz_sum_to(c, gout, c->in[1]->shape), -1, 0);
    return SYZ_OK;
}

syz_status syz_forward_mul(syz_call *c) {
    return binary(c, SYZ_BINARY_MUL);
}

syz_status syz_backward_mul(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    if (c->needs[0]) gin[0] = syz_sum_to(c, syz_mul(gout, c->in[1]), c->in[0]->shape);
    if (c->needs[1]) gin[1] = syz_sum_to(c, syz_mul(gout, c->in[0]), c->in[1]->shape);
    return SYZ_OK;
}

syz_status syz_forward_div(syz_call *c) {
    return binary(c, SYZ_BINARY_DIV);
}

/* y = a/b: da = g/b, db = -g a/b^2 */
syz_status syz_backward_div(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    syz_tensor *ratio = syz_div(gout, c->in[1]);
    if (c->needs[0]) gin[0] = syz_sum_to(c, ratio, c->in[0]->shape);
    if (c->needs[1]) {
        syz_tensor *g = syz_div(syz_mul(ratio, c->in[0]), c->in[1]);
        gin[1] = syz_affine(syz_sum_to(c, g, c->in[1]->shape), -1, 0);
    }
    return SYZ_OK;
}

/* The gradient goes to the chosen side: to `a` where sign * (a - b) > 0, to `b` elsewhere (ties included). */
static syz_status select_backward(syz_call *c, syz_tensor *gout, syz_tensor *gin[], double sign) {
    syz_tensor *distance = syz_affine(syz_sub(c->in[0], c->in[1]), sign * 1e38, 0);
    syz_tensor *to_a = syz_clamp(distance, 0, 1); /* 1 where a wins, 0 elsewhere */
    if (c->needs[0]) gin[0] = syz_sum_to(c, syz_mul(gout, to_a), c->in[0]->shape);
    if (c->needs[1]) gin[1] = syz_sum_to(c, syz_mul(gout, syz_affine(to_a, -1, 1)), c->in[1]->shape);
    return SYZ_OK;
}

syz_status syz_forward_maximum(syz_call *c) {
    return binary(c, SYZ_BINARY_MAX);
}

syz_status syz_backward_maximum(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    return select_backward(c, gout, gin, 1);
}

syz_status syz_forward_minimum(syz_call *c) {
    return binary(c, SYZ_BINARY_MIN);
}

syz_status syz_backward_minimum(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    return select_backward(c, gout, gin, -1);
}

syz_status syz_forward_affine(syz_call *c) {
    SYZ_TRY(syz_need_real(c, 0));
    if (!(c->out = syz_empty_like(c->in[0]))) return syz_error_status();
    return syz_ran(c, c->kernels->affine(syz_reals(c->out), syz_reals(c->in[0]), (float)c->f[0], (float)c->f[1],
                                         syz_numel(c->out)));
}

syz_status syz_backward_affine(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    gin[0] = syz_affine(gout, c->f[0], 0);
    return SYZ_OK;
}

syz_status syz_forward_pow(syz_call *c) {
    SYZ_TRY(syz_need_real(c, 0));
    if (!(c->out = syz_empty_like(c->in[0]))) return syz_error_status();
    return syz_ran(c, c->kernels->pow(syz_reals(c->out), syz_reals(c->in[0]), (float)c->f[0], syz_numel(c->out)));
}

syz_status syz_backward_pow(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    gin[0] = syz_mul(gout, syz_affine(syz_pow(c->in[0], c->f[0] - 1), c->f[0], 0));
    return SYZ_OK;
}

syz_status syz_forward_clamp(syz_call *c) {
    SYZ_TRY(syz_need_real(c, 0));
    if (c->f[0] > c->f[1]) return syz_fail(SYZ_EINVAL, "clamp: low %g is above high %g", c->f[0], c->f[1]);
    if (!(c->out = syz_empty_like(c->in[0]))) return syz_error_status();
    return syz_ran(c, c->kernels->clamp(syz_reals(c->out), syz_reals(c->in[0]), (float)c->f[0], (float)c->f[1],
                                        syz_numel(c->out)));
}

syz_status syz_backward_clamp(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    if (!(gin[0] = syz_empty_like(gout))) return syz_error_status();
    return syz_ran(c, c->kernels->clamp_backward(syz_reals(gin[0]), syz_reals(gout), syz_reals(c->in[0]),
                                                 (float)c->f[0], (float)c->f[1], syz_numel(gout)));
}
