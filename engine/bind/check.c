/* Arguments of Lua functions, checked and converted. */
#include "bind/bind.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- integers ---- */

bool bind_to_integer(lua_State *L, int index, int64_t *value) {
    if (lua_type(L, index) != LUA_TNUMBER) return false;
    double number = lua_tonumber(L, index);
    if (!(fabs(number) <= BIND_EXACT) || number != floor(number)) return false;
    *value = (int64_t)number;
    return true;
}

int64_t bind_check_integer(lua_State *L, int index) {
    int64_t value = 0;
    if (!bind_to_integer(L, index, &value))
        luaL_argerror(L, index, lua_pushfstring(L, "integer expected, got %s", bind_type_name(L, index)));
    return value;
}

int64_t bind_opt_integer(lua_State *L, int index, int64_t missing) {
    return lua_isnoneornil(L, index) ? missing : bind_check_integer(L, index);
}

void bind_push_u64(lua_State *L, uint64_t value) {
    if (value <= (uint64_t)BIND_EXACT) {
        lua_pushnumber(L, (double)value);
        return;
    }
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, value);
    lua_pushstring(L, text);
}

uint64_t bind_check_u64(lua_State *L, int index) {
    int64_t integer = 0;
    if (bind_to_integer(L, index, &integer) && integer >= 0) return (uint64_t)integer;
    if (lua_type(L, index) == LUA_TSTRING) {
        const char *text = lua_tostring(L, index);
        size_t digits = strspn(text, "0123456789");
        uint64_t value = strtoull(text, NULL, 10);
        char again[24];
        snprintf(again, sizeof again, "%" PRIu64, value);
        if (digits > 0 && text[digits] == '\0' && strcmp(text + strspn(text, "0"), again + (value == 0)) == 0)
            return value;
    }
    luaL_argerror(L, index, "a whole number from 0 to 2^53, or as a string of digits to 2^64 - 1, expected");
    return 0;
}

bool bind_check_boolean(lua_State *L, int index) {
    luaL_checktype(L, index, LUA_TBOOLEAN);
    return lua_toboolean(L, index);
}

/* ---- shapes ---- */

bool bind_to_shape(lua_State *L, int index, syz_shape *shape, const char **why) {
    *shape = (syz_shape){0};
    *why = "a shape such as {2, 3} expected";
    if (bind_to_integer(L, index, &shape->dim[0])) {
        shape->n = 1;
        return true;
    }
    if (lua_type(L, index) != LUA_TTABLE) return false;
    size_t length = lua_objlen(L, index);
    if (length > SYZ_MAX_DIMS) {
        *why = "a list of at most 6 integers expected";
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        lua_rawgeti(L, index, (int)i + 1);
        bool good = bind_to_integer(L, -1, &shape->dim[i]);
        lua_pop(L, 1);
        if (!good) {
            *why = "a list of integers such as {2, 3} expected";
            return false;
        }
    }
    shape->n = (int)length;
    return true;
}

syz_shape bind_check_shape(lua_State *L, int index) {
    syz_shape shape;
    const char *why;
    if (!bind_to_shape(L, index, &shape, &why))
        luaL_argerror(L, index, lua_pushfstring(L, "%s, got %s", why, bind_type_name(L, index)));
    return shape;
}

void bind_push_shape(lua_State *L, syz_shape shape) {
    lua_createtable(L, shape.n, 0);
    for (int i = 0; i < shape.n; i++) {
        lua_pushnumber(L, (double)shape.dim[i]);
        lua_rawseti(L, -2, i + 1);
    }
}

/* ---- data types ---- */

syz_dtype bind_check_dtype(lua_State *L, int index) {
    syz_dtype dtype = SYZ_F32;
    const char *name = luaL_checkstring(L, index);
    if (!syz_dtype_parse(&dtype, name))
        luaL_argerror(L, index, lua_pushfstring(L, "unknown dtype \"%s\": f32, bf16, f16, f64, i32, i64 or u8", name));
    return dtype;
}

syz_dtype bind_opt_dtype(lua_State *L, int index, syz_dtype missing) {
    return lua_isnoneornil(L, index) ? missing : bind_check_dtype(L, index);
}

/* ---- lists of tensors ---- */

syz_tensor **bind_check_list(lua_State *L, int index, int64_t *count) {
    luaL_checktype(L, index, LUA_TTABLE);
    size_t length = lua_objlen(L, index);
    syz_tensor **list = lua_newuserdata(L, (length ? length : 1) * sizeof *list);
    for (size_t i = 0; i < length; i++) {
        lua_rawgeti(L, index, (int)i + 1);
        bind_tensor *tensor = bind_test(L, -1, &bind_tensor_type);
        if (!tensor)
            luaL_argerror(L, index,
                          lua_pushfstring(L, "element %d is not a tensor but %s", (int)i + 1, bind_type_name(L, -1)));
        if (!syz_alive(tensor->t)) bind_dead(L, tensor);
        list[i] = tensor->t;
        lua_pop(L, 1);
    }
    *count = (int64_t)length;
    return list;
}
