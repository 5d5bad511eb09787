/* Optimizers: AdamW with clipping by the global norm, and moving averages of parameters. */
#include "bind/bind.h"

#include <stdlib.h>
#include <string.h>

static const bind_type adamw_type = {"adamw"}, ema_type = {"ema"};

typedef struct {
    syz_adamw *adamw;
    syz_tensor **params; /* malloc()ed; the optimizer keeps the tensors alive */
    int64_t count;
} bind_adamw;

typedef struct {
    syz_ema *ema;
    double decay;
} bind_ema;

static bind_adamw *check_adamw(lua_State *L) {
    return bind_check(L, 1, &adamw_type);
}

static double option(lua_State *L, int table, const char *name, double missing) {
    if (lua_isnoneornil(L, table)) return missing;
    lua_getfield(L, table, name);
    if (!lua_isnil(L, -1) && lua_type(L, -1) != LUA_TNUMBER)
        luaL_error(L, "adamw: %s must be a number, not a %s", name, bind_type_name(L, -1));
    double value = lua_isnil(L, -1) ? missing : lua_tonumber(L, -1);
    lua_pop(L, 1);
    return value;
}

static syz_moments moments_option(lua_State *L, int table) {
    static const char *const names[] = {
        [SYZ_MOMENTS_F32] = "f32", [SYZ_MOMENTS_8BIT] = "8bit", [SYZ_MOMENTS_HOST] = "host", NULL};
    if (lua_isnoneornil(L, table)) return SYZ_MOMENTS_F32;
    lua_getfield(L, table, "moments");
    syz_moments moments = (syz_moments)luaL_checkoption(L, -1, "f32", names);
    lua_pop(L, 1);
    return moments;
}

/* adamw(params, {lr, beta1, beta2, eps, weight_decay, moments}) */
static int new_adamw(lua_State *L) {
    int64_t count;
    syz_tensor **list = bind_check_list(L, 1, &count);
    if (!lua_isnoneornil(L, 2)) luaL_checktype(L, 2, LUA_TTABLE);
    syz_adamw_options options = {.lr = option(L, 2, "lr", 1e-3),
                                 .beta1 = option(L, 2, "beta1", 0.9),
                                 .beta2 = option(L, 2, "beta2", 0.999),
                                 .eps = option(L, 2, "eps", 1e-8),
                                 .weight_decay = option(L, 2, "weight_decay", 1e-2),
                                 .moments = moments_option(L, 2)};
    bind_adamw *self = bind_new(L, &adamw_type, sizeof *self);
    size_t bytes = (size_t)count * sizeof *list;
    self->params = malloc(bytes ? bytes : 1);
    if (!self->params) return luaL_error(L, "out of memory");
    if (bytes) memcpy(self->params, list, bytes);
    self->count = count;
    bind_try(L, syz_adamw_create(&self->adamw, self->params, count, options));
    return 1;
}

static int adamw_gc(lua_State *L) {
    bind_adamw *self = check_adamw(L);
    syz_adamw_free(self->adamw);
    free(self->params);
    *self = (bind_adamw){0};
    return 0;
}

static int adamw_step(lua_State *L) {
    bind_adamw *self = check_adamw(L);
    bind_try(L, syz_adamw_step(self->adamw, luaL_optnumber(L, 2, syz_adamw_get_options(self->adamw).lr)));
    return 0;
}

static int adamw_zero_grad(lua_State *L) {
    syz_adamw_zero_grad(check_adamw(L)->adamw);
    return 0;
}

typedef struct {
    bind_adamw *self;
    double limit, norm; /* the limit, or the factor */
} clipping;

static syz_status run_clip(void *context) {
    clipping *c = context;
    return syz_clip_grad_norm(&c->norm, c->self->params, c->self->count, c->limit);
}

static syz_status run_scale(void *context) {
    const clipping *c = context;
    return syz_scale_grads(c->self->params, c->self->count, c->limit);
}

/* o:limit(max_norm) -> norm: clips the gradients of the next step alone, while it reads them */
static int adamw_limit(lua_State *L) {
    double norm;
    bind_try(L, syz_adamw_limit(&norm, check_adamw(L)->adamw, luaL_checknumber(L, 2)));
    lua_pushnumber(L, norm);
    return 1;
}

/* o:scale(factor): every gradient times that */
static int adamw_scale(lua_State *L) {
    bind_try(L, bind_run(run_scale, &(clipping){.self = check_adamw(L), .limit = luaL_checknumber(L, 2)}));
    return 0;
}

/* o:clip(max_norm) -> norm before clipping */
static int adamw_clip(lua_State *L) {
    clipping c = {.self = check_adamw(L), .limit = luaL_optnumber(L, 2, 0)};
    bind_try(L, bind_run(run_clip, &c));
    lua_pushnumber(L, c.norm);
    return 1;
}

static int adamw_count(lua_State *L) {
    bind_adamw *self = check_adamw(L);
    int64_t steps = 0;
    for (int64_t k = 0; k < self->count; k++) {
        int64_t own = syz_adamw_steps(self->adamw, k);
        if (own > steps) steps = own;
    }
    lua_pushnumber(L, (double)steps);
    return 1;
}

static int adamw_set_count(lua_State *L) {
    bind_adamw *self = check_adamw(L);
    int64_t steps = bind_check_integer(L, 2);
    for (int64_t k = 0; k < self->count; k++)
        syz_adamw_set_steps(self->adamw, k, steps);
    return 0;
}

