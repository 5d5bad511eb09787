#include "core/alloc.h"
#include "core/error.h"
#include "io/json.h"
#include "io/weights.h"
#include "ops/ops.h"
#include "tensor/tensor.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    syz_weight_plan plan;
    int64_t index; /* the caller's */
    uint64_t bytes;
} item;

/* Wide elements first, so that every tensor is aligned in the file; then by name, so that equal content gives equal
 * bytes. */
static int file_order(const void *a, const void *b) {
    const item *x = a, *y = b;
    size_t wide = syz_dtype_size(x->plan.dtype), other = syz_dtype_size(y->plan.dtype);
    if (wide != other) return wide > other ? -1 : 1;
    return strcmp(x->plan.name, y->plan.name);
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static uint64_t bytes_of(const syz_weight_plan *plan) {
    return (uint64_t)syz_shape_numel(plan->shape) * syz_dtype_size(plan->dtype);
}

/* The tensors in file order; the array is the caller's. */
static item *sorted_items(const char *path, const syz_weight_plan plans[], int64_t count) {
    item *items = syz_alloc((size_t)count, sizeof *items);
    const char **sorted = items ? syz_alloc((size_t)count, sizeof *sorted) : NULL;
    syz_status status = sorted ? SYZ_OK : syz_error_status();
    for (int64_t i = 0; i < count && status == SYZ_OK; i++) {
        sorted[i] = plans[i].name;
        items[i] = (item){plans[i], i, bytes_of(&plans[i])};
        if (strcmp(sorted[i], "__metadata__") == 0)
            status = syz_fail(SYZ_EINVAL, "%s: __metadata__ cannot name a tensor", path);
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
    for (int i = 0; i < e->plan.shape.n; i++)
        json_array_append_new(shape, json_integer(e->plan.shape.dim[i]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", syz_dtype_file_name(e->plan.dtype), "shape", shape,
                     "data_offsets", (json_int_t)begin, (json_int_t)(begin + e->bytes));
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
        if (json_object_set_new(tensors, items[i].plan.name, describe(&items[i], *total)) != 0) {
            syz_fail(SYZ_EINVAL, "%s: tensor name \"%s\" is not UTF-8 text", path, items[i].plan.name);
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

/* A tensor that is made or converted here is gone before the next one. */
static void put_tensor(syz_file_writer *writer, const item *e, syz_weight_maker make, void *context) {
    if (syz_scope_push() != SYZ_OK) return;
    syz_no_grad_push();
    syz_tensor *t = make(context, e->index);
    if (t && t->dtype != e->plan.dtype) t = syz_cast(t, e->plan.dtype);
    t = syz_copy_to(t, 0);
    if (t) syz_file_put(writer, syz_data(t), e->bytes);
    syz_no_grad_pop();
    syz_scope_pop();
}

syz_file_writer *syz_safetensors_begin(const char *path, const syz_weight_plan plans[], int64_t count,
                                       syz_weight_maker make, void *context, const char *const (*metadata)[2],
                                       int64_t nmetadata) {
    if (syz_failed()) return NULL;
    item *items = sorted_items(path, plans, count);
    if (!items) return NULL;
    uint64_t total = 0;
    char *text = header_text(&total, path, items, count, metadata, nmetadata);
    syz_file_writer *writer = text ? syz_file_begin(path, total + strlen(text)) : NULL;
    if (writer) {
        put_header(writer, text);
        for (int64_t i = 0; i < count && !syz_failed(); i++)
            put_tensor(writer, &items[i], make, context);
        if (syz_failed() || syz_file_finish(writer) != SYZ_OK) {
            syz_file_discard(writer);
            writer = NULL;
        }
    }
    free(text);
    free(items);
    return writer;
}

static syz_tensor *given(void *tensors, int64_t index) {
    return ((syz_tensor *const *)tensors)[index];
}

syz_status syz_weights_save(const char *path, const char *const names[], syz_tensor *const tensors[], int64_t count,
                            const char *const (*metadata)[2], int64_t nmetadata) {
    if (syz_failed()) return syz_error_status();
    syz_weight_plan *plans = syz_alloc((size_t)count, sizeof *plans);
    for (int64_t i = 0; i < count && plans && !syz_failed(); i++) {
        if (!tensors[i] || !syz_alive(tensors[i]))
            syz_fail(SYZ_EINVAL, "%s: tensor \"%s\" has no values: its scope has ended", path, names[i]);
        else
            plans[i] = (syz_weight_plan){names[i], tensors[i]->shape, tensors[i]->dtype};
    }
    void *context = (void *)(uintptr_t)tensors;
    syz_file_writer *writer = syz_safetensors_begin(path, plans, count, given, context, metadata, nmetadata);
    free(plans);
    return writer ? syz_file_commit(writer) : syz_error_status();
}
