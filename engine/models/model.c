/* The part of a model that does not depend on its architecture: creation, files, parameters, calls. */
#include "models/model.h"

#include "core/alloc.h"
#include "core/flops.h"
#include "io/file.h"
#include "ops/fp8.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MODEL(name, symbol) extern const syz_model_class_info symbol;
#include "models/models.def"
#undef MODEL

static const syz_model_class_info *const classes[] = {
#define MODEL(name, symbol) &symbol,
#include "models/models.def"
#undef MODEL
};

enum { CLASSES = sizeof classes / sizeof *classes };

/* ---- configuration ---- */

int64_t syz_config_int(const syz_json *config, const char *key, int64_t missing, int64_t low, int64_t high) {
    int64_t value = syz_json_int(config, key, missing);
    if (value >= low && value <= high) return value;
    syz_fail(SYZ_EFORMAT, "%s: \"%s\" is %lld, outside %lld..%lld", config->name, key, (long long)value, (long long)low,
             (long long)high);
    return missing;
}

void syz_config_refuse(const syz_json *config, const char *key, const char *why) {
    syz_fail(SYZ_EUNSUPPORTED, "%s: \"%s\" %s", config->name, key, why);
}

static const char *class_name(const syz_json *config) {
    const char *name = syz_json_string(config, "_class_name", NULL);
    if (name) return name;
    const json_t *list = json_object_get(config->object, "architectures");
    return json_string_value(json_array_get(list, 0));
}

static const syz_model_class_info *find_class(const syz_json *config) {
    const char *name = class_name(config);
    if (!name)
        return syz_fail_null(SYZ_EFORMAT, "%s: names no model class (\"_class_name\" or \"architectures\")",
                             config->name);
    for (int i = 0; i < CLASSES; i++)
        if (strcmp(classes[i]->name, name) == 0) return classes[i];
    return syz_fail_null(SYZ_EUNSUPPORTED, "%s: model class \"%s\" is not known here", config->name, name);
}

/* ---- life ---- */

static void destroy(syz_model *m) {
    syz_replays_free(m->replays);
    if (m->settings && m->class->destroy) m->class->destroy(m);
    syz_lora_free(m->lora);
    syz_params_free(&m->params);
    syz_meter_return(m->meter);
    json_decref(m->config);
    free(m->config_text);
    free(m->settings);
    free(m);
}

syz_model *syz_model_retain(syz_model *m) {
    if (m) m->refs++;
    return m;
}

void syz_model_release(syz_model *m) {
    if (m && --m->refs == 0) destroy(m);
}

static bool is_set(const char *variable, const char *value) {
    const char *text = getenv(variable);
    return text && strcmp(text, value) == 0;
}

/* A model whose parameters are declared and have no values. */
static syz_model *build(const syz_json *config) {
    const syz_model_class_info *class = find_class(config);
    if (!class) return NULL;
    syz_model *m = syz_alloc(1, sizeof *m);
    if (!m) return NULL;
    m->refs = 1;
    m->meter = syz_meter_take();
    m->class = class;
    m->graphs = is_set("SYZ_GRAPHS", "1");
    m->two_streams = is_set("SYZ_STREAMS", "2");
    m->config = json_incref(config->object);
    m->config_text = json_dumps(config->object, JSON_INDENT(2) | JSON_SORT_KEYS);
    if (!m->config_text) syz_fail(SYZ_ENOMEM, "out of memory: the text of %s", config->name);
    m->settings = syz_alloc(1, class->settings_size);
    if (m->settings) class->build(m, config);
    if (!syz_failed()) return m;
    destroy(m);
    return NULL;
}

static syz_model *build_from_text(const char *text, const char *name) {
    syz_json config = {.name = (char *)(uintptr_t)name};
    config.object = syz_json_parse(text, strlen(text), name);
    syz_model *m = NULL;
    if (json_is_object(config.object))
        m = build(&config);
    else if (config.object)
        syz_fail(SYZ_EFORMAT, "%s: must hold a JSON object {...}", name);
    json_decref(config.object);
    return m;
}

syz_status syz_model_create(syz_model **m, const char *config_text) {
    *m = syz_failed() ? NULL : build_from_text(config_text, "configuration");
    return syz_error_status();
}

