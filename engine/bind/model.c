/* Models: parameters and configuration as methods of their own, and every method of the architecture by its name. */
#include "bind/bind.h"

#include <stdio.h>
#include <string.h>

static const bind_type model_type = {"model"};

enum { MAX_TENSORS = 16 };

syz_model *bind_check_model(lua_State *L, int index) {
    return *(syz_model **)bind_check(L, index, &model_type);
}

static syz_model *check_model(lua_State *L) {
    return bind_check_model(L, 1);
}

static int model_free(lua_State *L) {
    syz_model **model = bind_check(L, 1, &model_type);
    syz_model_release(*model);
    *model = NULL;
    return 0;
}

static int return_self(lua_State *L) {
    lua_settop(L, 1);
    return 1;
}

/* The parameter, or NULL before it has values. */
static syz_tensor *param_at(const syz_model *model, int64_t k) {
    syz_tensor *t = syz_model_param(model, k);
    if (!t) syz_error_clear();
    return t;
}

/* ---- names in "a b? c" ---- */

static int count_words(const char *text) {
    int count = 0;
    for (; *text; text++)
        count += *text != ' ' && (text[1] == ' ' || text[1] == '\0');
    return count;
}

/* Copy word number `k` (from 0) without a trailing `?`; true if it had one. */
static bool copy_word(const char *text, int k, char *word, size_t size) {
    for (text += strspn(text, " "); k > 0; k--) {
        text += strcspn(text, " ");
        text += strspn(text, " ");
    }
    size_t length = strcspn(text, " ");
    bool optional = length > 0 && text[length - 1] == '?';
    snprintf(word, size, "%.*s", (int)(length - optional), text);
    return optional;
}

static void push_words(lua_State *L, const char *text) {
    int count = count_words(text);
    lua_createtable(L, count, 0);
    for (int k = 0; k < count; k++) {
        char word[64];
        bool optional = copy_word(text, k, word, sizeof word - 1);
        if (optional) strcat(word, "?");
        lua_pushstring(L, word);
        lua_rawseti(L, -2, k + 1);
    }
}

/* ---- calling a method ---- */

static int find_method(const syz_model *m, const char *name) {
    for (int k = 0; k < syz_model_method_count(m); k++)
        if (strcmp(syz_model_method_name(m, k), name) == 0) return k;
    return -1;
}

typedef struct {
    syz_model *model;
    const char *name;
    syz_tensor *in[MAX_TENSORS];
    int nin, nout;
} method_call;

static syz_status run_method(void *context, syz_tensor *out[]) {
    method_call *c = context;
    int made;
    return syz_model_call(c->model, c->name, c->in, c->nin, out, c->nout, &made);
}

static void read_input(lua_State *L, method_call *c, int k, const char *inputs) {
    char word[64];
    int at = k + 2; /* after the model */
    bool optional = copy_word(inputs, k, word, sizeof word);
    if (lua_isnil(L, at) && optional) return;
    const bind_tensor *tensor = bind_test(L, at, &bind_tensor_type);
    if (!tensor)
        luaL_error(L, "%s: argument %d (%s) must be a tensor%s, not %s", c->name, k + 1, word,
                   optional ? " or nil" : "", bind_type_name(L, at));
    if (!syz_alive(tensor->t)) bind_dead(L, tensor);
    c->in[k] = tensor->t;
}

/* m:METHOD(tensor or nil, ...) -> every output */
static int call_method(lua_State *L) {
    method_call c = {.model = check_model(L), .name = lua_tostring(L, lua_upvalueindex(1))};
    int method = find_method(c.model, c.name);
    if (method < 0) return luaL_error(L, "%s has no method \"%s\"", syz_model_class(c.model), c.name);
    const char *inputs = syz_model_method_inputs(c.model, method);
    c.nin = count_words(inputs);
    c.nout = count_words(syz_model_method_outputs(c.model, method));
    if (c.nin > MAX_TENSORS || c.nout > MAX_TENSORS) return luaL_error(L, "%s has too many arguments", c.name);
    if (lua_gettop(L) - 1 > c.nin)
        return luaL_error(L, "%s takes %d arguments (%s), not %d", c.name, c.nin, inputs, lua_gettop(L) - 1);
    lua_settop(L, c.nin + 1);
    for (int k = 0; k < c.nin; k++)
        read_input(L, &c, k, inputs);
    return bind_make_many(L, run_method, &c, c.nout);
}

