/* syz.core: the Lua module. */
#include "bind/bind.h"

/* Once per state: a second opening (a test runner that forgets loaded modules) would make new metatables, and the
 * objects of the first would no longer be known. The key is this variable's address. */
static char opened;

int luaopen_syz_core(lua_State *L) {
    lua_pushlightuserdata(L, &opened);
    lua_rawget(L, LUA_REGISTRYINDEX);
    if (!lua_isnil(L, -1)) return 1;
    lua_pop(L, 1);
    lua_newtable(L);
    bind_open_tensor(L);
    bind_open_values(L);
    bind_open_ops(L); /* after the tensor's own methods, which win over operations of the same name */
    bind_open_scope(L);
    bind_open_rng(L);
    bind_open_json(L);
    bind_open_file(L);
    bind_open_io(L);
    bind_open_tokenizer(L);
    bind_open_model(L);
    bind_open_optim(L);
    bind_open_data(L);
    bind_open_comm(L);
    bind_open_machine(L);
    bind_open_device(L);
    lua_pushlightuserdata(L, &opened);
    lua_pushvalue(L, -2);
    lua_rawset(L, LUA_REGISTRYINDEX);
    return 1;
}
