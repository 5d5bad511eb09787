/* Random number generators: their whole state is three numbers, which a checkpoint saves. */
#include "bind/bind.h"

#include <string.h>

static const bind_type generator_type = {"generator"};

static syz_rng *check_generator(lua_State *L) {
    return bind_check(L, 1, &generator_type);
}

typedef struct {
    syz_rng *rng;
    syz_shape shape;
    int64_t low, high;
} request;

static syz_tensor *make_randn(void *context) {
    request *r = context;
    return syz_randn(r->rng, r->shape);
}

static syz_tensor *make_rand(void *context) {
    request *r = context;
    return syz_rand(r->rng, r->shape);
}

static syz_tensor *make_randint(void *context) {
    request *r = context;
    return syz_randint(r->rng, r->low, r->high, r->shape);
}

static int generator_randn(lua_State *L) {
    return bind_make(L, make_randn, &(request){.rng = check_generator(L), .shape = bind_check_shape(L, 2)});
}

static int generator_rand(lua_State *L) {
    return bind_make(L, make_rand, &(request){.rng = check_generator(L), .shape = bind_check_shape(L, 2)});
}

static int generator_randint(lua_State *L) {
    request r = {.rng = check_generator(L),
                 .low = bind_check_integer(L, 2),
                 .high = bind_check_integer(L, 3),
                 .shape = bind_check_shape(L, 4)};
    return bind_make(L, make_randint, &r);
}

/* ---- single numbers: one counter block each ---- */

typedef struct {
    request request;
    int64_t value[2];
} drawn;

static syz_status draw(void *context) {
    drawn *d = context;
    syz_tensor *t = syz_randint(d->request.rng, d->request.low, d->request.high, (syz_shape){1, {2}});
    if (t) memcpy(d->value, syz_data(t), sizeof d->value);
    return t ? SYZ_OK : syz_error_status();
}

/* g:number() in [0,1), with 53 random bits */
static int generator_number(lua_State *L) {
    drawn d = {.request = {.rng = check_generator(L), .high = 1 << 27}};
    bind_try(L, bind_run(draw, &d));
    lua_pushnumber(L, ((double)d.value[0] * (1 << 26) + (double)(d.value[1] >> 1)) / BIND_EXACT);
    return 1;
}

/* g:integer(low, high), both included */
static int generator_integer(lua_State *L) {
    drawn d = {.request = {.rng = check_generator(L), .low = bind_check_integer(L, 2)}};
    d.request.high = bind_check_integer(L, 3) + 1;
    if (d.request.high <= d.request.low) return luaL_argerror(L, 3, "the highest value is below the lowest");
    bind_try(L, bind_run(draw, &d));
    lua_pushnumber(L, (double)d.value[0]);
    return 1;
}

/* ---- state ---- */

static int generator_state(lua_State *L) {
    const syz_rng *rng = check_generator(L);
    lua_createtable(L, 0, 3);
    bind_push_u64(L, rng->seed);
    lua_setfield(L, -2, "seed");
    bind_push_u64(L, rng->stream);
    lua_setfield(L, -2, "stream");
    bind_push_u64(L, rng->offset);
    lua_setfield(L, -2, "offset");
    return 1;
}

static uint64_t state_field(lua_State *L, const char *name) {
    lua_getfield(L, 2, name);
    if (lua_isnil(L, -1)) luaL_argerror(L, 2, lua_pushfstring(L, "the state lacks \"%s\"", name));
    uint64_t value = bind_check_u64(L, lua_gettop(L));
    lua_pop(L, 1);
    return value;
}

static int generator_set_state(lua_State *L) {
    syz_rng *rng = check_generator(L);
    luaL_checktype(L, 2, LUA_TTABLE);
    *rng = (syz_rng){state_field(L, "seed"), state_field(L, "stream"), state_field(L, "offset")};
    lua_settop(L, 1);
    return 1;
}

/* generator(seed [, stream]) */
static int core_generator(lua_State *L) {
    uint64_t seed = bind_check_u64(L, 1), stream = lua_isnoneornil(L, 2) ? 0 : bind_check_u64(L, 2);
    *(syz_rng *)bind_new(L, &generator_type, sizeof(syz_rng)) = (syz_rng){seed, stream, 0};
    return 1;
}

static const luaL_Reg methods[] = {
    {"randn", generator_randn},         {"rand", generator_rand},
    {"randint", generator_randint},     {"number", generator_number},
    {"integer", generator_integer},     {"state", generator_state},
    {"set_state", generator_set_state}, {NULL, NULL},
};

void bind_open_rng(lua_State *L) {
    bind_new_type(L, &generator_type, methods, NULL);
    lua_pop(L, 1);
    lua_pushcfunction(L, core_generator);
    lua_setfield(L, -2, "generator");
}
