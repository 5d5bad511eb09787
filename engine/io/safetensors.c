/* safetensors: u64 little-endian header size, a JSON header, the tensors' bytes. Reading maps the file and checks the
 * whole header before anything else sees it; docs of the format: https://huggingface.co/docs/safetensors. */
#include "core/alloc.h"
#include "core/error.h"
#include "io/json.h"
#include "io/weights.h"
#include "tensor/tensor.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_HEADER = 100000000 };

/* ---- the header -------------------------------------------------------------------------------------------------- */

static syz_status read_type(syz_weight_entry *e, const json_t *value, const char *path) {
    const char *text = json_string_value(value);
    if (!text) return syz_fail(SYZ_EFORMAT, "%s: tensor \"%s\": \"dtype\" must be a string", path, e->name);
    e->type = syz_weight_type(text);
    if (e->type >= 0) return SYZ_OK;
    return syz_fail(SYZ_EFORMAT, "%s: tensor \"%s\": unknown dtype \"%.40s\"", path, e->name, text);
}

static syz_status read_shape(syz_weight_entry *e, const json_t *value, const char *path) {
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

static syz_status read_offsets(syz_weight_entry *e, const json_t *value, const char *path) {
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
static syz_status check_size(const syz_weight_entry *e, const char *path) {
    uint64_t bits = syz_weight_type_bits(e->type);
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

static syz_status read_entry(syz_weight_entry *e, const char *name, const json_t *value, const char *path) {
    if (strlen(name) > SYZ_WEIGHTS_MAX_NAME) {
        return syz_fail(SYZ_EFORMAT, "%s: tensor \"%.40s...\": name longer than %d bytes", path, name,
                        SYZ_WEIGHTS_MAX_NAME);
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
    const syz_weight_entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

/* Sorted by offset, the tensors must tile the data part: no hole, no overlap, nothing after the last. */
static syz_status check_tiling(syz_weights *weights, uint64_t data_size) {
    qsort(weights->entries, weights->count, sizeof *weights->entries, by_offset);
    uint64_t at = 0;
    for (size_t i = 0; i < weights->count; i++) {
        const syz_weight_entry *e = &weights->entries[i];
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

static syz_status read_header(syz_weights *weights, syz_weight_file *file, json_t *header, uint64_t data_start) {
    SYZ_TRY(syz_weights_reserve(weights, json_object_size(header)));
    const char *name;
    json_t *value;
    json_object_foreach(header, name, value) {
        if (strcmp(name, "__metadata__") == 0) {
            SYZ_TRY(check_metadata(value, weights->path));
            weights->metadata = json_incref(value);
            continue;
        }
        SYZ_TRY(read_entry(syz_weights_add(weights, file), name, value, weights->path));
    }
    SYZ_TRY(check_tiling(weights, file->mapping->size - data_start));
    for (size_t i = 0; i < weights->count; i++) {
        weights->entries[i].begin += data_start;
        weights->entries[i].end += data_start;
    }
    syz_weights_sort(weights);
    return SYZ_OK;
}

syz_status syz_safetensors_read(syz_weights *weights, syz_weight_file *owner) {
    const char *path = weights->path;
    const syz_mapping *file = owner->mapping;
    if (file->size < 8) return syz_fail(SYZ_EFORMAT, "%s: has %zu bytes, too few for a header", path, file->size);
    uint64_t length = syz_weights_u64(file->bytes);
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
    syz_status status = read_header(weights, owner, header, 8 + length);
    json_decref(header);
    return status;
}
