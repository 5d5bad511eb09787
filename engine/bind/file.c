/* Files and bytes. What looks (read, sha256, list, stat, real, remove) returns nil and a message when it cannot; what
 * changes something and fails (write, append, mkdir, rename, remove_tree) raises, so that no loss goes unnoticed. */
#include "bind/bind.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* nil, "path: reason" */
static int failed(lua_State *L, const char *path, int code) {
    lua_pushnil(L);
    lua_pushfstring(L, "%s: %s", path, strerror(code));
    return 2;
}

/* nil, message of the pending error */
static int failed_status(lua_State *L) {
    lua_pushnil(L);
    lua_pushstring(L, syz_error_message());
    syz_error_clear();
    return 2;
}

/* Raise "path: reason". */
static int raise_code(lua_State *L, const char *path, int code) {
    return luaL_error(L, "%s: %s", path, strerror(code));
}

/* ---- contents ---- */

const bind_type bind_bytes_type = {"bytes"};

static int bytes_free(lua_State *L) {
    void **bytes = bind_check(L, 1, &bind_bytes_type);
    free(*bytes);
    *bytes = NULL;
    return 0;
}

/* file.read(path [, cap]) -> bytes, or nil, message. Refuses files over `cap` bytes (256 MiB unless given). */
static int file_read(lua_State *L) {
    const char *path = luaL_checkstring(L, 1);
    int64_t cap = bind_opt_integer(L, 2, (int64_t)256 << 20);
    if (cap < 0) return luaL_argerror(L, 2, "the cap cannot be negative");
    uint8_t **bytes = bind_new(L, &bind_bytes_type, sizeof *bytes);
    size_t size;
    if (syz_file_read(bytes, &size, path, (size_t)cap) != SYZ_OK) return failed_status(L);
    lua_pushlstring(L, (const char *)*bytes, size);
    free(*bytes);
    *bytes = NULL;
    return 1;
}

/* file.write(path, bytes): whole or not at all */
static int file_write(lua_State *L) {
    size_t size;
    const char *path = luaL_checkstring(L, 1), *bytes = luaL_checklstring(L, 2, &size);
    bind_try(L, syz_file_write(path, bytes, size));
    return 0;
}

static int write_all(int fd, const char *bytes, size_t size) {
    while (size > 0) {
        ssize_t n = write(fd, bytes, size);
        if (n < 0 && errno != EINTR) return errno;
        if (n < 0) continue;
        bytes += n;
        size -= (size_t)n;
    }
    return 0;
}

/* file.append(path, bytes): all of them or, on a full disk, none, so that no half line stays */
static int file_append(lua_State *L) {
    size_t size;
    const char *path = luaL_checkstring(L, 1), *bytes = luaL_checklstring(L, 2, &size);
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0) return raise_code(L, path, errno);
    off_t before = lseek(fd, 0, SEEK_END);
    int code = write_all(fd, bytes, size);
    if (code && before >= 0 && ftruncate(fd, before) != 0) code = errno;
    if (close(fd) != 0 && !code) code = errno;
    return code ? raise_code(L, path, code) : 0;
}

/* ---- folders and names ---- */

static int file_mkdir(lua_State *L) {
    bind_try(L, syz_make_folders(luaL_checkstring(L, 1)));
    return 0;
}

static int compare_names(const void *a, const void *b) {
    return strcmp((*(const struct dirent *const *)a)->d_name, (*(const struct dirent *const *)b)->d_name);
}

static int not_dots(const struct dirent *entry) {
    return strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
}

/* file.list(path) -> sorted names without "." and "..", or nil, message */
static int file_list(lua_State *L) {
    const char *path = luaL_checkstring(L, 1);
    struct dirent **entries;
    int count = scandir(path, &entries, not_dots, NULL);
    if (count < 0) return failed(L, path, errno);
    if (count > 0) qsort(entries, (size_t)count, sizeof *entries, compare_names);
    size_t size = 0;
    for (int i = 0; i < count; i++)
        size += strlen(entries[i]->d_name) + 1;
    char *names = malloc(size + 1), *next = names;
    for (int i = 0; i < count; i++) {
        if (names) next = stpcpy(next, entries[i]->d_name) + 1;
        free(entries[i]);
    }
    free(entries);
    if (!names) return failed(L, path, ENOMEM);
    *(char **)bind_new(L, &bind_bytes_type, sizeof(char *)) = names;
    lua_createtable(L, count, 0);
    next = names;
    for (int i = 0; i < count; i++) {
        lua_pushstring(L, next);
        lua_rawseti(L, -2, i + 1);
        next += strlen(next) + 1;
    }
    return 1;
}

