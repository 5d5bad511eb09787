/* Values of tensors: filling, copying between dtypes, reading one number, looking for NaN. */
#include "core/alloc.h"
#include "kernels/kernels.h"
#include "ops/ops.h"
#include "tensor/tensor.h"

#include <math.h>

syz_tensor *syz_full(syz_dtype dtype, syz_shape shape, double value) {
    uint64_t element = 0;
    syz_cpu.cast(&element, (int)dtype, &value, SYZ_F64, 1);
    syz_tensor *t = syz_empty(dtype, shape);
    if (!t || syz_numel(t) == 0) return t;
    if (syz_device_select(t->device) != SYZ_OK) return NULL;
    if (syz_device_kernels(t->device, SYZ_F32)->fill(syz_data(t), element, syz_dtype_size(dtype), syz_numel(t)) != 0)
        return syz_fail_null(SYZ_EINTERNAL, "filling %s failed in its kernel", syz_dims(t));
    return t;
}

syz_status syz_item(double *value, const syz_tensor *t) {
    if (!syz_alive(t)) return syz_fail(SYZ_EINVAL, "item: the tensor was freed when its scope ended");
    if (syz_numel(t) != 1) return syz_fail(SYZ_ESHAPE, "item needs a tensor with one element, not %s", syz_dims(t));
    uint64_t element;
    SYZ_TRY(syz_device_copy(&element, 0, syz_data(t), t->device, syz_dtype_size(t->dtype)));
    syz_cpu.cast(value, SYZ_F64, &element, (int)t->dtype, 1);
    return SYZ_OK;
}

/* Values of one dtype into another, both on the device of `t`. */
static syz_status convert(syz_tensor *t, const syz_tensor *source) {
    SYZ_TRY(syz_device_select(t->device));
    if (syz_device_kernels(t->device, SYZ_F32)
            ->cast(syz_data(t), (int)t->dtype, syz_data(source), (int)source->dtype, syz_numel(t)) == 0)
        return SYZ_OK;
    return syz_fail(SYZ_EINTERNAL, "assign: converting %s failed in its kernel", syz_dims(t));
}

syz_status syz_assign(syz_tensor *t, const syz_tensor *source) {
    if (!t || !source) return syz_failed() ? syz_error_status() : syz_fail(SYZ_EINVAL, "assign: no tensor");
    if (!syz_shape_equal(t->shape, source->shape))
        return syz_fail(SYZ_ESHAPE, "assign: shapes %s and %s must be equal", syz_dims(t), syz_dims(source));
    if (t->storage && t->storage->release)
        return syz_fail(SYZ_EINVAL, "assign: the tensor is mapped from a file and read-only; :copy() it first");
    SYZ_TRY(syz_scope_push());
    syz_tensor *near = syz_copy_to((syz_tensor *)(uintptr_t)source, t->device);
    syz_status status = near ? convert(t, near) : syz_error_status();
    syz_scope_pop();
    syz_touch(t);
    return status;
}

void syz_touch(syz_tensor *t) {
    if (t && t->storage) t->storage->fresh = t->storage->codes_fresh = false;
}

void syz_keep_rounded(syz_tensor *weight) {
    syz_storage *s = weight->storage;
    if (weight->dtype == SYZ_F32 && s && !s->release) s->rounds = true;
}

const uint16_t *syz_rounded(const syz_tensor *t) {
    syz_storage *s = t->storage;
    if (syz_failed() || !s || !s->rounds || s->device || s->bytes != syz_nbytes(t))
        return NULL; /* an earlier error stays */
    if (!s->rounded && !(s->rounded = syz_block_alloc(s->bytes / 2))) {
        syz_error_clear();
        return NULL;
    }
    if (!s->fresh) syz_cpu.cast(s->rounded, SYZ_BF16, s->data, SYZ_F32, syz_numel(t));
    s->fresh = true;
    return s->rounded;
}

/* Room for the codes and, 16 bytes on, the scale. A storage has one set, of the tensor that asked first. */
static bool make_room(const syz_tensor *t, size_t bytes) {
    syz_storage *s = t->storage;
    if (s->codes && s->code_bytes == bytes) return true;
    if (s->codes) {
        syz_fail(SYZ_EINTERNAL, "codes of %s: another part of its memory has some", syz_dims(t));
        return false;
    }
    s->codes = t->device ? syz_device_allocate(t->device, bytes, SYZ_MEMORY_WEIGHTS) : syz_block_alloc(bytes);
    s->code_bytes = s->codes ? bytes : 0;
    return s->codes;
}

syz_fp8_weight syz_fp8_of(syz_tensor *t, syz_dtype real) {
    size_t at = ((size_t)syz_numel(t) + 15) / 16 * 16;
    if (syz_failed() || !make_room(t, at + 16)) return (syz_fp8_weight){0};
    syz_fp8_weight w = {t->storage->codes, (float *)((char *)t->storage->codes + at)};
    if (t->storage->codes_fresh) return w;
    const syz_tensor *read = t->dtype == real ? t : syz_cast(t, real);
    if (!read || syz_device_select(t->device) != SYZ_OK) return (syz_fp8_weight){0};
    if (syz_device_kernels(t->device, real)->quantize_fp8(w.codes, w.scale, syz_reals(read), syz_numel(t)) != 0) {
        syz_fail(SYZ_EINTERNAL, "rounding %s to e4m3 failed in its kernel", syz_dims(t));
        return (syz_fp8_weight){0};
    }
    t->storage->codes_fresh = true;
    return w;
}

static bool finite_f32(const float *x, int64_t n) {
    int64_t bad = 0;
#pragma omp parallel for simd reduction(+ : bad) if (n > 65536)
    for (int64_t i = 0; i < n; i++)
        bad += !(fabsf(x[i]) <= 3.4028235e38f);
    return bad == 0;
}

/* On the device one sum tells: it is finite only when every value is. */
static bool finite_on_device(const syz_tensor *t) {
    double sum = NAN;
    if (syz_scope_push() != SYZ_OK) return false;
    bool real = t->dtype == SYZ_F32 || t->dtype == SYZ_BF16;
    syz_tensor *values = (syz_tensor *)(uintptr_t)t, *squares;
    int before = syz_device_swap(t->device);
    if (!real) values = syz_cast(values, SYZ_F32);
    squares = syz_empty(SYZ_F64, (syz_shape){0});
    syz_device_swap(before);
    if (values && squares && syz_device_select(t->device) == SYZ_OK &&
        syz_device_kernels(t->device, values->dtype)
                ->sum_squares(syz_data(squares), syz_reals(values), syz_numel(values)) == 0)
        syz_item(&sum, squares);
    syz_scope_pop();
    return isfinite(sum);
}

bool syz_all_finite(const syz_tensor *t) {
    if (t->device) return finite_on_device(t);
    if (t->dtype == SYZ_F32) return finite_f32(syz_f32(t), syz_numel(t));
    for (int64_t i = 0; i < syz_numel(t); i++) {
        double value;
        syz_cpu.cast(&value, SYZ_F64, (char *)syz_data(t) + (size_t)i * syz_dtype_size(t->dtype), (int)t->dtype, 1);
        if (!isfinite(value)) return false;
    }
    return true;
}
