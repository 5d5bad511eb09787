/* Tensors: userdata, lifetime, methods. Operations become methods in ops.c, values are read in values.c. */
#include "bind/bind.h"

#include <stdlib.h>

const bind_type bind_tensor_type = {"tensor"};

/* ---- accounting: the collector sees 32 bytes per tensor, so it is told when to run ---- */

enum { COLLECT_STEP = 64 << 20 };

static _Thread_local size_t strong_bytes, collect_at = COLLECT_STEP;

static void collect(lua_State *L) {
    lua_gc(L, LUA_GCCOLLECT, 0);
    collect_at = strong_bytes * 2 > COLLECT_STEP ? strong_bytes * 2 : COLLECT_STEP;
}

void bind_account(lua_State *L) {
    if (strong_bytes > collect_at) collect(L);
}

/* ---- lifetime ---- */

static void hold(bind_tensor *tensor) {
    if (tensor->strong) return;
    tensor->strong = true;
    tensor->bytes = syz_nbytes(tensor->t);
    strong_bytes += tensor->bytes;
    syz_retain(tensor->t);
}

static void let_go(bind_tensor *tensor) {
    if (!tensor->strong) return;
    tensor->strong = false;
    strong_bytes -= tensor->bytes;
    syz_release(tensor->t);
}

void bind_survive(bind_tensor *tensor) {
    if (!syz_alive(tensor->t) || tensor->strong) return;
    if (syz_scope_depth() >= 2)
        syz_scope_return(tensor->t);
    else
        hold(tensor);
}

static void fill(bind_tensor *tensor, syz_tensor *t, bool strong) {
    syz_handle_retain(t);
    tensor->t = t;
    if (strong) hold(tensor);
}

static bind_tensor *new_slot(lua_State *L) {
    return bind_new(L, &bind_tensor_type, sizeof(bind_tensor));
}

void bind_push_strong(lua_State *L, syz_tensor *t) {
    fill(new_slot(L), t, true);
}

enum { MAX_MADE = 16 };

/* One attempt: run `make` and fill the userdata at first, first + 1, ... */
static bool make_once(lua_State *L, bind_many_maker make, void *context, int count, int first) {
    syz_tensor *out[MAX_MADE] = {0};
    bool passing = syz_scope_depth() == 0;
    if (passing) syz_scope_push();
    bool good = make(context, out) == SYZ_OK;
    for (int k = 0; good && k < count; k++)
        if (out[k]) fill(lua_touserdata(L, first + k), out[k], passing);
    if (passing) syz_scope_pop();
    return good;
}

int bind_make_many(lua_State *L, bind_many_maker make, void *context, int count) {
    if (count > MAX_MADE) return luaL_error(L, "more than %d results", MAX_MADE);
    int first = lua_gettop(L) + 1;
    luaL_checkstack(L, count + 4, "results");
    for (int k = 0; k < count; k++)
        new_slot(L);
    if (!make_once(L, make, context, count, first)) {
        if (syz_error_status() != SYZ_ENOMEM) return bind_raise(L);
        syz_error_clear();
        collect(L);
        syz_memory_trim();
        if (!make_once(L, make, context, count, first)) return bind_raise(L);
    }
    for (int k = first; k < first + count; k++) {
        if (((bind_tensor *)lua_touserdata(L, k))->t) continue;
        lua_pushnil(L);
        lua_replace(L, k);
    }
    bind_account(L);
    return count;
}

typedef struct {
    bind_maker make;
    void *context;
} single;

static syz_status make_single(void *context, syz_tensor *out[]) {
    const single *s = context;
    out[0] = s->make(s->context);
    return out[0] ? SYZ_OK : syz_error_status();
}

int bind_make(lua_State *L, bind_maker make, void *context) {
    return bind_make_many(L, make_single, &(single){make, context}, 1);
}

syz_status bind_run(syz_status (*run)(void *context), void *context) {
    if (syz_scope_push() != SYZ_OK) return syz_error_status();
    syz_status status = run(context);
    syz_scope_pop();
    return status;
}

int bind_dead(lua_State *L, const bind_tensor *tensor) {
    return luaL_error(L, tensor->t ? "this tensor was freed when its scope ended: return it from the step, or call "
                                     ":keep()"
                                   : "this tensor was freed by :free()");
}

syz_tensor *bind_check_tensor(lua_State *L, int index) {
    bind_tensor *tensor = bind_check(L, index, &bind_tensor_type);
    if (!syz_alive(tensor->t)) bind_dead(L, tensor);
    return tensor->t;
}

syz_tensor *bind_opt_tensor(lua_State *L, int index) {
    return lua_isnoneornil(L, index) ? NULL : bind_check_tensor(L, index);
}

/* t:free(): the script is done with it. A scope's own reference ends with the scope. */
static int tensor_free(lua_State *L) {
    bind_tensor *tensor = bind_check(L, 1, &bind_tensor_type);
    let_go(tensor);
    syz_handle_release(tensor->t);
    tensor->t = NULL;
    return 0;
}

static int tensor_alive(lua_State *L) {
    bind_tensor *tensor = bind_check(L, 1, &bind_tensor_type);
    lua_pushboolean(L, syz_alive(tensor->t));
    return 1;
}

/* t:keep(): it survives every scope, until the collector finds nobody using it. */
static int tensor_keep(lua_State *L) {
    bind_check_tensor(L, 1);
    hold(lua_touserdata(L, 1));
    lua_settop(L, 1);
    bind_account(L);
    return 1;
}

