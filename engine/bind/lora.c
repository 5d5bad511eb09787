/* Adapters of a model, as methods of the model: lua/syz/lora.lua is what recipes see of them. */
#include "bind/bind.h"

#include <string.h>

typedef struct {
    syz_model *model;
    const char *text, *component; /* configuration, path or folder */
    uint64_t seed;
} task;

static int return_self(lua_State *L) {
    lua_settop(L, 1);
    return 1;
}

static syz_status run_attach(void *context) {
    const task *t = context;
    return syz_lora_attach(t->model, t->text, t->seed);
}

/* m:lora_attach(config table, seed) */
static int lora_attach(lua_State *L) {
    task t = {.model = bind_check_model(L, 1), .seed = bind_check_u64(L, 3)};
    bind_json_encode(L, 2, false);
    t.text = lua_tostring(L, -1);
    bind_try(L, bind_run(run_attach, &t));
    return return_self(L);
}

static syz_status run_load(void *context) {
    const task *t = context;
    return syz_lora_load(t->model, t->text, t->component);
}

static syz_status run_assign(void *context) {
    const task *t = context;
    return syz_lora_assign(t->model, t->text, t->component);
}

static syz_status run_save(void *context) {
    const task *t = context;
    return syz_lora_save(t->model, t->text, t->component);
}

static syz_status run_merge(void *context) {
    const task *t = context;
    return syz_lora_merge(t->model);
}

static int with_file(lua_State *L, syz_status (*run)(void *context)) {
    task t = {.model = bind_check_model(L, 1), .text = luaL_checkstring(L, 2), .component = luaL_optstring(L, 3, NULL)};
    bind_try(L, bind_run(run, &t));
    return return_self(L);
}

/* m:lora_load(path [, component]): attach what it holds */
static int lora_load(lua_State *L) {
    return with_file(L, run_load);
}

/* m:lora_assign(path [, component]): give what is attached the values of a file */
static int lora_assign(lua_State *L) {
    return with_file(L, run_assign);
}

/* m:lora_save(folder [, component]) */
static int lora_save(lua_State *L) {
    return with_file(L, run_save);
}

static int lora_merge(lua_State *L) {
    bind_try(L, bind_run(run_merge, &(task){.model = bind_check_model(L, 1)}));
    return return_self(L);
}

static int lora_unmerge(lua_State *L) {
    bind_try(L, syz_lora_unmerge(bind_check_model(L, 1)));
    return return_self(L);
}

static int lora_remove(lua_State *L) {
    syz_lora_remove(bind_check_model(L, 1));
    return return_self(L);
}

/* m:lora_enable(on) -> whether they were on */
static int lora_enable(lua_State *L) {
    syz_model *model = bind_check_model(L, 1);
    lua_pushboolean(L, syz_lora_enabled(model));
    syz_lora_set_enabled(model, bind_check_boolean(L, 2));
    return 1;
}

static int lora_strength(lua_State *L) {
    syz_lora_set_strength(bind_check_model(L, 1), luaL_checknumber(L, 2));
    return return_self(L);
}

/* m:lora_params() -> tensors, names */
static int lora_params(lua_State *L) {
    const syz_model *model = bind_check_model(L, 1);
    int count = (int)syz_lora_count(model);
    lua_createtable(L, count, 0);
    lua_createtable(L, count, 0);
    for (int k = 0; k < count; k++) {
        bind_push_strong(L, syz_lora_param(model, k));
        lua_rawseti(L, -3, k + 1);
        lua_pushstring(L, syz_lora_param_name(model, k));
        lua_rawseti(L, -2, k + 1);
    }
    return 2;
}

/* m:lora_config() -> the keys of PEFT's LoraConfig; nil without adapters */
static int lora_config(lua_State *L) {
    const char *text = syz_lora_config(bind_check_model(L, 1));
    if (!text) return 0;
    return bind_json_decode(L, text, strlen(text));
}

/* m:linears() -> names of the parameters that are weights of linear layers */
static int linears(lua_State *L) {
    const syz_model *model = bind_check_model(L, 1);
    lua_newtable(L);
    int n = 0;
    for (int64_t k = 0; k < syz_model_param_count(model); k++) {
        if (!syz_model_is_linear(model, k)) continue;
        lua_pushstring(L, syz_model_param_name(model, k));
        lua_rawseti(L, -2, ++n);
    }
    return 1;
}

const luaL_Reg bind_lora_methods[] = {
    {"linears", linears},
    {"lora_attach", lora_attach},
    {"lora_load", lora_load},
    {"lora_assign", lora_assign},
    {"lora_save", lora_save},
    {"lora_merge", lora_merge},
    {"lora_unmerge", lora_unmerge},
    {"lora_remove", lora_remove},
    {"lora_enable", lora_enable},
    {"lora_strength", lora_strength},
    {"lora_params", lora_params},
    {"lora_config", lora_config},
    {NULL, NULL},
};
