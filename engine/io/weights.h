/* Weight files, inside the engine: what every format fills in and weights.c hands out. */
#ifndef SYZ_IO_WEIGHTS_H
#define SYZ_IO_WEIGHTS_H

#include "io/file.h"
#include "syzygy.h"

#include <jansson.h>

enum {
    SYZ_WEIGHTS_MAX_TENSORS = 1 << 20,
    SYZ_WEIGHTS_MAX_NAME = 1024,
    SYZ_WEIGHTS_MAX_SHARDS = 1024,
};

/* A stretch of the file that several tensors may share. */
typedef struct {
    uint64_t begin, size;
    uint32_t crc;
    bool unchecked; /* the CRC-32 of its bytes is still to be compared with `crc` */
} syz_weight_storage;

typedef struct {
    int refs;
    char *path;
    syz_mapping *mapping;
    syz_weight_storage *storages; /* NULL for a format without them */
    size_t storage_count;
} syz_weight_file;

typedef struct {
    char *name;
    int type; /* for syz_weight_type_name() */
    syz_shape shape;
    uint64_t begin, end; /* in the file; when strided, of as many bytes as the tensor needs, not of those it has */
    syz_weight_file *file;
    syz_weight_storage *storage;  /* of `file`; NULL for a format without them */
    bool strided;                 /* the elements do not lie in the order of the shape */
    int64_t stride[SYZ_MAX_DIMS]; /* in elements, at least 0 */
} syz_weight_entry;

struct syz_weights {
    char *path;
    syz_weight_entry *entries; /* sorted by name once open */
    size_t count, capacity;
    json_t *metadata; /* may be NULL */
};

/* Types by their names in safetensors. */
int syz_weight_type(const char *name); /* -1: unknown */
const char *syz_weight_type_name(int type);
uint64_t syz_weight_type_bits(int type);

uint64_t syz_weights_u64(const uint8_t *bytes);                   /* little-endian */
bool syz_weights_ends_with(const char *path, const char *ending); /* and is longer */

syz_weights *syz_weights_new(const char *path);
syz_weights *syz_weights_open_file(const char *path, bool shard); /* one file, the format told by its content */
/* Room for all entries at once; more than SYZ_WEIGHTS_MAX_TENSORS is an error. */
syz_status syz_weights_reserve(syz_weights *weights, size_t count);
/* The next entry, with a reference on `file`; its name is still to be set. */
syz_weight_entry *syz_weights_add(syz_weights *weights, syz_weight_file *file);
void syz_weights_sort(syz_weights *weights);

/* The formats. Each fills `weights` from the file, whose path is to be blamed. */
syz_status syz_safetensors_read(syz_weights *weights, syz_weight_file *file);
/* What torch.save writes. A shard keeps its names as they are, since an index lists them so. */
bool syz_torch_recognized(const syz_mapping *file);
syz_status syz_torch_read(syz_weights *weights, syz_weight_file *file, bool shard);
syz_status syz_weights_read_index(syz_weights *weights, json_t *index);

/* A tensor of a file to be written, and what makes number `index` of them when its turn comes: a tensor of that shape
 * and any floating-point dtype (or just that one), which may belong to the current scope; NULL on failure. */
typedef struct {
    const char *name;
    syz_shape shape;
    syz_dtype dtype;
} syz_weight_plan;
typedef syz_tensor *(*syz_weight_maker)(void *context, int64_t index);

/* Write a safetensors file up to its last byte, to be committed or discarded by the caller; NULL on failure. One tensor
 * after the other is made, converted and written, so that all of them need not fit into memory. */
syz_file_writer *syz_safetensors_begin(const char *path, const syz_weight_plan plans[], int64_t count,
                                       syz_weight_maker make, void *context, const char *const (*metadata)[2],
                                       int64_t nmetadata);

#endif
