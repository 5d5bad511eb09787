/* Bounds on memory, so that a runaway recipe ends with one line and not with the machine.
 *
 * Lua: an allocator around LuaJIT's own counts bytes. Over `alarm` it arms a hook that collects garbage and, when that
 * leaves more than `soft`, raises an error with a position; over `hard` it refuses, and LuaJIT raises "not enough
 * memory", which happens for one huge allocation only. Tensors: the engine's own limit, a share of what this machine or
 * container has. */
#include "host/host.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)

enum { LUA_MIB = 1024, STEP_MIB = 64, HEADROOM_MIB = 256, TENSOR_PERCENT = 90 };

static struct {
    lua_Alloc allocate; /* LuaJIT's */
    void *data;
    size_t used, alarm, soft, hard;
} heap;

static void memory_hook(lua_State *L, lua_Debug *where) {
    (void)where;
    lua_sethook(L, NULL, 0, 0);
    lua_gc(L, LUA_GCCOLLECT, 0);
    if (heap.used <= heap.soft) return;
    /* Slots of the stack that nobody has written since keep the data alive a little longer: whoever reports this error
     * needs room to do so. */
    heap.alarm = heap.used + STEP_MIB * MIB < heap.hard ? heap.used + STEP_MIB * MIB : heap.hard;
    luaL_where(L, 0);
    lua_pushfstring(L, "Lua data outgrew %d MiB (SYZ_LUA_MEMORY sets the limit; keep bulk data in tensors)",
                    (int)(heap.soft / MIB));
    lua_concat(L, 2);
    lua_error(L);
}

static void *bounded(void *context, void *block, size_t old, size_t size) {
    (void)context;
    size_t total = heap.used - old + size;
    /* As in a signal handler: setting a hook is all that may be done to the state from here. */
    if (size > old && total > heap.alarm && !bind_interrupt_pending())
        lua_sethook(host_state, memory_hook, LUA_MASKCOUNT, 1);
    if (size > old && total > heap.hard) return NULL;
    void *moved = heap.allocate(heap.data, block, old, size);
    if (!moved && size > 0) return NULL;
    heap.used = total;
    if (total <= heap.soft) heap.alarm = heap.soft;
    return moved;
}

/* A limit in MiB from the environment; `missing` when there is none or it is not a positive number. */
static size_t limit_from_environment(const char *name, size_t missing) {
    const char *text = getenv(name);
    long value = text ? strtol(text, NULL, 10) : 0;
    return value > 0 ? (size_t)value : missing;
}

/* Bytes that this process may use: physical memory, or less inside a container. */
static size_t machine_bytes(void) {
    size_t bytes = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    unsigned long long limit = 0;
    FILE *file = fopen("/sys/fs/cgroup/memory.max", "r");
    if (file && fscanf(file, "%llu", &limit) == 1 && limit > 0 && limit < bytes) bytes = (size_t)limit;
    if (file) fclose(file);
    return bytes;
}

void host_bound_memory(lua_State *L) {
    heap.soft = limit_from_environment("SYZ_LUA_MEMORY", LUA_MIB) * MIB;
    heap.alarm = heap.soft;
    heap.hard = heap.soft + HEADROOM_MIB * MIB;
    heap.used = (size_t)lua_gc(L, LUA_GCCOUNT, 0) * 1024 + (size_t)lua_gc(L, LUA_GCCOUNTB, 0);
    heap.allocate = lua_getallocf(L, &heap.data);
    lua_setallocf(L, bounded, NULL);
    syz_memory_limit(machine_bytes() / 100 * TENSOR_PERCENT);
}

void host_unbound_memory(lua_State *L) {
    lua_setallocf(L, heap.allocate, heap.data);
}
