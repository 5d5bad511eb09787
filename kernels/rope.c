#include "kernels/kernels.h"

#include "kernels/parallel.h"
#include <math.h>

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

int syz_cpu_timestep_embedding(float *y, const float *t, int64_t n, int64_t dim) {
    int64_t half = dim / 2;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t k = 0; k < half; k++) {
            float exponent = (float)-log(10000.0) * (float)k / (float)half;
            float angle = t[i] * expf(exponent);
            y[i * dim + k] = (float)cos(angle);
            y[i * dim + half + k] = (float)sin(angle);
        }
    }
    return 0;
}
