/* safetensors: u64 little-endian header size, a JSON header, the tensors' bytes. Reading maps the file and checks the
 * whole header before anything else sees it; docs of the format: https://huggingface.co/docs/safetensors. */
#include "core/alloc.h"
#include "core/error.h"
#include "io/file.h"
#include "io/json.h"
#include "tensor/tensor.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_HEADER = 100000000,
    MAX_TENSORS = 1 << 20,
    MAX_NAME = 1024,
    MAX_SHARDS = 1024,
};

/* Every type the format knows, with its bits; `dtype` is what tensors of it become, or -1. */
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

typedef struct {
    char *name;
    int type; /* in types[] */
    syz_shape shape;
    uint64_t begin, end; /* in the data part, while a file is checked; then in the syz_mapping */
    syz_mapping *file;
} entry;

struct syz_weights {
    char *path;
    entry *entries; /* sorted by name */
    size_t count, capacity;
    json_t *metadata; /* may be NULL */
};

/* ---- the header -------------------------------------------------------------------------------------------------- */

static uint64_t load_u64(const uint8_t *bytes) {
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--)
        value = value << 8 | bytes[i];
    return value;
}

static syz_status read_type(entry *e, const json_t *value, const char *path) {
    const char *text = json_string_value(value);
    if (!text) return syz_fail(SYZ_EFORMAT, "%s: tensor \"%s\": \"dtype\" must be a string", path, e->name);
    for (int i = 0; i < TYPES; i++) {
        if (strcmp(types[i].name, text) == 0) {
            e->type = i;
            return SYZ_OK;
        }
    }
    return syz_fail(SYZ_EFORMAT, "%s: tensor \"%s\": unknown dtype \"%.40s\"", path, e->name, text);
}

static syz_status read_shape(entry *e, const json_t *value, const char *path) {
    if (!json_is_array(value))
        return syz_fail(SYZ_EFORMAT, "%s: tensor \"%s\": \"shape\" must be an array", path, e->name);
    size_t n = json_array_size(value);
    if (n > SYZ_MAX_DIMS) {
        return syz_fail(SYZ_EFORMAT, "%s: tensor \"%s\": %zu dimensions, at most %d are supported", path, e->name, n,
                        SYZ_MAX_DIMS);
    }
    e->shape.n = (int)n;
    for (size_t i = 0; i < n; i++) {
        const json_t *dim = json_array_get(value, i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0) {
            return syz_fail(SYZ_EFORMAT, "%s: tensor \"%s\": shape[%zu] must be an integer of at least 0", path,
                            e->name, i);
        }
        e->shape.dim[i] = json_integer_value(dim);
    }
    return SYZ_OK;
}

static syz_status read_offsets(entry *e, const json_t *value, const char *path) {
    const json_t *begin = json_array_get(value, 0), *end = json_array_get(value, 1);
    if (json_array_size(value) != 2 || !json_is_integer(begin) || !json_is_integer(end)) {
        return syz_fail(SYZ_EFORMAT, "%s: tensor \"%s\": \"data_offsets\" must be two integers", path, e->name);
    }
    if (json_integer_value(begin) < 0 || json_integer_value(end) < json_integer_value(begin)) {
        return syz_fail(SYZ_EFORMAT,
                        "%s: tensor \"%s\": data_offsets [%" PRId64 ", %" PRId64 "] must be 0 <= begin <= end", path,
                        e->name, (int64_t)json_integer_value(begin), (int64_t)json_integer_value(end));
    }
    e->begin = (uint64_t)json_integer_value(begin);
    e->end = (uint64_t)json_integer_value(end);
    return SYZ_OK;
}

/* The bytes that the shape needs must be the bytes that the offsets span. */
static syz_status check_size(const entry *e, const char *path) {
    uint64_t bits = (uint64_t)types[e->type].bits;
    for (int i = 0; i < e->shape.n; i++) {
        if (__builtin_mul_overflow(bits, (uint64_t)e->shape.dim[i], &bits)) {
            char text[160];
            return syz_fail(SYZ_EFORMAT, "%s: tensor \"%s\": the size of shape %s overflows", path, e->name,
                            syz_shape_text(e->shape, text, sizeof text));
        }
    }
    if (bits % 8) return syz_fail(SYZ_EFORMAT, "%s: tensor \"%s\": does not fill whole bytes", path, e->name);
    if (bits / 8 == e->end - e->begin) return SYZ_OK;
    return syz_fail(SYZ_EFORMAT,
                    "%s: tensor \"%s\": data_offsets [%" PRIu64 ", %" PRIu64 "] hold %" PRIu64
                    " bytes, its shape needs %" PRIu64,
                    path, e->name, e->begin, e->end, e->end - e->begin, bits / 8);
}