/* __index: the type's own methods, then the architecture's. Upvalue 1: the methods. */
static int model_index(lua_State *L) {
    const syz_model *model = check_model(L);
    lua_pushvalue(L, 2);
    lua_rawget(L, lua_upvalueindex(1));
    if (!lua_isnil(L, -1)) return 1;
    if (lua_type(L, 2) != LUA_TSTRING || find_method(model, lua_tostring(L, 2)) < 0) return 1;
    lua_pushvalue(L, 2);
    lua_pushcclosure(L, call_method, 1);
    return 1;
}

/* ---- what it is ---- */

static int model_class(lua_State *L) {
    lua_pushstring(L, syz_model_class(check_model(L)));
    return 1;
}

static int model_config(lua_State *L) {
    const char *text = syz_model_config(check_model(L));
    return bind_json_decode(L, text, strlen(text));
}

/* m:methods() -> {name = {inputs = {...}, outputs = {...}}}; an input that may be nil ends in "?" */
static int model_methods(lua_State *L) {
    const syz_model *model = check_model(L);
    lua_newtable(L);
    for (int k = 0; k < syz_model_method_count(model); k++) {
        lua_createtable(L, 0, 2);
        push_words(L, syz_model_method_inputs(model, k));
        lua_setfield(L, -2, "inputs");
        push_words(L, syz_model_method_outputs(model, k));
        lua_setfield(L, -2, "outputs");
        lua_setfield(L, -2, syz_model_method_name(model, k));
    }
    return 1;
}

static int model_text(lua_State *L) {
    const syz_model *model = check_model(L);
    int64_t numbers = 0, count = syz_model_param_count(model);
    for (int64_t k = 0; k < count; k++) {
        const syz_tensor *t = param_at(model, k);
        numbers += t ? syz_numel(t) : 0;
    }
    char text[160];
    snprintf(text, sizeof text, "model %.60s: %lld tensors, %.4g M parameters", syz_model_class(model),
             (long long)count, (double)numbers * 1e-6);
    lua_pushstring(L, text);
    return 1;
}

/* ---- parameters ---- */

static int model_names(lua_State *L) {
    const syz_model *model = check_model(L);
    int64_t count = syz_model_param_count(model);
    lua_createtable(L, (int)count, 0);
    for (int64_t k = 0; k < count; k++) {
        lua_pushstring(L, syz_model_param_name(model, k));
        lua_rawseti(L, -2, (int)k + 1);
    }
    return 1;
}

/* m:numel(): how many numbers its parameters hold */
static int model_numel(lua_State *L) {
    lua_pushnumber(L, (double)syz_model_numel(check_model(L)));
    return 1;
}

static void push_param(lua_State *L, const syz_model *model, int64_t k) {
    syz_tensor *t = param_at(model, k);
    if (!t) luaL_error(L, "parameter \"%s\" has no values yet: call :init(seed)", syz_model_param_name(model, k));
    bind_push_strong(L, t);
}

/* m:parameters() -> list of tensors in the order of m:names() */
static int model_parameters(lua_State *L) {
    const syz_model *model = check_model(L);
    int64_t count = syz_model_param_count(model);
    lua_createtable(L, (int)count, 0);
    for (int64_t k = 0; k < count; k++) {
        push_param(L, model, k);
        lua_rawseti(L, -2, (int)k + 1);
    }
    return 1;
}

/* m:param(name) -> tensor, or nil if there is none of that name */
static int model_param(lua_State *L) {
    const syz_model *model = check_model(L);
    int64_t k = syz_model_param_find(model, luaL_checkstring(L, 2));
    if (k < 0)
        lua_pushnil(L);
    else
        push_param(L, model, k);
    return 1;
}

static int model_requires_grad(lua_State *L) {
    syz_model_set_requires_grad(check_model(L), bind_check_boolean(L, 2));
    return return_self(L);
}

static int model_checkpointing(lua_State *L) {
    syz_model_set_checkpointing(check_model(L), bind_check_boolean(L, 2));
    return return_self(L);
}

/* m:graphs([on]): whether calls without gradients on a GPU are recorded and repeated (CUDA graphs); without an argument
 * -> {recorded, replayed, refused, reason}, the reason only if there is one */
