/* Userdata types and errors: what every other file of the binding stands on. */
#include "bind/bind.h"

#include <signal.h>
#include <string.h>

/* ---- types: the registry maps the address of a bind_type to its metatable ---- */

static void *type_key(const bind_type *type) {
    return (void *)(uintptr_t)type;
}

void bind_push_metatable(lua_State *L, const bind_type *type) {
    lua_pushlightuserdata(L, type_key(type));
    lua_rawget(L, LUA_REGISTRYINDEX);
}

void bind_new_type(lua_State *L, const bind_type *type, const luaL_Reg *methods, const luaL_Reg *meta) {
    lua_newtable(L);
    if (meta) luaL_register(L, NULL, meta);
    lua_newtable(L);
    if (methods) luaL_register(L, NULL, methods);
    lua_setfield(L, -2, "__index");
    lua_pushstring(L, type->name);
    lua_setfield(L, -2, "__metatable");
    lua_pushlightuserdata(L, type_key(type));
    lua_pushvalue(L, -2);
    lua_rawset(L, LUA_REGISTRYINDEX);
}

void *bind_new(lua_State *L, const bind_type *type, size_t size) {
    void *data = lua_newuserdata(L, size);
    memset(data, 0, size);
    bind_push_metatable(L, type);
    lua_setmetatable(L, -2);
    return data;
}

void *bind_test(lua_State *L, int index, const bind_type *type) {
    void *data = lua_touserdata(L, index);
    if (!data || lua_islightuserdata(L, index) || !lua_getmetatable(L, index)) return NULL;
    bind_push_metatable(L, type);
    bool same = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    return same ? data : NULL;
}

const char *bind_type_name(lua_State *L, int index) {
    const char *name = NULL;
    if (lua_type(L, index) == LUA_TUSERDATA && luaL_getmetafield(L, index, "__metatable")) {
        name = lua_tostring(L, -1); /* anchored by the metatable */
        lua_pop(L, 1);
    }
    return name ? name : lua_type(L, index) == LUA_TNONE ? "nothing" : luaL_typename(L, index);
}

void *bind_check(lua_State *L, int index, const bind_type *type) {
    void *data = bind_test(L, index, type);
    if (!data) luaL_argerror(L, index, lua_pushfstring(L, "%s expected, got %s", type->name, bind_type_name(L, index)));
    return data;
}

/* ---- errors ---- */

int bind_raise(lua_State *L) {
    syz_status status = syz_error_status();
    if (status == SYZ_ECANCELED) {
        syz_error_clear();
        return bind_interrupted(L);
    }
    luaL_where(L, 1);
    lua_pushstring(L, status == SYZ_OK ? "internal error: a call failed without saying why" : syz_error_message());
    syz_error_clear();
    lua_concat(L, 2);
    return lua_error(L);
}

void bind_try(lua_State *L, syz_status status) {
    if (status != SYZ_OK) bind_raise(L);
}

/* ---- interruption ----
 * The request reaches whichever comes first: the running operation through syz_cancel(), or the interpreter through the
 * hook. The one that raises withdraws the other. */

static volatile sig_atomic_t interrupt_pending, deferring, deferred, terminating;

void bind_interrupt_clear(lua_State *L) {
    lua_sethook(L, NULL, 0, 0);
    syz_cancel_clear();
    interrupt_pending = deferred = 0;
}

int bind_interrupted(lua_State *L) {
    bind_interrupt_clear(L);
    lua_pushliteral(L, "interrupted");
    return lua_error(L);
}

static void interrupt_hook(lua_State *L, lua_Debug *where) {
    (void)where;
    bind_interrupted(L);
}

void bind_interrupt(lua_State *L) {
    if (deferring && !deferred) {
        deferred = 1;
        return;
    }
    interrupt_pending = 1;
    syz_cancel();
    lua_sethook(L, interrupt_hook, LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT, 1);
}

void bind_interrupt_defer(lua_State *L, bool defer) {
    bool deliver = !defer && deferred;
    deferring = defer;
    deferred = 0;
    if (deliver) bind_interrupt(L);
}

bool bind_interrupt_pending(void) {
    return interrupt_pending;
}

bool bind_interrupt_wanted(void) {
    return interrupt_pending || deferred;
}

void bind_terminate(lua_State *L) {
    terminating = 1;
    if (!deferring) bind_interrupt(L);
}

bool bind_terminating(void) {
    return terminating;
}
