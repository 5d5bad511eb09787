/* The machine and the process: clocks, memory, threads, interruption, terminal. */
#include "bind/bind.h"

#include <luajit.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int push_clock(lua_State *L, clockid_t id) {
    struct timespec now;
    clock_gettime(id, &now);
    lua_pushnumber(L, (double)now.tv_sec + 1e-9 * (double)now.tv_nsec);
    return 1;
}

static int core_clock(lua_State *L) {
    return push_clock(L, CLOCK_MONOTONIC);
}

static int core_cpu_time(lua_State *L) {
    return push_clock(L, CLOCK_PROCESS_CPUTIME_ID);
}

/* sleep(seconds): less when a signal comes */
static int core_sleep(lua_State *L) {
    double seconds = luaL_checknumber(L, 1);
    if (!(seconds >= 0 && seconds <= 86400)) return luaL_argerror(L, 1, "0 to 86400 seconds expected");
    struct timespec pause = {.tv_sec = (time_t)seconds};
    pause.tv_nsec = (long)((seconds - (double)pause.tv_sec) * 1e9);
    nanosleep(&pause, NULL);
    return 0;
}

static int core_unix_time(lua_State *L) {
    return push_clock(L, CLOCK_REALTIME);
}

static void set_number(lua_State *L, const char *name, double value) {
    lua_pushnumber(L, value);
    lua_setfield(L, -2, name);
}

static void set_string(lua_State *L, const char *name, const char *value) {
    lua_pushstring(L, value);
    lua_setfield(L, -2, name);
}

static int core_memory(lua_State *L) {
    syz_memory memory = syz_memory_stats();
    lua_createtable(L, 0, 3);
    set_number(L, "live", (double)memory.live);
    set_number(L, "peak", (double)memory.peak);
    set_number(L, "cached", (double)memory.cached);
    return 1;
}

/* flops(): floating-point operations of products, convolutions and attention since the start */
static int core_flops(lua_State *L) {
    lua_pushnumber(L, syz_flops());
    return 1;
}

static int core_memory_reset_peak(lua_State *L) {
    (void)L;
    syz_memory_reset_peak();
    return 0;
}

/* memory_limit(bytes): 0 lifts it */
static int core_memory_limit(lua_State *L) {
    int64_t bytes = bind_check_integer(L, 1);
    if (bytes < 0) return luaL_argerror(L, 1, "a limit cannot be negative");
    syz_memory_limit((size_t)bytes);
    return 0;
}

static int core_memory_trim(lua_State *L) {
    (void)L;
    syz_memory_trim();
    return 0;
}

/* threads([n]) -> the size of the pool, after setting it */
static int core_threads(lua_State *L) {
    if (!lua_isnoneornil(L, 1)) {
        int64_t n = bind_check_integer(L, 1);
        if (n < 1 || n > 4096) return luaL_argerror(L, 1, "a number of threads from 1 to 4096 expected");
        syz_set_threads((int)n);
    }
    lua_pushinteger(L, syz_threads());
    return 1;
}

/* precision([dtype]) -> the precision of matrix products in force, after asking for one: "bf16" is a request that
 * processors without bf16 products answer with "f32" */
static int core_precision(lua_State *L) {
    if (!lua_isnoneornil(L, 1)) bind_try(L, syz_set_matmul_precision(bind_check_dtype(L, 1)));
    lua_pushstring(L, syz_dtype_name(syz_matmul_precision()));
    return 1;
}

/* fp8(boolean): linear layers of tokens in 8 bits, inside no_grad */
static int core_fp8(lua_State *L) {
    luaL_checktype(L, 1, LUA_TBOOLEAN);
    bind_try(L, syz_set_fp8(lua_toboolean(L, 1)));
    return 0;
}

/* interrupted() -> whether Ctrl-C was pressed and nothing has answered it yet */
static int core_interrupted(lua_State *L) {
    lua_pushboolean(L, bind_interrupt_wanted());
    return 1;
}

/* defer_interrupt(boolean): let the first Ctrl-C wait until it is asked for, or deliver it */
static int core_defer_interrupt(lua_State *L) {
    luaL_checktype(L, 1, LUA_TBOOLEAN);
    bind_interrupt_defer(L, lua_toboolean(L, 1));
    return 0;
}

/* clear_interrupt(): it has been answered */
static int core_clear_interrupt(lua_State *L) {
    bind_interrupt_clear(L);
    return 0;
}

