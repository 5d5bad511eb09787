/* Linear layers in e4m3, for evaluations that record nothing. */
#ifndef SYZ_OPS_FP8_H
#define SYZ_OPS_FP8_H

#include "ops/call.h"

bool syz_fp8_wanted(void);

/* Whether a linear layer of tokens x [B,T,I] is computed in e4m3 now; of the weight's columns those from `begin` on
 * belong to x. */
bool syz_fp8_applies(const syz_tensor *x, const syz_tensor *weight, int64_t begin);

/* y = x w^T + bias, or y += that, then GELU's tanh form; of the weight the columns that belong to x, from `begin` on.
 */
syz_status syz_fp8_product(const syz_call *call, syz_tensor *y, const syz_tensor *x, syz_tensor *weight, int64_t begin,
                           const syz_real *bias, bool add, bool gelu);

#endif
