#include "ops/ops.h"
#include "optim/group.h"

#include <math.h>

syz_status syz_measure_grads(syz_tensor *norm, syz_tensor *factor, syz_tensor *squares, syz_tensor *const params[],
                             int64_t count, double max_norm) {
    const syz_backend *kernels = syz_kernels_of(norm);
    double *square = syz_data(squares);
    int64_t found = 0;
    for (int64_t k = 0; k < count; k++) {
        const syz_tensor *grad = params[k]->grad;
        if (!grad) continue;
        if (grad->dtype != SYZ_F32)
            return syz_fail(SYZ_EDTYPE, "the norm of gradients: that of parameter %lld is %s, not f32", (long long)k,
                            syz_dtype_name(grad->dtype));
        if (kernels->sum_squares(square + found++, syz_reals(grad), syz_numel(grad)) != 0)
            return syz_kernel_failed(syz_tensor_device(grad), "the norm of gradients: that of parameter %lld",
                                     (long long)k);
    }
    if (kernels->clip_factor(syz_f32(factor), syz_data(norm), square, found, max_norm) == 0) return SYZ_OK;
    return syz_kernel_failed(syz_tensor_device(norm), "the norm of gradients");
}

/* In place, unless somebody else sees the same values: two parameters that were added share one gradient. */
static syz_status scale(syz_tensor *param, double factor) {
    syz_tensor *grad = param->grad;
    if (grad->refs > 1 || grad->storage->refs > 1) {
        syz_tensor *scaled = syz_affine(syz_alias(grad), factor, 0);
        return scaled ? syz_set_grad(param, scaled) : syz_error_status();
    }
    if (syz_kernels_of(grad)->affine(syz_reals(grad), syz_reals(grad), (float)factor, 0, syz_numel(grad)) == 0)
        return SYZ_OK;
    return syz_kernel_failed(syz_tensor_device(grad), "scaling a gradient of %s", syz_dims(grad));
}

syz_status syz_scale_grads(syz_tensor *const params[], int64_t count, double factor) {
    if (syz_failed()) return syz_error_status();
    SYZ_TRY(syz_scope_push());
    syz_status status = SYZ_OK;
    for (int64_t k = 0; k < count && status == SYZ_OK; k++)
        if (params[k]->grad) status = scale(params[k], factor);
    syz_scope_pop();
    return status;
}

static syz_status measure(double *norm, syz_tensor *const params[], int64_t count) {
    *norm = 0;
    if (count == 0) return SYZ_OK;
    syz_tensor *total = syz_zeros_beside(params[0], SYZ_F64, SYZ_SHAPE(1));
    syz_tensor *factor = syz_zeros_beside(params[0], SYZ_F32, SYZ_SHAPE(1));
    syz_tensor *squares = syz_zeros_beside(params[0], SYZ_F64, SYZ_SHAPE(count));
    if (syz_failed()) return syz_error_status();
    SYZ_TRY(syz_measure_grads(total, factor, squares, params, count, 0));
    return syz_item(norm, total);
}

syz_status syz_clip_grad_norm(double *norm, syz_tensor *const params[], int64_t count, double max_norm) {
    if (syz_failed()) return syz_error_status();
    SYZ_TRY(syz_scope_push());
    syz_status status = measure(norm, params, count);
    syz_scope_pop();
    SYZ_TRY(status);
    double factor = max_norm / (*norm + 1e-6);
    if (!isfinite(*norm) || max_norm <= 0 || factor >= 1) return SYZ_OK;
    return syz_scale_grads(params, count, factor);
}