static int core_terminating(lua_State *L) {
    lua_pushboolean(L, bind_terminating());
    return 1;
}

static int core_version(lua_State *L) {
    lua_pushstring(L, syz_version());
    return 1;
}

/* environment(name) -> value or nil */
static int core_environment(lua_State *L) {
    lua_pushstring(L, getenv(luaL_checkstring(L, 1)));
    return 1;
}

/* ---- the processor ---- */

/* Copy what follows "key : " in /proc/cpuinfo. */
static void cpu_field(char *text, size_t size, const char *key) {
    char line[8192];
    FILE *file = fopen("/proc/cpuinfo", "r");
    text[0] = '\0';
    while (file && !text[0] && fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, key, strlen(key)) != 0 || !colon) continue;
        colon += 1 + (colon[1] == ' ');
        colon[strcspn(colon, "\n")] = '\0';
        snprintf(text, size, "%s", colon);
    }
    if (file) fclose(file);
}

static bool has_word(const char *text, const char *word) {
    size_t n = strlen(word);
    for (const char *at = strstr(text, word); at; at = strstr(at + 1, word))
        if ((at == text || at[-1] == ' ') && (at[n] == ' ' || at[n] == '\0')) return true;
    return false;
}

static void set_flags(lua_State *L) {
    static const char *const names[][2] = {
        {"avx2", "avx2"}, {"avx512", "avx512f"}, {"avx512_bf16", "avx512_bf16"}, {"amx_bf16", "amx_bf16"}};
    char flags[8192];
    cpu_field(flags, sizeof flags, "flags");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        lua_pushboolean(L, has_word(flags, names[i][1]));
        lua_setfield(L, -2, names[i][0]);
    }
    lua_pushboolean(L, has_word(flags, "avx512_bf16") || has_word(flags, "amx_bf16"));
    lua_setfield(L, -2, "bf16");
}

/* The version of Landlock that the kernel offers; 0: none. */
static double landlock_version(void) {
    enum { VERSION_QUERY = 1 };
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, VERSION_QUERY);
    return version > 0 ? (double)version : 0;
}

/* machine() -> cpu, avx2, avx512, avx512_bf16, amx_bf16, bf16, cores, ram, onednn, luajit, landlock */
static int core_machine(lua_State *L) {
    char text[256];
    const dnnl_version_t *dnnl = dnnl_version();
    lua_createtable(L, 0, 11);
    cpu_field(text, sizeof text, "model name");
    set_string(L, "cpu", text);
    set_flags(L);
    set_number(L, "landlock", landlock_version());
    set_number(L, "cores", (double)sysconf(_SC_NPROCESSORS_ONLN));
    set_number(L, "ram", (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE));
    snprintf(text, sizeof text, "%d.%d.%d", dnnl->major, dnnl->minor, dnnl->patch);
    set_string(L, "onednn", text);
    set_string(L, "luajit", LUAJIT_VERSION);
    return 1;
}

/* terminal() -> {tty, width} of the standard error output, and whether the standard output is a terminal: stdout */
static int core_terminal(lua_State *L) {
    struct winsize size = {0};
    bool tty = isatty(STDERR_FILENO);
    if (!tty || ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) size.ws_col = 80;
    lua_createtable(L, 0, 3);
    lua_pushboolean(L, tty);
    lua_setfield(L, -2, "tty");
    lua_pushboolean(L, isatty(STDOUT_FILENO));
    lua_setfield(L, -2, "stdout");
    set_number(L, "width", size.ws_col);
    return 1;
}

static const luaL_Reg functions[] = {
    {"clock", core_clock},
    {"cpu_time", core_cpu_time},
    {"unix_time", core_unix_time},
    {"sleep", core_sleep},
    {"flops", core_flops},
    {"memory", core_memory},
    {"memory_reset_peak", core_memory_reset_peak},
    {"memory_limit", core_memory_limit},
    {"memory_trim", core_memory_trim},
    {"threads", core_threads},
    {"precision", core_precision},
    {"fp8", core_fp8},
    {"interrupted", core_interrupted},
    {"defer_interrupt", core_defer_interrupt},
    {"clear_interrupt", core_clear_interrupt},
    {"terminating", core_terminating},
    {"version", core_version},
    {"environment", core_environment},
    {"machine", core_machine},
    {"terminal", core_terminal},
    {NULL, NULL},
};

void bind_open_machine(lua_State *L) {
    luaL_register(L, NULL, functions);
}
