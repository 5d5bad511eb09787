/* The stream that PyTorch wrote before 1.6: pickles of a magic number, a version, the machine, the object and the list
 * of its storages' keys, then each storage as its number of elements (i64) and its bytes. There are no checksums. */
#include "io/torch.h"

#include "core/alloc.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { PROTOCOL = 1001 };

static const uint8_t magic[] = {0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, '.'};

/* One key of the list. */
typedef struct {
    const char *key;
    size_t length;
    size_t place;   /* in the list, and in file->storages */
    uint64_t count; /* elements */
    uint64_t size;  /* bytes of one; 0 until a tensor has named the storage */
} storage;

typedef struct {
    storage *storages; /* sorted by key */
    size_t count;
} table;

static int compare_keys(const char *a, size_t length, const char *b, size_t other) {
    int order = memcmp(a, b, length < other ? length : other);
    return order ? order : length < other ? -1 : length > other;
}

static int by_key(const void *a, const void *b) {
    const storage *x = a, *y = b;
    return compare_keys(x->key, x->length, y->key, y->length);
}

static int by_place(const void *a, const void *b) {
    const storage *x = a, *y = b;
    return x->place < y->place ? -1 : x->place > y->place;
}

static storage *find(const table *t, const char *key, size_t length) {
    storage wanted = {.key = key, .length = length};
    return t->count ? bsearch(&wanted, t->storages, t->count, sizeof wanted, by_key) : NULL;
}

static int64_t find_storage(const void *context, const char *key, size_t length) {
    const storage *found = find(context, key, length);
    return found ? (int64_t)found->place : -1;
}

/* ---- the list of keys -------------------------------------------------------------------------------------------- */

static syz_status read_keys(table *t, const syz_pickle_value *list, const char *path) {
    if (list->kind != SYZ_PICKLE_LIST)
        return syz_fail(SYZ_EFORMAT, "%s: the list of storages is a %s", path, syz_pickle_kind_name(list));
    const syz_pickle_object *keys = list->as.object;
    if (!(t->storages = syz_alloc(keys->count, sizeof *t->storages))) return syz_error_status();
    for (; t->count < keys->count; t->count++) {
        const syz_pickle_value *key = &keys->items[t->count];
        if (key->kind != SYZ_PICKLE_TEXT)
            return syz_fail(SYZ_EFORMAT, "%s: the list of storages holds a %s", path, syz_pickle_kind_name(key));
        t->storages[t->count] = (storage){.key = key->as.text, .length = key->length, .place = t->count};
    }
    qsort(t->storages, t->count, sizeof *t->storages, by_key);
    for (size_t i = 1; i < t->count; i++) {
        if (by_key(&t->storages[i - 1], &t->storages[i]) == 0)
            return syz_fail(SYZ_EFORMAT, "%s: the list of storages holds one twice", path);
    }
    return SYZ_OK;
}

/* The sizes of the storages, which only the persistent ids tell; those of one storage must agree. */
static syz_status read_sizes(const table *t, const syz_pickle_object *ids, const char *path) {
    for (uint32_t i = 0; i < ids->count; i++) {
        const syz_pickle_value *items = ids->items[i].as.object->items;
        const char *type = syz_pickle_globals[items[1].as.integer].type;
        uint64_t size = type ? syz_weight_type_bits(syz_weight_type(type)) / 8 : 1;
        uint64_t count = (uint64_t)items[4].as.integer;
        storage *s = find(t, items[2].as.text, items[2].length);
        if (!s || (s->size && (s->size != size || s->count != count))) {
            return syz_fail(SYZ_EFORMAT, "%s: storage \"%.*s\" is %s", path,
                            (int)(items[2].length < 100 ? items[2].length : 100), items[2].as.text,
                            s ? "named with two sizes" : "not in the file");
        }
        s->size = size;
        s->count = count;
    }
    return SYZ_OK;
}

/* ---- the bytes --------------------------------------------------------------------------------------------------- */

