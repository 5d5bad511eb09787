#include "optim/group.h"
#include "core/alloc.h"

#include <stdlib.h>

static syz_status make(syz_group *group, int64_t count) {
    *group = (syz_group){.items = syz_alloc((size_t)count, sizeof *group->items)};
    if (!group->items) return SYZ_ENOMEM;
    group->count = count;
    return SYZ_OK;
}

syz_status syz_group_of(syz_group *group, syz_tensor *const params[], int64_t count) {
    SYZ_TRY(make(group, count));
    for (int64_t k = 0; k < count; k++) {
        if (!syz_alive(params[k])) return syz_fail(SYZ_EINVAL, "parameter %lld has no values", (long long)k);
        if (params[k]->dtype != SYZ_F32)
            return syz_fail(SYZ_EDTYPE,
                            "parameter %lld is %s: only f32 parameters can be trained; load the model as f32, or train "
                            "LoRA adapters beside it",
                            (long long)k, syz_dtype_name(params[k]->dtype));
        group->items[k] = syz_retain(params[k]);
    }
    return SYZ_OK;
}

syz_status syz_group_like(syz_group *group, const syz_group *params, bool copies) {
    SYZ_TRY(make(group, params->count));
    SYZ_TRY(syz_scope_push());
    for (int64_t k = 0; k < params->count && !syz_failed(); k++) {
        syz_tensor *p = params->items[k];
        group->items[k] = syz_retain(copies ? syz_copy(p) : syz_zeros_like(p));
    }
    syz_scope_pop();
    return syz_error_status();
}

void syz_group_free(syz_group *group) {
    for (int64_t k = 0; k < group->count; k++)
        syz_release(group->items[k]);
    free(group->items);
    *group = (syz_group){0};
}
