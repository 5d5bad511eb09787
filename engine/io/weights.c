/* The front of all weight files: which format a file has, and the tensors of an open one. */
#include "io/weights.h"

#include "core/alloc.h"
#include "core/error.h"
#include "io/json.h"
#include "tensor/tensor.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

/* Every type that safetensors knows, with its bits; `dtype` is what tensors of it become, or -1. */
static const struct {
    const char *name;
    int bits, dtype;
} types[] = {
#define ROW(symbol, lua, file, bytes) {file, 8 * bytes, SYZ_##symbol},
    SYZ_DTYPES(ROW)
#undef ROW
        {"BOOL", 8, SYZ_U8},
    {"I8", 8, -1},
    {"I16", 16, -1},
    {"U16", 16, -1},
    {"U32", 32, -1},
    {"U64", 64, -1},
    {"C64", 64, -1},
    {"F8_E4M3", 8, -1},
    {"F8_E5M2", 8, -1},
    {"F8_E8M0", 8, -1},
    {"F6_E2M3", 6, -1},
    {"F6_E3M2", 6, -1},
    {"F4", 4, -1},
};

enum { TYPES = sizeof types / sizeof *types };

int syz_weight_type(const char *name) {
    for (int i = 0; i < TYPES; i++)
        if (strcmp(types[i].name, name) == 0) return i;
    return -1;
}

const char *syz_weight_type_name(int type) {
    return types[type].name;
}

uint64_t syz_weight_type_bits(int type) {
    return (uint64_t)types[type].bits;
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

static void release_file(syz_weight_file *file) {
    if (!file || --file->refs > 0) return;
    syz_mapping_release(file->mapping);
    free(file->storages);
    free(file->path);
    free(file);
}

static syz_weight_file *map_file(const char *path) {
    syz_weight_file *file = syz_alloc(1, sizeof *file);
    if (!file) return NULL;
    file->refs = 1;
    if ((file->path = syz_strdup(path)) && (file->mapping = syz_file_map(path))) return file;
    release_file(file);
    return NULL;
}

syz_weights *syz_weights_new(const char *path) {
    if (syz_failed()) return NULL;
    syz_weights *weights = syz_alloc(1, sizeof *weights);
    if (weights && !(weights->path = syz_strdup(path))) {
        free(weights);
        return NULL;
    }
    return weights;
}

syz_status syz_weights_reserve(syz_weights *weights, size_t count) {
    if (count > SYZ_WEIGHTS_MAX_TENSORS) {
        return syz_fail(SYZ_EFORMAT, "%s: %zu tensors, at most %d are supported", weights->path, count,
                        SYZ_WEIGHTS_MAX_TENSORS);
    }
    weights->entries = syz_alloc(count, sizeof *weights->entries);
    weights->capacity = count;
    return weights->entries ? SYZ_OK : syz_error_status();
}

syz_weight_entry *syz_weights_add(syz_weights *weights, syz_weight_file *file) {
    syz_weight_entry *e = &weights->entries[weights->count++];
    e->file = file;
    file->refs++;
    return e;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const syz_weight_entry *)a)->name, ((const syz_weight_entry *)b)->name);
}

void syz_weights_sort(syz_weights *weights) {
    qsort(weights->entries, weights->count, sizeof *weights->entries, by_name);
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

uint64_t syz_weights_u64(const uint8_t *bytes) {
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--)
        value = value << 8 | bytes[i];
    return value;
}

bool syz_weights_ends_with(const char *path, const char *ending) {
    size_t length = strlen(path), tail = strlen(ending);
    return length > tail && strcmp(path + length - tail, ending) == 0;
}

/* What a clone without Git LFS leaves in the place of a large file. */
static bool is_lfs_pointer(const syz_mapping *file) {
    static const char start[] = "version https://git-lfs";
    return file->size >= sizeof start - 1 && memcmp(file->bytes, start, sizeof start - 1) == 0;
}

/* A safetensors header is far shorter than 4 GiB, so the upper half of its length is zero. */
static bool may_be_safetensors(const syz_mapping *file) {
    return file->size < 8 || memcmp(file->bytes + 4, "\0\0\0\0", 4) == 0;
}

static syz_status read_file(syz_weights *weights, syz_weight_file *file, bool shard) {
    static const char *const endings[] = {".pt", ".pth", ".bin", ".ckpt"};
    if (is_lfs_pointer(file->mapping))
        return syz_fail(SYZ_EFORMAT, "%s: is a Git LFS pointer, not the weights: run `git lfs pull`", file->path);
    if (syz_torch_recognized(file->mapping)) return syz_torch_read(weights, file, shard);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        if (syz_weights_ends_with(file->path, endings[i]) && !may_be_safetensors(file->mapping))
            return syz_fail(SYZ_EFORMAT, "%s: is not a file of torch.save: neither a zip archive nor the older stream",
                            file->path);
    }
    return syz_safetensors_read(weights, file);
}

