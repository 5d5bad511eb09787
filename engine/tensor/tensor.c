#include "tensor/tensor.h"
#include "autograd/node.h"
#include "core/alloc.h"
#include "tensor/scope.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- shapes ---- */

int64_t syz_shape_numel(syz_shape shape) {
    int64_t n = 1;
    for (int i = 0; i < shape.n; i++)
        n *= shape.dim[i];
    return n;
}

bool syz_shape_equal(syz_shape a, syz_shape b) {
    return a.n == b.n && memcmp(a.dim, b.dim, (size_t)a.n * sizeof a.dim[0]) == 0;
}

bool syz_dim_normalize(int64_t *dim, int n) {
    if (*dim < 0) *dim += n;
    return *dim >= 0 && *dim < n;
}

const char *syz_shape_text(syz_shape shape, char *buffer, size_t size) {
    size_t used = (size_t)snprintf(buffer, size, "[");
    for (int i = 0; i < shape.n && used < size; i++)
        used += (size_t)snprintf(buffer + used, size - used, "%s%lld", i ? "," : "", (long long)shape.dim[i]);
    if (used < size) snprintf(buffer + used, size - used, "]");
    return buffer;
}

const char *syz_dims(const syz_tensor *t) {
    static _Thread_local char text[4][96];
    static _Thread_local unsigned turn;
    return syz_shape_text(t->shape, text[turn++ % 4], sizeof text[0]);
}

static syz_status check_shape(syz_dtype dtype, syz_shape shape) {
    if (shape.n < 0 || shape.n > SYZ_MAX_DIMS)
        return syz_fail(SYZ_ESHAPE, "a tensor has at most %d dimensions, not %d", SYZ_MAX_DIMS, shape.n);
    int64_t bytes = (int64_t)syz_dtype_size(dtype);
    for (int i = 0; i < shape.n; i++) {
        if (shape.dim[i] < 0)
            return syz_fail(SYZ_ESHAPE, "dimension %d is %lld: sizes cannot be negative", i, (long long)shape.dim[i]);
        if (__builtin_mul_overflow(bytes, shape.dim[i], &bytes))
            return syz_fail(SYZ_ESHAPE, "the tensor is larger than the address space");
    }
    return SYZ_OK;
}

/* ---- construction ---- */

static syz_tensor *new_header(syz_dtype dtype, syz_shape shape) {
    if (syz_failed() || check_shape(dtype, shape) != SYZ_OK) return NULL;
    syz_tensor *t = syz_alloc(1, sizeof *t);
    if (!t) return NULL;
    t->dtype = dtype;
    t->shape = shape;
    t->device = syz_device_current();
    if (syz_scope_adopt(t) != SYZ_OK) {
        free(t);
        return NULL;
    }
    return t;
}

syz_tensor *syz_empty(syz_dtype dtype, syz_shape shape) {
    syz_tensor *t = new_header(dtype, shape);
    if (!t) return NULL;
    size_t bytes = (size_t)syz_shape_numel(shape) * syz_dtype_size(dtype);
    syz_storage *storage = syz_alloc(1, sizeof *storage);
    if (!storage) return NULL;
    syz_memory_tag tag = syz_memory_tag_current();
    storage->data = t->device ? syz_device_allocate(t->device, bytes, tag) : syz_block_alloc(bytes);
    if (!storage->data) {
        free(storage);
        return NULL;
    }
    *storage = (syz_storage){.refs = 1, .data = storage->data, .bytes = bytes, .device = t->device, .tag = tag};
    t->storage = storage;
    return t;
}

syz_tensor *syz_pinned_zeros(syz_dtype dtype, syz_shape shape) {
    int device = syz_device_swap(0);
    syz_tensor *t = new_header(dtype, shape);
    syz_device_swap(device);
    if (!t) return NULL;
    size_t bytes = (size_t)syz_shape_numel(shape) * syz_dtype_size(dtype);
    syz_storage *storage = syz_alloc(1, sizeof *storage);
    if (!storage || !(storage->data = syz_pinned_allocate(bytes))) {
        free(storage);
        return NULL;
    }
    memset(storage->data, 0, bytes);
    *storage = (syz_storage){.refs = 1, .data = storage->data, .bytes = bytes, .pinned = true};
    t->storage = storage;
    return t;
}

/* Memory that its owner frees. */
static void leave(void *owner) {
    (void)owner;
}

syz_tensor *syz_wrap(syz_dtype dtype, syz_shape shape, const void *data, void (*release)(void *), void *owner) {
    if ((uintptr_t)data % syz_dtype_size(dtype) != 0)
        return syz_fail_null(SYZ_EINVAL, "wrapped memory is not aligned to %zu bytes", syz_dtype_size(dtype));
    syz_tensor *t = new_header(dtype, shape);
    if (!t) return NULL;
    t->device = 0;
    syz_storage *storage = syz_alloc(1, sizeof *storage);
    if (!storage) return NULL;
    *storage =
        (syz_storage){.refs = 1, .data = (void *)(uintptr_t)data, .release = release ? release : leave, .owner = owner};
    t->storage = storage;
    return t;
}

syz_tensor *syz_zeros(syz_dtype dtype, syz_shape shape) {
    syz_tensor *t = syz_empty(dtype, shape);
    return t && syz_device_zero(t->device, syz_data(t), syz_nbytes(t)) == SYZ_OK ? t : NULL;
}

syz_tensor *syz_host_zeros(syz_dtype dtype, syz_shape shape) {
    int device = syz_device_swap(0);
    syz_tensor *t = syz_zeros(dtype, shape);
    syz_device_swap(device);
    return t;
}