/* In the order of the list; `at` is where its pickle ends. */
static syz_status place_storages(syz_weight_file *file, table *t, uint64_t at) {
    if (!(file->storages = syz_alloc(t->count, sizeof *file->storages))) return syz_error_status();
    file->storage_count = t->count;
    uint64_t end = file->mapping->size, bytes = 0;
    qsort(t->storages, t->count, sizeof *t->storages, by_place);
    for (size_t i = 0; i < t->count; i++) {
        const storage *s = &t->storages[i];
        if (s->size == 0) return syz_fail(SYZ_EFORMAT, "%s: storage number %zu belongs to no tensor", file->path, i);
        if (end - at < 8)
            return syz_fail(SYZ_EFORMAT, "%s: ends before storage number %zu (torn download?)", file->path, i);
        uint64_t stored = syz_weights_u64(file->mapping->bytes + at);
        at += 8;
        if (stored != s->count || __builtin_mul_overflow(stored, s->size, &bytes)) {
            return syz_fail(SYZ_EFORMAT, "%s: storage number %zu has %" PRIu64 " elements, a tensor claims %" PRIu64,
                            file->path, i, stored, s->count);
        }
        if (bytes > end - at)
            return syz_fail(SYZ_EFORMAT, "%s: ends inside storage number %zu (torn download?)", file->path, i);
        file->storages[i] = (syz_weight_storage){.begin = at, .size = bytes};
        at += bytes;
    }
    qsort(t->storages, t->count, sizeof *t->storages, by_key);
    if (at == end) return SYZ_OK;
    return syz_fail(SYZ_EFORMAT, "%s: %" PRIu64 " bytes follow the last storage", file->path, end - at);
}

/* ---- the stream -------------------------------------------------------------------------------------------------- */

bool syz_torch_legacy_recognized(const syz_mapping *file) {
    return file->size >= sizeof magic && memcmp(file->bytes, magic, sizeof magic) == 0;
}

static syz_status read_head(syz_pickle *p, const char *path) {
    syz_pickle_value version, machine;
    SYZ_TRY(syz_pickle_next(p, &version)); /* the magic number */
    SYZ_TRY(syz_pickle_next(p, &version));
    SYZ_TRY(syz_pickle_next(p, &machine));
    if (version.kind != SYZ_PICKLE_INTEGER || version.as.integer != PROTOCOL || machine.kind != SYZ_PICKLE_DICT)
        return syz_fail(SYZ_EFORMAT, "%s: is not of protocol %d of PyTorch's older stream", path, PROTOCOL);
    for (uint32_t i = 0; i + 1 < machine.as.object->count; i += 2) {
        const syz_pickle_value *items = machine.as.object->items + i;
        if (syz_pickle_text_is(&items[0], "little_endian") &&
            (items[1].kind != SYZ_PICKLE_BOOL || !items[1].as.integer))
            return syz_fail(SYZ_EUNSUPPORTED, "%s: its byte order is not little-endian", path);
    }
    return SYZ_OK;
}

static syz_status read_stream(syz_weights *weights, syz_weight_file *file, syz_pickle *p, table *t,
                              syz_torch_names *names, bool shard) {
    syz_pickle_value root, keys;
    SYZ_TRY(read_head(p, file->path));
    SYZ_TRY(syz_pickle_next(p, &root));
    SYZ_TRY(syz_pickle_next(p, &keys));
    SYZ_TRY(syz_torch_collect(names, file->path, &root, shard));
    SYZ_TRY(read_keys(t, &keys, file->path));
    SYZ_TRY(read_sizes(t, &p->storages, file->path));
    SYZ_TRY(place_storages(file, t, p->at));
    return syz_torch_fill(weights, file, names, find_storage, t);
}

syz_status syz_torch_read_legacy(syz_weights *weights, syz_weight_file *file, bool shard) {
    syz_pickle pickle;
    syz_torch_names names = {0};
    table t = {0};
    syz_pickle_begin(&pickle, file->path, file->mapping->bytes, file->mapping->size);
    syz_status status = read_stream(weights, file, &pickle, &t, &names, shard);
    free(t.storages);
    syz_torch_names_free(&names);
    syz_pickle_free(&pickle);
    return status;
}
