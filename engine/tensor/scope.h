#ifndef SYZ_TENSOR_SCOPE_H
#define SYZ_TENSOR_SCOPE_H

#include "syzygy.h"

/* Gives the current scope a strong reference on a new tensor. SYZ_EINVAL without a scope. */
syz_status syz_scope_adopt(syz_tensor *t);

#endif