static int model_graphs(lua_State *L) {
    syz_model *model = check_model(L);
    if (lua_gettop(L) > 1) {
        syz_model_set_graphs(model, bind_check_boolean(L, 2));
        return return_self(L);
    }
    syz_graph_counts counts = syz_model_graph_counts(model);
    lua_createtable(L, 0, 4);
    lua_pushnumber(L, (double)counts.recorded);
    lua_setfield(L, -2, "recorded");
    lua_pushnumber(L, (double)counts.replayed);
    lua_setfield(L, -2, "replayed");
    lua_pushnumber(L, (double)counts.refused);
    lua_setfield(L, -2, "refused");
    if (counts.reason[0]) lua_pushstring(L, counts.reason);
    if (counts.reason[0]) lua_setfield(L, -2, "reason");
    return 1;
}

static int model_zero_grad(lua_State *L) {
    const syz_model *model = check_model(L);
    for (int64_t k = 0; k < syz_model_param_count(model); k++) {
        syz_tensor *t = param_at(model, k);
        if (t) bind_try(L, syz_set_grad(t, NULL));
    }
    return return_self(L);
}

/* m:flops(): floating-point operations of its methods and their backward passes so far */
static int model_flops(lua_State *L) {
    lua_pushnumber(L, syz_model_flops(check_model(L)));
    return 1;
}

/* ---- making and saving ---- */

typedef struct {
    syz_model **slot;
    const char *text; /* configuration */
    uint64_t seed;
} making;

typedef struct {
    syz_model **slot;
    const char *path, *config; /* may be NULL */
    bool stored;
} loading;

static syz_status run_make(void *context) {
    making *m = context;
    return syz_model_create(m->slot, m->text);
}

static syz_status run_init(void *context) {
    making *m = context;
    return syz_model_init(*m->slot, m->seed);
}

static syz_status run_load(void *context) {
    loading *l = context;
    return syz_model_load_as(l->slot, l->path, l->config, l->stored);
}

/* The configuration, a table or JSON text, as text on top of the stack. */
static const char *config_text(lua_State *L, int at) {
    if (lua_type(L, at) == LUA_TTABLE)
        bind_json_encode(L, at, false);
    else
        lua_pushstring(L, luaL_checkstring(L, at));
    return lua_tostring(L, -1);
}

static int load_model(lua_State *L, bool stored) {
    loading l = {.path = luaL_checkstring(L, 1), .stored = stored};
    if (!lua_isnoneornil(L, 2)) l.config = config_text(L, 2);
    l.slot = bind_new(L, &model_type, sizeof *l.slot);
    bind_try(L, bind_run(run_load, &l));
    return 1;
}

/* model.load(folder or weights file [, config]): parameters as f32, to be trained; without a configuration it is the
 * folder's own, or what the file's layout tells */
static int core_model_load(lua_State *L) {
    return load_model(L, false);
}

/* model.load_stored(path [, config]): parameters keep the file's dtype and memory: for large frozen models */
static int core_model_load_stored(lua_State *L) {
    return load_model(L, true);
}

/* model.create(config table or JSON text): without values until :init(seed) */
static int core_model_create(lua_State *L) {
    making m = {.text = config_text(L, 1)};
    m.slot = bind_new(L, &model_type, sizeof *m.slot);
    bind_try(L, bind_run(run_make, &m));
    return 1;
}

static int model_init(lua_State *L) {
    syz_model **slot = bind_check(L, 1, &model_type);
    bind_try(L, bind_run(run_init, &(making){.slot = slot, .seed = bind_check_u64(L, 2)}));
    return return_self(L);
}

/* m:check(folder or file): raise unless the weights there are this model's; reads names and shapes only */
static int model_check(lua_State *L) {
    bind_try(L, syz_model_check(check_model(L), luaL_checkstring(L, 2)));
    return return_self(L);
}

static syz_status run_to_f32(void *model) {
    return syz_model_to_f32(model);
}

/* m:to_f32(): parameters that were loaded as stored become f32 tensors of their own, to be trained */
static int model_to_f32(lua_State *L) {
    bind_try(L, bind_run(run_to_f32, check_model(L)));
    return return_self(L);
}

static syz_status run_to_bf16(void *model) {
    return syz_model_to_bf16(model);
}

/* m:to_bf16(): the same in bf16; the optimizer keeps what is missing to f32 */
static int model_to_bf16(lua_State *L) {
    bind_try(L, bind_run(run_to_bf16, check_model(L)));
    return return_self(L);
}

/* m:trained_dtype() -> "f32", or "bf16" after m:to_bf16() */
static int model_trained_dtype(lua_State *L) {
    lua_pushstring(L, syz_dtype_name(syz_model_trained_dtype(check_model(L))));
    return 1;
}