/* ---- files ---- */

/* The weights in a folder: one file, or an index of shards, under the name of diffusers or of transformers. */
static char *find_weights(const char *folder) {
    static const char *const names[] = {
        "diffusion_pytorch_model.safetensors",
        "model.safetensors",
        "diffusion_pytorch_model.safetensors.index.json",
        "model.safetensors.index.json",
        "diffusion_pytorch_model.bin",
        "pytorch_model.bin",
        "diffusion_pytorch_model.bin.index.json",
        "pytorch_model.bin.index.json",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = syz_format("%s/%s", folder, names[i]);
        if (!path || access(path, F_OK) == 0) return path;
        free(path);
    }
    return syz_fail_null(SYZ_ENOTFOUND, "%s: holds no weights (%s, %s, the .bin of either library, or an .index.json)",
                         folder, names[0], names[1]);
}

/* To be freed; NULL with an error. */
static syz_source *find_sources(const syz_model *m, const syz_weights *weights, const char *path) {
    syz_naming naming = syz_layout_find(m->class->layouts, weights);
    return syz_layout_resolve(&m->params, weights, path, naming, m->class->ignore);
}

static syz_status load_weights(syz_model *m, const syz_weights *weights, const char *path, bool keep) {
    syz_source *sources = find_sources(m, weights, path);
    syz_status status = sources ? syz_params_load(&m->params, weights, sources, keep) : syz_error_status();
    free(sources);
    return status;
}

/* The naming of a file of any class, whose layout is NULL if none knows it. */
static syz_naming recognise(const syz_weights *weights, const syz_model_class_info **class) {
    for (int i = 0; i < CLASSES; i++) {
        syz_naming naming = syz_layout_find(classes[i]->layouts, weights);
        *class = classes[i];
        if (naming.layout) return naming;
    }
    return (syz_naming){NULL, ""};
}

const char *syz_weights_layout(const syz_weights *weights, const char **class_name) {
    const syz_model_class_info *class;
    syz_naming naming = recognise(weights, &class);
    *class_name = naming.layout ? class->name : NULL;
    return naming.layout ? naming.layout->name : NULL;
}

char *syz_weights_config(const syz_weights *weights, const char *path) {
    const syz_model_class_info *class;
    syz_naming naming = recognise(weights, &class);
    if (syz_failed()) return NULL;
    if (naming.layout && naming.layout->config) return naming.layout->config(weights, naming.prefix, path);
    return syz_fail_null(SYZ_ENOTFOUND,
                         "%s: its names do not tell the model: give a configuration, or put a config.json beside it",
                         path);
}

/* For a weights file without a given configuration: config.json beside it if that is of the file's class, or else what
 * names and shapes tell. */
static syz_model *build_beside(const syz_weights *weights, const char *path) {
    const syz_model_class_info *class;
    syz_naming naming = recognise(weights, &class);
    const char *slash = strrchr(path, '/');
    char *beside = syz_format("%.*sconfig.json", slash ? (int)(slash - path) + 1 : 0, path), *text;
    syz_model *m = NULL;
    syz_json config = {0};
    if (!beside) return NULL;
    bool present = access(beside, F_OK) == 0;
    if (present && syz_json_open(&config, beside) != SYZ_OK) goto done;
    const char *named = present ? class_name(&config) : NULL;
    if (present && (!naming.layout || (named && strcmp(named, class->name) == 0))) {
        m = build(&config);
    } else if ((text = syz_weights_config(weights, path))) {
        m = build_from_text(text, path);
        free(text);
    }
done:
    syz_json_close(&config);
    free(beside);
    return m;
}

static syz_model *build_folder(const char *folder) {
    char *path = syz_format("%s/config.json", folder);
    syz_json config;
    syz_model *m = path && syz_json_open(&config, path) == SYZ_OK ? build(&config) : NULL;
    if (path) syz_json_close(&config);
    free(path);
    return m;
}

static bool is_file(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && !S_ISDIR(info.st_mode);
}

/* The file itself, or the weights of a folder; to be freed. */
static char *weights_path(const char *path) {
    return is_file(path) ? syz_strdup(path) : find_weights(path);
}

