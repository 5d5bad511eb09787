/* Files of torch.save: a zip archive of NAME/data.pkl, which describes tensors, and NAME/data/KEY, their storages. */
#include "io/torch.h"

#include "core/alloc.h"
#include "io/torch_zip.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { MAX_PICKLE = 256 << 20 };

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

/* The sides of a shape or the steps of a stride. */
static syz_status read_sides(int64_t sides[SYZ_MAX_DIMS], const syz_pickle_object *tuple, const char *what,
                             const syz_weight_entry *e) {
    if (tuple->count > SYZ_MAX_DIMS) {
        return syz_fail(SYZ_EFORMAT, "%s: tensor \"%s\": %u dimensions, at most %d are supported", e->file->path,
                        e->name, tuple->count, SYZ_MAX_DIMS);
    }
    for (uint32_t i = 0; i < tuple->count; i++) {
        if (tuple->items[i].kind != SYZ_PICKLE_INTEGER || tuple->items[i].as.integer < 0) {
            return syz_fail(SYZ_EFORMAT, "%s: tensor \"%s\": %s[%u] must be an integer of at least 0", e->file->path,
                            e->name, what, i);
        }
        sides[i] = tuple->items[i].as.integer;
    }
    return SYZ_OK;
}

/* The storage must have exactly the bytes that its own description claims: whoever trusts that claim instead of the
 * bytes reads beyond them (CVE-2026-24747). */
static syz_status read_storage(syz_weight_entry *e, const syz_pickle_value *tensor, syz_torch_find find,
                               const void *context) {
    const syz_pickle_object *arguments = tensor->as.object, *storage = arguments->items[0].as.object;
    const syz_pickle_global *kind = &syz_pickle_globals[storage->items[1].as.integer];
    const syz_pickle_global *call = &syz_pickle_globals[arguments->items[arguments->count - 1].as.integer];
    const char *type = kind->type;
    if (call->role == SYZ_GLOBAL_TENSOR_V3) type = syz_pickle_globals[arguments->items[6].as.integer].type;
    if (!type) return syz_fail(SYZ_EFORMAT, "%s: tensor \"%s\": its storage has no type", e->file->path, e->name);
    e->type = syz_weight_type(type);
    const syz_pickle_value *key = &storage->items[2];
    int64_t index = find(context, key->as.text, key->length);
    if (index < 0) {
        return syz_fail(SYZ_EFORMAT, "%s: tensor \"%s\": its storage \"%.*s\" is not in the file", e->file->path,
                        e->name, (int)(key->length < 100 ? key->length : 100), key->as.text);
    }
    e->storage = &e->file->storages[index];
    uint64_t size = kind->type ? syz_weight_type_bits(syz_weight_type(kind->type)) / 8 : 1, bytes;
    uint64_t claimed = (uint64_t)storage->items[4].as.integer;
    if (!__builtin_mul_overflow(claimed, size, &bytes) && bytes == e->storage->size) return SYZ_OK;
    return syz_fail(SYZ_EFORMAT,
                    "%s: tensor \"%s\": its storage claims %" PRIu64 " elements of %" PRIu64
                    " bytes, the file holds %" PRIu64 " bytes",
                    e->file->path, e->name, claimed, size, e->storage->size);
}

/* How many elements there are, and which is the last one that they reach; both must lie in the storage. */
static syz_status check_reach(syz_weight_entry *e, uint64_t offset) {
    uint64_t size = syz_weight_type_bits(e->type) / 8, room = e->storage->size / size, count = 1, last = offset, step;
    bool fits = true, empty = false;
    uint64_t dense = 1;
    for (int i = e->shape.n - 1; i >= 0; i--) {
        uint64_t side = (uint64_t)e->shape.dim[i];
        if (side == 0) empty = true;
        if (side > 1 && (uint64_t)e->stride[i] != dense) e->strided = true;
        fits = fits && !__builtin_mul_overflow(count, side ? side : 1, &count);
        fits = fits && !__builtin_mul_overflow((uint64_t)e->stride[i], side ? side - 1 : 0, &step);
        fits = fits && !__builtin_add_overflow(last, step, &last);
        dense = count;
    }
    if (empty) {
        e->strided = false;
        e->begin = e->end = e->storage->begin;
        return SYZ_OK;
    }
    if (!fits || count > room || last >= room) {
        char text[160];
        return syz_fail(SYZ_EFORMAT,
                        "%s: tensor \"%s\": shape %s from element %" PRIu64 " on needs more than the %" PRIu64
                        " elements of its storage",
                        e->file->path, e->name, syz_shape_text(e->shape, text, sizeof text), offset, room);
    }
    e->begin = e->storage->begin + offset * size;
    e->end = e->begin + count * size;
    return SYZ_OK;
}

