/* What torch.save writes: parts shared by the zip archive (torch.c) and the older stream (torch_legacy.c). */
#ifndef SYZ_IO_TORCH_H
#define SYZ_IO_TORCH_H

#include "io/torch_pickle.h"
#include "io/weights.h"

/* A tensor with its place in the saved object: dictionary keys and list positions joined by dots. */
typedef struct {
    char *name;
    size_t first; /* length of the name's first part where there are others; 0 for a tensor at the top */
    syz_pickle_value tensor;
} syz_torch_named;

typedef struct {
    const char *path;
    syz_torch_named *items;
    size_t count, capacity, visited;
} syz_torch_names;

/* All tensors below `root`. Unless it is a shard, names lose a wrapping level and a prefix that all have in common; see
 * torch_names.c. Freed also after a failure. */
syz_status syz_torch_collect(syz_torch_names *names, const char *path, const syz_pickle_value *root, bool shard);
void syz_torch_names_free(syz_torch_names *names);

/* The index of a storage in the file's list, by its key; -1 if absent. */
typedef int64_t (*syz_torch_find)(const void *context, const char *key, size_t length);

/* Fill `weights` with the named tensors, whose storages are in file->storages. */
syz_status syz_torch_fill(syz_weights *weights, syz_weight_file *file, syz_torch_names *names, syz_torch_find find,
                          const void *context);

bool syz_torch_legacy_recognized(const syz_mapping *file);
syz_status syz_torch_read_legacy(syz_weights *weights, syz_weight_file *file, bool shard);

#endif