static syz_model *load(const char *path, const char *config_text, bool keep) {
    syz_model *m = NULL;
    if (config_text)
        m = build_from_text(config_text, "configuration");
    else if (!is_file(path))
        m = build_folder(path);
    if (syz_failed()) return NULL;
    char *name = weights_path(path);
    syz_weights *weights = name ? syz_weights_open(name) : NULL;
    if (weights && !m) m = build_beside(weights, name);
    if (weights && m && load_weights(m, weights, name, keep) == SYZ_OK) syz_model_to_device(m, syz_device_current());
    syz_weights_close(weights);
    free(name);
    if (!syz_failed()) return m;
    if (m) destroy(m);
    return NULL;
}

syz_status syz_model_load_as(syz_model **m, const char *path, const char *config_text, bool stored) {
    *m = syz_failed() ? NULL : load(path, config_text, stored);
    return syz_error_status();
}

syz_status syz_model_check(const syz_model *m, const char *path) {
    if (syz_failed()) return syz_error_status();
    char *name = weights_path(path);
    syz_weights *weights = name ? syz_weights_open(name) : NULL;
    if (weights) free(find_sources(m, weights, name));
    syz_weights_close(weights);
    free(name);
    return syz_error_status();
}

syz_status syz_model_load(syz_model **m, const char *path) {
    return syz_model_load_as(m, path, NULL, false);
}

syz_status syz_model_load_stored(syz_model **m, const char *path) {
    return syz_model_load_as(m, path, NULL, true);
}

syz_status syz_model_to_f32(syz_model *m) {
    m->train_bf16 = false;
    return syz_params_to(&m->params, SYZ_F32);
}

syz_status syz_model_to_bf16(syz_model *m) {
    m->train_bf16 = true;
    return syz_params_to(&m->params, SYZ_BF16);
}

syz_dtype syz_model_trained_dtype(const syz_model *m) {
    return m->train_bf16 ? SYZ_BF16 : SYZ_F32;
}

syz_status syz_model_to_device(syz_model *m, int device) {
    SYZ_TRY(syz_params_move(&m->params, device));
    return m->lora ? syz_lora_move(m->lora, device) : SYZ_OK;
}

int syz_model_device(const syz_model *m) {
    const syz_tensor *first = m->params.count ? m->params.items[0].tensor : NULL;
    return first ? first->device : 0;
}

syz_status syz_model_init(syz_model *m, uint64_t seed) {
    return syz_params_init(&m->params, seed);
}

static syz_status save(const syz_model *m, const char *folder, syz_dtype dtype, uint64_t max_shard_bytes,
                       const syz_random_weights *random) {
    if (syz_failed()) return syz_error_status();
    SYZ_TRY(syz_make_folders(folder));
    SYZ_TRY(syz_params_save(&m->params, folder, m->class->weights, dtype, max_shard_bytes, random));
    char *config = syz_format("%s/config.json", folder);
    if (config) syz_file_write(config, m->config_text, strlen(m->config_text));
    free(config);
    return syz_error_status();
}

syz_status syz_model_save_sharded(const syz_model *m, const char *folder, syz_dtype dtype, uint64_t max_shard_bytes) {
    return save(m, folder, dtype, max_shard_bytes, NULL);
}

syz_status syz_model_save_random(const syz_model *m, const char *folder, syz_dtype dtype, uint64_t max_shard_bytes,
                                 const syz_random_weights *how) {
    return save(m, folder, dtype, max_shard_bytes, how);
}

syz_status syz_model_save(const syz_model *m, const char *folder, syz_dtype dtype) {
    return syz_model_save_sharded(m, folder, dtype, SYZ_MAX_SHARD_BYTES);
}

/* ---- what a model is ---- */

const char *syz_model_class(const syz_model *m) {
    return m->class->name;
}

const char *syz_model_config(const syz_model *m) {
    return m->config_text;
}

int64_t syz_model_param_count(const syz_model *m) {
    return m->params.count;
}

int64_t syz_model_numel(const syz_model *m) {
    int64_t total = 0;
    for (int64_t i = 0; i < m->params.count; i++)
        total += syz_shape_numel(m->params.items[i].shape);
    return total;
}

