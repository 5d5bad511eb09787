/* Weight files and images. */
#include "bind/bind.h"

#include <stdlib.h>
#include <string.h>

/* ---- weight files: closed by the collector if reading raises ---- */

static const bind_type weights_type = {"weights"};

static int weights_free(lua_State *L) {
    syz_weights **weights = bind_check(L, 1, &weights_type);
    syz_weights_close(*weights);
    *weights = NULL;
    return 0;
}

static syz_weights **open_weights(lua_State *L) {
    const char *path = luaL_checkstring(L, 1);
    syz_weights **weights = bind_new(L, &weights_type, sizeof *weights);
    *weights = syz_weights_open(path);
    if (!*weights) bind_raise(L);
    return weights;
}

static void push_metadata(lua_State *L, const syz_weights *weights) {
    const char *key = NULL, *value = NULL;
    lua_newtable(L);
    while ((key = syz_weights_next_metadata(weights, key, &value))) {
        lua_pushstring(L, value);
        lua_setfield(L, -2, key);
    }
}

static void close_weights(syz_weights **weights) {
    syz_weights_close(*weights);
    *weights = NULL;
}

typedef struct {
    const syz_weights *weights;
    const char *name;
} wanted;

static syz_tensor *make_weight(void *context) {
    const wanted *w = context;
    return syz_weights_get(w->weights, w->name);
}

/* safetensors.read(path) -> {name = tensor}, {key = value} */
static int safetensors_read(lua_State *L) {
    syz_weights **weights = open_weights(L);
    int64_t count = syz_weights_count(*weights);
    lua_createtable(L, 0, (int)count);
    for (int64_t i = 0; i < count; i++) {
        wanted w = {*weights, syz_weights_info(*weights, i).name};
        lua_pushstring(L, w.name);
        bind_make(L, make_weight, &w);
        lua_rawset(L, -3);
    }
    push_metadata(L, *weights);
    close_weights(weights);
    return 2;
}

/* safetensors.header(path) -> array of {name, dtype, shape, bytes} sorted by name, {key = value}; reads no tensor */
static int safetensors_header(lua_State *L) {
    syz_weights **weights = open_weights(L);
    int64_t count = syz_weights_count(*weights);
    lua_createtable(L, (int)count, 0);
    for (int64_t i = 0; i < count; i++) {
        syz_weight_info info = syz_weights_info(*weights, i);
        lua_createtable(L, 0, 4);
        lua_pushstring(L, info.name);
        lua_setfield(L, -2, "name");
        lua_pushstring(L, info.dtype);
        lua_setfield(L, -2, "dtype");
        bind_push_shape(L, info.shape);
        lua_setfield(L, -2, "shape");
        lua_pushnumber(L, (double)info.bytes);
        lua_setfield(L, -2, "bytes");
        lua_rawseti(L, -2, (int)i + 1);
    }
    push_metadata(L, *weights);
    close_weights(weights);
    return 2;
}

/* safetensors.layout(path) -> the layout of another library that the file is in, the class of the model, and its
 * configuration, or nil and why the file does not tell it; nil for a file in no such layout; reads no tensor */
static int safetensors_layout(lua_State *L) {
    syz_weights **weights = open_weights(L);
    const char *class_name, *layout = syz_weights_layout(*weights, &class_name);
    if (!layout) return 0;
    char **text = bind_new(L, &bind_bytes_type, sizeof *text);
    *text = syz_weights_config(*weights, lua_tostring(L, 1));
    if (*text) {
        bind_json_decode(L, *text, strlen(*text));
    } else {
        lua_pushstring(L, syz_error_message());
        syz_error_clear();
    }
    bool told = *text;
    lua_pushstring(L, layout);
    lua_pushstring(L, class_name);
    lua_pushvalue(L, -3);
    if (told) return 3;
    lua_pushnil(L);
    lua_insert(L, -2);
    return 4;
}

static int64_t count_fields(lua_State *L, int index) {
    int64_t n = 0;
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1))
        n++;
    return n;
}

/* A string key of the table at `index` while it is walked; its text stays anchored there. */
static const char *field_name(lua_State *L, int index) {
    if (lua_type(L, -2) != LUA_TSTRING) luaL_argerror(L, index, "names must be strings");
    return lua_tostring(L, -2);
}

