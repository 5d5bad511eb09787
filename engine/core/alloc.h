/* The one allocator: counted, bounded, and able to fail on request in tests. */
#ifndef SYZ_CORE_ALLOC_H
#define SYZ_CORE_ALLOC_H

#include "syzygy.h"

/* Small host memory (headers, tables). Zeroed. NULL with SYZ_ENOMEM pending on failure; released with free(). */
void *syz_alloc(size_t count, size_t size);
char *syz_strdup(const char *text);
char *syz_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Tensor memory: 64-byte aligned, uninitialised, from a cache of freed blocks. Pass the same size to release. */
void *syz_block_alloc(size_t bytes);
void syz_block_free(void *block, size_t bytes);

/* Fault injection: the n-th allocation from now on (0 = the next), of either kind, fails; with `persistent`, all later
 * ones too. n < 0 switches it off. syz_fault_count() tells how many allocations were made since. */
void syz_fault_set(int64_t n, bool persistent);
int64_t syz_fault_count(void);
/* Counts one allocation; true when it must fail. */
bool syz_fault_hits(void);

#endif
