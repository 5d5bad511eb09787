/* scope(fn, ...) and no_grad(fn, ...): run a function inside a bracket that closes on errors too. */
#include "bind/bind.h"

enum { RETURN_DEPTH = 4 };

/* Let every tensor in the value at `index` outlive the current scope: itself, or inside tables. Never raises. */
static void survive(lua_State *L, int index, int depth) {
    bind_tensor *tensor = bind_test(L, index, &bind_tensor_type);
    if (tensor) {
        bind_survive(tensor);
        return;
    }
    if (lua_type(L, index) != LUA_TTABLE || depth == 0 || !lua_checkstack(L, 8)) return;
    lua_pushnil(L);
    while (lua_next(L, index)) {
        survive(L, lua_gettop(L), depth - 1);
        lua_pop(L, 1);
    }
}

/* scope(fn, ...) -> what fn returns; tensors among it move to the enclosing scope, all others made inside are freed. */
static int core_scope(lua_State *L) {
    luaL_checktype(L, 1, LUA_TFUNCTION);
    luaL_checkstack(L, 16, "scope");
    bind_try(L, syz_scope_push());
    int depth = syz_scope_depth();
    int failed = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);
    for (int k = 1; !failed && k <= lua_gettop(L); k++)
        survive(L, k, RETURN_DEPTH);
    while (syz_scope_depth() >= depth)
        syz_scope_pop();
    if (failed) return lua_error(L);
    bind_account(L);
    return lua_gettop(L);
}

/* no_grad(fn, ...) -> what fn returns; operations inside record nothing for a backward pass. */
static int core_no_grad(lua_State *L) {
    luaL_checktype(L, 1, LUA_TFUNCTION);
    syz_no_grad_push();
    int failed = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);
    syz_no_grad_pop();
    return failed ? lua_error(L) : lua_gettop(L);
}

static int core_grad_enabled(lua_State *L) {
    lua_pushboolean(L, syz_grad_enabled());
    return 1;
}

static int core_scope_depth(lua_State *L) {
    lua_pushinteger(L, syz_scope_depth());
    return 1;
}

static const luaL_Reg functions[] = {
    {"scope", core_scope},
    {"no_grad", core_no_grad},
    {"grad_enabled", core_grad_enabled},
    {"scope_depth", core_scope_depth},
    {NULL, NULL},
};

void bind_open_scope(lua_State *L) {
    luaL_register(L, NULL, functions);
}
