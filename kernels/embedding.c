#include "kernels/kernels.h"
#include "kernels/parallel.h"

#include <string.h>

int syz_cpu_gather_rows(float *y, const float *x, const int64_t *index, int64_t step, int64_t n, int64_t c) {
#pragma omp parallel for schedule(static) if (n * c > SYZ_PARALLEL_MIN)
    for (int64_t i = 0; i < n; i++)
        memcpy(y + i * c, x + (i * step + index[i]) * c, (size_t)c * sizeof *y);
    return 0;
}

/* Rows may repeat: each thread owns a strip of columns and adds the rows in order. */
int syz_cpu_scatter_rows(float *dx, const float *dy, const int64_t *index, int64_t step, int64_t n, int64_t c) {
    enum { STRIP = 64 };
#pragma omp parallel for schedule(static) if (n * c > SYZ_PARALLEL_MIN)
    for (int64_t first = 0; first < c; first += STRIP) {
        int64_t m = c - first < STRIP ? c - first : STRIP;
        for (int64_t i = 0; i < n; i++) {
            float *to = dx + (i * step + index[i]) * c + first;
            const float *from = dy + i * c + first;
            for (int64_t j = 0; j < m; j++)
                to[j] += from[j];
        }
    }
    return 0;
}