syz_weights *syz_weights_open_file(const char *path, bool shard) {
    syz_weights *weights = syz_weights_new(path);
    if (!weights) return NULL;
    syz_weight_file *file = map_file(path);
    if (!file || read_file(weights, file, shard) != SYZ_OK) {
        syz_weights_close(weights);
        weights = NULL;
    }
    release_file(file); /* the entries hold their own references */
    return weights;
}

static syz_weights *open_sharded(const char *path) {
    syz_weights *weights = syz_weights_new(path);
    if (!weights) return NULL;
    json_t *index = syz_json_load(path);
    if (!index || syz_weights_read_index(weights, index) != SYZ_OK) {
        syz_weights_close(weights);
        weights = NULL;
    }
    json_decref(index);
    return weights;
}

syz_weights *syz_weights_open(const char *path) {
    return syz_weights_ends_with(path, ".json") ? open_sharded(path) : syz_weights_open_file(path, false);
}

void syz_weights_close(syz_weights *weights) {
    if (!weights) return;
    for (size_t i = 0; i < weights->count; i++) {
        free(weights->entries[i].name);
        release_file(weights->entries[i].file);
    }
    free(weights->entries);
    json_decref(weights->metadata);
    free(weights->path);
    free(weights);
}

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

int64_t syz_weights_count(const syz_weights *weights) {
    return (int64_t)weights->count;
}

syz_weight_info syz_weights_info(const syz_weights *weights, int64_t index) {
    if (index < 0 || (size_t)index >= weights->count) return (syz_weight_info){0};
    const syz_weight_entry *e = &weights->entries[index];
    return (syz_weight_info){e->name, types[e->type].name, e->shape, (size_t)(e->end - e->begin)};
}

int64_t syz_weights_find(const syz_weights *weights, const char *name) {
    size_t low = 0, high = weights->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(weights->entries[middle].name, name);
        if (order == 0) return (int64_t)middle;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return -1;
}

/* Only when a tensor is wanted: the checksums of a large file would read all of it. */
static syz_status check_sum(const syz_weight_entry *e) {
    syz_weight_storage *storage = e->storage;
    if (!storage || !storage->unchecked) return SYZ_OK;
    uLong sum = crc32_z(0, e->file->mapping->bytes + storage->begin, (z_size_t)storage->size);
    if (sum != storage->crc) {
        return syz_fail(SYZ_EFORMAT, "%s: tensor \"%s\": its bytes do not match their CRC-32: the file is damaged",
                        e->file->path, e->name);
    }
    storage->unchecked = false;
    return SYZ_OK;
}

/* The elements in the order of the shape, as a tensor of its own. */
static syz_tensor *gather(const syz_weight_entry *e, syz_dtype dtype) {
    syz_tensor *t = syz_host_zeros(dtype, e->shape);
    if (!t) return NULL;
    size_t size = syz_dtype_size(dtype);
    const uint8_t *from = e->file->mapping->bytes + e->begin;
    uint8_t *to = syz_data(t);
    int64_t at[SYZ_MAX_DIMS] = {0}, offset = 0;
    for (int64_t left = syz_numel(t); left > 0; left--, to += size) {
        memcpy(to, from + (size_t)offset * size, size);
        for (int k = e->shape.n - 1; k >= 0; k--) {
            offset += e->stride[k];
            if (++at[k] < e->shape.dim[k]) break;
            offset -= e->stride[k] * e->shape.dim[k];
            at[k] = 0;
        }
    }
    return t;
}

syz_tensor *syz_weights_get(const syz_weights *weights, const char *name) {
    if (syz_failed()) return NULL;
    int64_t i = syz_weights_find(weights, name);
    if (i < 0) return syz_fail_null(SYZ_ENOTFOUND, "%s: has no tensor \"%s\"", weights->path, name);
    const syz_weight_entry *e = &weights->entries[i];
    if (types[e->type].dtype < 0) {
        return syz_fail_null(SYZ_EUNSUPPORTED, "%s: tensor \"%s\": dtype %s is not supported", weights->path, name,
                             types[e->type].name);
    }
    if (check_sum(e) != SYZ_OK) return NULL;
    syz_dtype dtype = (syz_dtype)types[e->type].dtype;
    if (e->strided) return gather(e, dtype);
    syz_mapping *mapping = e->file->mapping;
    uint8_t *data = mapping->bytes + e->begin;
    if ((uintptr_t)data % syz_dtype_size(dtype) != 0) return syz_from(dtype, e->shape, data);
    mapping->refs++;
    syz_tensor *t = syz_wrap(dtype, e->shape, data, syz_mapping_release, mapping);
    if (!t) syz_mapping_release(mapping);
    return t;
}

const char *syz_weights_metadata(const syz_weights *weights, const char *key) {
    return json_string_value(json_object_get(weights->metadata, key));
}

const char *syz_weights_next_metadata(const syz_weights *weights, const char *previous, const char **value) {
    void *at = previous ? json_object_iter_at(weights->metadata, previous) : json_object_iter(weights->metadata);
    if (previous && at) at = json_object_iter_next(weights->metadata, at);
    if (!at) return NULL;
    *value = json_string_value(json_object_iter_value(at));
    return json_object_iter_key(at);
}