/* ---- shape and type ---- */

static int tensor_shape(lua_State *L) {
    bind_push_shape(L, syz_tensor_shape(bind_check_tensor(L, 1)));
    return 1;
}

static int tensor_size(lua_State *L) {
    syz_shape shape = syz_tensor_shape(bind_check_tensor(L, 1));
    int64_t d = bind_check_integer(L, 2), at = d < 0 ? d + shape.n : d;
    if (at < 0 || at >= shape.n)
        return luaL_argerror(
            L, 2, lua_pushfstring(L, "dimension %d of a tensor with %d (they count from 0)", (int)d, shape.n));
    lua_pushnumber(L, (double)shape.dim[at]);
    return 1;
}

static int tensor_rank(lua_State *L) {
    lua_pushinteger(L, syz_tensor_shape(bind_check_tensor(L, 1)).n);
    return 1;
}

static int tensor_numel(lua_State *L) {
    lua_pushnumber(L, (double)syz_numel(bind_check_tensor(L, 1)));
    return 1;
}

static int tensor_dtype(lua_State *L) {
    lua_pushstring(L, syz_dtype_name(syz_tensor_dtype(bind_check_tensor(L, 1))));
    return 1;
}

static int tensor_item(lua_State *L) {
    double value = 0;
    bind_try(L, syz_item(&value, bind_check_tensor(L, 1)));
    lua_pushnumber(L, value);
    return 1;
}

static int tensor_finite(lua_State *L) {
    lua_pushboolean(L, syz_all_finite(bind_check_tensor(L, 1)));
    return 1;
}

static int tensor_hash(lua_State *L) {
    bind_to_host(L, 1);
    syz_tensor *t = bind_check_tensor(L, 1);
    char text[SYZ_SHA256_TEXT];
    syz_sha256(text, syz_data(t), syz_nbytes(t));
    lua_pushstring(L, text);
    return 1;
}

/* ---- copies ---- */

static syz_tensor *make_alias(void *t) {
    return syz_alias(t);
}

static syz_tensor *make_copy(void *t) {
    return syz_copy(t);
}

static int tensor_detach(lua_State *L) {
    return bind_make(L, make_alias, bind_check_tensor(L, 1));
}

static int tensor_copy(lua_State *L) {
    return bind_make(L, make_copy, bind_check_tensor(L, 1));
}

static int tensor_assign(lua_State *L) {
    bind_try(L, syz_assign(bind_check_tensor(L, 1), bind_check_tensor(L, 2)));
    lua_settop(L, 1);
    return 1;
}

/* ---- gradients ---- */

static int tensor_requires_grad(lua_State *L) {
    syz_tensor *t = bind_check_tensor(L, 1);
    if (lua_isnoneornil(L, 2)) {
        lua_pushboolean(L, syz_requires_grad(t));
        return 1;
    }
    bool on = bind_check_boolean(L, 2);
    syz_set_requires_grad(t, on);
    if (syz_requires_grad(t) != on)
        return luaL_error(L, "requires_grad: this tensor was computed from others; :detach() it first");
    lua_settop(L, 1);
    return 1;
}

/* The gradient is pushed as an alias, so that later accumulation makes a new one instead of changing what the script
 * holds. */
static int tensor_grad(lua_State *L) {
    syz_tensor *grad = syz_grad(bind_check_tensor(L, 1));
    if (grad) return bind_make(L, make_alias, grad);
    lua_pushnil(L);
    return 1;
}

static int tensor_zero_grad(lua_State *L) {
    bind_try(L, syz_set_grad(bind_check_tensor(L, 1), NULL));
    lua_settop(L, 1);
    return 1;
}

static int tensor_set_grad(lua_State *L) {
    bind_try(L, syz_set_grad(bind_check_tensor(L, 1), bind_opt_tensor(L, 2)));
    lua_settop(L, 1);
    return 1;
}

static syz_status run_backward(void *context) {
    syz_tensor **pair = context;
    return syz_backward(pair[0], pair[1]);
}

static int tensor_backward(lua_State *L) {
    syz_tensor *pair[2] = {bind_check_tensor(L, 1), bind_opt_tensor(L, 2)};
    bind_try(L, bind_run(run_backward, pair));
    return 0;
}

/* ---- registration ---- */

static const luaL_Reg methods[] = {
    {"free", tensor_free},
    {"alive", tensor_alive},
    {"keep", tensor_keep},
    {"shape", tensor_shape},
    {"size", tensor_size},
    {"rank", tensor_rank},
    {"numel", tensor_numel},
    {"dtype", tensor_dtype},
    {"item", tensor_item},
    {"totable", bind_tensor_table},
    {"finite", tensor_finite},
    {"hash", tensor_hash},
    {"detach", tensor_detach},
    {"copy", tensor_copy},
    {"assign", tensor_assign},
    {"requires_grad", tensor_requires_grad},
    {"grad", tensor_grad},
    {"zero_grad", tensor_zero_grad},
    {"set_grad", tensor_set_grad},
    {"backward", tensor_backward},
    {NULL, NULL},
};

static const luaL_Reg meta[] = {
    {"__gc", tensor_free},
    {"__tostring", bind_tensor_text},
    {NULL, NULL},
};

void bind_open_tensor(lua_State *L) {
    bind_new_type(L, &bind_tensor_type, methods, meta);
    lua_pop(L, 1);
}
