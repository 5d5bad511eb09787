#include "models/params.h"

#include "core/alloc.h"
#include "models/layout.h"
#include "ops/ops.h"
#include "tensor/tensor.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

syz_path syz_pathf(const char *format, ...) {
    syz_path path;
    va_list args;
    va_start(args, format);
    int length = vsnprintf(path.text, sizeof path.text, format, args);
    va_end(args);
    if (length < 0 || (size_t)length >= sizeof path.text) syz_fail(SYZ_EINVAL, "a parameter name is too long");
    return path;
}

syz_path syz_join(const char *prefix, const char *name) {
    return syz_pathf("%s.%s", prefix, name);
}

/* ---- the hash table ---- */

/* FNV-1a, 64 bits. */
static uint64_t hash_name(const char *name) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (; *name; name++)
        hash = (hash ^ (uint8_t)*name) * 0x100000001b3u;
    return hash;
}

/* The slot that holds `name`, or the free one where it belongs. */
static size_t find_slot(const syz_params *params, const char *name) {
    size_t slot = hash_name(name) & (params->slot_count - 1);
    while (params->slots[slot] && strcmp(params->items[params->slots[slot] - 1].name, name) != 0)
        slot = (slot + 1) & (params->slot_count - 1);
    return slot;
}

int64_t syz_params_find(const syz_params *params, const char *name) {
    return params->count ? params->slots[find_slot(params, name)] - 1 : -1;
}

static syz_status grow(syz_params *params) {
    int64_t capacity = params->capacity ? params->capacity * 2 : 64;
    syz_param *items = syz_alloc((size_t)capacity, sizeof *items);
    int64_t *slots = items ? syz_alloc((size_t)capacity * 2, sizeof *slots) : NULL;
    if (!slots) {
        free(items);
        return SYZ_ENOMEM;
    }
    if (params->count) memcpy(items, params->items, (size_t)params->count * sizeof *items);
    free(params->items);
    free(params->slots);
    params->items = items;
    params->slots = slots;
    params->capacity = capacity;
    params->slot_count = (size_t)capacity * 2;
    for (int64_t i = 0; i < params->count; i++)
        slots[find_slot(params, items[i].name)] = i + 1;
    return SYZ_OK;
}

void syz_params_add(syz_params *params, const char *name, syz_shape shape, syz_init init) {
    if (syz_failed() || (params->count == params->capacity && grow(params) != SYZ_OK)) return;
    size_t slot = find_slot(params, name);
    if (params->slots[slot]) {
        syz_fail(SYZ_EINTERNAL, "parameter \"%s\" is declared twice", name);
        return;
    }
    char *copy = syz_strdup(name);
    if (!copy) return;
    params->items[params->count++] = (syz_param){.name = copy, .shape = shape, .init = init};
    params->slots[slot] = params->count;
}

void syz_params_free(syz_params *params) {
    for (int64_t i = 0; i < params->count; i++) {
        free(params->items[i].name);
        syz_release(params->items[i].tensor);
    }
    free(params->items);
    free(params->slots);
    *params = (syz_params){0};
}

/* ---- starting values ---- */

/* `t` takes the values of `source`, or becomes it when it does not exist yet. */
static syz_status set_values(syz_param *param, syz_tensor *source) {
    if (!source) return syz_error_status();
    if (param->tensor) return syz_assign(param->tensor, source);
    param->tensor = syz_retain(source);
    if (param->shape.n == 2) syz_keep_rounded(param->tensor);
    return SYZ_OK;
}

/* A layer that starts at zero, as adaLN-Zero, would hide everything before it; so do random weights without `zeros`. */
static const double NOT_ZERO = 0.02;

