#include "syzygy.h"

#include <string.h>

static const struct {
    const char *name, *file_name;
    size_t size;
} dtypes[SYZ_DTYPE_COUNT] = {
#define ROW(symbol, lua, file, bytes) [SYZ_##symbol] = {lua, file, bytes},
    SYZ_DTYPES(ROW)
#undef ROW
};

size_t syz_dtype_size(syz_dtype dtype) {
    return dtypes[dtype].size;
}

const char *syz_dtype_name(syz_dtype dtype) {
    return dtypes[dtype].name;
}

const char *syz_dtype_file_name(syz_dtype dtype) {
    return dtypes[dtype].file_name;
}

bool syz_dtype_parse(syz_dtype *dtype, const char *name) {
    for (int i = 0; i < SYZ_DTYPE_COUNT; i++) {
        if (strcmp(dtypes[i].name, name) == 0 || strcmp(dtypes[i].file_name, name) == 0) {
            *dtype = (syz_dtype)i;
            return true;
        }
    }
    return false;
}

const char *syz_version(void) {
    return SYZ_VERSION;
}
