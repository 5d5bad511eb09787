/* A linear layer and the tanh form of GELU in one product, whose result is not read again for GELU on a GPU. */
#include "kernels/kernels.h"
#include "ops/linear.h"
#include "ops/ops.h"

syz_status syz_forward_linear_gelu(syz_call *c) {
    return syz_linear_product(c, true);
}

/* GELU's gradient, then that of the linear layer, whose inputs are the same. */
syz_status syz_backward_linear_gelu(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    syz_tensor *g = syz_empty_like(gout);
    if (!g) return syz_error_status();
    SYZ_TRY(syz_ran(c, c->kernels->unary_backward(syz_reals(g), syz_reals(gout), syz_reals(c->saved[0]),
                                                  syz_numel(gout), SYZ_UNARY_gelu_tanh)));
    return syz_backward_linear(c, g, gin);
}
