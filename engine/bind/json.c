/* JSON: strict reading (UTF-8, no duplicate keys, bounded depth), writing with sorted keys so that equal tables give
 * equal bytes. null is core.null; an empty table is {} unless core.array() marked it, as decoding [] does. */
#include "bind/bind.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 64 };

static const bind_type parsed_type = {"parsed JSON"}, text_type = {"JSON text"}, array_type = {"array"};

/* ---- arrays ---- */

static void mark_array(lua_State *L) {
    bind_push_metatable(L, &array_type);
    lua_setmetatable(L, -2);
}

static bool is_marked(lua_State *L, int index) {
    if (!lua_getmetatable(L, index)) return false;
    bind_push_metatable(L, &array_type);
    bool same = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    return same;
}

/* array(t) -> t, written as [] when it is empty */
static int core_array(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    mark_array(L);
    return 1;
}

/* ---- reading ---- */

static void push_value(lua_State *L, const json_t *value);

static void push_array(lua_State *L, const json_t *value) {
    size_t n = json_array_size(value);
    lua_createtable(L, (int)n, 0);
    if (n == 0) mark_array(L);
    for (size_t i = 0; i < n; i++) {
        push_value(L, json_array_get(value, i));
        lua_rawseti(L, -2, (int)i + 1);
    }
}

static void push_object(lua_State *L, const json_t *value) {
    const char *key;
    json_t *field;
    lua_createtable(L, 0, (int)json_object_size(value));
    json_object_foreach((json_t *)(uintptr_t)value, key, field) {
        lua_pushstring(L, key);
        push_value(L, field);
        lua_rawset(L, -3);
    }
}

/* jansson bounds the depth of what it parses (2048). */
static void push_value(lua_State *L, const json_t *value) {
    luaL_checkstack(L, 4, "JSON nested too deep");
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        push_object(L, value);
        break;
    case JSON_ARRAY:
        push_array(L, value);
        break;
    case JSON_STRING:
        lua_pushlstring(L, json_string_value(value), json_string_length(value));
        break;
    case JSON_INTEGER:
    case JSON_REAL:
        lua_pushnumber(L, json_number_value(value));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        lua_pushboolean(L, json_is_true(value));
        break;
    case JSON_NULL:
        lua_pushlightuserdata(L, NULL);
        break;
    }
}

static int parsed_free(lua_State *L) {
    json_t **value = bind_check(L, 1, &parsed_type);
    json_decref(*value);
    *value = NULL;
    return 0;
}

int bind_json_decode(lua_State *L, const char *text, size_t size) {
    json_error_t error;
    json_t **value = bind_new(L, &parsed_type, sizeof *value);
    *value = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (!*value) {
        lua_pushnil(L);
        lua_pushfstring(L, "JSON line %d, column %d: %s", error.line, error.column, error.text);
        return 2;
    }
    push_value(L, *value);
    json_decref(*value);
    *value = NULL;
    return 1;
}

/* json.decode(text) -> value, or nil, message with line and column */
static int json_decode_text(lua_State *L) {
    size_t size;
    const char *text = luaL_checklstring(L, 1, &size);
    return bind_json_decode(L, text, size);
}

/* ---- writing ---- */

typedef struct {
    char *data; /* owned; a userdata frees it when writing raises */
    size_t used, capacity;
    bool pretty;
} writer;

static int writer_free(lua_State *L) {
    writer *out = bind_check(L, 1, &text_type);
    free(out->data);
    *out = (writer){0};
    return 0;
}

static void put(lua_State *L, writer *out, const char *text, size_t size) {
    if (out->used + size > out->capacity) {
        size_t capacity = (out->used + size) * 2 + 256;
        char *data = realloc(out->data, capacity);
        if (!data) luaL_error(L, "json.encode: out of memory");
        out->data = data;
        out->capacity = capacity;
    }
    memcpy(out->data + out->used, text, size);
    out->used += size;
}

static void put_line(lua_State *L, writer *out, int depth) {
    if (!out->pretty) return;
    put(L, out, "\n", 1);
    for (int i = 0; i < depth; i++)
        put(L, out, "  ", 2);
}

