/* Device memory of the emulated machine: a stretch of addresses that nobody may touch but kernels, copies and library
 * calls while they run. The engine's own code that follows a device pointer ends in a segmentation fault, as it would
 * on a GPU. With AddressSanitizer, what lies between the blocks is poisoned too. */
#ifndef SYZ_EMU_MEMORY_H
#define SYZ_EMU_MEMORY_H

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sys/mman.h>

#include "installed.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size)   ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

namespace emu {

constexpr size_t ARENA = (size_t)16 << 30, ALIGNMENT = 256;
constexpr size_t PAGE = 2 << 20; /* large pages, whose protection is changed quickly */
enum { DEVICES = 2 };

struct block {
    size_t size, asked;
    int device;
};

struct arena {
    char *base = nullptr;
    size_t top = 0;                      /* bytes from the base that were ever in use, in whole pages */
    int open = 0;                        /* how many accesses are under way */
    std::map<size_t, block> used;        /* by offset */
    std::multimap<size_t, size_t> spare; /* offset by size */
    size_t live[DEVICES + 1] = {};
};

inline arena &device_memory() {
    static arena a;
    if (!a.base) {
        void *base = mmap(nullptr, ARENA, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (base == MAP_FAILED) abort();
        a.base = (char *)(((uintptr_t)base + PAGE - 1) / PAGE * PAGE);
        madvise(a.base, ARENA - PAGE, MADV_HUGEPAGE);
    }
    return a;
}

inline bool is_device(const void *pointer) {
    arena &a = device_memory();
    return (const char *)pointer >= a.base && (const char *)pointer < a.base + ARENA;
}

inline void protect(int how) {
    arena &a = device_memory();
    if (a.top && mprotect(a.base, a.top, how) != 0) abort();
}

/* Device memory can be read and written while one of these lives. */
struct access {
    access() {
        if (device_memory().open++ == 0) protect(PROT_READ | PROT_WRITE);
    }
    ~access() {
        if (--device_memory().open == 0) protect(PROT_NONE);
    }
    access(const access &) = delete;
    access &operator=(const access &) = delete;
};

/* Fresh blocks hold NaN: memory of a device is never zero by itself. NULL beyond what the device has. */
inline void *device_allocate(int device, size_t asked) {
    arena &a = device_memory();
    size_t size = (asked + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT, offset;
    if (a.live[device] + size > emu_installed.memory) return nullptr;
    auto found = a.spare.upper_bound(size); /* what was freed last: who still uses it shall notice */
    if (found != a.spare.begin() && (--found)->first == size) {
        offset = found->second;
        a.spare.erase(found);
    } else {
        size_t end = a.used.empty() ? 0 : a.used.rbegin()->first + a.used.rbegin()->second.size;
        for (auto &s : a.spare)
            if (s.second + s.first > end) end = s.second + s.first;
        offset = end;
        if (offset + size > ARENA - PAGE) return nullptr;
        if (offset + size > a.top) {
            a.top = (offset + size + PAGE - 1) / PAGE * PAGE;
            if (a.open) protect(PROT_READ | PROT_WRITE);
        }
    }
    a.used[offset] = {size, asked, device};
    a.live[device] += size;
    access writable;
    ASAN_UNPOISON_MEMORY_REGION(a.base + offset, size);
    memset(a.base + offset, 0xff, size);
    ASAN_POISON_MEMORY_REGION(a.base + offset + asked, size - asked);
    return a.base + offset;
}

inline void device_release(void *memory) {
    arena &a = device_memory();
    size_t offset = (size_t)((char *)memory - a.base);
    auto found = a.used.find(offset);
    if (found == a.used.end()) {
        fprintf(stderr, "emulated device: %p is freed and was not allocated\n", memory);
        abort();
    }
    ASAN_POISON_MEMORY_REGION(a.base + offset, found->second.size);
    a.live[found->second.device] -= found->second.size;
    a.spare.emplace(found->second.size, offset);
    a.used.erase(found);
}

} // namespace emu

#endif
