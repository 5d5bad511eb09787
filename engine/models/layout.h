/* Checkpoints in the names of another library: a model class lists such layouts, and loading picks one by a name that
 * only it has. A layout is a list of rules, each of which says where one of our parameters, or a family of them, lies
 * in the file:
 *
 *     {"blocks.#.attn.to_k.*", "layers.#.qkv.*", SYZ_LAYOUT_ROWS}
 *
 * In a name, `#` stands for a number and a `*` at the end for any rest. In the source, the n-th `#` is the n-th number
 * of the name, `@` is that number counted down from the highest one the model has there, and `*` is the same rest. The
 * first rule whose pattern fits and whose source the file has applies; so a list may hold alternatives, the special one
 * before the general one. Every number of the file must be used exactly once. */
#ifndef SYZ_MODELS_LAYOUT_H
#define SYZ_MODELS_LAYOUT_H

#include "models/params.h"

typedef enum {
    SYZ_LAYOUT_SAME,
    SYZ_LAYOUT_ROWS,           /* the next rows of the source; the rules of one source stand in the order of its rows */
    SYZ_LAYOUT_TRANSPOSED,     /* a matrix [in, out] there, [out, in] here */
    SYZ_LAYOUT_SWAPPED_HALVES, /* the second half of the rows comes first */
    SYZ_LAYOUT_RESHAPED,       /* as many numbers, in the same order */
} syz_layout_how;

typedef struct {
    const char *name, *source;
    syz_layout_how how;
} syz_layout_rule;

typedef struct {
    const char *name;            /* what `syz inspect` calls it */
    const char *sign;            /* a name that only this layout has, without prefix */
    const char *const *prefixes; /* that may stand before every name, besides none; ends with NULL; NULL: none may */
    const syz_layout_rule *rules;
    bool (*ignore)(const char *name); /* names without prefix to pass over; NULL: none */
    /* The configuration as JSON text, read off names and shapes (names start with `prefix`), for files that come
     * without one. To be freed; NULL with an error that names `path` when they do not tell. NULL: they never do. */
    char *(*config)(const syz_weights *weights, const char *prefix, const char *path);
} syz_layout;

/* How the names of a file are to be read. `layout` NULL: as ours. What does not start with the prefix is another
 * model's and passed over. */
typedef struct {
    const syz_layout *layout;
    const char *prefix;
} syz_naming;

/* The layout, of a list that ends with an empty one (NULL: none), whose sign the file has; {NULL, ""} if it has none.
 */
syz_naming syz_layout_find(const syz_layout *layouts, const syz_weights *weights);

/* Where the values of a parameter lie: the tensor of that index in the file, and its first row there. */
typedef struct syz_source {
    int64_t index, row;
    syz_layout_how how;
} syz_source;

/* One source for each parameter; to be freed. Checks that names, shapes and dtypes fit and that every number of the
 * file is used exactly once, `ignore` (of our names, may be NULL) aside; else NULL with an error that names `path` and
 * the tensor as the file calls it. */
syz_source *syz_layout_resolve(const syz_params *params, const syz_weights *weights, const char *path,
                               syz_naming naming, bool (*ignore)(const char *name));

/* The parameter's values in the stored dtype: the file's memory where their order there is ours, else a copy. */
syz_tensor *syz_layout_take(const syz_weights *weights, const syz_source *source, syz_shape shape);

/* For `config` functions. A side of a tensor, 0 if the file lacks it or it has fewer; and how many there are of a
 * pattern with one `%d`, counted from 0 to the first that is missing. */
int64_t syz_layout_side(const syz_weights *weights, const char *prefix, const char *name, int side);
int64_t syz_layout_count(const syz_weights *weights, const char *prefix, const char *pattern);

#endif
