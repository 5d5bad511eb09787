/* The parameters that an optimizer works on, and tensors that accompany them one by one. */
#ifndef SYZ_OPTIM_GROUP_H
#define SYZ_OPTIM_GROUP_H

#include "tensor/tensor.h"

typedef struct {
    int64_t count;
    syz_tensor **items; /* each retained */
} syz_group;

/* The given tensors. SYZ_EDTYPE unless all are f32, SYZ_EINVAL for a missing one. */
syz_status syz_group_of(syz_group *group, syz_tensor *const params[], int64_t count);
/* New tensors of the same shapes: copies, or zeros. */
syz_status syz_group_like(syz_group *group, const syz_group *params, bool copies);
void syz_group_free(syz_group *group); /* also one that was left half made */

#endif
