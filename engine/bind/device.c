/* Devices from Lua: which there are, what their memory is used for, where tensors and models lie. */
#include "bind/bind.h"

#include <stdio.h>
#include <string.h>

static int check_device(lua_State *L, int index) {
    int device;
    bind_try(L, syz_device_parse(&device, luaL_checkstring(L, index)));
    return device;
}

static void push_device(lua_State *L, int device) {
    if (device == 0)
        lua_pushliteral(L, "cpu");
    else
        lua_pushfstring(L, "cuda:%d", device - 1);
}

static void set_number(lua_State *L, const char *name, double value) {
    lua_pushnumber(L, value);
    lua_setfield(L, -2, name);
}

/* device_count() -> the number of usable GPUs */
static int core_device_count(lua_State *L) {
    lua_pushinteger(L, syz_device_count());
    return 1;
}

/* check_device(name) -> the device's full name ("cuda" is "cuda:0"); raises one line when it cannot be used */
static int core_check_device(lua_State *L) {
    push_device(L, check_device(L, 1));
    return 1;
}

/* set_device(name): where tensors are made, and models loaded, from now on; whole numbers stay on the CPU */
static int core_set_device(lua_State *L) {
    bind_try(L, syz_set_device(check_device(L, 1)));
    return 0;
}

/* current_device(): what was set, by its full name */
static int core_current_device(lua_State *L) {
    push_device(L, syz_device_current());
    return 1;
}

/* synchronize(): wait until every GPU has done what was asked of it */
static int core_synchronize(lua_State *L) {
    bind_try(L, syz_synchronize());
    return 0;
}

static void push_info(lua_State *L, int device) {
    syz_device_info info;
    bind_try(L, syz_device_describe(device, &info));
    lua_createtable(L, 0, 3);
    lua_pushstring(L, info.name);
    lua_setfield(L, -2, "name");
    set_number(L, "compute", info.compute);
    set_number(L, "memory", (double)info.memory);
}

/* cuda_status() -> built, driver, runtime, cudnn (absent when not there), devices {name, compute, memory}, problem */
static int core_cuda_status(lua_State *L) {
    syz_cuda_report report;
    syz_cuda_status(&report);
    lua_newtable(L);
    lua_pushboolean(L, report.built);
    lua_setfield(L, -2, "built");
    if (!report.built) return 1;
    if (report.driver) set_number(L, "driver", report.driver);
    if (report.runtime) set_number(L, "runtime", report.runtime);
    if (report.cudnn) set_number(L, "cudnn", report.cudnn);
    if (report.nccl) set_number(L, "nccl", report.nccl);
    lua_createtable(L, report.devices, 0);
    for (int device = 1; device <= report.devices; device++) {
        push_info(L, device);
        lua_rawseti(L, -2, device);
    }
    lua_setfield(L, -2, "devices");
    if (report.problem[0]) {
        lua_pushstring(L, report.problem);
        lua_setfield(L, -2, "problem");
    }
    return 1;
}

static void push_use(lua_State *L, const syz_device_use *use, bool peak) {
    lua_newtable(L);
    for (size_t k = 0; k < sizeof use->uses / sizeof *use->uses; k++)
        set_number(L, use->uses[k].name, (double)(peak ? use->uses[k].at_peak : use->uses[k].live));
}

/* device_memory(name) -> live, peak, unused, total in bytes; uses and peak_uses {weights, gradients, optimizer,
 * activations} */
static int core_device_memory(lua_State *L) {
    syz_device_use use;
    bind_try(L, syz_device_memory(check_device(L, 1), &use));
    lua_createtable(L, 0, 6);
    set_number(L, "live", (double)use.live);
    set_number(L, "peak", (double)use.peak);
    set_number(L, "unused", (double)use.unused);
    set_number(L, "total", (double)use.total);
    push_use(L, &use, false);
    lua_setfield(L, -2, "uses");
    push_use(L, &use, true);
    lua_setfield(L, -2, "peak_uses");
    return 1;
}

/* device_reset_peak(name) */
static int core_device_reset_peak(lua_State *L) {
    syz_device_reset_peak(check_device(L, 1));
    return 0;
}

/* device_limit(name, bytes): tensors there may use no more; 0 lifts the limit */
static int core_device_limit(lua_State *L) {
    int64_t bytes = bind_check_integer(L, 2);
    if (bytes < 0) return luaL_argerror(L, 2, "a limit cannot be negative");
    syz_device_limit(check_device(L, 1), (size_t)bytes);
    return 0;
}

/* ---- tensors and models ---- */

/* t:device() -> "cpu", "cuda:0", ... */
static int tensor_device(lua_State *L) {
    push_device(L, syz_tensor_device(bind_check_tensor(L, 1)));
    return 1;
}

bool bind_is_device(const char *name) {
    return strcmp(name, "cpu") == 0 || strncmp(name, "cuda", 4) == 0;
}

typedef struct {
    syz_tensor *t;
    int device;
} move;

static syz_tensor *make_moved(void *context) {
    static int op = -1;
    const move *m = context;
    for (int k = 0; op < 0; k++)
        if (strcmp(syz_op_name(k), "to_device") == 0) op = k;
    return syz_op_apply(op, (syz_arg[]){{.tensor = m->t}, {.integer = m->device}});
}

/* t:to(device): a recorded operation, so gradients flow back; t itself where it lies there */
int bind_tensor_to_device(lua_State *L) {
    move m = {bind_check_tensor(L, 1), check_device(L, 2)};
    if (syz_tensor_device(m.t) != m.device) return bind_make(L, make_moved, &m);
    lua_settop(L, 1);
    return 1;
}

static syz_tensor *make_host(void *t) {
    return syz_copy_to(t, 0);
}

void bind_to_host(lua_State *L, int index) {
    syz_tensor *t = bind_check_tensor(L, index);
    if (syz_tensor_device(t) == 0) return;
    bind_make(L, make_host, t);
    lua_replace(L, index);
}

/* model:to(device): all parameters, their gradients and adapters; returns the model */
int bind_model_to(lua_State *L) {
    syz_model *model = bind_check_model(L, 1);
    bind_try(L, syz_model_to_device(model, check_device(L, 2)));
    lua_settop(L, 1);
    return 1;
}

/* model:device() */
int bind_model_device(lua_State *L) {
    push_device(L, syz_model_device(bind_check_model(L, 1)));
    return 1;
}

static const luaL_Reg functions[] = {
    {"device_count", core_device_count},   {"check_device", core_check_device},
    {"set_device", core_set_device},       {"current_device", core_current_device},
    {"synchronize", core_synchronize},     {"cuda_status", core_cuda_status},
    {"device_memory", core_device_memory}, {"device_reset_peak", core_device_reset_peak},
    {"device_limit", core_device_limit},   {NULL, NULL},
};

void bind_open_device(lua_State *L) {
    luaL_register(L, NULL, functions);
    bind_push_metatable(L, &bind_tensor_type);
    lua_getfield(L, -1, "__index");
    lua_pushcfunction(L, tensor_device);
    lua_setfield(L, -2, "device");
    lua_pop(L, 2);
}
