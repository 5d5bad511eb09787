/* LoRA files: diffusers' pytorch_lora_weights.safetensors, whose metadata hold the configuration, and PEFT's
 * adapter_model.safetensors with adapter_config.json. ComfyUI reads the former as they are. */
#include "core/alloc.h"
#include "io/file.h"
#include "models/lora.h"
#include "models/model.h"
#include "tensor/tensor.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DIFFUSERS_FILE "pytorch_lora_weights.safetensors"
#define DIFFUSERS_KEY  "lora_adapter_metadata"
#define PEFT_FILE      "adapter_model.safetensors"
#define PEFT_CONFIG    "adapter_config.json"
#define PEFT_PREFIX    "base_model.model."

/* ---- configuration, read ---- */

static void refuse_true(const syz_json *config, const char *key) {
    if (syz_json_bool(config, key, false))
        syz_fail(SYZ_EUNSUPPORTED, "%s: \"%s\" is not implemented", config->name, key);
}

/* true, or "gaussian"; other names (pissa, olora, ...) change the base weights too. */
static void read_start(syz_lora *lora, const syz_json *config) {
    const json_t *start = json_object_get(config->object, "init_lora_weights");
    const char *name = json_string_value(start);
    lora->gaussian = name && strcmp(name, "gaussian") == 0;
    if (start && !json_is_boolean(start) && !lora->gaussian)
        syz_fail(SYZ_EUNSUPPORTED, "%s: init_lora_weights must be true or \"gaussian\"%s%s", config->name,
                 name ? ", not " : "", name ? name : "");
}

syz_status syz_lora_read_config(syz_lora *lora, const syz_json *config) {
    if (strcmp(syz_json_string(config, "peft_type", "LORA"), "LORA") != 0)
        syz_fail(SYZ_EUNSUPPORTED, "%s: peft_type must be LORA", config->name);
    if (strcmp(syz_json_string(config, "bias", "none"), "none") != 0)
        syz_fail(SYZ_EUNSUPPORTED, "%s: \"bias\" must be \"none\"", config->name);
    static const char *const switches[] = {"use_dora", "lora_bias", "fan_in_fan_out", "use_qalora"};
    for (size_t i = 0; i < sizeof switches / sizeof *switches; i++)
        refuse_true(config, switches[i]);
    if (json_array_size(json_object_get(config->object, "modules_to_save")))
        syz_fail(SYZ_EUNSUPPORTED, "%s: \"modules_to_save\" is not implemented", config->name);
    read_start(lora, config);
    lora->rank = syz_json_int(config, "r", 8);
    lora->alpha = syz_json_number(config, "lora_alpha", 8);
    lora->rslora = syz_json_bool(config, "use_rslora", false);
    if (!syz_failed() && !isfinite(lora->alpha))
        syz_fail(SYZ_EFORMAT, "%s: lora_alpha must be a finite number", config->name);
    return syz_error_status();
}

/* ---- configuration, written ---- */

static json_t *number(double value) {
    return value == floor(value) && fabs(value) < 1e15 ? json_integer((json_int_t)value) : json_real(value);
}

/* What differs from r or lora_alpha, by whole names: PEFT matches a plain one against ends of names, too. */
static json_t *patterns(const syz_lora *lora, bool of_rank) {
    json_t *object = json_object();
    for (int64_t k = 0; k < lora->count; k++) {
        const syz_adapter *a = &lora->items[k];
        bool same = of_rank ? a->rank == lora->rank : a->alpha == lora->alpha;
        if (!same)
            json_object_set_new(object, syz_pathf("^%s", a->module).text,
                                of_rank ? json_integer(a->rank) : number(a->alpha));
    }
    return object;
}

static json_t *target_list(const syz_lora *lora) {
    if (lora->targets) return json_incref(lora->targets);
    json_t *list = json_array();
    for (int64_t k = 0; k < lora->count; k++)
        json_array_append_new(list, json_string(lora->items[k].module));
    return list;
}

