/* LoRA: which layers get an adapter, what it computes, and the way into the weights and back. */
#include "models/lora.h"

#include "core/alloc.h"
#include "models/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- life ---- */

syz_lora *syz_lora_new(void) {
    syz_lora *lora = syz_alloc(1, sizeof *lora);
    if (!lora) return NULL;
    lora->strength = 1;
    lora->enabled = true;
    return lora;
}

syz_status syz_lora_move(syz_lora *lora, int device) {
    SYZ_TRY(syz_params_move(&lora->params, device));
    for (int64_t k = 0; k < lora->count; k++)
        if (lora->items[k].original) SYZ_TRY(syz_move(lora->items[k].original, device));
    return SYZ_OK;
}

void syz_lora_free(syz_lora *lora) {
    if (!lora) return;
    for (int64_t k = 0; k < lora->count; k++) {
        free(lora->items[k].module);
        syz_release(lora->items[k].original);
    }
    syz_params_free(&lora->params);
    json_decref(lora->targets);
    free(lora->items);
    free(lora->config_text);
    free(lora);
}

static syz_status grow(syz_lora *lora) {
    int64_t capacity = lora->capacity ? lora->capacity * 2 : 64;
    syz_adapter *items = syz_alloc((size_t)capacity, sizeof *items);
    if (!items) return SYZ_ENOMEM;
    if (lora->count) memcpy(items, lora->items, (size_t)lora->count * sizeof *items);
    free(lora->items);
    lora->items = items;
    lora->capacity = capacity;
    return SYZ_OK;
}

/* The layer's name: that of its weight without ".weight". */
static char *module_of(const char *weight) {
    char *name = syz_strdup(weight);
    if (name) name[strlen(name) - strlen(".weight")] = '\0';
    return name;
}

syz_status syz_lora_declare(syz_lora *lora, const syz_model *m, int64_t weight, int64_t rank, double alpha) {
    if (lora->count == lora->capacity) SYZ_TRY(grow(lora));
    char *module = module_of(m->params.items[weight].name);
    if (!module) return SYZ_ENOMEM;
    double scale = lora->rslora ? alpha / sqrt((double)rank) : alpha / (double)rank;
    lora->items[lora->count++] =
        (syz_adapter){.module = module, .weight = weight, .rank = rank, .alpha = alpha, .scale = scale};
    const int64_t *dim = m->params.items[weight].shape.dim;
    syz_init start = lora->gaussian ? (syz_init){SYZ_INIT_NORMAL, 1 / (double)rank}
                                    : (syz_init){SYZ_INIT_UNIFORM, 1 / sqrt((double)dim[1])};
    syz_params_add(&lora->params, syz_pathf("%s.lora_A.weight", module).text, SYZ_SHAPE(rank, dim[1]), start);
    syz_params_add(&lora->params, syz_pathf("%s.lora_B.weight", module).text, SYZ_SHAPE(dim[0], rank), SYZ_INIT_ZEROS);
    return syz_error_status();
}

syz_status syz_lora_install(syz_lora *lora, syz_model *m) {
    lora->config_text = syz_lora_config_text(lora, "");
    if (!lora->config_text) return syz_error_status();
    syz_model_set_requires_grad(m, false);
    for (int64_t i = 0; i < lora->params.count; i++)
        syz_set_requires_grad(lora->params.items[i].tensor, true);
    m->lora = lora;
    return syz_lora_move(lora, syz_model_device(m));
}

/* ---- targets ---- */

/* PEFT: the whole name, or its end after a dot. */
static bool ends_with(const char *module, const char *target) {
    size_t length = strlen(module), end = strlen(target);
    if (end > length || strcmp(module + length - end, target) != 0) return false;
    return end == length || module[length - end - 1] == '.';
}

static bool is_target(const json_t *targets, const char *module) {
    if (!targets) return true;
    for (size_t i = 0; i < json_array_size(targets); i++)
        if (ends_with(module, json_string_value(json_array_get(targets, i)))) return true;
    return false;
}

double syz_lora_pattern(const syz_json *config, const char *key, const char *module, double missing) {
    const char *pattern;
    json_t *value;
    json_object_foreach(json_object_get(config->object, key), pattern, value) {
        bool whole = *pattern == '^'; /* as diffusers writes it */
        const char *name = pattern + whole;
        if (strpbrk(name, "\\*+?[](){}|^$")) {
            syz_fail(SYZ_EUNSUPPORTED, "%s: %s \"%s\" is a regular expression; names and ends of names are read",
                     config->name, key, pattern);
        } else if (!json_is_number(value)) {
            syz_fail(SYZ_EFORMAT, "%s: %s \"%s\" must be a number", config->name, key, pattern);
        } else if (whole ? strcmp(module, name) == 0 : ends_with(module, name)) {
            return json_number_value(value);
        }
    }
    return missing;
}

