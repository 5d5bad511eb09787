/* Tokenizers. */
#include "bind/bind.h"

#include <stdlib.h>
#include <string.h>

static const bind_type tokenizer_type = {"tokenizer"};

static syz_tokenizer *check_tokenizer(lua_State *L) {
    return *(syz_tokenizer **)bind_check(L, 1, &tokenizer_type);
}

static int tokenizer_free(lua_State *L) {
    syz_tokenizer **tokenizer = bind_check(L, 1, &tokenizer_type);
    syz_tokenizer_free(*tokenizer);
    *tokenizer = NULL;
    return 0;
}

/* A text without zero bytes: C would silently stop at one. */
static const char *check_text(lua_State *L, int index) {
    size_t size;
    const char *text = luaL_checklstring(L, index, &size);
    if (strlen(text) != size) luaL_argerror(L, index, "the text contains a zero byte");
    return text;
}

/* tok:encode(text) -> list of ids, without the ids that begin and end a text */
static int tokenizer_encode(lua_State *L) {
    const syz_tokenizer *tokenizer = check_tokenizer(L);
    const char *text = check_text(L, 2);
    size_t count, again;
    bind_try(L, syz_tokenizer_encode(tokenizer, text, NULL, 0, &count));
    int64_t *ids = lua_newuserdata(L, (count + 1) * sizeof *ids);
    bind_try(L, syz_tokenizer_encode(tokenizer, text, ids, count, &again));
    lua_createtable(L, (int)count, 0);
    for (size_t i = 0; i < count; i++) {
        lua_pushnumber(L, (double)ids[i]);
        lua_rawseti(L, -2, (int)i + 1);
    }
    return 1;
}

typedef struct {
    syz_shape shape;
    const int64_t *ids;
} batch;

static syz_tensor *make_batch(void *context) {
    const batch *b = context;
    return bind_host_from(SYZ_I64, b->shape, b->ids);
}

/* tok:batch({texts}, length [, pad id]) -> i64 [B,length]: begin, tokens cut to fit, end, padding; and a list of how
 * many ids of each row are not padding */
static int tokenizer_batch(lua_State *L) {
    const syz_tokenizer *tokenizer = check_tokenizer(L);
    luaL_checktype(L, 2, LUA_TTABLE);
    int64_t length = bind_check_integer(L, 3), pad = bind_opt_integer(L, 4, -1), texts = (int64_t)lua_objlen(L, 2);
    if (length < 2 || length > 1 << 16) return luaL_argerror(L, 3, "a length from 2 to 65536 expected");
    int64_t *ids = lua_newuserdata(L, (size_t)(texts * length + 1) * sizeof *ids);
    lua_createtable(L, (int)texts, 0);
    for (int64_t i = 0; i < texts; i++) {
        size_t used;
        lua_rawgeti(L, 2, (int)i + 1);
        if (lua_type(L, -1) != LUA_TSTRING)
            luaL_argerror(L, 2, lua_pushfstring(L, "text %d is a %s", (int)i + 1, bind_type_name(L, -1)));
        const char *text = check_text(L, lua_gettop(L));
        bind_try(L, syz_tokenizer_encode_padded(tokenizer, text, pad, ids + i * length, (size_t)length, &used));
        lua_pop(L, 1);
        lua_pushnumber(L, (double)used);
        lua_rawseti(L, -2, (int)i + 1);
    }
    bind_make(L, make_batch, &(batch){{2, {texts, length}}, ids});
    lua_insert(L, -2);
    return 2;
}

/* tok:decode({ids}) -> text without special tokens */
static int tokenizer_decode(lua_State *L) {
    const syz_tokenizer *tokenizer = check_tokenizer(L);
    luaL_checktype(L, 2, LUA_TTABLE);
    size_t count = lua_objlen(L, 2);
    int64_t *ids = lua_newuserdata(L, (count + 1) * sizeof *ids);
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, 2, (int)i + 1);
        if (!bind_to_integer(L, -1, &ids[i])) luaL_argerror(L, 2, "a list of integers expected");
        lua_pop(L, 1);
    }
    void **text = bind_new(L, &bind_bytes_type, sizeof *text);
    *text = syz_tokenizer_decode(tokenizer, ids, count);
    if (!*text) return bind_raise(L);
    lua_pushstring(L, *text);
    return 1;
}

static int tokenizer_size(lua_State *L) {
    lua_pushnumber(L, (double)syz_tokenizer_size(check_tokenizer(L)));
    return 1;
}

/* tok:max_length() -> the folder's model_max_length, 0 if it has none */
static int tokenizer_max_length(lua_State *L) {
    lua_pushnumber(L, (double)syz_tokenizer_max_length(check_tokenizer(L)));
    return 1;
}

/* tok:specials() -> {bos, eos, pad, unk} */
static int tokenizer_specials(lua_State *L) {
    syz_special_ids ids = syz_tokenizer_specials(check_tokenizer(L));
    lua_createtable(L, 0, 4);
    lua_pushnumber(L, (double)ids.bos);
    lua_setfield(L, -2, "bos");
    lua_pushnumber(L, (double)ids.eos);
    lua_setfield(L, -2, "eos");
    lua_pushnumber(L, (double)ids.pad);
    lua_setfield(L, -2, "pad");
    lua_pushnumber(L, (double)ids.unk);
    lua_setfield(L, -2, "unk");
    return 1;
}

/* tokenizer(folder [, "open_clip"]) */
static int core_tokenizer(lua_State *L) {
    const char *folder = luaL_checkstring(L, 1), *reading = luaL_optstring(L, 2, NULL);
    syz_tokenizer **tokenizer = bind_new(L, &tokenizer_type, sizeof *tokenizer);
    bind_try(L, syz_tokenizer_open_as(tokenizer, folder, reading));
    return 1;
}

static const luaL_Reg methods[] = {
    {"encode", tokenizer_encode},
    {"batch", tokenizer_batch},
    {"decode", tokenizer_decode},
    {"size", tokenizer_size},
    {"max_length", tokenizer_max_length},
    {"specials", tokenizer_specials},
    {NULL, NULL},
};

static const luaL_Reg meta[] = {{"__gc", tokenizer_free}, {NULL, NULL}};

void bind_open_tokenizer(lua_State *L) {
    bind_new_type(L, &tokenizer_type, methods, meta);
    lua_pop(L, 1);
    lua_pushcfunction(L, core_tokenizer);
    lua_setfield(L, -2, "tokenizer");
}