const char *syz_model_param_name(const syz_model *m, int64_t index) {
    return m->params.items[index].name;
}

syz_tensor *syz_model_param(const syz_model *m, int64_t index) {
    syz_tensor *t = m->params.items[index].tensor;
    if (!t)
        return syz_fail_null(SYZ_EINVAL, "%s: \"%s\" has no values yet: initialise or load the model", m->class->name,
                             m->params.items[index].name);
    return t;
}

int64_t syz_model_param_find(const syz_model *m, const char *name) {
    return syz_params_find(&m->params, name);
}

bool syz_model_is_linear(const syz_model *m, int64_t index) {
    return m->params.items[index].linear;
}

void syz_model_set_requires_grad(syz_model *m, bool on) {
    for (int64_t i = 0; i < m->params.count; i++)
        if (m->params.items[i].tensor) syz_set_requires_grad(m->params.items[i].tensor, on);
}

void syz_model_set_checkpointing(syz_model *m, bool on) {
    m->checkpointing = on;
}

void syz_model_set_graphs(syz_model *m, bool on) {
    m->graphs = on;
}

syz_graph_counts syz_model_graph_counts(const syz_model *m) {
    return syz_replays_counts(m->replays);
}

double syz_model_flops(const syz_model *m) {
    return syz_meter_read(m->meter);
}

/* ---- calling ---- */

int syz_model_method_count(const syz_model *m) {
    int n = 0;
    while (m->class->methods[n].name)
        n++;
    return n;
}

const char *syz_model_method_name(const syz_model *m, int method) {
    return m->class->methods[method].name;
}

const char *syz_model_method_inputs(const syz_model *m, int method) {
    return m->class->methods[method].inputs;
}

const char *syz_model_method_outputs(const syz_model *m, int method) {
    return m->class->methods[method].outputs;
}

static const syz_method *find_method(const syz_model *m, const char *name) {
    for (const syz_method *method = m->class->methods; method->name; method++)
        if (strcmp(method->name, name) == 0) return method;
    return syz_fail_null(SYZ_ENOTFOUND, "%s has no method \"%s\"", m->class->name, name);
}

/* The next word of a list of names; NULL at its end. */
static const char *next_word(const char **list, int *length) {
    *list += strspn(*list, " ");
    const char *word = *list;
    *length = (int)strcspn(word, " ");
    *list += *length;
    return *length ? word : NULL;
}

static int count_words(const char *list) {
    int n = 0, length;
    while (next_word(&list, &length))
        n++;
    return n;
}

/* Copies the inputs, an absent optional one at the end as NULL; names the one that is missing. */
static syz_status take_inputs(const syz_model *m, const syz_method *method, syz_tensor *const in[], int nin,
                              syz_tensor *all[]) {
    int count = 0, length;
    const char *list = method->inputs, *word;
    for (; (word = next_word(&list, &length)); count++) {
        bool optional = word[length - 1] == '?';
        syz_tensor *t = count < nin ? in[count] : NULL;
        if (!t && !optional)
            return syz_fail(SYZ_EINVAL, "%s %s: %.*s is missing", m->class->name, method->name, length, word);
        if (t && !syz_alive(t))
            return syz_fail(SYZ_EINVAL, "%s %s: %.*s was freed when its scope ended", m->class->name, method->name,
                            length - optional, word);
        all[count] = t;
    }
    if (nin > count)
        return syz_fail(SYZ_EINVAL, "%s %s takes %d tensors (%s), not %d", m->class->name, method->name, count,
                        method->inputs, nin);
    return SYZ_OK;
}

static bool names_ids(const char *word, int length) {
    return length > 4 && memcmp(word + length - 4, "_ids", 4) == 0;
}

/* Real inputs to the current device; indices and positions (NAME_ids) to the CPU, which reads them. */
static void move_inputs(const syz_method *method, syz_tensor *in[]) {
    int length;
    const char *list = method->inputs, *word;
    for (int k = 0; (word = next_word(&list, &length)); k++) {
        if (!in[k]) continue;
        if (!syz_is_float(in[k]->dtype) || names_ids(word, length))
            in[k] = syz_copy_to(in[k], 0);
        else if (in[k]->device != syz_device_current())
            in[k] = syz_to_device(in[k], syz_device_current());
    }
}