/* The metadata table at 3 as pairs, in a userdata that is pushed; values must be strings, as the format has it. */
static const char *(*read_metadata(lua_State *L, int64_t *count))[2] {
    *count = lua_istable(L, 3) ? count_fields(L, 3) : 0;
    const char *(*pairs)[2] = lua_newuserdata(L, ((size_t)*count + 1) * sizeof *pairs);
    if (*count == 0) return pairs;
    int64_t n = 0;
    for (lua_pushnil(L); lua_next(L, 3); lua_pop(L, 1), n++) {
        pairs[n][0] = field_name(L, 3);
        if (lua_type(L, -1) != LUA_TSTRING)
            luaL_argerror(L, 3, lua_pushfstring(L, "metadata \"%s\" must be a string", pairs[n][0]));
        pairs[n][1] = lua_tostring(L, -1);
    }
    return pairs;
}

/* safetensors.write(path, {name = tensor} [, {key = value}]): whole or not at all */
static int safetensors_write(lua_State *L) {
    const char *path = luaL_checkstring(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    if (!lua_isnoneornil(L, 3)) luaL_checktype(L, 3, LUA_TTABLE);
    lua_settop(L, 3);
    int64_t count = count_fields(L, 2), n = 0, nmetadata;
    const char **names = lua_newuserdata(L, ((size_t)count + 1) * sizeof *names);
    syz_tensor **tensors = lua_newuserdata(L, ((size_t)count + 1) * sizeof *tensors);
    for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1), n++) {
        names[n] = field_name(L, 2);
        const bind_tensor *tensor = bind_test(L, -1, &bind_tensor_type);
        if (!tensor) luaL_argerror(L, 2, lua_pushfstring(L, "\"%s\" is not a tensor", names[n]));
        if (!syz_alive(tensor->t)) bind_dead(L, tensor);
        tensors[n] = tensor->t;
    }
    const char *(*metadata)[2] = read_metadata(L, &nmetadata);
    bind_try(L, syz_weights_save(path, names, tensors, count, (const char *const(*)[2])metadata, nmetadata));
    return 0;
}

/* ---- images: u8 [H,W,3]; what writes takes f32 in 0..1 too ---- */

static syz_tensor *make_loaded(void *path) {
    return syz_image_load(path);
}

/* image.read(path) -> u8 tensor [H,W,3] */
static int image_read(lua_State *L) {
    return bind_make(L, make_loaded, (void *)(uintptr_t)luaL_checkstring(L, 1));
}

typedef struct {
    const char *bytes, *name;
    size_t size;
} encoded;

static syz_tensor *make_decoded(void *context) {
    const encoded *e = context;
    return syz_image_decode(e->bytes, e->size, e->name);
}

/* image.decode(bytes [, name for messages]) */
static int image_decode(lua_State *L) {
    encoded e = {.name = luaL_optstring(L, 2, "image")};
    e.bytes = luaL_checklstring(L, 1, &e.size);
    return bind_make(L, make_decoded, &e);
}

/* image.write(path, tensor): .png, .jpg or .jpeg */
static int image_write(lua_State *L) {
    bind_try(L, syz_image_save(luaL_checkstring(L, 1), bind_check_tensor(L, 2)));
    return 0;
}

static int push_encoded(lua_State *L, int quality) {
    syz_tensor *image = bind_check_tensor(L, 1);
    void **bytes = bind_new(L, &bind_bytes_type, sizeof *bytes);
    uint8_t *data = NULL;
    size_t size;
    bind_try(L, syz_image_encode(&data, &size, image, quality));
    *bytes = data;
    lua_pushlstring(L, (const char *)data, size);
    return 1;
}

/* image.png(tensor) -> bytes */
static int image_png(lua_State *L) {
    return push_encoded(L, 0);
}

/* image.jpeg(tensor [, quality 1 to 100]) -> bytes */
static int image_jpeg(lua_State *L) {
    int64_t quality = bind_opt_integer(L, 2, 90);
    if (quality < 1 || quality > 100) return luaL_argerror(L, 2, "a quality from 1 to 100 expected");
    return push_encoded(L, (int)quality);
}

/* ---- registration ---- */

static const luaL_Reg safetensors[] = {{"read", safetensors_read},
                                       {"header", safetensors_header},
                                       {"layout", safetensors_layout},
                                       {"write", safetensors_write},
                                       {NULL, NULL}};

static const luaL_Reg image[] = {{"read", image_read}, {"decode", image_decode}, {"write", image_write},
                                 {"png", image_png},   {"jpeg", image_jpeg},     {NULL, NULL}};

static const luaL_Reg weights_meta[] = {{"__gc", weights_free}, {NULL, NULL}};

void bind_open_io(lua_State *L) {
    bind_new_type(L, &weights_type, NULL, weights_meta);
    lua_pop(L, 1);
    lua_newtable(L);
    luaL_register(L, NULL, safetensors);
    lua_setfield(L, -2, "safetensors");
    lua_newtable(L);
    luaL_register(L, NULL, image);
    lua_setfield(L, -2, "image");
}
