/* The named parameters of a model, in the order in which it declares them. Names are those of published checkpoints. */
#ifndef SYZ_MODELS_PARAMS_H
#define SYZ_MODELS_PARAMS_H

#include "syzygy.h"

/* How a parameter starts: `value` everywhere, normal numbers of that deviation, or uniform ones in [-value, value]. */
typedef struct {
    enum { SYZ_INIT_CONSTANT, SYZ_INIT_NORMAL, SYZ_INIT_UNIFORM } kind;
    double value;
} syz_init;

#define SYZ_INIT_ZEROS ((syz_init){SYZ_INIT_CONSTANT, 0})
#define SYZ_INIT_ONES  ((syz_init){SYZ_INIT_CONSTANT, 1})

typedef struct {
    char *name;
    syz_shape shape;
    syz_init init;
    syz_tensor *tensor; /* NULL until allocated, initialised or loaded */
    bool linear;        /* the weight of a linear layer: an adapter may be attached */
} syz_param;

typedef struct {
    syz_param *items;
    int64_t count, capacity;
    int64_t *slots; /* open-addressing hash table of index + 1 */
    size_t slot_count;
} syz_params;

/* A dotted name, returned by value so that it can be built inside a call. */
typedef struct {
    char text[256];
} syz_path;

syz_path syz_pathf(const char *format, ...) __attribute__((format(printf, 1, 2)));
syz_path syz_join(const char *prefix, const char *name); /* prefix.name */

/* Declare a parameter. Does nothing while an error is pending; a repeated name is an error. */
void syz_params_add(syz_params *params, const char *name, syz_shape shape, syz_init init);
void syz_params_free(syz_params *params);
int64_t syz_params_find(const syz_params *params, const char *name); /* -1 if absent */

/* Give every parameter f32 values: drawn from its declaration, each from a stream of its own that depends on its name
 * alone, so that adding a layer changes no other layer's start. Keeps tensors (and references to them) that exist. */
syz_status syz_params_init(syz_params *params, uint64_t seed);

struct syz_source; /* models/layout.h */

/* One parameter's starting values, f32; `how` gives the seed. */
syz_tensor *syz_params_draw(const syz_param *param, const syz_random_weights *how);

/* Load every parameter from where syz_layout_resolve() found it. Values become f32, unless `keep`: then they stay as
 * stored, sharing the file's memory where their order there is ours. */
syz_status syz_params_load(syz_params *params, const syz_weights *weights, const struct syz_source *sources, bool keep);
/* Make of parameters that were loaded as stored what syz_params_load() makes without `keep`. */
syz_status syz_params_to(syz_params *params, syz_dtype dtype);
syz_status syz_params_move(syz_params *params, int device);
/* Write folder/name.safetensors with every parameter as `dtype`, or, when there are more bytes than `max_shard_bytes`,
 * shards and their index. What an earlier save left under other names goes. `random` NULL: the parameters' values;
 * otherwise parameters need no values, and each is drawn when it is written. See save.c. */
syz_status syz_params_save(const syz_params *params, const char *folder, const char *name, syz_dtype dtype,
                           uint64_t max_shard_bytes, const syz_random_weights *random);

#endif