/* FNV-1a, a word at a time */
static uint64_t mix(uint64_t hash, uint64_t word) {
    return (hash ^ word) * 0x100000001b3u;
}

static uint64_t mix_params(uint64_t hash, const syz_params *params) {
    for (int64_t i = 0; i < params->count; i++) {
        const syz_tensor *t = params->items[i].tensor;
        if (!t) continue;
        hash = mix(hash, (uint64_t)(uintptr_t)syz_data(t));
        hash = mix(hash, (uint64_t)t->dtype << 1 | t->requires_grad);
        if (syz_fp8_wanted() && t->storage) hash = mix(hash, (uint64_t)(uintptr_t)t->storage->codes);
    }
    return hash;
}

/* Codes in e4m3 that a call has yet to make anew: a recording would make them in each repetition. */
static bool has_stale_codes(const syz_params *params) {
    for (int64_t i = 0; syz_fp8_wanted() && i < params->count; i++) {
        const syz_tensor *t = params->items[i].tensor;
        if (t && t->storage && t->storage->codes && !t->storage->codes_fresh) return true;
    }
    return false;
}

static uint64_t bits_of(double number) {
    uint64_t bits;
    memcpy(&bits, &number, sizeof bits);
    return bits;
}

/* What a recording depends on besides its inputs: where parameters, their codes in e4m3 and adapters lie, their types,
 * how strong adapters are. Made anew for each call, some microseconds, so that nothing that changes a model can forget
 * to say so. */
static uint64_t state_of(const syz_model *m) {
    uint64_t hash = mix_params(mix(0xcbf29ce484222325u, m->dropped << 1 | syz_fp8_wanted()), &m->params);
    const syz_lora *lora = m->lora;
    if (!lora) return hash;
    hash = mix(mix(hash, bits_of(lora->strength)), 2u * lora->enabled + lora->merged);
    for (int64_t k = 0; k < lora->count; k++)
        hash = mix(hash, bits_of(lora->items[k].scale));
    return mix_params(hash, &lora->params);
}

typedef struct {
    syz_model *model;
    const syz_method *method;
} method_run;

static void run_plain(void *context, syz_tensor *const in[], syz_tensor *out[]) {
    method_run *r = context;
    r->method->run(r->model, in, out);
}

static void run_method(syz_model *m, const syz_method *method, syz_tensor *const in[], syz_tensor *out[]) {
    method_run r = {m, method};
    if (!m->graphs || syz_device_current() == 0 || syz_grad_enabled() || has_stale_codes(&m->params) ||
        (m->lora && has_stale_codes(&m->lora->params))) {
        run_plain(&r, in, out);
        return;
    }
    syz_replay_call call = {.run = run_plain,
                            .context = &r,
                            .what = method,
                            .state = state_of(m),
                            .device = syz_device_current(),
                            .in = in,
                            .nin = count_words(method->inputs),
                            .nout = count_words(method->outputs)};
    syz_replays_run(&m->replays, &call, out);
}

syz_status syz_model_call(syz_model *m, const char *name, syz_tensor *const in[], int nin, syz_tensor *out[],
                          int capacity, int *nout) {
    *nout = 0;
    if (syz_failed()) return syz_error_status();
    const syz_method *method = find_method(m, name);
    if (!method) return syz_error_status();
    syz_tensor *inputs[SYZ_MODEL_MAX_INPUTS] = {0}, *outputs[SYZ_MODEL_MAX_OUTPUTS] = {0};
    SYZ_TRY(take_inputs(m, method, in, nin, inputs));
    SYZ_TRY(syz_scope_push());
    int meter = syz_meter_swap(m->meter), device = syz_device_swap(syz_model_device(m));
    move_inputs(method, inputs);
    if (!syz_failed()) run_method(m, method, inputs, outputs);
    syz_device_swap(device);
    syz_meter_swap(meter);
    if (!syz_failed()) {
        int count = count_words(method->outputs);
        *nout = count < capacity ? count : capacity;
        for (int k = 0; k < *nout; k++)
            out[k] = syz_scope_return(outputs[k]);
    }
    syz_scope_pop();
    return syz_error_status();
}
