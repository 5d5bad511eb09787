/* syz: the command line. C makes the interpreter, signals and limits; everything a person sees is lua/syz/cli.lua. */
#include "host/host.h"

#include <luajit.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

lua_State *host_state;

static void on_interrupt(int signal_number) {
    /* A second Ctrl-C before the first was noticed ends the process as usual. */
    signal(signal_number, bind_interrupt_pending() ? SIG_DFL : on_interrupt);
    bind_interrupt(host_state);
}

static void on_terminate(int signal_number) {
    (void)signal_number;
    bind_terminate(host_state);
}

/* Where the Lua library lies: $SYZ_LUA, or the source tree that this program was built from. */
static const char *library_folder(void) {
    const char *folder = getenv("SYZ_LUA");
    return folder ? folder : SYZ_SOURCE_DIR "/lua";
}

/* A moved source tree or a wrong variable is told in one line, not as the list of places `require` looked at. */
static bool library_found(void) {
    char path[4096];
    int length = snprintf(path, sizeof path, "%s/syz/cli.lua", library_folder());
    if (length > 0 && (size_t)length < sizeof path && access(path, R_OK) == 0) return true;
    fprintf(stderr, "syz: there is no readable %s: set SYZ_LUA to the folder that holds Syzygy's Lua files\n", path);
    return false;
}

static void set_library_path(lua_State *L) {
    const char *folder = library_folder();
    lua_getglobal(L, "package");
    lua_pushfstring(L, "%s/?.lua;%s/?/init.lua", folder, folder);
    lua_setfield(L, -2, "path");
    lua_pushliteral(L, "");
    lua_setfield(L, -2, "cpath");
    lua_getfield(L, -1, "preload");
    lua_pushcfunction(L, luaopen_syz_core);
    lua_setfield(L, -2, "syz.core");
    lua_pushcfunction(L, luaopen_syz_host);
    lua_setfield(L, -2, "syz.host");
    lua_pop(L, 2);
}

/* Error handler: with SYZ_TRACE set, the message grows a traceback. */
static int describe(lua_State *L) {
    if (!getenv("SYZ_TRACE") || lua_type(L, 1) != LUA_TSTRING) return 1;
    luaL_traceback(L, L, lua_tostring(L, 1), 1);
    return 1;
}

/* require("syz.cli").main({argv[1], ...}) -> exit code */
static int run_command_line(lua_State *L) {
    int argc = (int)lua_tointeger(L, 1);
    char **argv = lua_touserdata(L, 2);
    luaL_openlibs(L);
    host_bound_memory(L);
    /* Count hooks do not fire in compiled loops, and Ctrl-C must stop a recipe anywhere; tensor work does not notice.
     */
    luaJIT_setmode(L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_OFF);
    set_library_path(L);
    lua_getglobal(L, "require");
    lua_pushliteral(L, "syz.cli");
    lua_call(L, 1, 1);
    lua_getfield(L, -1, "main");
    lua_createtable(L, argc, 0);
    for (int i = 1; i < argc; i++) {
        lua_pushstring(L, argv[i]);
        lua_rawseti(L, -2, i);
    }
    lua_call(L, 1, 1);
    return 1;
}

static int report(lua_State *L) {
    const char *message = lua_tostring(L, -1);
    bool interrupted = message && strcmp(message, "interrupted") == 0;
    fprintf(stderr, "syz: %s\n", message ? message : "an error without a message");
    return interrupted ? 130 : 1;
}

int main(int argc, char **argv) {
    if (!library_found()) return 1;
    lua_State *L = luaL_newstate();
    if (!L) {
        fprintf(stderr, "syz: out of memory\n");
        return 1;
    }
    host_state = L;
    signal(SIGINT, on_interrupt);
    signal(SIGTERM, on_terminate);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a write over the limit of `ulimit -f` fails, as one on a full disk */
    lua_pushcfunction(L, describe);
    lua_pushcfunction(L, run_command_line);
    lua_pushinteger(L, argc);
    lua_pushlightuserdata(L, argv);
    int code = lua_pcall(L, 2, 1, 1) == 0 ? (int)lua_tointeger(L, -1) : report(L);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    host_unbound_memory(L);
    lua_close(L);
    return code;
}
