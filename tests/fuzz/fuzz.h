/* What the fuzz targets share. A target is one file that defines LLVMFuzzerTestOneInput: libFuzzer drives it in a build
 * with SYZ_FUZZ, smoke.c in every other. */
#ifndef SYZ_TESTS_FUZZ_H
#define SYZ_TESTS_FUZZ_H

#include "core/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A property that must hold for every input. */
#define fuzz_check(condition)                                                                                          \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s; pending: %s\n", __FILE__, __LINE__, #condition, syz_error_message());          \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* A parser either returned something or left an error of one line; clears the error. */
static inline void fuzz_check_outcome(const void *result) {
    fuzz_check((result == NULL) == syz_failed());
    fuzz_check(result || syz_error_message()[0] != '\0');
    syz_error_clear();
}

/* A file in memory with this content, for parsers that map files; close(*fd) afterwards. */
static inline const char *fuzz_file(int *fd, const uint8_t *data, size_t size) {
    static char path[64];
    *fd = memfd_create("fuzz", MFD_CLOEXEC);
    fuzz_check(*fd >= 0 && write(*fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", *fd);
    return path;
}

#endif