typedef struct {
    const syz_model *model;
    const char *folder;
    syz_dtype dtype;
    uint64_t max_shard_bytes;
} saving;

static syz_status run_save(void *context) {
    const saving *s = context;
    return syz_model_save_sharded(s->model, s->folder, s->dtype, s->max_shard_bytes);
}

/* m:save(folder [, dtype [, max_shard_bytes]]): config.json and the weights, f32 unless told, in shards above 10 GB */
static int model_save(lua_State *L) {
    int64_t most = bind_opt_integer(L, 4, SYZ_MAX_SHARD_BYTES);
    if (most < 1) return luaL_argerror(L, 4, "a shard's bytes, at least 1, expected");
    saving s = {check_model(L), luaL_checkstring(L, 2), bind_opt_dtype(L, 3, SYZ_F32), (uint64_t)most};
    bind_try(L, bind_run(run_save, &s));
    return return_self(L);
}

typedef struct {
    saving to;
    syz_random_weights how;
    lua_State *L; /* the progress function is at 5 */
} drawing;

/* An error of the function must not jump over the files that are being written: it ends the calls, not the saving. */
static void report_bytes(void *context, uint64_t done, uint64_t total) {
    drawing *d = context;
    if (lua_isnoneornil(d->L, 5)) return;
    lua_pushvalue(d->L, 5);
    lua_pushnumber(d->L, (double)done);
    lua_pushnumber(d->L, (double)total);
    if (lua_pcall(d->L, 2, 0, 0) == 0) return;
    lua_pop(d->L, 1);
    lua_pushnil(d->L);
    lua_replace(d->L, 5);
}

static syz_status run_save_random(void *context) {
    const drawing *d = context;
    return syz_model_save_random(d->to.model, d->to.folder, d->to.dtype, d->to.max_shard_bytes, &d->how);
}

/* m:save_random(folder, seed, { dtype, max_shard_bytes, zeros }, progress(done, total) or nil): write a model without
 * values, drawing one parameter after the other; dtype as a name, bf16 unless told */
static int model_save_random(lua_State *L) {
    drawing d = {
        .to = {.model = check_model(L), .folder = luaL_checkstring(L, 2), .max_shard_bytes = SYZ_MAX_SHARD_BYTES},
        .how = {.seed = bind_check_u64(L, 3), .progress = report_bytes},
        .L = L};
    luaL_checktype(L, 4, LUA_TTABLE);
    lua_settop(L, 5);
    lua_getfield(L, 4, "dtype");
    d.to.dtype = bind_opt_dtype(L, 6, SYZ_BF16);
    lua_getfield(L, 4, "max_shard_bytes");
    if (!lua_isnil(L, 7)) d.to.max_shard_bytes = (uint64_t)luaL_checknumber(L, 7);
    lua_getfield(L, 4, "zeros");
    d.how.zeros = lua_toboolean(L, 8);
    d.how.context = &d;
    bind_try(L, bind_run(run_save_random, &d));
    return 0;
}

/* ---- registration ---- */

static const luaL_Reg methods[] = {
    {"class", model_class},
    {"config", model_config},
    {"methods", model_methods},
    {"names", model_names},
    {"numel", model_numel},
    {"parameters", model_parameters},
    {"param", model_param},
    {"requires_grad", model_requires_grad},
    {"checkpointing", model_checkpointing},
    {"graphs", model_graphs},
    {"zero_grad", model_zero_grad},
    {"flops", model_flops},
    {"init", model_init},
    {"check", model_check},
    {"to_f32", model_to_f32},
    {"to", bind_model_to},
    {"device", bind_model_device},
    {"to_bf16", model_to_bf16},
    {"trained_dtype", model_trained_dtype},
    {"save", model_save},
    {"save_random", model_save_random},
    {NULL, NULL},
};

static const luaL_Reg meta[] = {{"__gc", model_free}, {"__tostring", model_text}, {NULL, NULL}};

static const luaL_Reg functions[] = {
    {"load", core_model_load}, {"load_stored", core_model_load_stored}, {"create", core_model_create}, {NULL, NULL}};

void bind_open_model(lua_State *L) {
    bind_new_type(L, &model_type, methods, meta);
    lua_getfield(L, -1, "__index");
    luaL_register(L, NULL, bind_lora_methods);
    lua_pushcclosure(L, model_index, 1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
    lua_newtable(L);
    luaL_register(L, NULL, functions);
    lua_setfield(L, -2, "model");
}
