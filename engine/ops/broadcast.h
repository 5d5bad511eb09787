#ifndef SYZ_OPS_BROADCAST_H
#define SYZ_OPS_BROADCAST_H

#include "ops/call.h"
#include "tensor/tensor.h"

/* The common shape of two tensors and the loop nest over it, neighbouring dimensions merged where both allow. */
syz_status syz_broadcast(syz_nest *nest, syz_shape *shape, const syz_tensor *a, const syz_tensor *b, const char *name);

/* The gradient of broadcasting: `t` summed down to `shape`. Returns `t` itself when nothing was broadcast. */
syz_tensor *syz_sum_to(const syz_call *c, syz_tensor *t, syz_shape shape);

/* Nest for summing a tensor of shape `from` into one of shape `to` (aligned at the last dimension). */
void syz_reduction_nest(syz_nest *nest, syz_shape from, syz_shape to);

/* Merge neighbouring dimensions where both operands walk the pair as one, and drop dimensions of size 1. */
void syz_nest_simplify(syz_nest *nest);

#endif
