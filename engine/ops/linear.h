/* What linear and linear_gelu share. */
#ifndef SYZ_OPS_LINEAR_H
#define SYZ_OPS_LINEAR_H

#include "ops/call.h"

/* Checks the inputs x, weight and bias and sets out = x weight^T + bias, or gelu_tanh of that; and then, when an input
 * needs a gradient, saved[0] = GELU's argument. */
syz_status syz_linear_product(syz_call *call, bool gelu);

#endif
