/* Operations: the catalogue of ops/ops.def as functions and methods, and the operators of tensors. No operation is
 * named here except those that operators need. */
#include "bind/bind.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

enum { MAX_ARGS = 16 };

static int find_op(const char *name) {
    for (int op = 0; op < syz_op_count(); op++)
        if (strcmp(syz_op_name(op), name) == 0) return op;
    return -1;
}

/* ---- argument names for messages, from the C parameter list "(syz_tensor *x, double scale)" ---- */

/* Copy the name of the C parameter number `k` (from 0). */
static void param_name(int op, int k, char *name, size_t size) {
    const char *text = syz_op_params(op);
    for (; k > 0 && text; k--)
        text = strchr(text + 1, ',');
    const char *end = text ? strpbrk(text + 1, ",)") : NULL, *start = end;
    while (start && start > text && (isalnum((unsigned char)start[-1]) || start[-1] == '_'))
        start--;
    size_t length = start ? (size_t)(end - start) : 0;
    if (length >= size) length = size - 1;
    memcpy(name, start ? start : "", length);
    name[length] = '\0';
}

/* A list is one argument in Lua but two parameters in C. */
static int c_position(int op, int argument) {
    int position = argument;
    for (int k = 0; k < argument; k++)
        position += syz_op_signature(op)[k] == 'L';
    return position;
}

static const char *expected(char letter) {
    switch (letter) {
    case 'T':
        return "a tensor";
    case 't':
        return "a tensor or nil";
    case 'L':
        return "a list of tensors";
    case 'i':
        return "an integer";
    case 'b':
        return "true or false";
    case 'f':
        return "a number";
    default:
        return "a list of integers such as {2, 3}";
    }
}

static int wrong_argument(lua_State *L, int op, int k) {
    char name[48];
    param_name(op, c_position(op, k), name, sizeof name);
    const char *need = expected(syz_op_signature(op)[k]);
    if (lua_isnoneornil(L, k + 1))
        return luaL_error(L, "%s: argument %d (%s) is missing: it must be %s", syz_op_name(op), k + 1, name, need);
    return luaL_error(L, "%s: argument %d (%s) must be %s, not %s", syz_op_name(op), k + 1, name, need,
                      bind_type_name(L, k + 1));
}

/* ---- reading arguments ---- */

static syz_tensor *read_tensor(lua_State *L, int op, int k) {
    const bind_tensor *tensor = bind_test(L, k + 1, &bind_tensor_type);
    if (!tensor) wrong_argument(L, op, k);
    if (!syz_alive(tensor->t)) bind_dead(L, tensor);
    return tensor->t;
}

static void read_integer(lua_State *L, int op, int k, syz_arg *arg) {
    char name[48];
    syz_dtype dtype;
    if (bind_to_integer(L, k + 1, &arg->integer)) return;
    param_name(op, c_position(op, k), name, sizeof name);
    if (lua_type(L, k + 1) == LUA_TSTRING && strcmp(name, "dtype") == 0 &&
        syz_dtype_parse(&dtype, lua_tostring(L, k + 1)))
        arg->integer = dtype;
    else
        wrong_argument(L, op, k);
}

static void read_argument(lua_State *L, int op, int k, char letter, syz_arg *arg) {
    const char *why;
    int at = k + 1;
    if (letter == 'T' || letter == 't') {
        arg->tensor = read_tensor(L, op, k);
    } else if (letter == 'L') {
        if (lua_type(L, at) != LUA_TTABLE) wrong_argument(L, op, k);
        arg->list = bind_check_list(L, at, &arg->integer);
    } else if (letter == 'i') {
        read_integer(L, op, k, arg);
    } else if (letter == 'b') {
        if (lua_type(L, at) != LUA_TBOOLEAN) wrong_argument(L, op, k);
        arg->integer = lua_toboolean(L, at);
    } else if (letter == 'f') {
        if (lua_type(L, at) != LUA_TNUMBER) wrong_argument(L, op, k);
        arg->number = lua_tonumber(L, at);
    } else if (!bind_to_shape(L, at, &arg->shape, &why)) {
        wrong_argument(L, op, k);
    }
}

/* ---- calling ---- */

typedef struct {
    int op;
    syz_arg args[MAX_ARGS];
} call;

static syz_tensor *make_op(void *context) {
    call *c = context;
    return syz_op_apply(c->op, c->args);
}

static int apply(lua_State *L, int op) {
    call c = {.op = op};
    const char *signature = syz_op_signature(op);
    int count = (int)strlen(signature), given = lua_gettop(L);
    if (given > count)
        return luaL_error(L, "%s takes %d argument%s, not %d", syz_op_name(op), count, count == 1 ? "" : "s", given);
    lua_settop(L, count); /* a list's C array goes above the arguments */
    for (int k = 0; k < count; k++) {
        if (lua_isnil(L, k + 1)) {
            if (signature[k] == 'T' || signature[k] == 'L') return wrong_argument(L, op, k);
        } else {
            read_argument(L, op, k, signature[k], &c.args[k]);
        }
    }
    return bind_make(L, make_op, &c);
}

