/* Errors: a status and one thread-local message with file:line.
 *
 * The first failure of a chain wins: while an error is pending, a second syz_fail() keeps the first message, and every
 * tensor operation returns NULL at once. So a model's forward can chain operations and test only the end
 * (docs/design/errors.md). Whoever reports an error to a person clears it: the Lua binding, main(), a test. */
#ifndef SYZ_CORE_ERROR_H
#define SYZ_CORE_ERROR_H

#include "syzygy.h"

/* Record `status` with a printf message and return it: `return syz_fail(SYZ_ESHAPE, "rank %d, not 2", n);` */
#ifndef __clang_analyzer__
#define syz_fail(status, ...) syz_fail_at(__FILE__, __LINE__, (status), __VA_ARGS__)
#else /* what the analyzer cannot see across files: it never returns SYZ_OK */
#define syz_fail(status, ...) ((void)syz_fail_at(__FILE__, __LINE__, (status), __VA_ARGS__), (status))
#endif

/* The same for functions that return a pointer. */
#define syz_fail_null(status, ...) ((void)syz_fail_at(__FILE__, __LINE__, (status), __VA_ARGS__), NULL)

/* Return from a status function when a call failed. */
#define SYZ_TRY(call)                                                                                                  \
    do {                                                                                                               \
        syz_status try_status_ = (call);                                                                               \
        if (try_status_ != SYZ_OK) return try_status_;                                                                 \
    } while (0)

syz_status syz_fail_at(const char *file, int line, syz_status status, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* True while an error is pending on this thread. */
bool syz_failed(void);

#endif