/* file.exists(path) -> "file", "folder" or nil */
static int file_exists(lua_State *L) {
    struct stat info;
    if (stat(luaL_checkstring(L, 1), &info) != 0)
        lua_pushnil(L);
    else
        lua_pushstring(L, S_ISDIR(info.st_mode) ? "folder" : "file");
    return 1;
}

/* file.stat(path) -> bytes, time of the last change (seconds since 1970), or nil, message */
static int file_stat(lua_State *L) {
    struct stat info;
    const char *path = luaL_checkstring(L, 1);
    if (stat(path, &info) != 0) return failed(L, path, errno);
    lua_pushnumber(L, (double)info.st_size);
    lua_pushnumber(L, (double)info.st_mtim.tv_sec + 1e-9 * (double)info.st_mtim.tv_nsec);
    return 2;
}

/* file.free(path) -> bytes that its disk has left for this user, or nil, message */
static int file_free(lua_State *L) {
    struct statvfs info;
    const char *path = luaL_checkstring(L, 1);
    if (statvfs(path, &info) != 0) return failed(L, path, errno);
    lua_pushnumber(L, (double)info.f_bavail * (double)info.f_frsize);
    return 1;
}

/* file.real(path) -> absolute path without links, or nil, message */
static int file_real(lua_State *L) {
    const char *path = luaL_checkstring(L, 1);
    char **real = bind_new(L, &bind_bytes_type, sizeof *real);
    *real = realpath(path, NULL);
    if (!*real) return failed(L, path, errno);
    lua_pushstring(L, *real);
    return 1;
}

/* file.remove(path) -> true, or nil, message: a file or an empty folder */
static int file_remove(lua_State *L) {
    const char *path = luaL_checkstring(L, 1);
    if (remove(path) != 0) return failed(L, path, errno);
    lua_pushboolean(L, 1);
    return 1;
}

static int file_rename(lua_State *L) {
    bind_try(L, syz_rename(luaL_checkstring(L, 1), luaL_checkstring(L, 2)));
    return 0;
}

/* file.sha256(path) -> hexadecimal sum of a whole file of any size, or nil, message */
static int file_sha256(lua_State *L) {
    char text[SYZ_SHA256_TEXT];
    if (syz_sha256_file(text, luaL_checkstring(L, 1)) != SYZ_OK) return failed_status(L);
    lua_pushstring(L, text);
    return 1;
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *where) {
    (void)info, (void)kind, (void)where;
    return remove(path);
}

/* file.remove_tree(path): a folder and all inside it; links are removed, not followed */
static int file_remove_tree(lua_State *L) {
    const char *path = luaL_checkstring(L, 1);
    return nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) == 0 ? 0 : raise_code(L, path, errno);
}

/* ---- bytes ---- */

static int core_sha256(lua_State *L) {
    size_t size;
    const char *bytes = luaL_checklstring(L, 1, &size);
    char text[SYZ_SHA256_TEXT];
    syz_sha256(text, bytes, size);
    lua_pushstring(L, text);
    return 1;
}

static int core_base64(lua_State *L) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t size;
    const unsigned char *in = (const unsigned char *)luaL_checklstring(L, 1, &size);
    luaL_Buffer out;
    luaL_buffinit(L, &out);
    for (size_t i = 0; i < size; i += 3) {
        size_t rest = size - i;
        unsigned word = in[i] << 16 | (rest > 1 ? in[i + 1] << 8 : 0) | (rest > 2 ? in[i + 2] : 0);
        luaL_addchar(&out, digits[word >> 18]);
        luaL_addchar(&out, digits[word >> 12 & 63]);
        luaL_addchar(&out, rest > 1 ? digits[word >> 6 & 63] : '=');
        luaL_addchar(&out, rest > 2 ? digits[word & 63] : '=');
    }
    luaL_pushresult(&out);
    return 1;
}

static const luaL_Reg functions[] = {
    {"read", file_read},
    {"write", file_write},
    {"append", file_append},
    {"mkdir", file_mkdir},
    {"list", file_list},
    {"exists", file_exists},
    {"stat", file_stat},
    {"free", file_free},
    {"real", file_real},
    {"remove", file_remove},
    {"rename", file_rename},
    {"sha256", file_sha256},
    {"remove_tree", file_remove_tree},
    {NULL, NULL},
};

static const luaL_Reg bytes_meta[] = {{"__gc", bytes_free}, {NULL, NULL}};

void bind_open_file(lua_State *L) {
    bind_new_type(L, &bind_bytes_type, NULL, bytes_meta);
    lua_pop(L, 1);
    lua_newtable(L);
    luaL_register(L, NULL, functions);
    lua_setfield(L, -2, "file");
    lua_pushcfunction(L, core_sha256);
    lua_setfield(L, -2, "sha256");
    lua_pushcfunction(L, core_base64);
    lua_setfield(L, -2, "base64");
}
