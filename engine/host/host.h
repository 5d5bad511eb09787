#ifndef SYZ_HOST_HOST_H
#define SYZ_HOST_HOST_H

#include "bind/bind.h"

extern lua_State *host_state; /* the interpreter, for handlers that have no argument to carry it */

int luaopen_syz_host(lua_State *L); /* line editing, for the console only */

/* Put a cap on Lua's memory and on that of tensors; before closing the state, give LuaJIT its allocator back. */
void host_bound_memory(lua_State *L);
void host_unbound_memory(lua_State *L);

#endif