static syz_status read_entry(entry *e, const char *name, const json_t *value, const char *path) {
    if (strlen(name) > MAX_NAME) {
        return syz_fail(SYZ_EFORMAT, "%s: tensor \"%.40s...\": name longer than %d bytes", path, name, MAX_NAME);
    }
    e->name = syz_strdup(name);
    if (!e->name) return syz_error_status();
    if (!json_is_object(value)) return syz_fail(SYZ_EFORMAT, "%s: tensor \"%s\": must be an object", path, name);
    if (json_object_size(value) != 3) {
        return syz_fail(SYZ_EFORMAT, "%s: tensor \"%s\": must have exactly dtype, shape and data_offsets", path, name);
    }
    SYZ_TRY(read_type(e, json_object_get(value, "dtype"), path));
    SYZ_TRY(read_shape(e, json_object_get(value, "shape"), path));
    SYZ_TRY(read_offsets(e, json_object_get(value, "data_offsets"), path));
    return check_size(e, path);
}

static int by_offset(const void *a, const void *b) {
    const entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const entry *)a)->name, ((const entry *)b)->name);
}

/* Sorted by offset, the tensors must tile the data part: no hole, no overlap, nothing after the last. */
static syz_status check_tiling(syz_weights *weights, uint64_t data_size) {
    qsort(weights->entries, weights->count, sizeof(entry), by_offset);
    uint64_t at = 0;
    for (size_t i = 0; i < weights->count; i++) {
        const entry *e = &weights->entries[i];
        if (e->begin != at) {
            return syz_fail(SYZ_EFORMAT,
                            "%s: tensor \"%s\": data begins at %" PRIu64 ", %s the tensor before ends at %" PRIu64,
                            weights->path, e->name, e->begin, e->begin > at ? "a hole:" : "an overlap:", at);
        }
        at = e->end;
    }
    if (at == data_size) return SYZ_OK;
    return syz_fail(SYZ_EFORMAT, "%s: the tensors end at data byte %" PRIu64 ", the file holds %" PRIu64 "%s",
                    weights->path, at, data_size, at > data_size ? " (torn download?)" : "");
}

static syz_status check_metadata(const json_t *metadata, const char *path) {
    if (!json_is_object(metadata)) return syz_fail(SYZ_EFORMAT, "%s: __metadata__ must be an object", path);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)metadata, key, value) {
        if (!json_is_string(value)) {
            return syz_fail(SYZ_EFORMAT, "%s: __metadata__ \"%.60s\" must be a string", path, key);
        }
    }
    return SYZ_OK;
}

static syz_status reserve_entries(syz_weights *weights, size_t count) {
    if (count > MAX_TENSORS) {
        return syz_fail(SYZ_EFORMAT, "%s: %zu tensors, at most %d are supported", weights->path, count, MAX_TENSORS);
    }
    weights->entries = syz_alloc(count, sizeof(entry));
    weights->capacity = count;
    return weights->entries ? SYZ_OK : syz_error_status();
}

static syz_status read_header(syz_weights *weights, syz_mapping *file, json_t *header, uint64_t data_start) {
    SYZ_TRY(reserve_entries(weights, json_object_size(header)));
    const char *name;
    json_t *value;
    json_object_foreach(header, name, value) {
        if (strcmp(name, "__metadata__") == 0) {
            SYZ_TRY(check_metadata(value, weights->path));
            weights->metadata = json_incref(value);
            continue;
        }
        entry *e = &weights->entries[weights->count++];
        e->file = file;
        file->refs++;
        SYZ_TRY(read_entry(e, name, value, weights->path));
    }
    SYZ_TRY(check_tiling(weights, file->size - data_start));
    for (size_t i = 0; i < weights->count; i++) {
        weights->entries[i].begin += data_start;
        weights->entries[i].end += data_start;
    }
    qsort(weights->entries, weights->count, sizeof(entry), by_name);
    return SYZ_OK;
}