syz_tensor *syz_params_draw(const syz_param *param, const syz_random_weights *how) {
    syz_rng rng = {.seed = how->seed, .stream = hash_name(param->name)};
    bool zero = param->init.kind == SYZ_INIT_CONSTANT && param->init.value == 0 && param->shape.n >= 2;
    if (zero && !how->zeros) return syz_affine(syz_randn(&rng, param->shape), NOT_ZERO, 0);
    switch (param->init.kind) {
    case SYZ_INIT_NORMAL:
        return syz_affine(syz_randn(&rng, param->shape), param->init.value, 0);
    case SYZ_INIT_UNIFORM:
        return syz_affine(syz_rand(&rng, param->shape), 2 * param->init.value, -param->init.value);
    default:
        return syz_full(SYZ_F32, param->shape, param->init.value);
    }
}

syz_status syz_params_init(syz_params *params, uint64_t seed) {
    if (syz_failed()) return syz_error_status();
    syz_random_weights how = {.seed = seed, .zeros = true};
    syz_no_grad_push();
    syz_status status = SYZ_OK;
    for (int64_t i = 0; i < params->count && status == SYZ_OK; i++) {
        if ((status = syz_scope_push()) != SYZ_OK) break;
        status = set_values(&params->items[i], syz_params_draw(&params->items[i], &how));
        syz_scope_pop();
    }
    syz_no_grad_pop();
    return status;
}

/* ---- files ---- */

static syz_status load_one(syz_param *param, const syz_weights *weights, const syz_source *source, bool keep) {
    syz_tensor *stored = syz_layout_take(weights, source, param->shape);
    if (!stored) return syz_error_status();
    if (keep) {
        syz_release(param->tensor);
        param->tensor = syz_retain(stored);
        return SYZ_OK;
    }
    if (param->tensor) return syz_assign(param->tensor, stored);
    /* A copy even of f32: aligned memory that no later change of the file can reach. */
    return set_values(param, stored->dtype == SYZ_F32 ? syz_copy(stored) : syz_cast(stored, SYZ_F32));
}

syz_status syz_params_load(syz_params *params, const syz_weights *weights, const syz_source *sources, bool keep) {
    syz_no_grad_push();
    syz_status status = SYZ_OK;
    for (int64_t i = 0; i < params->count && status == SYZ_OK; i++) {
        if ((status = syz_scope_push()) != SYZ_OK) break;
        status = load_one(&params->items[i], weights, &sources[i], keep);
        syz_scope_pop();
    }
    syz_no_grad_pop();
    return status;
}

/* The values of a parameter that has another dtype or lies in a mapped file, as a tensor of its own. */
static syz_status convert(syz_param *param, syz_dtype dtype) {
    syz_tensor *t = param->tensor;
    if (!t || (t->dtype == dtype && !t->storage->release)) return SYZ_OK;
    syz_tensor *values = t->dtype == dtype ? syz_copy(t) : syz_cast(t, dtype);
    if (!values) return syz_error_status();
    syz_set_requires_grad(values, t->requires_grad);
    syz_release(t);
    param->tensor = NULL;
    return set_values(param, values);
}

syz_status syz_params_to(syz_params *params, syz_dtype dtype) {
    syz_memory_tag tag = syz_memory_tag_swap(SYZ_MEMORY_WEIGHTS);
    syz_status status = syz_error_status();
    syz_no_grad_push();
    for (int64_t i = 0; i < params->count && status == SYZ_OK; i++) {
        if ((status = syz_scope_push()) != SYZ_OK) break;
        status = convert(&params->items[i], dtype);
        syz_scope_pop();
    }
    syz_no_grad_pop();
    syz_memory_tag_swap(tag);
    return status;
}

syz_status syz_params_move(syz_params *params, int device) {
    SYZ_TRY(syz_device_check(device));
    syz_memory_tag tag = syz_memory_tag_swap(SYZ_MEMORY_WEIGHTS);
    syz_status status = syz_error_status();
    for (int64_t i = 0; i < params->count && status == SYZ_OK; i++)
        status = syz_move(params->items[i].tensor, device);
    syz_memory_tag_swap(tag);
    return status;
}