static syz_status read_tensor(syz_weight_entry *e, const syz_pickle_value *tensor, syz_torch_find find,
                              const void *context) {
    const syz_pickle_value *items = tensor->as.object->items;
    const syz_pickle_object *shape = items[2].as.object, *stride = items[3].as.object;
    SYZ_TRY(read_storage(e, tensor, find, context));
    SYZ_TRY(read_sides(e->shape.dim, shape, "shape", e));
    SYZ_TRY(read_sides(e->stride, stride, "stride", e));
    e->shape.n = (int)shape->count;
    if (stride->count != shape->count || items[1].as.integer < 0) {
        return syz_fail(SYZ_EFORMAT, "%s: tensor \"%s\": %s", e->file->path, e->name,
                        items[1].as.integer < 0 ? "a negative offset" : "shape and stride differ in length");
    }
    return check_reach(e, (uint64_t)items[1].as.integer);
}

syz_status syz_torch_fill(syz_weights *weights, syz_weight_file *file, syz_torch_names *names, syz_torch_find find,
                          const void *context) {
    SYZ_TRY(syz_weights_reserve(weights, names->count));
    for (size_t i = 0; i < names->count; i++) {
        syz_weight_entry *e = syz_weights_add(weights, file);
        e->name = names->items[i].name;
        names->items[i].name = NULL;
        SYZ_TRY(read_tensor(e, &names->items[i].tensor, find, context));
    }
    syz_weights_sort(weights);
    for (size_t i = 1; i < weights->count; i++) {
        const char *name = weights->entries[i].name;
        if (strcmp(name, weights->entries[i - 1].name) == 0)
            return syz_fail(SYZ_EFORMAT, "%s: two tensors are named \"%s\"", file->path, name);
    }
    return SYZ_OK;
}

/* ---- the archive ------------------------------------------------------------------------------------------------- */

typedef struct {
    syz_zip zip;
    const char *root; /* what stands before "data.pkl", with the slash; not terminated */
    size_t root_length;
} archive;

static int64_t find_entry(const archive *a, const char *folder, const char *name, size_t length) {
    char path[512];
    size_t at = a->root_length, middle = strlen(folder);
    if (length >= sizeof path || at + middle + length > sizeof path) return -1;
    if (at) memcpy(path, a->root, at);
    memcpy(path + at, folder, middle);
    memcpy(path + at + middle, name, length);
    return syz_zip_find(&a->zip, path, at + middle + length);
}

static int64_t find_storage(const void *context, const char *key, size_t length) {
    return find_entry(context, "data/", key, length);
}

static bool named(const syz_zip_entry *e, const char *ending) {
    size_t length = strlen(ending);
    return e->name_length >= length && memcmp(e->name + e->name_length - length, ending, length) == 0;
}

/* The one "NAME/data.pkl". */
static syz_status find_pickle(archive *a, const syz_zip_entry **pickle, const char *path) {
    const char *ending = "/data.pkl";
    *pickle = NULL;
    for (size_t i = 0; i < a->zip.count; i++) {
        if (!named(&a->zip.entries[i], ending)) continue;
        if (*pickle) return syz_fail(SYZ_EFORMAT, "%s: holds two files data.pkl", path);
        *pickle = &a->zip.entries[i];
    }
    if (!*pickle) return syz_fail(SYZ_EFORMAT, "%s: is a zip archive without data.pkl, not one of torch.save", path);
    a->root = (*pickle)->name;
    a->root_length = (*pickle)->name_length - strlen(ending) + 1;
    return SYZ_OK;
}