/* Length of the UTF-8 character at `s`, at most `left` bytes; 0 if it is not one. */
static size_t utf8_length(const unsigned char *s, size_t left) {
    size_t n = s[0] < 0x80                   ? 1
               : s[0] >= 0xc2 && s[0] < 0xe0 ? 2
               : (s[0] & 0xf0) == 0xe0       ? 3
               : (s[0] & 0xf8) == 0xf0       ? 4
                                             : 0;
    if (n > left) return 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    bool overlong = (n == 3 && s[0] == 0xe0 && s[1] < 0xa0) || (n == 4 && s[0] == 0xf0 && s[1] < 0x90);
    bool outside =
        (n == 3 && s[0] == 0xed && s[1] > 0x9f) || (n == 4 && (s[0] > 0xf4 || (s[0] == 0xf4 && s[1] > 0x8f)));
    return overlong || outside ? 0 : n;
}

static void put_string(lua_State *L, writer *out, const char *text, size_t size) {
    put(L, out, "\"", 1);
    for (size_t i = 0; i < size;) {
        unsigned char c = (unsigned char)text[i];
        size_t n = utf8_length((const unsigned char *)text + i, size - i);
        if (n == 0) luaL_error(L, "json.encode: a string is not UTF-8 at byte %d: \"%s\"", (int)i + 1, text);
        if (c == '"' || c == '\\') {
            put(L, out, (char[]){'\\', (char)c}, 2);
        } else if (c < 0x20) {
            char escape[8];
            put(L, out, escape, (size_t)snprintf(escape, sizeof escape, c == '\n' ? "\\n" : "\\u%04x", c));
        } else {
            put(L, out, text + i, n);
        }
        i += n;
    }
    put(L, out, "\"", 1);
}

/* The shortest digits that read back as the same number. */
static void put_number(lua_State *L, writer *out, double value) {
    char text[40];
    if (!isfinite(value)) luaL_error(L, "json.encode: JSON has no number for %f", value);
    int size = 0;
    for (int digits = 15; digits <= 17; digits++) {
        size = snprintf(text, sizeof text, "%.*g", fabs(value) < 1e15 && value == floor(value) ? 17 : digits, value);
        if (strtod(text, NULL) == value) break;
    }
    put(L, out, text, (size_t)size);
}

static void put_value(lua_State *L, writer *out, int index, int depth);

/* The number of elements if the keys of the table are exactly 1..n, else -1. */
static int64_t array_length(lua_State *L, int index) {
    int64_t count = 0, key, length = (int64_t)lua_objlen(L, index);
    for (lua_pushnil(L); lua_next(L, index); count++) {
        lua_pop(L, 1);
        if (bind_to_integer(L, -1, &key) && key >= 1 && key <= length) continue;
        lua_pop(L, 1);
        return -1;
    }
    if (count == 0) return is_marked(L, index) ? 0 : -1;
    return count == length ? length : -1;
}

static void put_array(lua_State *L, writer *out, int index, int64_t length, int depth) {
    put(L, out, "[", 1);
    for (int64_t i = 1; i <= length; i++) {
        if (i > 1) put(L, out, ",", 1);
        put_line(L, out, depth);
        lua_rawgeti(L, index, (int)i);
        put_value(L, out, lua_gettop(L), depth);
        lua_pop(L, 1);
    }
    if (length) put_line(L, out, depth - 1);
    put(L, out, "]", 1);
}

typedef struct {
    const char *text; /* anchored by the table */
    size_t size;
} key_text;

static int compare_keys(const void *a, const void *b) {
    const key_text *x = a, *y = b;
    int order = memcmp(x->text, y->text, x->size < y->size ? x->size : y->size);
    return order ? order : (x->size > y->size) - (x->size < y->size);
}

