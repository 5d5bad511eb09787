/* Data sets in, TensorBoard events and YAML out: webdataset, tfevents, yaml. */
#include "bind/bind.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static const bind_type shard_type = {"webdataset"}, events_type = {"tfevents"};

typedef struct {
    syz_webdataset *shard;
    int64_t next;
} bind_shard;

typedef struct {
    syz_events *events;
} bind_events;

/* The iterator: key, {extension = bytes}. */
static int shard_next(lua_State *L) {
    bind_shard *self = bind_check(L, lua_upvalueindex(1), &shard_type);
    syz_sample sample = syz_webdataset_sample(self->shard, self->next);
    if (!sample.key) return 0;
    self->next++;
    lua_pushstring(L, sample.key);
    lua_createtable(L, 0, (int)sample.count);
    for (int64_t k = 0; k < sample.count; k++) {
        lua_pushlstring(L, sample.files[k].data, sample.files[k].size);
        lua_setfield(L, -2, sample.files[k].extension);
    }
    return 2;
}

/* webdataset(path) -> iterator over the samples in the archive's order */
static int new_shard(lua_State *L) {
    const char *path = luaL_checkstring(L, 1);
    bind_shard *self = bind_new(L, &shard_type, sizeof *self);
    self->shard = syz_webdataset_open(path);
    if (!self->shard) return bind_raise(L);
    lua_pushcclosure(L, shard_next, 1);
    return 1;
}

static int shard_gc(lua_State *L) {
    bind_shard *self = bind_check(L, 1, &shard_type);
    syz_webdataset_close(self->shard);
    self->shard = NULL;
    return 0;
}

/* ---- TensorBoard ---- */

static double wall_time(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static bind_events *check_events(lua_State *L) {
    bind_events *self = bind_check(L, 1, &events_type);
    if (!self->events) luaL_error(L, "this event file is closed");
    return self;
}

/* tfevents(folder): one event file per folder, appended to when it exists */
static int new_events(lua_State *L) {
    const char *folder = luaL_checkstring(L, 1);
    bind_events *self = bind_new(L, &events_type, sizeof *self);
    const char *path = lua_pushfstring(L, "%s/events.out.tfevents.0.syz", folder);
    self->events = syz_events_open(path, wall_time());
    lua_pop(L, 1);
    return self->events ? 1 : bind_raise(L);
}

static int events_scalar(lua_State *L) {
    bind_events *self = check_events(L);
    const char *tag = luaL_checkstring(L, 2);
    int64_t step = bind_check_integer(L, 3);
    bind_try(L, syz_events_scalar(self->events, tag, step, luaL_checknumber(L, 4), wall_time()));
    return 0;
}

static int events_image(lua_State *L) {
    bind_events *self = check_events(L);
    const char *tag = luaL_checkstring(L, 2);
    int64_t step = bind_check_integer(L, 3);
    bind_try(L, syz_events_image(self->events, tag, step, bind_check_tensor(L, 4), wall_time()));
    return 0;
}

static int events_close(lua_State *L) {
    bind_events *self = bind_check(L, 1, &events_type);
    syz_events_close(self->events);
    self->events = NULL;
    return 0;
}

/* ---- YAML, by way of JSON ---- */

static int push_owned_text(lua_State *L, char *text) {
    if (!text) return bind_raise(L);
    lua_pushstring(L, text);
    free(text);
    return 1;
}

/* yaml.decode(text [, name]) -> value */
static int yaml_decode(lua_State *L) {
    size_t size;
    const char *text = luaL_checklstring(L, 1, &size);
    push_owned_text(L, syz_yaml_to_json(text, size, luaL_optstring(L, 2, "YAML")));
    const char *json = lua_tolstring(L, -1, &size);
    return bind_json_decode(L, json, size);
}

/* yaml.encode(value) -> text */
static int yaml_encode(lua_State *L) {
    luaL_checkany(L, 1);
    bind_json_encode(L, 1, false);
    size_t size;
    const char *json = lua_tolstring(L, -1, &size);
    return push_owned_text(L, syz_yaml_from_json(json, size, "value"));
}

static const luaL_Reg events_methods[] = {
    {"scalar", events_scalar}, {"image", events_image}, {"close", events_close}, {NULL, NULL}};

void bind_open_data(lua_State *L) {
    const luaL_Reg none[] = {{NULL, NULL}}, shard_meta[] = {{"__gc", shard_gc}, {NULL, NULL}},
                   events_meta[] = {{"__gc", events_close}, {NULL, NULL}};
    bind_new_type(L, &shard_type, none, shard_meta);
    lua_pop(L, 1);
    bind_new_type(L, &events_type, events_methods, events_meta);
    lua_pop(L, 1);
    lua_pushcfunction(L, new_shard);
    lua_setfield(L, -2, "webdataset");
    lua_pushcfunction(L, new_events);
    lua_setfield(L, -2, "tfevents");
    lua_createtable(L, 0, 2);
    lua_pushcfunction(L, yaml_decode);
    lua_setfield(L, -2, "decode");
    lua_pushcfunction(L, yaml_encode);
    lua_setfield(L, -2, "encode");
    lua_setfield(L, -2, "yaml");
}
