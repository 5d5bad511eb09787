/* Pickles as torch.save writes them, read as data: a fixed set of opcodes, a fixed set of names, nothing is called. */
#ifndef SYZ_IO_TORCH_PICKLE_H
#define SYZ_IO_TORCH_PICKLE_H

#include "core/error.h"

typedef enum {
    SYZ_PICKLE_MARK,
    SYZ_PICKLE_NONE,
    SYZ_PICKLE_BOOL,
    SYZ_PICKLE_INTEGER,
    SYZ_PICKLE_NUMBER,
    SYZ_PICKLE_TEXT,
    SYZ_PICKLE_GLOBAL, /* `integer` is a row of syz_pickle_globals[] */
    SYZ_PICKLE_INERT,  /* something that is no part of the weights; what it holds is not kept */
    SYZ_PICKLE_TUPLE,  /* this and the following have an object */
    SYZ_PICKLE_LIST,
    SYZ_PICKLE_DICT,    /* items are key, value, key, value, ... */
    SYZ_PICKLE_STORAGE, /* items of the persistent id: "storage", type, key, location, number of elements, ... */
    SYZ_PICKLE_TENSOR,  /* items are the arguments of the global in the last item, which rebuilds it */
} syz_pickle_kind;

typedef struct syz_pickle_object syz_pickle_object;

typedef struct {
    syz_pickle_kind kind;
    uint32_t length; /* of `text` */
    union {
        int64_t integer;
        double number;
        const char *text; /* in the pickle; not terminated */
        syz_pickle_object *object;
    } as;
} syz_pickle_value;

struct syz_pickle_object {
    syz_pickle_object *next; /* of all objects, for the end */
    syz_pickle_value *items;
    uint32_t count, capacity;
};

/* What a name that may be asked for stands for. */
typedef enum {
    SYZ_GLOBAL_DICT,
    SYZ_GLOBAL_TENSOR_V1, /* storage, offset, size, stride */
    SYZ_GLOBAL_TENSOR_V2, /* the same, requires_grad, hooks [, metadata] */
    SYZ_GLOBAL_TENSOR_V3, /* the same, requires_grad, hooks, dtype [, metadata] */
    SYZ_GLOBAL_PARAMETER, /* tensor, requires_grad, hooks */
    SYZ_GLOBAL_SIZE,
    SYZ_GLOBAL_STORAGE,
    SYZ_GLOBAL_DTYPE,
    SYZ_GLOBAL_INERT,
} syz_global_role;

typedef struct {
    const char *module, *name;
    syz_global_role role;
    const char *type; /* of a storage or dtype, as in safetensors; NULL for bytes without one */
} syz_pickle_global;

extern const syz_pickle_global syz_pickle_globals[];

typedef struct {
    const char *path; /* to blame */
    const uint8_t *bytes;
    size_t size, at;
    size_t opcode_at; /* of the opcode that runs */
    const char *opcode;
    size_t budget, used; /* bytes of memory */
    syz_pickle_object *objects;
    syz_pickle_object stack, memo, storages; /* plain arrays; storages lists every persistent id that was met */
} syz_pickle;

/* Read one pickle from bytes[at..size) and move `at` behind it. May be called again for what follows. Values live until
 * syz_pickle_free(), those of text as long as the bytes. */
void syz_pickle_begin(syz_pickle *p, const char *path, const uint8_t *bytes, size_t size);
syz_status syz_pickle_next(syz_pickle *p, syz_pickle_value *result);
void syz_pickle_free(syz_pickle *p);

/* ---- between torch_pickle.c, the machine, and torch_globals.c, what the names mean ---- */

syz_status syz_pickle_refuse(const syz_pickle *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
syz_status syz_pickle_append(syz_pickle *p, syz_pickle_object *list, syz_pickle_value value);
syz_status syz_pickle_make(syz_pickle *p, syz_pickle_value *value, syz_pickle_kind kind, const syz_pickle_value *items,
                           size_t count);
const char *syz_pickle_kind_name(const syz_pickle_value *value);
bool syz_pickle_text_is(const syz_pickle_value *value, const char *text);

/* The value of a name; refused unless it is in the table. */
syz_status syz_pickle_find_global(syz_pickle *p, syz_pickle_value *value, const char *module, size_t module_length,
                                  const char *name, size_t name_length);
/* What calling `function` with the tuple `arguments` would give. */
syz_status syz_pickle_reduce(syz_pickle *p, syz_pickle_value *result, const syz_pickle_value *function,
                             const syz_pickle_value *arguments);
/* The storage that a persistent id names. */
syz_status syz_pickle_persistent(syz_pickle *p, syz_pickle_value *result, const syz_pickle_value *id);

#endif
