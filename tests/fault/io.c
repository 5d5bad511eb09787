/* Loaded with LD_PRELOAD into `syz`: the n-th write, fsync or rename of the process fails, once or from then on.
 *
 *   SYZ_IO_FAULT=CALL:N:CODE[:on]   CALL is write, short, fsync or rename; N counts from 0; CODE is EIO or ENOSPC
 *   SYZ_IO_COUNT=FILE               at the end, how many of each were made
 *
 * "short" writes half of what was asked and nothing fails until the caller goes on. Only regular files count. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WRITE, FSYNC, RENAME, CALLS };

static const char *const names[CALLS] = {"write", "fsync", "rename"};
static long made[CALLS];

static struct {
    int call, code, on, half;
    long at;
} fault = {.call = -1};

typedef ssize_t write_function(int fd, const void *data, size_t size);
typedef int fsync_function(int fd);
typedef int rename_function(const char *from, const char *to);

/* The C library's functions; through a union, because ISO C has no cast from object to function pointers. */
static union {
    void *object;
    write_function *call;
} real_write;
static union {
    void *object;
    fsync_function *call;
} real_fsync;
static union {
    void *object;
    rename_function *call;
} real_rename;

__attribute__((constructor)) static void read_fault(void) {
    real_write.object = dlsym(RTLD_NEXT, "write");
    real_fsync.object = dlsym(RTLD_NEXT, "fsync");
    real_rename.object = dlsym(RTLD_NEXT, "rename");
    char call[16], code[16], mode[8] = "";
    const char *text = getenv("SYZ_IO_FAULT");
    if (!text || sscanf(text, "%15[a-z]:%ld:%15[A-Z]:%7s", call, &fault.at, code, mode) < 3) return;
    fault.half = strcmp(call, "short") == 0;
    fault.code = strcmp(code, "ENOSPC") == 0 ? ENOSPC : EIO;
    fault.on = strcmp(mode, "on") == 0;
    for (int k = 0; k < CALLS; k++)
        if (strcmp(names[k], fault.half ? "write" : call) == 0) fault.call = k;
}

__attribute__((destructor)) static void write_count(void) {
    const char *path = getenv("SYZ_IO_COUNT");
    FILE *file = path ? fopen(path, "w") : NULL;
    if (!file) return;
    for (int k = 0; k < CALLS; k++)
        fprintf(file, "%s %ld\n", names[k], made[k]);
    fclose(file);
}

static int hits(int call) {
    long n = made[call]++;
    return fault.call == call && (n == fault.at || (fault.on && n > fault.at));
}

static int regular(int fd) {
    struct stat info;
    return fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
}

ssize_t write(int fd, const void *data, size_t size) {
    if (!regular(fd) || !hits(WRITE)) return real_write.call(fd, data, size);
    if (fault.half && size > 1) return real_write.call(fd, data, size / 2);
    errno = fault.code;
    return -1;
}

int fsync(int fd) {
    if (!hits(FSYNC)) return real_fsync.call(fd);
    errno = fault.code;
    return -1;
}

int rename(const char *from, const char *to) {
    if (!hits(RENAME)) return real_rename.call(from, to);
    errno = fault.code;
    return -1;
}