static int call_op(lua_State *L) {
    return apply(L, (int)lua_tointeger(L, lua_upvalueindex(1)));
}

/* ---- numbers beside tensors ---- */

typedef enum { ADD, SUB, MUL, DIV, MAXIMUM, MINIMUM, BINARY_COUNT } binary;

static const char *const binary_names[BINARY_COUNT] = {"add", "sub", "mul", "div", "maximum", "minimum"};
static int binary_ops[BINARY_COUNT], op_affine, op_pow, op_clamp;

typedef struct {
    binary kind;
    bool number_first;
    syz_tensor *x;
    double number;
} mixed;

static syz_tensor *with_numbers(int op, syz_tensor *x, double a, double b) {
    return syz_op_apply(op, (syz_arg[]){{.tensor = x}, {.number = a}, {.number = b}});
}

static syz_tensor *make_mixed(void *context) {
    const mixed *m = context;
    double n = m->number;
    switch (m->kind) {
    case ADD:
        return with_numbers(op_affine, m->x, 1, n);
    case SUB:
        return m->number_first ? with_numbers(op_affine, m->x, -1, n) : with_numbers(op_affine, m->x, 1, -n);
    case MUL:
        return with_numbers(op_affine, m->x, n, 0);
    case DIV:
        if (!m->number_first) return with_numbers(op_affine, m->x, 1 / n, 0);
        return with_numbers(op_affine, with_numbers(op_pow, m->x, -1, 0), n, 0);
    case MAXIMUM:
        return with_numbers(op_clamp, m->x, n, INFINITY);
    default:
        return with_numbers(op_clamp, m->x, -INFINITY, n);
    }
}

/* add, sub, mul, div, maximum, minimum: two tensors, or a tensor and a number in either order. */
static int call_binary(lua_State *L) {
    binary kind = (binary)lua_tointeger(L, lua_upvalueindex(1));
    bool first = lua_type(L, 1) == LUA_TNUMBER, second = lua_type(L, 2) == LUA_TNUMBER;
    if (first == second || lua_gettop(L) > 2) return apply(L, binary_ops[kind]);
    mixed m = {.kind = kind, .number_first = first, .number = lua_tonumber(L, first ? 1 : 2)};
    m.x = read_tensor(L, binary_ops[kind], first ? 1 : 0);
    return bind_make(L, make_mixed, &m);
}

/* ---- operators ---- */

static int tensor_negate(lua_State *L) {
    mixed m = {.kind = MUL, .x = bind_check_tensor(L, 1), .number = -1};
    return bind_make(L, make_mixed, &m);
}

static int tensor_power(lua_State *L) {
    return apply(L, op_pow);
}

static void push_binary(lua_State *L, binary kind) {
    lua_pushinteger(L, (lua_Integer)kind);
    lua_pushcclosure(L, call_binary, 1);
}

static void add_operators(lua_State *L) {
    static const char *const events[] = {[ADD] = "__add", [SUB] = "__sub", [MUL] = "__mul", [DIV] = "__div"};
    for (binary kind = ADD; kind <= DIV; kind++) {
        push_binary(L, kind);
        lua_setfield(L, -2, events[kind]);
    }
    lua_pushcfunction(L, tensor_negate);
    lua_setfield(L, -2, "__unm");
    lua_pushcfunction(L, tensor_power);
    lua_setfield(L, -2, "__pow");
}

/* Push the Lua function of an operation. */
static void push_op(lua_State *L, int op) {
    for (binary kind = ADD; kind < BINARY_COUNT; kind++) {
        if (binary_ops[kind] != op) continue;
        push_binary(L, kind);
        return;
    }
    lua_pushinteger(L, op);
    lua_pushcclosure(L, call_op, 1);
}

/* core.ops.NAME for all, t:NAME for those whose first argument is a tensor; the tensor's own methods win. */
void bind_open_ops(lua_State *L) {
    for (binary kind = ADD; kind < BINARY_COUNT; kind++)
        binary_ops[kind] = find_op(binary_names[kind]);
    op_affine = find_op("affine");
    op_pow = find_op("pow");
    op_clamp = find_op("clamp");
    lua_createtable(L, 0, syz_op_count());
    bind_push_metatable(L, &bind_tensor_type);
    add_operators(L);
    lua_getfield(L, -1, "__index");
    lua_replace(L, -2);
    for (int op = 0; op < syz_op_count(); op++) {
        const char *name = syz_op_name(op);
        push_op(L, op);
        lua_pushvalue(L, -1);
        lua_setfield(L, -4, name);
        lua_getfield(L, -2, name);
        bool taken = !lua_isnil(L, -1);
        lua_pop(L, 1);
        if (syz_op_signature(op)[0] == 'T' && !taken)
            lua_setfield(L, -2, name);
        else
            lua_pop(L, 1);
    }
    lua_pop(L, 1);
    lua_setfield(L, -2, "ops");
}
