/* Values of tensors from and to Lua: construction from tables, reading back, the one-line summary. */
#include "bind/bind.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- reading ---- */

static double half_value(uint16_t bits) {
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double size = exponent == 31  ? (fraction ? NAN : INFINITY)
                  : exponent == 0 ? ldexp(fraction, -24)
                                  : ldexp(1024 + fraction, exponent - 25);
    return bits & 0x8000 ? -size : size;
}

static double bfloat_value(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

double bind_value(const syz_tensor *t, int64_t i) {
    const void *data = syz_data(t);
    switch (syz_tensor_dtype(t)) {
    case SYZ_F32:
        return ((const float *)data)[i];
    case SYZ_F64:
        return ((const double *)data)[i];
    case SYZ_BF16:
        return bfloat_value(((const uint16_t *)data)[i]);
    case SYZ_F16:
        return half_value(((const uint16_t *)data)[i]);
    case SYZ_I32:
        return ((const int32_t *)data)[i];
    case SYZ_I64:
        return (double)((const int64_t *)data)[i];
    case SYZ_U8:
        return ((const uint8_t *)data)[i];
    case SYZ_DTYPE_COUNT:
        break;
    }
    return NAN;
}

int bind_tensor_table(lua_State *L) {
    bind_to_host(L, 1);
    syz_tensor *t = bind_check_tensor(L, 1);
    int64_t n = syz_numel(t);
    if (n > 1 << 26) return luaL_error(L, "totable: the tensor has more than 2^26 elements");
    lua_createtable(L, (int)n, 0);
    for (int64_t i = 0; i < n; i++) {
        lua_pushnumber(L, bind_value(t, i));
        lua_rawseti(L, -2, (int)i + 1);
    }
    return 1;
}

/* tensor f32 [2,3] mean 3.5 std 1.71 min 1 max 6 {1, 2, 3, 4, ...} */
int bind_tensor_text(lua_State *L) {
    const bind_tensor *tensor = bind_check(L, 1, &bind_tensor_type);
    const syz_tensor *t = tensor->t;
    if (!syz_alive(t)) {
        lua_pushliteral(L, "tensor (freed)");
        return 1;
    }
    enum { SHOWN = 6 };
    char text[512], shape[128], device[24] = "";
    int64_t n = syz_numel(t);
    if (syz_tensor_device(t)) snprintf(device, sizeof device, " cuda:%d", syz_tensor_device(t) - 1);
    int used = snprintf(text, sizeof text, "tensor %s %s%s", syz_dtype_name(syz_tensor_dtype(t)),
                        syz_shape_text(syz_tensor_shape(t), shape, sizeof shape), device);
    bind_to_host(L, 1);
    t = bind_check_tensor(L, 1);
    if (n > 1) {
        double sum = 0, squares = 0, low = INFINITY, high = -INFINITY;
        for (int64_t i = 0; i < n; i++) {
            double value = bind_value(t, i);
            sum += value;
            low = value < low ? value : low;
            high = value > high ? value : high;
        }
        for (int64_t i = 0; i < n; i++)
            squares += pow(bind_value(t, i) - sum / (double)n, 2);
        used += snprintf(text + used, sizeof text - (size_t)used, " mean %.4g std %.4g min %.4g max %.4g",
                         sum / (double)n, sqrt(squares / (double)n), low, high);
    }
    used += snprintf(text + used, sizeof text - (size_t)used, " {");
    for (int64_t i = 0; i < n && i < SHOWN; i++)
        used += snprintf(text + used, sizeof text - (size_t)used, "%s%.5g", i ? ", " : "", bind_value(t, i));
    snprintf(text + used, sizeof text - (size_t)used, n > SHOWN ? ", ...}" : "}");
    lua_pushstring(L, text);
    return 1;
}

/* ---- making ---- */

typedef struct {
    syz_dtype dtype;
    syz_shape shape;
    double value;        /* full */
    const double *array; /* from numbers */
} request;

static int op_cast = -1;

static syz_tensor *make_full(void *context) {
    request *r = context;
    return syz_full(r->dtype, r->shape, r->value);
}

syz_tensor *bind_host_from(syz_dtype dtype, syz_shape shape, const void *data) {
    int device = syz_device_current();
    syz_set_device(0);
    syz_tensor *t = syz_from(dtype, shape, data);
    syz_set_device(device);
    return t;
}

/* Real numbers lie where tensors are made now, whole ones on the CPU: they are indices as a rule. */
static syz_tensor *make_array(void *context) {
    request *r = context;
    syz_tensor *t = bind_host_from(SYZ_F64, r->shape, r->array);
    if (r->dtype != SYZ_F64) t = syz_op_apply(op_cast, (syz_arg[]){{.tensor = t}, {.integer = r->dtype}});
    bool whole = r->dtype == SYZ_I64 || r->dtype == SYZ_I32 || r->dtype == SYZ_U8;
    return whole ? t : syz_copy_to(t, syz_device_current());
}

static syz_tensor *make_cast(void *args) {
    return syz_op_apply(op_cast, args);
}

static int fill_with(lua_State *L, double value, int dtype_at) {
    request r = {.shape = bind_check_shape(L, 1), .dtype = bind_opt_dtype(L, dtype_at, SYZ_F32), .value = value};
    return bind_make(L, make_full, &r);
}

static int core_zeros(lua_State *L) {
    return fill_with(L, 0, 2);
}

static int core_ones(lua_State *L) {
    return fill_with(L, 1, 2);
}

static int core_full(lua_State *L) {
    return fill_with(L, luaL_checknumber(L, 2), 3);
}

static int core_arange(lua_State *L) {
    int64_t n = bind_check_integer(L, 1);
    if (n < 0 || n > 1 << 28) return luaL_argerror(L, 1, "a length from 0 to 2^28 expected");
    request r = {.shape = {1, {n}}, .dtype = bind_opt_dtype(L, 2, SYZ_F32)};
    double *array = lua_newuserdata(L, ((size_t)n + 1) * sizeof *array);
    for (int64_t i = 0; i < n; i++)
        array[i] = (double)i;
    r.array = array;
    return bind_make(L, make_array, &r);
}

/* ---- from nested tables ---- */

/* The shape of the nested table on top of the stack, from its first elements. */
static void infer_shape(lua_State *L, syz_shape *shape) {
    int top = lua_gettop(L);
    while (lua_type(L, -1) == LUA_TTABLE) {
        if (shape->n == SYZ_MAX_DIMS) luaL_argerror(L, 1, "tables nested more than 6 deep");
        shape->dim[shape->n++] = (int64_t)lua_objlen(L, -1);
        lua_rawgeti(L, -1, 1);
    }
    lua_settop(L, top);
}

static bool fits(double value, syz_dtype dtype) {
    if (dtype == SYZ_F32 || dtype == SYZ_F64 || dtype == SYZ_F16 || dtype == SYZ_BF16) return true;
    double low = dtype == SYZ_U8 ? 0 : dtype == SYZ_I32 ? -2147483648.0 : -BIND_EXACT;
    double high = dtype == SYZ_U8 ? 255 : dtype == SYZ_I32 ? 2147483647.0 : BIND_EXACT;
    return value >= low && value <= high && value == floor(value);
}

/* Copy the numbers of the table on top of the stack, `depth` levels of nesting below it. */
static double *flatten(lua_State *L, double *out, const syz_shape *shape, int depth, syz_dtype dtype) {
    size_t length = lua_type(L, -1) == LUA_TTABLE ? lua_objlen(L, -1) : 0;
    if (lua_type(L, -1) != LUA_TTABLE || (int64_t)length != shape->dim[depth])
        luaL_argerror(L, 1, "ragged table: every row needs the same length");
    for (size_t i = 1; i <= length; i++) {
        lua_rawgeti(L, -1, (int)i);
        if (depth + 1 < shape->n) {
            out = flatten(L, out, shape, depth + 1, dtype);
        } else {
            if (lua_type(L, -1) != LUA_TNUMBER)
                luaL_argerror(L, 1, lua_pushfstring(L, "numbers expected, found %s", bind_type_name(L, -1)));
            *out = lua_tonumber(L, -1);
            if (!fits(*out, dtype))
                luaL_argerror(L, 1, lua_pushfstring(L, "%f does not fit dtype %s", *out, syz_dtype_name(dtype)));
            out++;
        }
        lua_pop(L, 1);
    }
    return out;
}

static int64_t product(syz_shape shape) {
    int64_t n = 1;
    for (int i = 0; i < shape.n; i++)
        if (shape.dim[i] < 0 || __builtin_mul_overflow(n, shape.dim[i], &n)) return -1;
    return n;
}

/* tensor(table or number [, shape] [, dtype]) */
static int core_tensor(lua_State *L) {
    bool has_shape = lua_type(L, 2) == LUA_TTABLE || lua_type(L, 2) == LUA_TNUMBER;
    request r = {.dtype = bind_opt_dtype(L, has_shape ? 3 : 2, SYZ_F32)};
    syz_shape nested = {0};
    if (lua_type(L, 1) == LUA_TNUMBER) {
        lua_createtable(L, 1, 0);
        lua_pushvalue(L, 1);
        lua_rawseti(L, -2, 1);
        lua_replace(L, 1);
        nested.n = 1;
        nested.dim[0] = 1;
    } else {
        luaL_checktype(L, 1, LUA_TTABLE);
        lua_pushvalue(L, 1);
        infer_shape(L, &nested);
        r.shape = nested;
    }
    int64_t count = product(nested);
    if (has_shape) r.shape = bind_check_shape(L, 2);
    if (product(r.shape) != count)
        return luaL_argerror(L, 1, lua_pushfstring(L, "%d numbers do not fill the shape", (int)count));
    if (count < 0 || count > 1 << 28) return luaL_argerror(L, 1, "more than 2^28 numbers");
    double *array = lua_newuserdata(L, ((size_t)count + 1) * sizeof *array);
    lua_pushvalue(L, 1);
    flatten(L, array, &nested, 0, r.dtype);
    r.array = array;
    return bind_make(L, make_array, &r);
}

/* t:to(dtype) or t:to(device): recorded operations, so gradients flow back through them. */
static int tensor_to(lua_State *L) {
    if (lua_type(L, 2) == LUA_TSTRING && bind_is_device(lua_tostring(L, 2))) return bind_tensor_to_device(L);
    syz_arg args[2] = {{.tensor = bind_check_tensor(L, 1)}, {.integer = bind_check_dtype(L, 2)}};
    if (syz_tensor_dtype(args[0].tensor) == (syz_dtype)args[1].integer) {
        lua_settop(L, 1);
        return 1;
    }
    return bind_make(L, make_cast, args);
}

static const luaL_Reg functions[] = {
    {"tensor", core_tensor}, {"zeros", core_zeros},   {"ones", core_ones},
    {"full", core_full},     {"arange", core_arange}, {NULL, NULL},
};

void bind_open_values(lua_State *L) {
    for (int op = 0; op < syz_op_count(); op++)
        if (strcmp(syz_op_name(op), "cast") == 0) op_cast = op;
    luaL_register(L, NULL, functions);
    bind_push_metatable(L, &bind_tensor_type);
    lua_getfield(L, -1, "__index");
    lua_pushcfunction(L, tensor_to);
    lua_setfield(L, -2, "to");
    lua_pop(L, 2);
}
