#ifndef SYZ_PRODUCT_H
#define SYZ_PRODUCT_H

#include "kernels/kernels.h"

/* y = a b in f32 for a product without batch or bias, by packing both operands into panels: for the shapes where
 * oneDNN is slow (kernels/matmul.c says which). The same bits for a given number of threads. */
int syz_packed_product(float *y, const float *a, const float *b, const syz_product *product);

#endif
