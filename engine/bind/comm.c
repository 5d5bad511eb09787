/* core.comm: what the processes of one run do together. */
#include "bind/bind.h"

#include <string.h>

static const bind_type comm_type = {"comm"};

static syz_comm **check_slot(lua_State *L) {
    return bind_check(L, 1, &comm_type);
}

static syz_comm *check_comm(lua_State *L) {
    syz_comm *comm = *check_slot(L);
    if (!comm) luaL_error(L, "the comm is closed");
    return comm;
}

/* ---- creation ---- */

static int integer_field(lua_State *L, const char *name, int missing) {
    int64_t value = missing;
    lua_getfield(L, 1, name);
    if (!lua_isnil(L, -1) && (!bind_to_integer(L, -1, &value) || value < -1 || value > 1000000))
        luaL_error(L, "comm: %s must be a whole number", name);
    lua_pop(L, 1);
    return (int)value;
}

/* The string stays on the stack, and so alive. */
static const char *string_field(lua_State *L, const char *name, const char *missing) {
    lua_getfield(L, 1, name);
    if (lua_isnil(L, -1)) return missing;
    if (lua_type(L, -1) != LUA_TSTRING) luaL_error(L, "comm: %s must be a string", name);
    return lua_tostring(L, -1);
}

static void check_fields(lua_State *L) {
    static const char *const known[] = {"kind", "rank", "size", "local_rank", "address", "port", "timeout", NULL};
    for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) {
        const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
        int k = 0;
        while (known[k] && strcmp(known[k], name) != 0)
            k++;
        if (!known[k])
            luaL_error(L, "comm: unknown field \"%s\": kind, rank, size, local_rank, address, port, timeout", name);
    }
}

static double number_field(lua_State *L, const char *name, double missing) {
    lua_getfield(L, 1, name);
    if (!lua_isnil(L, -1) && lua_type(L, -1) != LUA_TNUMBER) luaL_error(L, "comm: %s must be a number", name);
    double value = lua_isnil(L, -1) ? missing : lua_tonumber(L, -1);
    lua_pop(L, 1);
    return value;
}

/* comm([{kind, rank, size, local_rank, address, port, timeout}]): without size, what is not given comes from the
 * environment */
static int new_comm(lua_State *L) {
    syz_comm_options options = {.timeout = 1800};
    const char *kind = NULL;
    bool given = !lua_isnoneornil(L, 1);
    if (given) {
        luaL_checktype(L, 1, LUA_TTABLE);
        check_fields(L);
        options.size = integer_field(L, "size", 0);
        options.local_rank = integer_field(L, "rank", 0);
    }
    if (options.size == 0) bind_try(L, syz_comm_environment(&options));
    if (given) {
        options.rank = integer_field(L, "rank", options.rank);
        options.local_rank = integer_field(L, "local_rank", options.local_rank);
        options.port = integer_field(L, "port", options.port);
        options.timeout = number_field(L, "timeout", options.timeout);
        options.address = string_field(L, "address", options.address);
        kind = string_field(L, "kind", NULL);
    }
    syz_comm **slot = bind_new(L, &comm_type, sizeof *slot);
    bind_try(L, syz_comm_create(slot, kind, &options));
    return 1;
}

/* c:close(): the other ranks find it gone */
static int comm_close(lua_State *L) {
    syz_comm **slot = check_slot(L);
    syz_comm_free(*slot);
    *slot = NULL;
    return 0;
}

static int comm_kind(lua_State *L) {
    lua_pushstring(L, syz_comm_kind(check_comm(L)));
    return 1;
}

static int comm_rank(lua_State *L) {
    lua_pushinteger(L, syz_comm_rank(check_comm(L)));
    return 1;
}

static int comm_size(lua_State *L) {
    lua_pushinteger(L, syz_comm_size(check_comm(L)));
    return 1;
}

/* ---- operations ---- */

static syz_reduction check_reduction(lua_State *L, int index) {
    static const char *const names[] = {[SYZ_SUM] = "sum", [SYZ_MEAN] = "mean", NULL};
    return (syz_reduction)luaL_checkoption(L, index, "sum", names);
}

