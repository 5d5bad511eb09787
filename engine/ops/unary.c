/* Functions of one element, all generated from kernels/unary.def. */
#include "kernels/kernels.h"
#include "ops/ops.h"

static syz_status forward(syz_call *c, syz_unary op) {
    SYZ_TRY(syz_need_real(c, 0));
    if (!(c->out = syz_empty_like(c->in[0]))) return syz_error_status();
    return syz_ran(c, c->kernels->unary(syz_reals(c->out), syz_reals(c->in[0]), syz_numel(c->out), op));
}

static syz_status backward(syz_call *c, syz_tensor *gout, syz_tensor *gin[], syz_unary op) {
    if (!(gin[0] = syz_empty_like(gout))) return syz_error_status();
    return syz_ran(
        c, c->kernels->unary_backward(syz_reals(gin[0]), syz_reals(gout), syz_reals(c->in[0]), syz_numel(gout), op));
}

#define UNARY(name, y, dy)                                                                                             \
    syz_status syz_forward_##name(syz_call *c) {                                                                       \
        return forward(c, SYZ_UNARY_##name);                                                                           \
    }                                                                                                                  \
    syz_status syz_backward_##name(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {                                 \
        return backward(c, gout, gin, SYZ_UNARY_##name);                                                               \
    }
#include "kernels/unary.def"
#undef UNARY
