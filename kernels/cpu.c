/* The CPU's table of kernels: what the table calls syz_real is float here. */
#include "kernels/kernels.h"

#define REAL syz_real

const syz_backend syz_cpu = {
#define KERNEL(name, params) .name = (int(*) params)syz_cpu_##name,
#include "kernels/kernels.def"
#undef KERNEL
};
