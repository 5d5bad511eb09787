/* The CPU's table of kernels. */
#include "kernels/kernels.h"

const syz_backend syz_cpu = {
#define KERNEL(name, params) .name = syz_cpu_##name,
#include "kernels/kernels.def"
#undef KERNEL
};