/* What a clone without Git LFS leaves in the place of a large file. */
static bool is_lfs_pointer(const syz_mapping *file) {
    static const char start[] = "version https://git-lfs";
    return file->size >= sizeof start - 1 && memcmp(file->bytes, start, sizeof start - 1) == 0;
}

static syz_status read_file(syz_weights *weights, syz_mapping *file) {
    const char *path = weights->path;
    if (is_lfs_pointer(file))
        return syz_fail(SYZ_EFORMAT, "%s: is a Git LFS pointer, not the weights: run `git lfs pull`", path);
    if (file->size < 8) return syz_fail(SYZ_EFORMAT, "%s: has %zu bytes, too few for a header", path, file->size);
    uint64_t length = load_u64(file->bytes);
    if (length > MAX_HEADER) {
        return syz_fail(SYZ_EFORMAT,
                        "%s: header of %" PRIu64 " bytes, at most %d are allowed (is it a safetensors file?)", path,
                        length, MAX_HEADER);
    }
    if (length > file->size - 8) {
        return syz_fail(SYZ_EFORMAT, "%s: header of %" PRIu64 " bytes runs past the end of the file", path, length);
    }
    if (length == 0 || file->bytes[8] != '{') return syz_fail(SYZ_EFORMAT, "%s: header must start with '{'", path);
    json_t *header = syz_json_parse((const char *)file->bytes + 8, (size_t)length, path);
    if (!header) return syz_error_status();
    syz_status status = read_header(weights, file, header, 8 + length);
    json_decref(header);
    return status;
}

static syz_weights *new_weights(const char *path) {
    if (syz_failed()) return NULL;
    syz_weights *weights = syz_alloc(1, sizeof *weights);
    if (weights && !(weights->path = syz_strdup(path))) {
        free(weights);
        return NULL;
    }
    return weights;
}

static syz_weights *open_single(const char *path) {
    syz_weights *weights = new_weights(path);
    if (!weights) return NULL;
    syz_mapping *file = syz_file_map(path);
    if (!file || read_file(weights, file) != SYZ_OK) {
        syz_weights_close(weights);
        weights = NULL;
    }
    syz_mapping_release(file); /* the entries hold their own references */
    return weights;
}

/* ---- shards ------------------------------------------------------------------------------------------------------ */

/* A shard is a plain file name in the index's own folder. */
static bool shard_name_ok(const char *name) {
    const char *suffix = ".safetensors";
    size_t length = strlen(name), tail = strlen(suffix);
    return length > tail && length <= 255 && name[0] != '.' && !strchr(name, '/') &&
           strcmp(name + length - tail, suffix) == 0;
}