char *syz_lora_config_text(const syz_lora *lora, const char *prefix) {
    json_t *start = lora->gaussian ? json_string("gaussian") : json_true();
    json_t *plain =
        json_pack("{s:s, s:I, s:o, s:f, s:s, s:b, s:b, s:o, s:o, s:o, s:o}", "peft_type", "LORA", "r",
                  (json_int_t)lora->rank, "lora_alpha", number(lora->alpha), "lora_dropout", 0.0, "bias", "none",
                  "use_rslora", (int)lora->rslora, "use_dora", 0, "init_lora_weights", start, "rank_pattern",
                  patterns(lora, true), "alpha_pattern", patterns(lora, false), "target_modules", target_list(lora));
    json_t *object = plain ? json_object() : NULL;
    const char *key;
    json_t *value;
    json_object_foreach(plain, key, value) json_object_set(object, syz_pathf("%s%s", prefix, key).text, value);
    char *text = object ? json_dumps(object, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
    json_decref(plain);
    json_decref(object);
    if (!text) syz_fail(SYZ_ENOMEM, "out of memory: the configuration of adapters");
    return text;
}

/* ---- files, written ---- */

static syz_status write_weights(const syz_lora *lora, const char *path, const char *prefix, const char *config) {
    int64_t count = lora->params.count;
    char **names = syz_alloc((size_t)count, sizeof *names);
    syz_tensor **tensors = names ? syz_alloc((size_t)count, sizeof *tensors) : NULL;
    for (int64_t i = 0; tensors && i < count && !syz_failed(); i++) {
        names[i] = syz_format("%s%s", prefix, lora->params.items[i].name);
        tensors[i] = lora->params.items[i].tensor;
    }
    const char *const metadata[][2] = {{"format", "pt"}, {DIFFUSERS_KEY, config}};
    if (!syz_failed()) syz_weights_save(path, (const char *const *)names, tensors, count, metadata, config ? 2 : 1);
    for (int64_t i = 0; names && i < count; i++)
        free(names[i]);
    free(names);
    free(tensors);
    return syz_error_status();
}

static syz_status save_diffusers(const syz_lora *lora, const char *folder, const char *component) {
    syz_path prefix = syz_pathf("%s.", component);
    char *path = syz_format("%s/" DIFFUSERS_FILE, folder);
    char *config = path ? syz_lora_config_text(lora, prefix.text) : NULL;
    syz_status status = config ? write_weights(lora, path, prefix.text, config) : syz_error_status();
    free(config);
    free(path);
    return status;
}

static syz_status save_peft(const syz_lora *lora, const char *folder) {
    char *weights = syz_format("%s/" PEFT_FILE, folder);
    char *config = weights ? syz_format("%s/" PEFT_CONFIG, folder) : NULL;
    syz_status status = config ? write_weights(lora, weights, PEFT_PREFIX, NULL) : syz_error_status();
    if (status == SYZ_OK) status = syz_file_write(config, lora->config_text, strlen(lora->config_text));
    free(weights);
    free(config);
    return status;
}

syz_status syz_lora_save(const syz_model *m, const char *folder, const char *component) {
    if (syz_failed()) return syz_error_status();
    if (!m->lora) return syz_fail(SYZ_EINVAL, "%s has no adapters to save", m->class->name);
    SYZ_TRY(syz_make_folders(folder));
    return component ? save_diffusers(m->lora, folder, component) : save_peft(m->lora, folder);
}

/* ---- files, read ---- */

typedef struct {
    const syz_model *model;
    const char *path;      /* of the weights */
    const char *component; /* or NULL */
    syz_weights *weights;
    syz_json config; /* its object is NULL when the file says nothing but the values */
    syz_lora *lora;  /* what is being made */
} reading;

static bool is_folder(const char *path) {
    char *inside = syz_format("%s/.", path);
    bool folder = inside && access(inside, F_OK) == 0;
    free(inside);
    return folder;
}

static char *find_file(const char *path) {
    if (!is_folder(path)) return syz_strdup(path);
    static const char *const names[] = {DIFFUSERS_FILE, PEFT_FILE};
    for (int i = 0; i < 2; i++) {
        char *file = syz_format("%s/%s", path, names[i]);
        if (!file || access(file, F_OK) == 0) return file;
        free(file);
    }
    return syz_fail_null(SYZ_ENOTFOUND, "%s: holds no adapters (%s or %s)", path, names[0], names[1]);
}

/* Past what a layout puts before the names of layers; NULL when the name belongs to another part of a pipeline. */
static const char *strip(const char *name, const char *component) {
    size_t length = component ? strlen(component) : 0;
    if (strncmp(name, PEFT_PREFIX, strlen(PEFT_PREFIX)) == 0) return name + strlen(PEFT_PREFIX);
    if (length && strncmp(name, component, length) == 0 && name[length] == '.') return name + length + 1;
    return name;
}

/* The metadata that diffusers writes: keys of the component, or of a model saved alone. */
static void read_metadata(reading *r, const char *text) {
    json_t *all = syz_json_parse(text, strlen(text), r->config.name);
    if (!all) return;
    r->config.object = json_object();
    const char *key;
    json_t *value;
    json_object_foreach(all, key, value) json_object_set(r->config.object, strip(key, r->component), value);
    json_decref(all);
}

static void read_config_file(reading *r) {
    const char *slash = strrchr(r->path, '/');
    char *path = slash ? syz_format("%.*s/" PEFT_CONFIG, (int)(slash - r->path), r->path) : syz_strdup(PEFT_CONFIG);
    if (!path) return;
    if (access(path, F_OK) == 0) {
        free(r->config.name);
        syz_json_open(&r->config, path);
    } else if (strncmp(syz_weights_info(r->weights, 0).name, PEFT_PREFIX, strlen(PEFT_PREFIX)) == 0) {
        syz_fail(SYZ_ENOTFOUND, "%s: missing; PEFT's adapters need it for their scale", path);
    }
    free(path);
}

static syz_status read_config(reading *r) {
    r->config.name = syz_strdup(r->path);
    const char *metadata = syz_weights_metadata(r->weights, DIFFUSERS_KEY);
    if (!r->config.name) return SYZ_ENOMEM;
    if (metadata) {
        read_metadata(r, metadata);
    } else {
        read_config_file(r);
    }
    if (syz_failed() || !r->config.object) return syz_error_status();
    return syz_lora_read_config(r->lora, &r->config);
}

/* The parameter that a name's layer has, and what follows the layer's name; -1 with an error when there is none. */
static int64_t find_layer(const reading *r, const char *full, const char **rest) {
    const char *name = strip(full, r->component);
    static const char *const ends[] = {".lora_A.weight", ".lora_B.weight", ".alpha"};
    for (int i = 0; i < 3; i++) {
        size_t length = strlen(name), end = strlen(ends[i]);
        if (length <= end || strcmp(name + length - end, ends[i]) != 0) continue;
        *rest = name + length - end;
        syz_path weight = syz_pathf("%.*s.weight", (int)(length - end), name);
        int64_t index = syz_params_find(&r->model->params, weight.text);
        if (index >= 0 && r->model->params.items[index].linear) return index;
        syz_fail(SYZ_EFORMAT, "%s: \"%s\" adapts no linear layer of %s", r->path, full, r->model->class->name);
        return -1;
    }
    bool kohya = strstr(full, "lora_down") || strstr(full, "lora_up") || strstr(full, ".lora.");
    syz_fail(SYZ_EUNSUPPORTED, "%s: \"%s\" %s", r->path, full,
             kohya
                 ? "is a name of another layout (kohya's, or old diffusers'); load it with diffusers and save it again "
                   "with save_lora_weights"
                 : "is no matrix of a LoRA (lora_A.weight, lora_B.weight)");
    return -1;
}

static syz_tensor *read_matrix(const reading *r, const char *name) {
    syz_tensor *stored = syz_weights_get(r->weights, name);
    if (!stored) return NULL;
    if (!syz_is_float(stored->dtype))
        return syz_fail_null(SYZ_EFORMAT, "%s: \"%s\" is %s, not a floating-point type", r->path, name,
                             syz_dtype_name(stored->dtype));
    if (!syz_all_finite(stored))
        return syz_fail_null(SYZ_EFORMAT, "%s: \"%s\" holds values that are not finite", r->path, name);
    return stored->dtype == SYZ_F32 ? syz_copy(stored) : syz_cast(stored, SYZ_F32);
}

static syz_status fill(const reading *r, syz_param *param, const char *name) {
    if (syz_weights_find(r->weights, name) < 0) return syz_fail(SYZ_EFORMAT, "%s: \"%s\" is missing", r->path, name);
    syz_tensor *value = read_matrix(r, name);
    if (!value) return syz_error_status();
    if (!syz_shape_equal(value->shape, param->shape)) {
        char expected[96];
        return syz_fail(SYZ_EFORMAT,
                        "%s: \"%s\" has shape %s, this model's layer takes %s: it was trained on another base", r->path,
                        name, syz_dims(value), syz_shape_text(param->shape, expected, sizeof expected));
    }
    param->tensor = syz_retain(value);
    syz_keep_rounded(value);
    return SYZ_OK;
}

/* The alpha of a layer: a scalar beside its matrices, else the configuration's, else the rank, as diffusers has it. */
static double read_alpha(const reading *r, const char *stem, const char *module, int64_t rank) {
    syz_path key = syz_pathf("%s.alpha", stem);
    double alpha = (double)rank;
    if (syz_weights_find(r->weights, key.text) >= 0) {
        syz_tensor *value = read_matrix(r, key.text);
        if (value) syz_item(&alpha, value);
    } else if (r->config.object) {
        alpha = syz_lora_pattern(&r->config, "alpha_pattern", module, r->lora->alpha);
    }
    return alpha;
}

/* One layer, from the name of its lora_A. */
static syz_status read_layer(reading *r, const char *name, int64_t weight) {
    syz_weight_info info = syz_weights_info(r->weights, syz_weights_find(r->weights, name));
    if (info.shape.n != 2 || info.shape.dim[0] < 1)
        return syz_fail(SYZ_EFORMAT, "%s: \"%s\" is no matrix [rank,inputs]", r->path, name);
    syz_path stem = syz_pathf("%.*s", (int)(strlen(name) - strlen(".lora_A.weight")), name);
    const char *module = strip(stem.text, r->component);
    double alpha = read_alpha(r, stem.text, module, info.shape.dim[0]);
    if (syz_failed()) return syz_error_status();
    SYZ_TRY(syz_lora_declare(r->lora, r->model, weight, info.shape.dim[0], alpha));
    syz_param *pair = &r->lora->params.items[r->lora->params.count - 2];
    SYZ_TRY(fill(r, &pair[0], name));
    return fill(r, &pair[1], syz_pathf("%s.lora_B.weight", stem.text).text);
}

static syz_status read_layers(reading *r) {
    for (int64_t i = 0; i < syz_weights_count(r->weights); i++) {
        const char *rest = NULL, *name = syz_weights_info(r->weights, i).name;
        int64_t weight = find_layer(r, name, &rest);
        if (weight < 0) return syz_error_status();
        SYZ_TRY(syz_scope_push());
        if (strcmp(rest, ".lora_A.weight") == 0) read_layer(r, name, weight);
        syz_scope_pop();
        if (syz_failed()) return syz_error_status();
    }
    return SYZ_OK;
}

/* Every lora_B belongs to a lora_A that was read. */
static syz_status check_pairs(const reading *r) {
    int64_t matrices = 0;
    for (int64_t i = 0; i < syz_weights_count(r->weights); i++) {
        const char *name = syz_weights_info(r->weights, i).name;
        matrices += strstr(name, ".lora_") != NULL;
    }
    if (r->lora->count == 0) return syz_fail(SYZ_EFORMAT, "%s: holds no adapters", r->path);
    if (matrices == 2 * r->lora->count) return SYZ_OK;
    return syz_fail(SYZ_EFORMAT, "%s: holds %lld matrices for %lld layers: a lora_A.weight is missing", r->path,
                    (long long)matrices, (long long)r->lora->count);
}

/* Without a configuration r and lora_alpha are those of the first layer; others are told by patterns. */
static void settle(reading *r) {
    if (r->config.object) return;
    r->lora->rank = r->lora->items[0].rank;
    r->lora->alpha = r->lora->items[0].alpha;
}

static syz_status read_all(reading *r) {
    r->weights = syz_weights_open(r->path);
    if (!r->weights) return syz_error_status();
    SYZ_TRY(read_config(r));
    SYZ_TRY(read_layers(r));
    SYZ_TRY(check_pairs(r));
    settle(r);
    return SYZ_OK;
}

/* The adapters of a file, not yet the model's; NULL on failure. */
static syz_lora *read_lora(const syz_model *m, const char *path, const char *component) {
    char *file = find_file(path);
    if (!file) return NULL;
    reading r = {.model = m, .path = file, .component = component, .lora = syz_lora_new()};
    syz_no_grad_push();
    if (r.lora) read_all(&r);
    syz_no_grad_pop();
    syz_weights_close(r.weights);
    syz_json_close(&r.config);
    free(file);
    if (!syz_failed()) return r.lora;
    syz_lora_free(r.lora);
    return NULL;
}

syz_status syz_lora_load(syz_model *m, const char *path, const char *component) {
    if (syz_failed()) return syz_error_status();
    if (m->lora) return syz_fail(SYZ_EINVAL, "%s already has adapters: remove them first", m->class->name);
    syz_lora *lora = read_lora(m, path, component);
    if (lora && syz_lora_install(lora, m) != SYZ_OK) syz_lora_free(lora);
    return syz_error_status();
}

static syz_status assign_all(syz_lora *to, const syz_lora *from, const char *path) {
    if (to->count != from->count)
        return syz_fail(SYZ_EINVAL, "%s: adapts %lld layers, the model's adapters %lld", path, (long long)from->count,
                        (long long)to->count);
    for (int64_t k = 0; k < from->count; k++) {
        const syz_adapter *a = &from->items[k];
        int64_t index = syz_params_find(&to->params, from->params.items[2 * k].name);
        if (index < 0) return syz_fail(SYZ_EINVAL, "%s: %s has no adapter in this model", path, a->module);
        const syz_adapter *b = &to->items[index / 2];
        if (a->rank != b->rank || a->scale != b->scale)
            return syz_fail(SYZ_EINVAL, "%s: %s has rank %lld and scale %g there, %lld and %g here", path, a->module,
                            (long long)a->rank, a->scale, (long long)b->rank, b->scale);
        SYZ_TRY(syz_assign(to->params.items[index].tensor, from->params.items[2 * k].tensor));
        SYZ_TRY(syz_assign(to->params.items[index + 1].tensor, from->params.items[2 * k + 1].tensor));
    }
    return SYZ_OK;
}

syz_status syz_lora_assign(syz_model *m, const char *path, const char *component) {
    if (syz_failed()) return syz_error_status();
    if (!m->lora) return syz_fail(SYZ_EINVAL, "%s has no adapters to take values", m->class->name);
    syz_lora *lora = read_lora(m, path, component);
    if (lora) assign_all(m->lora, lora, path);
    syz_lora_free(lora);
    return syz_error_status();
}
