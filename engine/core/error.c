#include "core/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local struct {
    syz_status status;
    char message[1024];
    char where[256];
} pending;

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

syz_status syz_fail_at(const char *file, int line, syz_status status, const char *format, ...) {
    if (pending.status != SYZ_OK) return pending.status;
    va_list args;
    va_start(args, format);
    vsnprintf(pending.message, sizeof pending.message, format, args);
    va_end(args);
    /* Names from a stranger's file may hold line breaks or terminal escapes: a message stays one harmless line. */
    for (char *c = pending.message; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
    snprintf(pending.where, sizeof pending.where, "%s:%d", base_name(file), line);
    pending.status = status;
    return status;
}

bool syz_failed(void) {
    return pending.status != SYZ_OK;
}

syz_status syz_error_status(void) {
    return pending.status;
}

const char *syz_error_message(void) {
    return pending.message;
}

const char *syz_error_where(void) {
    return pending.where;
}

void syz_error_clear(void) {
    pending.status = SYZ_OK;
    pending.message[0] = '\0';
    pending.where[0] = '\0';
}

const char *syz_status_name(syz_status status) {
    switch (status) {
#define NAME(symbol, text)                                                                                             \
    case SYZ_##symbol:                                                                                                 \
        return text;
        SYZ_STATUSES(NAME)
#undef NAME
    }
    return "unknown status";
}
