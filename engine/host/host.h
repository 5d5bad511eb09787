#ifndef SYZ_HOST_HOST_H
#define SYZ_HOST_HOST_H

#include "bind/bind.h"

int luaopen_syz_host(lua_State *L); /* line editing, for the console only */

#endif