/* The string keys of the table, sorted, in a userdata that is pushed. */
static const key_text *sorted_keys(lua_State *L, int index, size_t *count) {
    size_t n = 0;
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1), n++)
        if (lua_type(L, -2) != LUA_TSTRING)
            luaL_error(L, "json.encode: a table has both list elements or holes and other keys, or a key that is a %s",
                       luaL_typename(L, -2));
    key_text *keys = lua_newuserdata(L, (n + 1) * sizeof *keys);
    n = 0;
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1), n++)
        keys[n].text = lua_tolstring(L, -2, &keys[n].size);
    qsort(keys, n, sizeof *keys, compare_keys);
    *count = n;
    return keys;
}

static void put_object(lua_State *L, writer *out, int index, int depth) {
    size_t count;
    const key_text *keys = sorted_keys(L, index, &count);
    put(L, out, "{", 1);
    for (size_t i = 0; i < count; i++) {
        if (i > 0) put(L, out, ",", 1);
        put_line(L, out, depth);
        put_string(L, out, keys[i].text, keys[i].size);
        put(L, out, ": ", out->pretty ? 2 : 1);
        lua_pushlstring(L, keys[i].text, keys[i].size);
        lua_rawget(L, index);
        put_value(L, out, lua_gettop(L), depth);
        lua_pop(L, 1);
    }
    if (count) put_line(L, out, depth - 1);
    put(L, out, "}", 1);
    lua_pop(L, 1);
}

static void put_table(lua_State *L, writer *out, int index, int depth) {
    if (depth == MAX_DEPTH) luaL_error(L, "json.encode: tables nested more than %d deep, or in a cycle", MAX_DEPTH);
    luaL_checkstack(L, 16, "JSON nested too deep");
    int64_t length = array_length(L, index);
    if (length >= 0)
        put_array(L, out, index, length, depth + 1);
    else
        put_object(L, out, index, depth + 1);
}

static void put_value(lua_State *L, writer *out, int index, int depth) {
    size_t size;
    const char *text;
    switch (lua_type(L, index)) {
    case LUA_TTABLE:
        put_table(L, out, index, depth);
        return;
    case LUA_TSTRING:
        text = lua_tolstring(L, index, &size);
        put_string(L, out, text, size);
        return;
    case LUA_TNUMBER:
        put_number(L, out, lua_tonumber(L, index));
        return;
    case LUA_TBOOLEAN:
        text = lua_toboolean(L, index) ? "true" : "false";
        put(L, out, text, strlen(text));
        return;
    case LUA_TLIGHTUSERDATA:
        if (lua_touserdata(L, index) == NULL) {
            put(L, out, "null", 4);
            return;
        }
    }
    luaL_error(L, "json.encode: a %s cannot be written", bind_type_name(L, index));
}

int bind_json_encode(lua_State *L, int index, bool pretty) {
    writer *out = bind_new(L, &text_type, sizeof *out);
    out->pretty = pretty;
    put_value(L, out, index, 0);
    lua_pushlstring(L, out->data, out->used);
    return 1;
}

/* json.encode(value [, pretty]) -> text */
static int json_encode_text(lua_State *L) {
    luaL_checkany(L, 1);
    bool pretty = lua_toboolean(L, 2);
    lua_settop(L, 1);
    return bind_json_encode(L, 1, pretty);
}

/* ---- registration ---- */

static const luaL_Reg functions[] = {{"decode", json_decode_text}, {"encode", json_encode_text}, {NULL, NULL}};

static const luaL_Reg parsed_meta[] = {{"__gc", parsed_free}, {NULL, NULL}};
static const luaL_Reg writer_meta[] = {{"__gc", writer_free}, {NULL, NULL}};

void bind_open_json(lua_State *L) {
    bind_new_type(L, &parsed_type, NULL, parsed_meta);
    bind_new_type(L, &text_type, NULL, writer_meta);
    bind_new_type(L, &array_type, NULL, NULL);
    lua_pushnil(L); /* an array is a plain table: no methods */
    lua_setfield(L, -2, "__index");
    lua_pop(L, 3);
    lua_newtable(L);
    luaL_register(L, NULL, functions);
    lua_setfield(L, -2, "json");
    lua_pushlightuserdata(L, NULL);
    lua_setfield(L, -2, "null");
    lua_pushcfunction(L, core_array);
    lua_setfield(L, -2, "array");
}