static const char *const state_names[SYZ_ADAMW_STATES] = {[SYZ_ADAMW_M] = "m",
                                                          [SYZ_ADAMW_V] = "v",
                                                          [SYZ_ADAMW_M_SCALE] = "m_scale",
                                                          [SYZ_ADAMW_V_SCALE] = "v_scale",
                                                          [SYZ_ADAMW_REMAINDER] = "remainder"};

/* Parameters are counted from 1. */
static int64_t check_parameter(lua_State *L, int argument, const bind_adamw *self) {
    int64_t index = bind_check_integer(L, argument);
    luaL_argcheck(L, index >= 1 && index <= self->count, argument, "there is no such parameter");
    return index - 1;
}

/* o:state(i) -> {m = tensor, v = tensor, ...}: what the optimizer holds of a parameter, themselves, not copies */
static int adamw_state(lua_State *L) {
    bind_adamw *self = check_adamw(L);
    int64_t k = check_parameter(L, 2, self);
    lua_createtable(L, 0, SYZ_ADAMW_STATES);
    for (int kind = 0; kind < SYZ_ADAMW_STATES; kind++) {
        syz_tensor *state = syz_adamw_state(self->adamw, k, (syz_adamw_state_kind)kind);
        if (!state) continue;
        bind_push_strong(L, state);
        lua_setfield(L, -2, state_names[kind]);
    }
    return 1;
}

typedef struct {
    const syz_adamw *adamw;
    int64_t index;
} parameter;

static syz_tensor *make_master(void *context) {
    const parameter *p = context;
    return syz_adamw_master(p->adamw, p->index);
}

/* o:master(i) -> the f32 values of a parameter, a new tensor */
static int adamw_master(lua_State *L) {
    bind_adamw *self = check_adamw(L);
    return bind_make(L, make_master, &(parameter){self->adamw, check_parameter(L, 2, self)});
}

/* o:set_master(i, tensor) */
static int adamw_set_master(lua_State *L) {
    bind_adamw *self = check_adamw(L);
    int64_t k = check_parameter(L, 2, self);
    bind_try(L, syz_adamw_set_master(self->adamw, k, bind_check_tensor(L, 3)));
    return 0;
}

static const luaL_Reg adamw_methods[] = {{"step", adamw_step},
                                         {"zero_grad", adamw_zero_grad},
                                         {"clip", adamw_clip},
                                         {"limit", adamw_limit},
                                         {"scale", adamw_scale},
                                         {"count", adamw_count},
                                         {"set_count", adamw_set_count},
                                         {"state", adamw_state},
                                         {"master", adamw_master},
                                         {"set_master", adamw_set_master},
                                         {NULL, NULL}};

/* ---- moving averages ---- */

static bind_ema *check_ema(lua_State *L) {
    return bind_check(L, 1, &ema_type);
}

/* ema(params or an adamw, decay) */
static int new_ema(lua_State *L) {
    bind_adamw *optimizer = lua_istable(L, 1) ? NULL : check_adamw(L);
    int64_t count;
    syz_tensor **list = optimizer ? NULL : bind_check_list(L, 1, &count);
    double decay = luaL_checknumber(L, 2);
    if (!(decay >= 0 && decay < 1)) return luaL_argerror(L, 2, "the decay must be at least 0 and below 1");
    bind_ema *self = bind_new(L, &ema_type, sizeof *self);
    self->decay = decay;
    bind_try(L, optimizer ? syz_ema_create_for(&self->ema, optimizer->adamw) : syz_ema_create(&self->ema, list, count));
    return 1;
}

static int ema_gc(lua_State *L) {
    bind_ema *self = check_ema(L);
    syz_ema_free(self->ema);
    self->ema = NULL;
    return 0;
}

/* e:update([decay]) */
static int ema_update(lua_State *L) {
    bind_ema *self = check_ema(L);
    bind_try(L, syz_ema_update(self->ema, luaL_optnumber(L, 2, self->decay)));
    return 0;
}

static int ema_swap(lua_State *L) {
    bind_try(L, syz_ema_swap(check_ema(L)->ema));
    return 0;
}

static int ema_tensors(lua_State *L) {
    bind_ema *self = check_ema(L);
    int64_t count = syz_ema_count(self->ema);
    lua_createtable(L, (int)count, 0);
    for (int64_t k = 0; k < count; k++) {
        bind_push_strong(L, syz_ema_shadow(self->ema, k));
        lua_rawseti(L, -2, (int)k + 1);
    }
    return 1;
}

static const luaL_Reg ema_methods[] = {
    {"update", ema_update}, {"swap", ema_swap}, {"tensors", ema_tensors}, {NULL, NULL}};

void bind_open_optim(lua_State *L) {
    const luaL_Reg adamw_meta[] = {{"__gc", adamw_gc}, {NULL, NULL}}, ema_meta[] = {{"__gc", ema_gc}, {NULL, NULL}};
    bind_new_type(L, &adamw_type, adamw_methods, adamw_meta);
    lua_pop(L, 1);
    bind_new_type(L, &ema_type, ema_methods, ema_meta);
    lua_pop(L, 1);
    lua_pushcfunction(L, new_adamw);
    lua_setfield(L, -2, "adamw");
    lua_pushcfunction(L, new_ema);
    lua_setfield(L, -2, "ema");
}
