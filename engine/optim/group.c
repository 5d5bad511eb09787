#include "optim/group.h"
#include "core/alloc.h"

#include <stdlib.h>

static syz_status check(const syz_tensor *param, int64_t k) {
    long long index = (long long)k;
    if (!syz_alive(param)) return syz_fail(SYZ_EINVAL, "parameter %lld has no values", index);
    if (param->dtype != SYZ_F32 && param->dtype != SYZ_BF16)
        return syz_fail(SYZ_EDTYPE,
                        "parameter %lld is %s: f32 and bf16 parameters can be trained; load the model as one of them, "
                        "or train LoRA adapters beside it",
                        index, syz_dtype_name(param->dtype));
    if (param->storage->release)
        return syz_fail(SYZ_EINVAL,
                        "parameter %lld lies in a file that is mapped, read-only: give the model values of its own "
                        "with :to_f32() or :to_bf16(), or train LoRA adapters beside it",
                        index);
    return SYZ_OK;
}

syz_status syz_group_of(syz_group *group, syz_tensor *const params[], int64_t count) {
    *group = (syz_group){.items = syz_alloc((size_t)count, sizeof *group->items)};
    if (!group->items) return SYZ_ENOMEM;
    group->count = count;
    for (int64_t k = 0; k < count; k++) {
        SYZ_TRY(check(params[k], k));
        group->items[k] = syz_retain(params[k]);
    }
    return SYZ_OK;
}

void syz_group_free(syz_group *group) {
    for (int64_t k = 0; k < group->count; k++)
        syz_release(group->items[k]);
    free(group->items);
    *group = (syz_group){0};
}

/* ---- masters ---- */

syz_tensor *syz_remainder_for(const syz_tensor *param) {
    return syz_zeros_beside(param, SYZ_U8, SYZ_SHAPE(syz_numel(param), (int64_t)sizeof(int16_t)));
}

static syz_status done(const syz_tensor *param, int result) {
    if (result == 0) return SYZ_OK;
    return syz_fail(SYZ_EINTERNAL, "the f32 values of a parameter of %s: their kernel failed", syz_dims(param));
}

syz_tensor *syz_join_master(const syz_tensor *param, const syz_tensor *remainder) {
    const syz_backend *kernels = syz_kernels_of(param);
    syz_tensor *master = syz_zeros_beside(param, SYZ_F32, param->shape);
    int64_t n = syz_numel(param);
    if (!master) return NULL;
    int result = remainder ? kernels->join_master(syz_f32(master), syz_data(param), syz_data(remainder), n)
                           : kernels->cast(syz_data(master), SYZ_F32, syz_data(param), (int)param->dtype, n);
    return done(param, result) == SYZ_OK ? master : NULL;
}

syz_status syz_split_master(syz_tensor *param, syz_tensor *remainder, const syz_tensor *master) {
    const syz_backend *kernels = syz_kernels_of(param);
    int64_t n = syz_numel(param);
    int result = remainder ? kernels->split_master(syz_data(param), syz_data(remainder), syz_f32(master), n)
                           : kernels->cast(syz_data(param), (int)param->dtype, syz_data(master), SYZ_F32, n);
    syz_touch(param);
    return done(param, result);
}
