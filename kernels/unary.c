#include "kernels/kernels.h"
#include "kernels/parallel.h"
#include "kernels/simd_math.h"

/* y may be x. */
#define UNARY(name, value, slope)                                                                                      \
    static void name##_forward(float *y, const float *in, int64_t n) {                                                 \
        _Pragma("omp parallel for simd schedule(static) if (n > SYZ_PARALLEL_MIN)") for (int64_t i = 0; i < n; i++) {  \
            float x = in[i];                                                                                           \
            y[i] = (value);                                                                                            \
        }                                                                                                              \
    }                                                                                                                  \
    static void name##_backward(float *restrict dx, const float *restrict dy, const float *restrict in, int64_t n) {   \
        _Pragma("omp parallel for simd schedule(static) if (n > SYZ_PARALLEL_MIN)") for (int64_t i = 0; i < n; i++) {  \
            float x = in[i];                                                                                           \
            dx[i] = dy[i] * (slope);                                                                                   \
        }                                                                                                              \
    }
#include "kernels/unary.def"
#undef UNARY

static const struct {
    void (*forward)(float *y, const float *x, int64_t n);
    void (*backward)(float *dx, const float *dy, const float *x, int64_t n);
} functions[] = {
#define UNARY(name, value, slope) {name##_forward, name##_backward},
#include "kernels/unary.def"
#undef UNARY
};

int syz_cpu_unary(float *y, const float *x, int64_t n, syz_unary op) {
    functions[op].forward(y, x, n);
    return 0;
}

int syz_cpu_unary_backward(float *dx, const float *dy, const float *x, int64_t n, syz_unary op) {
    functions[op].backward(dx, dy, x, n);
    return 0;
}
