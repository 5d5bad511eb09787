#include "core/alloc.h"
#include "core/error.h"
#include "io/json.h"
#include "io/weights.h"
#include "ops/ops.h"
#include "tensor/tensor.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *name;
    syz_tensor *tensor;
    syz_dtype dtype; /* in the file */
    uint64_t bytes;
} item;

/* Wide elements first, so that every tensor is aligned in the file; then by name, so that equal content gives equal
 * bytes. */
static int file_order(const void *a, const void *b) {
    const item *x = a, *y = b;
    size_t wide = syz_dtype_size(x->dtype), other = syz_dtype_size(y->dtype);
    if (wide != other) return wide > other ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* `dtype` SYZ_DTYPE_COUNT stands for the tensor's own. */
static item make_item(const char *name, syz_tensor *tensor, syz_dtype dtype) {
    if (dtype == SYZ_DTYPE_COUNT) dtype = tensor->dtype;
    return (item){name, tensor, dtype, (uint64_t)syz_numel(tensor) * syz_dtype_size(dtype)};
}

/* The tensors in file order; the array is the caller's. */
static item *sorted_items(const char *path, const char *const names[], syz_tensor *const tensors[], int64_t count,
                          syz_dtype dtype) {
    item *items = syz_alloc((size_t)count, sizeof *items);
    const char **sorted = items ? syz_alloc((size_t)count, sizeof *sorted) : NULL;
    syz_status status = sorted ? SYZ_OK : syz_error_status();
    for (int64_t i = 0; i < count && status == SYZ_OK; i++) {
        sorted[i] = names[i];
        if (strcmp(names[i], "__metadata__") == 0) {
            status = syz_fail(SYZ_EINVAL, "%s: __metadata__ cannot name a tensor", path);
        } else if (!tensors[i] || !syz_alive(tensors[i])) {
            status = syz_fail(SYZ_EINVAL, "%s: tensor \"%s\" has no values: its scope has ended", path, names[i]);
        } else {
            items[i] = make_item(names[i], tensors[i], dtype);
        }
    }
    if (status == SYZ_OK) qsort(sorted, (size_t)count, sizeof *sorted, by_text);
    for (int64_t i = 1; i < count && status == SYZ_OK; i++) {
        if (strcmp(sorted[i], sorted[i - 1]) == 0) {
            status = syz_fail(SYZ_EINVAL, "%s: two tensors are named \"%s\"", path, sorted[i]);
        }
    }
    free(sorted);
    if (status == SYZ_OK) {
        qsort(items, (size_t)count, sizeof *items, file_order);
        return items;
    }
    free(items);
    return NULL;
}

static json_t *describe(const item *e, uint64_t begin) {
    json_t *shape = json_array();
    for (int i = 0; i < e->tensor->shape.n; i++)
        json_array_append_new(shape, json_integer(e->tensor->shape.dim[i]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", syz_dtype_file_name(e->dtype), "shape", shape, "data_offsets",
                     (json_int_t)begin, (json_int_t)(begin + e->bytes));
}

static json_t *pack_metadata(const char *path, const char *const (*metadata)[2], int64_t count) {
    json_t *object = json_object();
    for (int64_t i = 0; i < count; i++) {
        if (json_object_set_new(object, metadata[i][0], json_string(metadata[i][1])) != 0) {
            json_decref(object);
            return syz_fail_null(SYZ_EINVAL, "%s: metadata \"%s\" is not UTF-8 text", path, metadata[i][0]);
        }
    }
    return object;
}

/* The header's text, to be freed. */
static char *header_text(uint64_t *total, const char *path, const item *items, int64_t count,
                         const char *const (*metadata)[2], int64_t nmetadata) {
    char *text = NULL;
    json_t *tensors = json_object(), *notes = pack_metadata(path, metadata, nmetadata);
    if (!notes) goto done;
    *total = 0;
    for (int64_t i = 0; i < count; i++) {
        if (json_object_set_new(tensors, items[i].name, describe(&items[i], *total)) != 0) {
            syz_fail(SYZ_EINVAL, "%s: tensor name \"%s\" is not UTF-8 text", path, items[i].name);
            goto done;
        }
        *total += items[i].bytes;
    }
    /* Metadata in the order of its keys, tensors in that of their bytes. */
    char *body = json_dumps(tensors, JSON_COMPACT), *head = json_dumps(notes, JSON_COMPACT | JSON_SORT_KEYS);
    if (!body || !head)
        syz_fail(SYZ_ENOMEM, "%s: out of memory", path);
    else if (nmetadata == 0)
        text = syz_strdup(body);
    else
        text = syz_format("{\"__metadata__\":%s%s%s", head, count ? "," : "", body + 1);
    free(body);
    free(head);
done:
    json_decref(tensors);
    json_decref(notes);
    return text;
}

/* Size, text, and spaces up to the next multiple of 64, so that mapped tensors are aligned for vector loads. */
static void put_header(syz_file_writer *writer, const char *text) {
    static const char spaces[64] = "                                                                ";
    size_t length = strlen(text), padding = (64 - (8 + length) % 64) % 64;
    uint8_t size[8];
    for (int i = 0; i < 8; i++)
        size[i] = (uint8_t)((uint64_t)(length + padding) >> (8 * i));
    syz_file_put(writer, size, sizeof size);
    syz_file_put(writer, text, length);
    syz_file_put(writer, spaces, padding);
}

/* A tensor of another dtype is converted here, and its copy gone before the next one. */
static void put_tensor(syz_file_writer *writer, const item *e) {
    if (e->tensor->dtype == e->dtype) {
        syz_file_put(writer, syz_data(e->tensor), e->bytes);
        return;
    }
    if (syz_scope_push() != SYZ_OK) return;
    syz_no_grad_push();
    syz_tensor *converted = syz_cast(e->tensor, e->dtype);
    if (converted) syz_file_put(writer, syz_data(converted), e->bytes);
    syz_no_grad_pop();
    syz_scope_pop();
}

syz_file_writer *syz_safetensors_begin(const char *path, const char *const names[], syz_tensor *const tensors[],
                                       int64_t count, syz_dtype dtype, const char *const (*metadata)[2],
                                       int64_t nmetadata) {
    if (syz_failed()) return NULL;
    item *items = sorted_items(path, names, tensors, count, dtype);
    if (!items) return NULL;
    uint64_t total = 0;
    char *text = header_text(&total, path, items, count, metadata, nmetadata);
    syz_file_writer *writer = text ? syz_file_begin(path, total + strlen(text)) : NULL;
    if (writer) {
        put_header(writer, text);
        for (int64_t i = 0; i < count && !syz_failed(); i++)
            put_tensor(writer, &items[i]);
        if (syz_failed() || syz_file_finish(writer) != SYZ_OK) {
            syz_file_discard(writer);
            writer = NULL;
        }
    }
    free(text);
    free(items);
    return writer;
}

syz_status syz_weights_save(const char *path, const char *const names[], syz_tensor *const tensors[], int64_t count,
                            const char *const (*metadata)[2], int64_t nmetadata) {
    syz_file_writer *writer = syz_safetensors_begin(path, names, tensors, count, SYZ_DTYPE_COUNT, metadata, nmetadata);
    return writer ? syz_file_commit(writer) : syz_error_status();
}
