/* Line editing for `syz console`, by libedit: the module syz.host. */
#include "host/host.h"

#include <editline/readline.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* Set while readline() runs: libedit's callbacks have no argument to carry them. */
static lua_State *active;
static int completion; /* stack index of the Lua function, 0 without one */
static const char **candidates;
static size_t candidate_count;

static char *next_candidate(const char *text, int state) {
    static size_t position;
    (void)text;
    if (state == 0) position = 0;
    return position < candidate_count ? strdup(candidates[position++]) : NULL;
}

/* Ask Lua: completion(line, word) -> list of whole words that may stand there. The table stays on the stack, and with
 * it the strings, until libedit has copied them. */
static char **complete(const char *word, int start, int end) {
    (void)end;
    rl_attempted_completion_over = 1;
    if (!completion) return NULL;
    int top = lua_gettop(active);
    char **matches = NULL;
    lua_pushvalue(active, completion);
    lua_pushlstring(active, rl_line_buffer, (size_t)start);
    lua_pushstring(active, word);
    if (lua_pcall(active, 2, 1, 0) == 0 && lua_istable(active, -1)) {
        candidate_count = lua_objlen(active, -1);
        candidates = calloc(candidate_count + 1, sizeof *candidates);
        for (size_t i = 0; candidates && i < candidate_count; i++) {
            lua_rawgeti(active, -1, (int)i + 1);
            candidates[i] = lua_tostring(active, -1);
            lua_pop(active, 1);
        }
        if (candidates && candidate_count) matches = rl_completion_matches(word, next_candidate);
        free(candidates);
        candidates = NULL;
        candidate_count = 0;
    }
    lua_settop(active, top);
    return matches;
}

/* readline(prompt [, completion]) -> line, or nil at the end of input */
static int host_readline(lua_State *L) {
    const char *prompt = luaL_checkstring(L, 1);
    active = L;
    completion = lua_isfunction(L, 2) ? 2 : 0;
    rl_attempted_completion_function = complete;
    rl_completion_append_character = '\0';
    /* At the prompt nothing runs that would have to be saved: SIGTERM ends the process, as it does with a shell. */
    void (*at_work)(int) = signal(SIGTERM, SIG_DFL);
    char *line = readline(prompt);
    signal(SIGTERM, at_work);
    if (!line) return 0;
    lua_pushstring(L, line);
    free(line);
    return 1;
}

/* history(path): load it; remember(line [, path]): add a line, and save. */
static int host_history(lua_State *L) {
    using_history();
    stifle_history(2000);
    read_history(luaL_checkstring(L, 1));
    return 0;
}

static int host_remember(lua_State *L) {
    add_history(luaL_checkstring(L, 1));
    if (!lua_isnoneornil(L, 2)) write_history(luaL_checkstring(L, 2));
    return 0;
}

int luaopen_syz_host(lua_State *L) {
    const luaL_Reg functions[] = {
        {"readline", host_readline}, {"history", host_history}, {"remember", host_remember}, {NULL, NULL}};
    lua_newtable(L);
    luaL_register(L, NULL, functions);
    return 1;
}
