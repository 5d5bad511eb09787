/* Products of operands in e4m3, with one scale for each. No processor has them: here they show what they do to a model,
 * and are what the GPU's are compared with. */
#include "kernels/fp8.h"
#include "core/alloc.h"
#include "kernels/kernels.h"
#include "kernels/parallel.h"

int syz_cpu_quantize_fp8(uint8_t *y, float *scale, const float *x, int64_t n) {
    uint32_t largest = 0; /* of the bits of magnitudes, which have their order; a NaN is the largest */
#pragma omp parallel for simd reduction(max : largest) if (n > SYZ_PARALLEL_MIN)
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bits &= 0x7fffffffu;
        largest = bits > largest ? bits : largest;
    }
    float amax, factor;
    memcpy(&amax, &largest, sizeof amax);
    syz_e4m3_scale(amax, scale, &factor);
#pragma omp parallel for if (n > SYZ_PARALLEL_MIN)
    for (int64_t i = 0; i < n; i++)
        y[i] = syz_to_e4m3(x[i] * factor);
    return 0;
}

/* y [rows,cols] = the values at x, whose rows are `step` apart */
static void decode(float *y, const uint8_t *x, int64_t rows, int64_t cols, int64_t step) {
    float value[256];
    for (int code = 0; code < 256; code++)
        value[code] = syz_from_e4m3((uint8_t)code);
#pragma omp parallel for if (rows * cols > SYZ_PARALLEL_MIN)
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++)
            y[i * cols + j] = value[x[i * step + j]];
}

int syz_cpu_matmul_fp8(float *y, const uint8_t *a, const uint8_t *b, const float *scale_a, const float *scale_b,
                       const float *bias, const syz_product *product, bool gelu) {
    int64_t m = product->m, n = product->n, k = product->k;
    size_t bytes = (size_t)(m * n + m * k + n * k) * sizeof(float);
    float *made = syz_block_alloc(bytes), scale = *scale_a * *scale_b;
    if (!made) return -1;
    float *left = made + m * n, *right = left + m * k;
    syz_product exact = {.batch = 1, .m = m, .n = n, .k = k, .a = {0, k, 1}, .b = {0, 1, k}};
    decode(left, a, m, k, product->a[1]);
    decode(right, b, n, k, product->b[2]);
    int status = syz_cpu_matmul(made, left, right, NULL, &exact);
#pragma omp parallel for if (m * n > SYZ_PARALLEL_MIN)
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            float before = product->add ? y[i * n + j] : 0;
            y[i * n + j] = scale * made[i * n + j] + before + (bias ? bias[j] : 0);
        }
    syz_block_free(made, bytes);
    return status == 0 && gelu ? syz_cpu_unary(y, y, m * n, SYZ_UNARY_gelu_tanh) : status;
}

int syz_cpu_has_fp8(bool *possible) {
    *possible = true;
    return 0;
}