/* target_modules: a list of names, or "all-linear", for which lora->targets stays NULL. */
static syz_status read_targets(syz_lora *lora, const syz_json *config) {
    json_t *targets = json_object_get(config->object, "target_modules");
    if (json_is_string(targets) && strcmp(json_string_value(targets), "all-linear") == 0) return SYZ_OK;
    bool names = json_is_array(targets) && json_array_size(targets) > 0;
    for (size_t i = 0; names && i < json_array_size(targets); i++)
        names = json_is_string(json_array_get(targets, i));
    if (!names)
        return syz_fail(SYZ_EINVAL, "%s: target_modules must be a list of names of layers, or \"all-linear\"",
                        config->name);
    lora->targets = json_incref(targets);
    return SYZ_OK;
}

static syz_status check_rank(const syz_param *weight, double rank) {
    int64_t out = weight->shape.dim[0], in = weight->shape.dim[1], most = in < out ? in : out;
    if (rank >= 1 && rank <= (double)most && rank == floor(rank)) return SYZ_OK;
    return syz_fail(SYZ_EINVAL,
                    "LoRA: rank %g of %.*s must be a whole number from 1 to %lld, the smaller of its %lld inputs and "
                    "%lld outputs; rank_pattern gives a layer a rank of its own",
                    rank, (int)(strlen(weight->name) - strlen(".weight")), weight->name, (long long)most, (long long)in,
                    (long long)out);
}

/* Every target must be the name of a layer: a mistyped one would silently train less. */
static syz_status check_targets(const syz_lora *lora, const syz_model *m) {
    for (size_t i = 0; i < json_array_size(lora->targets); i++) {
        const char *target = json_string_value(json_array_get(lora->targets, i));
        bool found = false;
        for (int64_t k = 0; k < lora->count && !found; k++)
            found = ends_with(lora->items[k].module, target);
        if (!found)
            return syz_fail(SYZ_ENOTFOUND, "LoRA: target \"%s\" is no linear layer of %s", target, m->class->name);
    }
    if (lora->count) return SYZ_OK;
    return syz_fail(SYZ_EINVAL, "LoRA: %s has no linear layers", m->class->name);
}

static syz_status declare_all(syz_lora *lora, const syz_model *m, const syz_json *config) {
    SYZ_TRY(syz_lora_read_config(lora, config));
    SYZ_TRY(read_targets(lora, config));
    for (int64_t i = 0; i < m->params.count; i++) {
        const syz_param *weight = &m->params.items[i];
        if (!weight->linear) continue;
        char *module = module_of(weight->name);
        if (!module) return SYZ_ENOMEM;
        bool wanted = is_target(lora->targets, module);
        double rank = syz_lora_pattern(config, "rank_pattern", module, (double)lora->rank);
        double alpha = syz_lora_pattern(config, "alpha_pattern", module, lora->alpha);
        free(module);
        if (syz_failed()) return syz_error_status();
        if (!wanted) continue;
        SYZ_TRY(check_rank(weight, rank));
        SYZ_TRY(syz_lora_declare(lora, m, i, (int64_t)rank, alpha));
    }
    return check_targets(lora, m);
}

static syz_status need_none(const syz_model *m) {
    if (!m->lora) return SYZ_OK;
    return syz_fail(SYZ_EINVAL, "%s already has adapters: remove them first", m->class->name);
}

static syz_status attach(syz_model *m, const syz_json *config, uint64_t seed) {
    syz_lora *lora = syz_lora_new();
    syz_status status = lora ? declare_all(lora, m, config) : syz_error_status();
    if (status == SYZ_OK) status = syz_params_init(&lora->params, seed);
    if (status == SYZ_OK) status = syz_lora_install(lora, m);
    if (status != SYZ_OK) syz_lora_free(lora);
    return status;
}

syz_status syz_lora_attach(syz_model *m, const char *config_text, uint64_t seed) {
    if (syz_failed()) return syz_error_status();
    SYZ_TRY(need_none(m));
    syz_json config = {.name = (char *)"LoRA"};
    config.object = syz_json_parse(config_text, strlen(config_text), config.name);
    if (!config.object) return syz_error_status();
    syz_status status = json_is_object(config.object) ? attach(m, &config, seed)
                                                      : syz_fail(SYZ_EFORMAT, "LoRA: must hold a JSON object {...}");
    json_decref(config.object);
    return status;
}

/* ---- computing ---- */

static syz_tensor *matrix(const syz_lora *lora, int64_t index) {
    return lora->params.items[index].tensor;
}

/* The number of a layer's adapter, or -1. */
static int64_t find(const syz_lora *lora, const char *module) {
    int64_t index = syz_params_find(&lora->params, syz_pathf("%s.lora_A.weight", module).text);
    return index < 0 ? -1 : index / 2;
}

