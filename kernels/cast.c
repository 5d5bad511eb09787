#include "kernels/half.h"
#include "kernels/kernels.h"
#include "kernels/parallel.h"
#include "syzygy.h"

/* The pairs on the training path get loops of their own; the rest goes through double, which holds every value but
 * large i64 exactly. */
static void bf16_to_f32(float *y, const uint16_t *x, int64_t n) {
#pragma omp parallel for simd schedule(static) if (n > SYZ_PARALLEL_MIN)
    for (int64_t i = 0; i < n; i++)
        y[i] = syz_bf16_to_f32(x[i]);
}

static void f32_to_bf16(uint16_t *y, const float *x, int64_t n) {
#pragma omp parallel for simd schedule(static) if (n > SYZ_PARALLEL_MIN)
    for (int64_t i = 0; i < n; i++)
        y[i] = syz_f32_to_bf16(x[i]);
}

static void f16_to_f32(float *y, const uint16_t *x, int64_t n) {
#pragma omp parallel for simd schedule(static) if (n > SYZ_PARALLEL_MIN)
    for (int64_t i = 0; i < n; i++)
        y[i] = syz_f16_to_f32(x[i]);
}

static void f16_to_bf16(uint16_t *y, const uint16_t *x, int64_t n) {
#pragma omp parallel for simd schedule(static) if (n > SYZ_PARALLEL_MIN)
    for (int64_t i = 0; i < n; i++)
        y[i] = syz_f32_to_bf16(syz_f16_to_f32(x[i]));
}

static void u8_to_f32(float *y, const uint8_t *x, int64_t n) {
#pragma omp parallel for simd schedule(static) if (n > SYZ_PARALLEL_MIN)
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i];
}

static double load(const void *x, int dtype, int64_t i) {
    switch ((syz_dtype)dtype) {
    case SYZ_F32:
        return ((const float *)x)[i];
    case SYZ_BF16:
        return syz_bf16_to_f32(((const uint16_t *)x)[i]);
    case SYZ_F16:
        return syz_f16_to_f32(((const uint16_t *)x)[i]);
    case SYZ_F64:
        return ((const double *)x)[i];
    case SYZ_I32:
        return ((const int32_t *)x)[i];
    case SYZ_I64:
        return (double)((const int64_t *)x)[i];
    default:
        return ((const uint8_t *)x)[i];
    }
}

/* Into integers: towards zero, saturating, NaN to 0. */
static int64_t to_integer(double value, double low, double high) {
    return value != value ? 0 : (int64_t)(value < low ? low : value > high ? high : value);
}

static void store(void *y, int dtype, int64_t i, double value) {
    switch ((syz_dtype)dtype) {
    case SYZ_F32:
        ((float *)y)[i] = (float)value;
        break;
    case SYZ_BF16:
        ((uint16_t *)y)[i] = syz_f32_to_bf16((float)value);
        break;
    case SYZ_F16:
        ((uint16_t *)y)[i] = syz_f32_to_f16((float)value);
        break;
    case SYZ_F64:
        ((double *)y)[i] = value;
        break;
    case SYZ_I32:
        ((int32_t *)y)[i] = (int32_t)to_integer(value, -2147483648.0, 2147483647.0);
        break;
    case SYZ_I64:
        ((int64_t *)y)[i] = to_integer(value, -9.2e18, 9.2e18);
        break;
    default:
        ((uint8_t *)y)[i] = (uint8_t)to_integer(value, 0, 255);
    }
}

int syz_cpu_cast(void *y, int y_dtype, const void *x, int x_dtype, int64_t n) {
    if (y_dtype == SYZ_F32 && x_dtype == SYZ_BF16) {
        bf16_to_f32(y, x, n);
    } else if (y_dtype == SYZ_BF16 && x_dtype == SYZ_F32) {
        f32_to_bf16(y, x, n);
    } else if (y_dtype == SYZ_F32 && x_dtype == SYZ_F16) {
        f16_to_f32(y, x, n);
    } else if (y_dtype == SYZ_BF16 && x_dtype == SYZ_F16) {
        f16_to_bf16(y, x, n);
    } else if (y_dtype == SYZ_F32 && x_dtype == SYZ_U8) {
        u8_to_f32(y, x, n);
    } else {
        for (int64_t i = 0; i < n; i++)
            store(y, y_dtype, i, load(x, x_dtype, i));
    }
    return 0;
}
