#include "core/alloc.h"
#include "core/device.h"
#include "core/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    int64_t countdown, made;
    bool armed, persistent;
} fault;

void syz_fault_set(int64_t n, bool persistent) {
    fault.armed = n >= 0;
    fault.countdown = n;
    fault.persistent = persistent;
    fault.made = 0;
}

int64_t syz_fault_count(void) {
    return fault.made;
}

bool syz_fault_hits(void) {
    fault.made++;
    if (!fault.armed) return false;
    if (fault.countdown > 0) {
        fault.countdown--;
        return false;
    }
    fault.armed = fault.persistent;
    return true;
}

void *syz_alloc(size_t count, size_t size) {
    void *memory = syz_fault_hits() ? NULL : calloc(count ? count : 1, size ? size : 1);
    if (!memory) return syz_fail_null(SYZ_ENOMEM, "out of memory: %zu bytes of host memory", count * size);
    return memory;
}

char *syz_strdup(const char *text) {
    return syz_format("%s", text);
}

char *syz_format(const char *format, ...) {
    va_list args;
    va_start(args, format);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (length < 0) return syz_fail_null(SYZ_EINVAL, "text cannot be formatted");
    char *text = syz_alloc((size_t)length + 1, 1);
    if (!text) return NULL;
    va_start(args, format);
    vsnprintf(text, (size_t)length + 1, format, args);
    va_end(args);
    return text;
}

/* ---- tensor blocks: power-of-two classes with four steps between (at most 25 % slack) ---- */

enum { CLASSES = 256, ALIGNMENT = 64 };

typedef struct free_block {
    struct free_block *next;
} free_block;

static struct {
    free_block *free[CLASSES];
    syz_memory stats;
    size_t limit;
} pool;

/* Rounds `bytes` up to its class and returns the class number. */
static int size_class(size_t *bytes) {
    size_t size = *bytes < 256 ? 256 : *bytes;
    int log = 63 - __builtin_clzll(size);
    size_t step = (size_t)1 << (log - 2);
    size_t rounded = (size + step - 1) / step * step;
    log = 63 - __builtin_clzll(rounded);
    *bytes = rounded;
    return log * 4 + (int)((rounded >> (log - 2)) & 3);
}

void syz_memory_trim(void) {
    for (int c = 0; c < CLASSES; c++) {
        while (pool.free[c]) {
            free_block *block = pool.free[c];
            pool.free[c] = block->next;
            free(block);
        }
    }
    pool.stats.cached = 0;
    syz_device_trim();
}

static void count_live(size_t bytes) {
    pool.stats.live += bytes;
    if (pool.stats.live > pool.stats.peak) pool.stats.peak = pool.stats.live;
}

void *syz_block_alloc(size_t bytes) {
    if (bytes > (size_t)1 << 46) return syz_fail_null(SYZ_ENOMEM, "out of memory: %zu bytes for one tensor", bytes);
    int class = size_class(&bytes);
    bool over_limit = pool.limit && pool.stats.live + bytes > pool.limit;
    if (syz_fault_hits() || over_limit) {
        return syz_fail_null(SYZ_ENOMEM, "out of memory: %zu bytes asked, %zu in use%s", bytes, pool.stats.live,
                             over_limit ? ", and the tensor memory limit is reached" : "");
    }
    free_block *block = pool.free[class];
    if (block) {
        pool.free[class] = block->next;
        pool.stats.cached -= bytes;
    } else {
        /* memory that waits in the cache counts too: rather give it back than outgrow the limit */
        if (pool.limit && pool.stats.live + pool.stats.cached + bytes > pool.limit) syz_memory_trim();
        block = aligned_alloc(ALIGNMENT, bytes);
        if (!block) {
            syz_memory_trim();
            block = aligned_alloc(ALIGNMENT, bytes);
        }
        if (!block)
            return syz_fail_null(SYZ_ENOMEM, "out of memory: %zu bytes asked, %zu in use", bytes, pool.stats.live);
    }
    count_live(bytes);
    return block;
}

void syz_block_free(void *block, size_t bytes) {
    if (!block) return;
    int class = size_class(&bytes);
    free_block *head = block;
    head->next = pool.free[class];
    pool.free[class] = head;
    pool.stats.live -= bytes;
    pool.stats.cached += bytes;
}

syz_memory syz_memory_stats(void) {
    return pool.stats;
}

void syz_memory_reset_peak(void) {
    pool.stats.peak = pool.stats.live;
}

void syz_memory_limit(size_t bytes) {
    pool.limit = bytes;
}