bool syz_lora_acts_on(const syz_model *m, const char *module) {
    return m->lora && m->lora->enabled && !m->lora->merged && find(m->lora, module) >= 0;
}

/* The scale goes on the narrow tensor in the middle, which is cheaper than on the result. */
syz_tensor *syz_lora_apply(const syz_model *m, const char *module, syz_tensor *x, syz_tensor *y) {
    if (syz_failed() || !syz_lora_acts_on(m, module)) return y;
    const syz_lora *lora = m->lora;
    int64_t k = find(lora, module);
    syz_tensor *narrow = syz_linear(x, matrix(lora, 2 * k), NULL);
    double scale = lora->items[k].scale * lora->strength;
    if (scale != 1) narrow = syz_affine(narrow, scale, 0);
    return syz_add(y, syz_linear(narrow, matrix(lora, 2 * k + 1), NULL));
}

bool syz_lora_is_steady(const syz_model *m) {
    return !m->lora || m->lora->enabled;
}

/* ---- merging ---- */

/* W + scale B A, in W's dtype. */
static syz_tensor *merged_weight(const syz_lora *lora, int64_t k, syz_tensor *w) {
    syz_tensor *full = w->dtype == SYZ_F32 ? w : syz_cast(w, SYZ_F32);
    syz_tensor *delta = syz_matmul(matrix(lora, 2 * k + 1), matrix(lora, 2 * k), false, false);
    full = syz_add(full, syz_affine(delta, lora->items[k].scale * lora->strength, 0));
    return w->dtype == SYZ_F32 ? full : syz_cast(full, w->dtype);
}

static syz_status merge_one(syz_model *m, int64_t k) {
    syz_adapter *a = &m->lora->items[k];
    syz_tensor *weight = syz_model_param(m, a->weight);
    if (!weight) return syz_error_status();
    SYZ_TRY(syz_scope_push());
    syz_tensor *made = merged_weight(m->lora, k, weight);
    if (made) {
        a->original = weight;
        m->params.items[a->weight].tensor = syz_retain(made);
        syz_keep_rounded(made);
    }
    syz_scope_pop();
    return syz_error_status();
}

static void put_back(syz_model *m) {
    for (int64_t k = 0; k < m->lora->count; k++) {
        syz_adapter *a = &m->lora->items[k];
        if (!a->original) continue;
        syz_release(m->params.items[a->weight].tensor);
        m->params.items[a->weight].tensor = a->original;
        a->original = NULL;
    }
    m->lora->merged = false;
}

static syz_status need_adapters(const syz_model *m, bool merged) {
    if (!m->lora) return syz_fail(SYZ_EINVAL, "%s has no adapters", m->class->name);
    if (m->lora->merged == merged) return SYZ_OK;
    return syz_fail(SYZ_EINVAL, "the adapters of %s are %s", m->class->name, merged ? "not merged" : "merged already");
}

/* In f32 whatever the precision of products: the sum is made once and kept. */
syz_status syz_lora_merge(syz_model *m) {
    if (syz_failed()) return syz_error_status();
    SYZ_TRY(need_adapters(m, false));
    syz_dtype precision = syz_matmul_precision();
    SYZ_TRY(syz_set_matmul_precision(SYZ_F32));
    syz_no_grad_push();
    for (int64_t k = 0; k < m->lora->count && !syz_failed(); k++)
        merge_one(m, k);
    syz_no_grad_pop();
    syz_set_matmul_precision(precision);
    m->lora->merged = true;
    if (syz_failed()) put_back(m);
    return syz_error_status();
}

syz_status syz_lora_unmerge(syz_model *m) {
    if (syz_failed()) return syz_error_status();
    SYZ_TRY(need_adapters(m, true));
    put_back(m);
    return SYZ_OK;
}

void syz_lora_remove(syz_model *m) {
    syz_lora_free(m->lora);
    m->lora = NULL;
}

/* ---- what there is ---- */

int64_t syz_lora_count(const syz_model *m) {
    return m->lora ? m->lora->params.count : 0;
}

const char *syz_lora_param_name(const syz_model *m, int64_t index) {
    return m->lora->params.items[index].name;
}

syz_tensor *syz_lora_param(const syz_model *m, int64_t index) {
    return matrix(m->lora, index);
}

const char *syz_lora_config(const syz_model *m) {
    return m->lora ? m->lora->config_text : NULL;
}

void syz_lora_set_enabled(syz_model *m, bool on) {
    if (m->lora) m->lora->enabled = on;
}

bool syz_lora_enabled(const syz_model *m) {
    return m->lora && m->lora->enabled;
}

void syz_lora_set_strength(syz_model *m, double strength) {
    if (m->lora) m->lora->strength = strength;
}