/* Move the tensors that the index places in this shard out of the shard's own object. */
static syz_status take_shard(syz_weights *weights, json_t *map, const char *shard_name) {
    const char *slash = strrchr(weights->path, '/');
    int folder = slash ? (int)(slash - weights->path) + 1 : 0;
    char *path = syz_format("%.*s%s", folder, weights->path, shard_name);
    syz_weights *shard = path ? open_single(path) : NULL;
    syz_status status = shard ? SYZ_OK : syz_error_status();
    const char *name;
    json_t *value;
    json_object_foreach(map, name, value) {
        if (status != SYZ_OK || strcmp(json_string_value(value), shard_name) != 0) continue;
        int64_t i = syz_weights_find(shard, name);
        entry *to = &weights->entries[weights->count];
        if (i < 0) {
            status = syz_fail(SYZ_EFORMAT, "%s: places tensor \"%.200s\" in %s, which lacks it", weights->path, name,
                              shard_name);
        } else if ((to->name = syz_strdup(name))) {
            *to = (entry){to->name,
                          shard->entries[i].type,
                          shard->entries[i].shape,
                          shard->entries[i].begin,
                          shard->entries[i].end,
                          shard->entries[i].file};
            to->file->refs++;
            weights->count++;
        } else {
            status = syz_error_status();
        }
    }
    syz_weights_close(shard);
    free(path);
    return status;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The distinct shard names of the map, sorted; borrowed from it, the array is the caller's. */
static const char **shard_names(size_t *count, json_t *map, const char *path) {
    const char **names = syz_alloc(json_object_size(map), sizeof *names);
    if (!names) return NULL;
    size_t n = 0;
    const char *key;
    json_t *value;
    json_object_foreach(map, key, value) {
        const char *name = json_string_value(value);
        if (!name || !shard_name_ok(name)) {
            syz_fail(SYZ_EFORMAT, "%s: weight_map \"%.200s\" must name a .safetensors file in the same folder", path,
                     key);
            free(names);
            return NULL;
        }
        names[n++] = name;
    }
    qsort(names, n, sizeof *names, by_text);
    *count = 0;
    for (size_t i = 0; i < n; i++)
        if (i == 0 || strcmp(names[i], names[i - 1]) != 0) names[(*count)++] = names[i];
    if (*count <= MAX_SHARDS) return names;
    free(names);
    return syz_fail_null(SYZ_EFORMAT, "%s: %zu shards, at most %d are supported", path, *count, MAX_SHARDS);
}

static syz_status read_index(syz_weights *weights, json_t *index) {
    json_t *map = json_object_get(index, "weight_map");
    if (!json_is_object(map)) return syz_fail(SYZ_EFORMAT, "%s: \"weight_map\" must be an object", weights->path);
    SYZ_TRY(reserve_entries(weights, json_object_size(map)));
    size_t shards;
    const char **names = shard_names(&shards, map, weights->path);
    if (!names) return syz_error_status();
    syz_status status = SYZ_OK;
    for (size_t i = 0; i < shards && status == SYZ_OK; i++)
        status = take_shard(weights, map, names[i]);
    free(names);
    weights->metadata = json_incref(json_object_get(index, "metadata"));
    qsort(weights->entries, weights->count, sizeof(entry), by_name);
    return status;
}

static syz_weights *open_sharded(const char *path) {
    syz_weights *weights = new_weights(path);
    if (!weights) return NULL;
    json_t *index = syz_json_load(path);
    if (!index || read_index(weights, index) != SYZ_OK) {
        syz_weights_close(weights);
        weights = NULL;
    }
    json_decref(index);
    return weights;
}

/* ---- the public reader ------------------------------------------------------------------------------------------- */

syz_weights *syz_weights_open(const char *path) {
    const char *suffix = ".json";
    size_t length = strlen(path), tail = strlen(suffix);
    bool sharded = length > tail && strcmp(path + length - tail, suffix) == 0;
    return sharded ? open_sharded(path) : open_single(path);
}

void syz_weights_close(syz_weights *weights) {
    if (!weights) return;
    for (size_t i = 0; i < weights->count; i++) {
        free(weights->entries[i].name);
        syz_mapping_release(weights->entries[i].file);
    }
    free(weights->entries);
    json_decref(weights->metadata);
    free(weights->path);
    free(weights);
}

int64_t syz_weights_count(const syz_weights *weights) {
    return (int64_t)weights->count;
}

syz_weight_info syz_weights_info(const syz_weights *weights, int64_t index) {
    if (index < 0 || (size_t)index >= weights->count) return (syz_weight_info){0};
    const entry *e = &weights->entries[index];
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

syz_tensor *syz_weights_get(const syz_weights *weights, const char *name) {
    if (syz_failed()) return NULL;
    int64_t i = syz_weights_find(weights, name);
    if (i < 0) return syz_fail_null(SYZ_ENOTFOUND, "%s: has no tensor \"%s\"", weights->path, name);
    const entry *e = &weights->entries[i];
    if (types[e->type].dtype < 0) {
        return syz_fail_null(SYZ_EUNSUPPORTED, "%s: tensor \"%s\": dtype %s is not supported", weights->path, name,
                             types[e->type].name);
    }
    syz_dtype dtype = (syz_dtype)types[e->type].dtype;
    uint8_t *data = e->file->bytes + e->begin;
    if ((uintptr_t)data % syz_dtype_size(dtype) != 0) return syz_from(dtype, e->shape, data);
    e->file->refs++;
    syz_tensor *t = syz_wrap(dtype, e->shape, data, syz_mapping_release, e->file);
    if (!t) syz_mapping_release(e->file);
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
