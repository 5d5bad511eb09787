/* Normalisation of rows, for the operations that have one inside. */
#ifndef SYZ_OPS_NORM_H
#define SYZ_OPS_NORM_H

#include "kernels/kernels.h"
#include "ops/call.h"

/* out = normalised in[0] with weight and bias (NULL for none); eps is f[0]; saves what syz_norm_gradient() reads. */
syz_status syz_norm_forward(syz_call *call, const syz_norm_shape *shape, syz_tensor *weight, syz_tensor *bias,
                            bool centred);
/* Gradients of in[0] and of the inputs numbered weight and bias (0 for none). */
syz_status syz_norm_gradient(syz_call *call, const syz_norm_shape *shape, syz_tensor *gout, syz_tensor *gin[],
                             int weight, int bias);

#endif
