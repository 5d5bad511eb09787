/* For unit tests: cmocka, a temporary folder per test program, and a check of the pending error. */
#ifndef SYZ_TESTS_TEMPORARY_H
#define SYZ_TESTS_TEMPORARY_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "syzygy.h"

static char temporary_name[256];

static inline int temporary_setup(void **state) {
    (void)state;
    const char *base = getenv("TMPDIR");
    snprintf(temporary_name, sizeof temporary_name, "%s/syzygy-test-XXXXXX", base ? base : "/tmp");
    return mkdtemp(temporary_name) ? 0 : -1;
}

static inline int temporary_remove(const char *path, const struct stat *info, int type, struct FTW *walk) {
    (void)info, (void)type, (void)walk;
    return remove(path);
}

static inline int temporary_teardown(void **state) {
    (void)state;
    return nftw(temporary_name, temporary_remove, 8, FTW_DEPTH | FTW_PHYS);
}

static inline const char *temporary_folder(void) {
    return temporary_name;
}

/* A path inside the folder; one of four buffers in turn. */
static inline const char *temporary_path(const char *name) {
    static char paths[4][1024];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", temporary_name, name);
    return path;
}

static inline const char *temporary_file(const char *name, const void *data, size_t size) {
    const char *path = temporary_path(name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
    return path;
}

/* An error is pending, has this status and contains this text; clear it. */
#define assert_failed(status, text)                                                                                    \
    do {                                                                                                               \
        assert_int_equal(syz_error_status(), (status));                                                                \
        if (!strstr(syz_error_message(), (text))) fail_msg("\"%s\" lacks \"%s\"", syz_error_message(), (text));        \
        syz_error_clear();                                                                                             \
    } while (0)

#endif