/* A new tensor on `device` with the values at `data`, which lie on `from`. */
static syz_tensor *copy_of(int device, syz_dtype dtype, syz_shape shape, const void *data, int from) {
    int before = syz_device_swap(device);
    syz_tensor *t = syz_empty(dtype, shape);
    syz_device_swap(before);
    return t && syz_device_copy(syz_data(t), device, data, from, syz_nbytes(t)) == SYZ_OK ? t : NULL;
}

syz_tensor *syz_from(syz_dtype dtype, syz_shape shape, const void *data) {
    return copy_of(syz_device_current(), dtype, shape, data, 0);
}

syz_tensor *syz_empty_like(const syz_tensor *t) {
    return t ? syz_empty(t->dtype, t->shape) : NULL;
}

syz_tensor *syz_zeros_like(const syz_tensor *t) {
    return t ? syz_zeros(t->dtype, t->shape) : NULL;
}

syz_tensor *syz_view(syz_tensor *t, syz_shape shape) {
    if (!t) return NULL;
    if (!t->storage) return syz_fail_null(SYZ_EINVAL, "the tensor's values were freed when its scope ended");
    syz_tensor *view = new_header(t->dtype, shape);
    if (!view) return NULL;
    view->storage = t->storage;
    view->offset = t->offset;
    view->device = t->device;
    t->storage->refs++;
    return view;
}

syz_tensor *syz_view_from(syz_tensor *t, int64_t first, syz_shape shape) {
    syz_tensor *view = syz_view(t, shape);
    if (view) view->offset += (size_t)first * syz_dtype_size(t->dtype);
    return view;
}

syz_tensor *syz_alias(syz_tensor *t) {
    return t ? syz_view(t, t->shape) : NULL;
}

syz_tensor *syz_copy(syz_tensor *t) {
    if (!t) return NULL;
    if (!t->storage) return syz_fail_null(SYZ_EINVAL, "the tensor's values were freed when its scope ended");
    return copy_of(t->device, t->dtype, t->shape, syz_data(t), t->device);
}

syz_tensor *syz_copy_to(syz_tensor *t, int device) {
    if (!t || t->device == device) return t;
    if (syz_device_check(device) != SYZ_OK) return NULL;
    if (!t->storage) return syz_fail_null(SYZ_EINVAL, "the tensor's values were freed when its scope ended");
    return copy_of(device, t->dtype, t->shape, syz_data(t), t->device);
}

syz_status syz_move(syz_tensor *t, int device) {
    if (!t || t->device == device) return syz_error_status();
    if (t->node) return syz_fail(SYZ_EINVAL, "only tensors without history can be moved");
    SYZ_TRY(syz_scope_push());
    syz_tensor *copy = syz_copy_to(t, device);
    if (copy) {
        syz_storage *old = t->storage;
        copy->storage->rounds = old->rounds;
        t->storage = copy->storage;
        t->device = device;
        t->offset = 0;
        copy->storage = old;
        copy->device = old->device;
    }
    syz_scope_pop();
    SYZ_TRY(copy ? SYZ_OK : syz_error_status());
    return syz_move(t->grad, device);
}

void syz_retag(syz_tensor *t, syz_memory_tag tag) {
    syz_storage *storage = t->storage;
    if (!storage || storage->device == 0 || storage->release) return;
    syz_device_retag(storage->device, storage->bytes, storage->tag, tag);
    storage->tag = tag;
}

syz_tensor *syz_stand_in(const syz_tensor *t) {
    syz_tensor *header = new_header(t->dtype, t->shape);
    if (!header) return NULL;
    header->device = t->device;
    header->node = t->node;
    syz_node_retain(t->node);
    return header;
}

/* ---- lifetime ---- */

static void storage_release(syz_storage *storage) {
    if (!storage || --storage->refs > 0) return;
    syz_block_free(storage->rounded, storage->bytes / 2);
    if (storage->codes && storage->device)
        syz_device_release(storage->device, storage->codes, storage->code_bytes, SYZ_MEMORY_WEIGHTS);
    else
        syz_block_free(storage->codes, storage->code_bytes);
    if (storage->release)
        storage->release(storage->owner);
    else if (storage->pinned)
        syz_pinned_release(storage->data);
    else if (storage->device)
        syz_device_release(storage->device, storage->data, storage->bytes, storage->tag);
    else if (storage->bytes || storage->data)
        syz_block_free(storage->data, storage->bytes);
    free(storage);
}

syz_tensor *syz_retain(syz_tensor *t) {
    if (t) t->refs++;
    return t;
}

void syz_release(syz_tensor *t) {
    if (!t || --t->refs > 0) return;
    storage_release(t->storage);
    t->storage = NULL;
    syz_tensor *grad = t->grad;
    syz_node *node = t->node;
    t->grad = NULL;
    t->node = NULL;
    if (t->handles == 0) free(t);
    syz_release(grad);
    syz_node_release(node);
}

void syz_handle_retain(syz_tensor *t) {
    if (t) t->handles++;
}

void syz_handle_release(syz_tensor *t) {
    if (t && --t->handles == 0 && t->refs == 0) free(t);
}

bool syz_alive(const syz_tensor *t) {
    return t && t->refs > 0 && t->storage;
}

/* ---- access ---- */

syz_dtype syz_tensor_dtype(const syz_tensor *t) {
    return t->dtype;
}

syz_shape syz_tensor_shape(const syz_tensor *t) {
    return t->shape;
}

int syz_tensor_device(const syz_tensor *t) {
    return t->device;
}

int64_t syz_numel(const syz_tensor *t) {
    return syz_shape_numel(t->shape);
}

size_t syz_nbytes(const syz_tensor *t) {
    return (size_t)syz_numel(t) * syz_dtype_size(t->dtype);
}

void *syz_data(const syz_tensor *t) {
    return t->storage ? (char *)t->storage->data + t->offset : NULL;
}
