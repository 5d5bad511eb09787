/* oneDNN primitives, kept by what they compute: making one costs 100 to 300 microseconds, finding it again well under
 * one. One calling thread, as everywhere in the library. */
#ifndef SYZ_ONEDNN_H
#define SYZ_ONEDNN_H

#include <oneapi/dnnl/dnnl.h>
#include <stdbool.h>
#include <stddef.h>

enum { SYZ_DNNL_ARGS = 6 };

typedef struct {
    dnnl_primitive_t primitive;
    int count;                           /* arguments */
    int id[SYZ_DNNL_ARGS];               /* DNNL_ARG_... */
    dnnl_memory_t memory[SYZ_DNNL_ARGS]; /* headers without data */
} syz_dnnl;

/* Fills `made`; a negative return discards it. */
typedef int (*syz_dnnl_create)(syz_dnnl *made, const void *key);

/* The primitive of a key (plain bytes: memset the struct to 0 before filling it; different creators must differ in
 * their keys), created on first use. The number of threads is part of the key. NULL when oneDNN refuses. */
syz_dnnl *syz_dnnl_find(const void *key, size_t size, syz_dnnl_create create);

/* For creators: the next argument, described by `md`. */
int syz_dnnl_argument(syz_dnnl *made, int id, const dnnl_memory_desc_t *md);
/* For creators: the primitive of an operation descriptor; `attr` may be NULL. `pd`, unless NULL, receives the primitive
 * descriptor, to be destroyed by the caller. */
int syz_dnnl_primitive(syz_dnnl *made, const_dnnl_op_desc_t desc, const_dnnl_primitive_attr_t attr,
                       dnnl_primitive_desc_t *pd);

/* For creators: the primitive that copies between two layouts of one tensor. */
int syz_dnnl_reorder(syz_dnnl *made, const dnnl_memory_desc_t *from, const dnnl_memory_desc_t *to);

/* Executes with data[k] as argument k. Negative on failure. */
int syz_dnnl_run(syz_dnnl *op, void *const data[]);

/* Memory that stays until the next call with this slot (0 to 3); NULL without memory. */
enum { SYZ_DNNL_SLOTS = 4 };
void *syz_dnnl_buffer(int slot, size_t bytes);

/* True where bf16 products are fast: AVX512-BF16 or AMX. */
bool syz_dnnl_has_bf16(void);

#endif
