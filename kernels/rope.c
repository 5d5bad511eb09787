#include "kernels/kernels.h"
#include "kernels/parallel.h"

int syz_cpu_rope(float *y, const float *x, const float *cosine, const float *sine, const int64_t shape[4],
                 float direction) {
    int64_t tokens = shape[1], heads = shape[2], half = shape[3] / 2;
#pragma omp parallel for schedule(static) if (shape[0] * tokens * heads * half > SYZ_PARALLEL_MIN / 2)
    for (int64_t token = 0; token < shape[0] * tokens; token++) {
        const float *restrict c = cosine + token % tokens * half, *restrict s = sine + token % tokens * half;
        for (int64_t h = 0; h < heads; h++) {
            const float *restrict from = x + (token * heads + h) * half * 2;
            float *restrict to = y + (token * heads + h) * half * 2;
            for (int64_t i = 0; i < half; i++) {
                float even = from[2 * i], odd = from[2 * i + 1], turn = direction * s[i];
                to[2 * i] = even * c[i] - odd * turn;
                to[2 * i + 1] = odd * c[i] + even * turn;
            }
        }
    }
    return 0;
}
