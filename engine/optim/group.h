/* The parameters that an optimizer works on, and what accompanies them one by one. */
#ifndef SYZ_OPTIM_GROUP_H
#define SYZ_OPTIM_GROUP_H

#include "kernels/kernels.h"
#include "tensor/tensor.h"

typedef struct {
    int64_t count;
    syz_tensor **items; /* each retained */
} syz_group;

/* The kernels for f32 tensors of the backend that holds a tensor's values. */
static inline const syz_backend *syz_kernels_of(const syz_tensor *t) {
    syz_device_select(t->device);
    return syz_device_kernels(t->device, SYZ_F32);
}

/* New zeros beside a tensor, in the memory of its device, counted as the optimizer's. */
static inline syz_tensor *syz_zeros_beside(const syz_tensor *t, syz_dtype dtype, syz_shape shape) {
    int device = syz_device_swap(t->device);
    syz_memory_tag tag = syz_memory_tag_swap(SYZ_MEMORY_OPTIMIZER);
    syz_tensor *zeros = syz_zeros(dtype, shape);
    syz_memory_tag_swap(tag);
    syz_device_swap(device);
    return zeros;
}

/* The given tensors. SYZ_EDTYPE unless all are f32 or bf16, SYZ_EINVAL for a missing or a read-only one. */
syz_status syz_group_of(syz_group *group, syz_tensor *const params[], int64_t count);
void syz_group_free(syz_group *group); /* also one that was left half made */

/* ---- masters: what a parameter is in f32 ---- */

/* What bf16 leaves of a master, 16 bits for each value: zeros [n,2] in u8. */
syz_tensor *syz_remainder_for(const syz_tensor *param);
/* A new f32 tensor in the current scope: the copy of an f32 parameter (remainder NULL), or both halves joined. */
syz_tensor *syz_join_master(const syz_tensor *param, const syz_tensor *remainder);
/* Give a parameter, and its remainder if it has one, the f32 values `master`. */
syz_status syz_split_master(syz_tensor *param, syz_tensor *remainder, const syz_tensor *master);

/* ---- the norm of gradients ---- */

/* The gradients' norm (f64) and the factor (f32) that brings it down to max_norm, one element each; squares [count] in
 * f64 is scratch. Nothing is read by the host. */
syz_status syz_measure_grads(syz_tensor *norm, syz_tensor *factor, syz_tensor *squares, syz_tensor *const params[],
                             int64_t count, double max_norm);

#endif