/* c:all_reduce(t [, "sum"|"mean"]) -> t, in place */
static int comm_all_reduce(lua_State *L) {
    syz_comm *comm = check_comm(L);
    bind_try(L, syz_comm_all_reduce(comm, bind_check_tensor(L, 2), check_reduction(L, 3)));
    lua_settop(L, 2);
    return 1;
}

/* c:broadcast(t [, root]) -> t, in place */
static int comm_broadcast(lua_State *L) {
    syz_comm *comm = check_comm(L);
    syz_tensor *t = bind_check_tensor(L, 2);
    int64_t root = bind_opt_integer(L, 3, 0);
    if (root < 0 || root >= syz_comm_size(comm))
        return luaL_argerror(L, 3, "there is no such rank: 0 to size - 1 expected");
    bind_try(L, syz_comm_broadcast(comm, t, (int)root));
    lua_settop(L, 2);
    return 1;
}

static int comm_barrier(lua_State *L) {
    bind_try(L, syz_comm_barrier(check_comm(L)));
    return 0;
}

typedef struct {
    syz_comm *comm;
    syz_tensor *in;
    syz_shape shape;
    syz_reduction how;
} change;

static syz_tensor *make_gathered(void *context) {
    const change *c = context;
    syz_tensor *out = syz_empty(syz_tensor_dtype(c->in), c->shape);
    return out && syz_comm_all_gather(c->comm, out, c->in) == SYZ_OK ? out : NULL;
}

static syz_tensor *make_scattered(void *context) {
    const change *c = context;
    syz_tensor *out = syz_empty(syz_tensor_dtype(c->in), c->shape);
    return out && syz_comm_reduce_scatter(c->comm, out, c->in, c->how) == SYZ_OK ? out : NULL;
}

/* c:all_gather(t [n,...]) -> [size * n,...]: the ranks' tensors one after the other */
static int comm_all_gather(lua_State *L) {
    change c = {.comm = check_comm(L), .in = bind_check_tensor(L, 2)};
    c.shape = syz_tensor_shape(c.in);
    if (c.shape.n == 0) return luaL_argerror(L, 2, "a tensor with at least one dimension expected");
    c.shape.dim[0] *= syz_comm_size(c.comm);
    return bind_make(L, make_gathered, &c);
}

/* c:reduce_scatter(t [size * n,...] [, "sum"|"mean"]) -> [n,...]: this rank's part */
static int comm_reduce_scatter(lua_State *L) {
    change c = {.comm = check_comm(L), .in = bind_check_tensor(L, 2), .how = check_reduction(L, 3)};
    c.shape = syz_tensor_shape(c.in);
    int size = syz_comm_size(c.comm);
    if (c.shape.n == 0 || c.shape.dim[0] % size != 0)
        return luaL_argerror(L, 2, lua_pushfstring(L, "the first dimension must be a multiple of %d, the ranks", size));
    c.shape.dim[0] /= size;
    return bind_make(L, make_scattered, &c);
}

/* c:all_reduce_grads(params): the mean over ranks in place of each gradient */
static int comm_all_reduce_grads(lua_State *L) {
    int64_t count;
    syz_comm *comm = check_comm(L);
    syz_tensor **params = bind_check_list(L, 2, &count);
    bind_try(L, syz_comm_all_reduce_grads(comm, params, count));
    return 0;
}

static const luaL_Reg methods[] = {{"close", comm_close},
                                   {"kind", comm_kind},
                                   {"rank", comm_rank},
                                   {"size", comm_size},
                                   {"all_reduce", comm_all_reduce},
                                   {"broadcast", comm_broadcast},
                                   {"barrier", comm_barrier},
                                   {"all_gather", comm_all_gather},
                                   {"reduce_scatter", comm_reduce_scatter},
                                   {"all_reduce_grads", comm_all_reduce_grads},
                                   {NULL, NULL}};

void bind_open_comm(lua_State *L) {
    const luaL_Reg meta[] = {{"__gc", comm_close}, {NULL, NULL}};
    bind_new_type(L, &comm_type, methods, meta);
    lua_pop(L, 1);
    lua_pushcfunction(L, new_comm);
    lua_setfield(L, -2, "comm");
}