static syz_status check_contents(const archive *a, const syz_weight_file *file, const syz_zip_entry *pickle) {
    const uint8_t *bytes = file->mapping->bytes;
    if (find_entry(a, "", "constants.pkl", strlen("constants.pkl")) >= 0)
        return syz_fail(SYZ_EUNSUPPORTED, "%s: is a TorchScript archive, a program; save its state_dict() instead",
                        file->path);
    for (size_t i = 0; i < a->zip.count; i++) {
        const syz_zip_entry *e = &a->zip.entries[i];
        if (e->compressed)
            return syz_fail(SYZ_EUNSUPPORTED, "%s: entry \"%.*s\" is compressed; torch.save stores: save it with that",
                            file->path, (int)(e->name_length < 200 ? e->name_length : 200), e->name);
    }
    int64_t order = find_entry(a, "", "byteorder", strlen("byteorder"));
    if (order >= 0) {
        const syz_zip_entry *e = &a->zip.entries[order];
        if (e->size != 6 || memcmp(bytes + e->begin, "little", 6) != 0)
            return syz_fail(SYZ_EUNSUPPORTED, "%s: its byte order is not little-endian", file->path);
    }
    if (pickle->size > MAX_PICKLE)
        return syz_fail(SYZ_EFORMAT, "%s: data.pkl has %" PRIu64 " bytes, at most %d are read", file->path,
                        pickle->size, MAX_PICKLE);
    if (crc32_z(0, bytes + pickle->begin, (z_size_t)pickle->size) != pickle->crc)
        return syz_fail(SYZ_EFORMAT, "%s: data.pkl does not match its CRC-32: the file is damaged", file->path);
    return SYZ_OK;
}

/* Every entry may be a storage; a tensor of one asks for its checksum. */
static syz_status list_storages(syz_weight_file *file, const syz_zip *zip) {
    if (!(file->storages = syz_alloc(zip->count, sizeof *file->storages))) return syz_error_status();
    file->storage_count = zip->count;
    for (size_t i = 0; i < zip->count; i++) {
        const syz_zip_entry *e = &zip->entries[i];
        file->storages[i] = (syz_weight_storage){e->begin, e->size, e->crc, true};
    }
    return SYZ_OK;
}

static syz_status read_archive(syz_weights *weights, syz_weight_file *file, archive *a, bool shard) {
    const syz_zip_entry *entry;
    SYZ_TRY(find_pickle(a, &entry, file->path));
    SYZ_TRY(check_contents(a, file, entry));
    SYZ_TRY(list_storages(file, &a->zip));
    syz_pickle pickle;
    syz_pickle_value root;
    syz_torch_names names = {0};
    syz_pickle_begin(&pickle, file->path, file->mapping->bytes + entry->begin, (size_t)entry->size);
    syz_status status = syz_pickle_next(&pickle, &root);
    if (status == SYZ_OK) status = syz_torch_collect(&names, file->path, &root, shard);
    if (status == SYZ_OK) status = syz_torch_fill(weights, file, &names, find_storage, a);
    syz_torch_names_free(&names);
    syz_pickle_free(&pickle);
    return status;
}

bool syz_torch_recognized(const syz_mapping *file) {
    if (syz_torch_legacy_recognized(file)) return true;
    return file->size >= 4 && (memcmp(file->bytes, "PK\3\4", 4) == 0 || memcmp(file->bytes, "PK\5\6", 4) == 0);
}

syz_status syz_torch_read(syz_weights *weights, syz_weight_file *file, bool shard) {
    if (syz_torch_legacy_recognized(file->mapping)) return syz_torch_read_legacy(weights, file, shard);
    archive a = {0};
    SYZ_TRY(syz_zip_open(&a.zip, file->mapping, file->path));
    syz_status status = read_archive(weights, file, &a, shard);
    syz_zip_close(&a.zip);
    return status;
}
