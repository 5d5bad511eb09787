/* Values of tensors: filling, copying between dtypes, reading one number, looking for NaN. */
#include "core/alloc.h"
#include "kernels/kernels.h"
#include "tensor/tensor.h"

#include <math.h>

syz_tensor *syz_full(syz_dtype dtype, syz_shape shape, double value) {
    syz_tensor *t = syz_empty(dtype, shape);
    syz_nest nest = {.n = 1, .dim = {t ? syz_numel(t) : 0}, .b = {1}};
    uint64_t element = 0;
    if (nest.dim[0] == 0) return t;
    syz_cpu.cast(&element, (int)dtype, &value, SYZ_F64, 1);
    syz_cpu.copy(syz_data(t), &element, &nest, syz_dtype_size(dtype));
    return t;
}

syz_status syz_item(double *value, const syz_tensor *t) {
    if (!syz_alive(t)) return syz_fail(SYZ_EINVAL, "item: the tensor was freed when its scope ended");
    if (syz_numel(t) != 1) return syz_fail(SYZ_ESHAPE, "item needs a tensor with one element, not %s", syz_dims(t));
    syz_cpu.cast(value, SYZ_F64, syz_data(t), (int)t->dtype, 1);
    return SYZ_OK;
}

syz_status syz_assign(syz_tensor *t, const syz_tensor *source) {
    if (!t || !source) return syz_failed() ? syz_error_status() : syz_fail(SYZ_EINVAL, "assign: no tensor");
    if (!syz_shape_equal(t->shape, source->shape))
        return syz_fail(SYZ_ESHAPE, "assign: shapes %s and %s must be equal", syz_dims(t), syz_dims(source));
    if (t->storage && t->storage->release)
        return syz_fail(SYZ_EINVAL, "assign: the tensor is mapped from a file and read-only; :copy() it first");
    syz_cpu.cast(syz_data(t), (int)t->dtype, syz_data(source), (int)source->dtype, syz_numel(t));
    syz_touch(t);
    return SYZ_OK;
}

void syz_touch(syz_tensor *t) {
    if (t && t->storage) t->storage->fresh = false;
}

void syz_keep_rounded(syz_tensor *weight) {
    syz_storage *s = weight->storage;
    if (weight->dtype == SYZ_F32 && s && !s->release) s->rounds = true;
}

const uint16_t *syz_rounded(const syz_tensor *t) {
    syz_storage *s = t->storage;
    if (syz_failed() || !s || !s->rounds || s->bytes != syz_nbytes(t)) return NULL; /* an earlier error stays */
    if (!s->rounded && !(s->rounded = syz_block_alloc(s->bytes / 2))) {
        syz_error_clear();
        return NULL;
    }
    if (!s->fresh) syz_cpu.cast(s->rounded, SYZ_BF16, s->data, SYZ_F32, syz_numel(t));
    s->fresh = true;
    return s->rounded;
}

static bool finite_f32(const float *x, int64_t n) {
    int64_t bad = 0;
#pragma omp parallel for simd reduction(+ : bad) if (n > 65536)
    for (int64_t i = 0; i < n; i++)
        bad += !(fabsf(x[i]) <= 3.4028235e38f);
    return bad == 0;
}

bool syz_all_finite(const syz_tensor *t) {
    if (t->dtype == SYZ_F32) return finite_f32(syz_f32(t), syz_numel(t));
    for (int64_t i = 0; i < syz_numel(t); i++) {
        double value;
        syz_cpu.cast(&value, SYZ_F64, (char *)syz_data(t) + (size_t)i * syz_dtype_size(t->dtype), (int)t->dtype, 1);
        if (!isfinite(value)) return false;
    }
    return true;
}
