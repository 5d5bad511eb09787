/* C functions of every operation in ops.def: syz_tensor *syz_add(syz_tensor *a, syz_tensor *b) and so on.
 * Each returns a new tensor in the current scope, or NULL when it fails or when an error is already pending. */
#ifndef SYZ_OPS_OPS_H
#define SYZ_OPS_OPS_H

#include "ops/call.h"
#include "tensor/tensor.h"

enum {
#define OP(name, signature, keeps, flags, params, args) SYZ_OP_##name,
#include "ops/ops.def"
#undef OP
    SYZ_OP_COUNT
};

#define OP(name, signature, keeps, flags, params, args) syz_tensor *syz_##name params;
#include "ops/ops.def"
#undef OP

#define OP(name, signature, keeps, flags, params, args)                                                                \
    syz_status syz_forward_##name(syz_call *call);                                                                     \
    syz_status syz_backward_##name(syz_call *call, syz_tensor *gout, syz_tensor *gin[]);
#include "ops/ops.def"
#undef OP

/* For messages: the operation's name. */
static inline const char *syz_call_name(const syz_call *call) {
    return syz_ops[call->op].name;
}

/* SYZ_ESHAPE unless input k has `rank` dimensions. */
syz_status syz_need_rank(const syz_call *call, int k, int rank);
/* SYZ_ESHAPE unless inputs j and k have the same shape. */
syz_status syz_need_same_shape(const syz_call *call, int j, int k);
/* SYZ_EDTYPE unless input k has that dtype. */
syz_status syz_need_dtype(const syz_call *call, int k, syz_dtype dtype);
/* SYZ_EDTYPE unless input k has the type that the call computes in. */
syz_status syz_need_real(const syz_call *call, int k);
/* The indices of input k where the kernels read them: copied when they lie on the CPU and the call runs elsewhere. NULL
 * on failure. */
const int64_t *syz_indices(const syz_call *call, int k);
/* SYZ_ESHAPE unless *dim is a dimension of the first input; a negative one is counted from its end. */
syz_status syz_need_dim(const syz_call *call, int64_t *dim);

/* What a kernel returned, as a status: SYZ_OK for 0, else the pending error or SYZ_EINTERNAL with the call's name.
 * Every call of a kernel is checked: on a device any launch can fail. */
syz_status syz_ran(const syz_call *call, int result);

/* A kernel of attention gave -1: on the CPU that is SYZ_ENOMEM, on a device whatever it says. */
syz_status syz_attention_failed(const syz_call *call, const char *what, const syz_tensor *t);

#endif
