/* syzygy.h: the public C interface of libsyzygy.
 *
 * Conventions
 *   - A function that can fail returns a syz_status, or a pointer that is NULL on failure; the thread-local error then
 *     says what was wrong. While an error is pending, tensor operations return NULL at once, so that a chain of them is
 *     checked once, at its end. Whoever handles the error calls syz_error_clear().
 *   - Outputs come first. Shapes in comments: B batch, T tokens, C channels, H heads or height, W width, D head size.
 *   - Images and convolution activations are [N,H,W,C] in memory and in shape.
 *   - The library is single-threaded towards its caller (it runs its own OpenMP pool inside operations), except for
 *     syz_cancel(), which may be called from a signal handler. */
#ifndef SYZYGY_H
#define SYZYGY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SYZ_API __attribute__((visibility("default")))

/* ---- errors ------------------------------------------------------------------------------------------------------ */

/* symbol, text */
#define SYZ_STATUSES(X)                                                                                                \
    X(OK, "ok")                                                                                                        \
    X(EINVAL, "invalid argument")                                                                                      \
    X(ESHAPE, "shape mismatch")                                                                                        \
    X(EDTYPE, "dtype mismatch")                                                                                        \
    X(ENOMEM, "out of memory")                                                                                         \
    X(EIO, "input/output error")                                                                                       \
    X(EFORMAT, "malformed file")                                                                                       \
    X(ENOTFOUND, "not found")                                                                                          \
    X(ECANCELED, "interrupted")                                                                                        \
    X(EUNSUPPORTED, "not supported")                                                                                   \
    X(EINTERNAL, "internal error")

typedef enum {
#define SYZ_ENUM(symbol, text) SYZ_##symbol,
    SYZ_STATUSES(SYZ_ENUM)
#undef SYZ_ENUM
} syz_status;

SYZ_API syz_status syz_error_status(void);   /* status of the pending error, SYZ_OK without one */
SYZ_API const char *syz_error_message(void); /* one line; valid until syz_error_clear(); "" without an error */
SYZ_API const char *syz_error_where(void);   /* "file.c:123" of the failure */
SYZ_API void syz_error_clear(void);
SYZ_API const char *syz_status_name(syz_status status);

SYZ_API const char *syz_version(void);

/* ---- data types -------------------------------------------------------------------------------------------------- */

/* symbol, Lua name, safetensors name, bytes */
#define SYZ_DTYPES(X)                                                                                                  \
    X(F32, "f32", "F32", 4)                                                                                            \
    X(BF16, "bf16", "BF16", 2)                                                                                         \
    X(F16, "f16", "F16", 2)                                                                                            \
    X(F64, "f64", "F64", 8)                                                                                            \
    X(I32, "i32", "I32", 4)                                                                                            \
    X(I64, "i64", "I64", 8)                                                                                            \
    X(U8, "u8", "U8", 1)

typedef enum {
#define SYZ_ENUM(symbol, lua, file, bytes) SYZ_##symbol,
    SYZ_DTYPES(SYZ_ENUM)
#undef SYZ_ENUM
        SYZ_DTYPE_COUNT
} syz_dtype;

SYZ_API size_t syz_dtype_size(syz_dtype dtype);                   /* bytes of one element */
SYZ_API const char *syz_dtype_name(syz_dtype dtype);              /* "f32" */
SYZ_API const char *syz_dtype_file_name(syz_dtype dtype);         /* "F32", as in safetensors */
SYZ_API bool syz_dtype_parse(syz_dtype *dtype, const char *name); /* either spelling; false if unknown */

/* ---- the machine ------------------------------------------------------------------------------------------------- */

SYZ_API void syz_cancel(void); /* async-signal-safe: the running operation returns SYZ_ECANCELED soon */
SYZ_API void syz_cancel_clear(void);
SYZ_API void syz_set_threads(int threads); /* size of the one OpenMP pool; at least 1 */
SYZ_API int syz_threads(void);

typedef struct {
    size_t live, peak, cached; /* tensor bytes in use, their high-water mark, bytes kept for reuse */
} syz_memory;

SYZ_API syz_memory syz_memory_stats(void);
SYZ_API void syz_memory_reset_peak(void);
SYZ_API void syz_memory_limit(size_t bytes); /* allocations beyond it fail with SYZ_ENOMEM; 0 lifts the limit */
SYZ_API void syz_memory_trim(void);          /* give cached blocks back to the system */

#include "syzygy_device.h" /* GPUs */

/* Precision of matrix products: SYZ_F32 (the default), or SYZ_BF16, which rounds the operands to bf16 and accumulates
 * in f32 on processors with AVX512-BF16 or AMX, and stays f32 on the others. Another dtype is SYZ_EDTYPE. */
SYZ_API syz_status syz_set_matmul_precision(syz_dtype dtype);
SYZ_API syz_dtype syz_matmul_precision(void); /* the one in force on this machine */
/* Linear layers of tokens [B,T,I] in e4m3 from now on, or no longer; SYZ_EINVAL while gradients are recorded. */
SYZ_API syz_status syz_set_fp8(bool on);

/* Floating-point operations of products, convolutions and attention so far, repeated ones too: two a multiply-add. */
SYZ_API double syz_flops(void);

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

#define SYZ_MAX_DIMS 6

/* Contiguous, row-major, reference-counted. A new tensor belongs to the current scope, which must exist. */
typedef struct syz_tensor syz_tensor;

typedef struct {
    int n;
    int64_t dim[SYZ_MAX_DIMS];
} syz_shape;

SYZ_API syz_tensor *syz_empty(syz_dtype dtype, syz_shape shape); /* contents undefined */
SYZ_API syz_tensor *syz_zeros(syz_dtype dtype, syz_shape shape);
SYZ_API syz_tensor *syz_full(syz_dtype dtype, syz_shape shape, double value);
SYZ_API syz_tensor *syz_from(syz_dtype dtype, syz_shape shape, const void *data); /* copies */
/* Wraps foreign memory (a mapped file) without copying; `release(owner)` is called when the last user is gone. The
 * memory must be aligned to the element size and is never written by operations. */
SYZ_API syz_tensor *syz_wrap(syz_dtype dtype, syz_shape shape, const void *data, void (*release)(void *), void *owner);
SYZ_API syz_tensor *syz_alias(syz_tensor *t); /* same memory, no history: `detach` */
SYZ_API syz_tensor *syz_copy(syz_tensor *t);  /* own memory, no history */
/* t itself where it lies there, else a copy without history; the operation to_device keeps the history. */
SYZ_API syz_tensor *syz_copy_to(syz_tensor *t, int device);

SYZ_API syz_dtype syz_tensor_dtype(const syz_tensor *t);
SYZ_API syz_shape syz_tensor_shape(const syz_tensor *t);
SYZ_API int syz_tensor_device(const syz_tensor *t);
SYZ_API int64_t syz_numel(const syz_tensor *t);
SYZ_API size_t syz_nbytes(const syz_tensor *t);
SYZ_API void *syz_data(const syz_tensor *t);                            /* first element, on its device; borrowed */
SYZ_API syz_status syz_item(double *value, const syz_tensor *t);        /* the value of a one-element tensor */
SYZ_API syz_status syz_assign(syz_tensor *t, const syz_tensor *source); /* copy values; same shape, dtype converts */
/* Say that values were written through syz_data(): what the engine derived from them is made anew. */
SYZ_API void syz_touch(syz_tensor *t);
SYZ_API bool syz_all_finite(const syz_tensor *t);
SYZ_API const char *syz_shape_text(syz_shape shape, char *buffer, size_t size); /* "[2,3]" into buffer; returns it */

/* Strong references keep the values alive. */
SYZ_API syz_tensor *syz_retain(syz_tensor *t); /* returns t; NULL stays NULL */
SYZ_API void syz_release(syz_tensor *t);
/* A handle keeps only the small header alive, so that a script that holds a tensor whose scope has ended finds
 * syz_alive() false instead of freed memory. */
SYZ_API void syz_handle_retain(syz_tensor *t);
SYZ_API void syz_handle_release(syz_tensor *t);
SYZ_API bool syz_alive(const syz_tensor *t);

/* Scopes nest. Popping one releases its reference on every tensor made inside it; what must survive is passed to
 * syz_scope_return() (it moves to the enclosing scope) or retained. */
SYZ_API syz_status syz_scope_push(void);
SYZ_API void syz_scope_pop(void);
SYZ_API int syz_scope_depth(void);
SYZ_API syz_tensor *syz_scope_return(syz_tensor *t); /* returns t; NULL stays NULL */

/* ---- automatic differentiation ----------------------------------------------------------------------------------- */

SYZ_API void syz_set_requires_grad(syz_tensor *t, bool on); /* leaves only */
SYZ_API bool syz_requires_grad(const syz_tensor *t);        /* true for leaves so marked and for what depends on them */
SYZ_API syz_tensor *syz_grad(const syz_tensor *t);          /* accumulated gradient; borrowed; NULL if none */
SYZ_API syz_status syz_set_grad(syz_tensor *t, syz_tensor *grad); /* NULL clears */
SYZ_API void syz_no_grad_push(void);                              /* operations record nothing until the matching pop */
SYZ_API void syz_no_grad_pop(void);
SYZ_API bool syz_grad_enabled(void);
/* Accumulate d(loss)/d(leaf) into every leaf that requires a gradient. `loss` has one element, or `seed` gives the
 * gradient of every element. The graph is freed as it is walked. */
SYZ_API syz_status syz_backward(syz_tensor *loss, syz_tensor *seed);

/* A segment is a pure function of its inputs and of leaf tensors that `context` reaches (a model's parameters). */
typedef syz_tensor *(*syz_segment)(void *context, int64_t index, syz_tensor *const in[], int nin);
/* Run it keeping only its inputs; the backward pass runs it again. `context` must outlive the backward pass. */
SYZ_API syz_tensor *syz_checkpoint(syz_segment segment, void *context, int64_t index, syz_tensor *const in[], int nin);

/* ---- operations -------------------------------------------------------------------------------------------------- */

/* Every operation of ops/ops.def is a function syz_<name>() declared in ops/ops.h, and can be applied by number with an
 * argument list, which is how the Lua binding calls it. Signature letters, in argument order:
 * T tensor, t tensor or NULL, L list of tensors, i integer, b boolean, f number, S shape or list of integers. */
typedef struct {
    syz_tensor *tensor;      /* T, t */
    syz_tensor *const *list; /* L, with `integer` its length */
    int64_t integer;         /* i, b */
    double number;           /* f */
    syz_shape shape;         /* S */
} syz_arg;

SYZ_API int syz_op_count(void);
SYZ_API const char *syz_op_name(int op);
SYZ_API const char *syz_op_signature(int op);
SYZ_API const char *syz_op_params(int op); /* "(syz_tensor *x, ...)", for messages and documentation */
SYZ_API syz_tensor *syz_op_apply(int op, const syz_arg *args);

/* cos, sin [T, sum(axes_dims)/2] for the operation `rope`, from positions ids f32 [T, axes]; computed in double, as
 * diffusers' FluxPosEmbed does (FLUX: axes_dims {16,56,56}, theta 10000). New tensors of the current scope. */
SYZ_API syz_status syz_rope_table(syz_tensor **cosine, syz_tensor **sine, const syz_tensor *ids,
                                  const int64_t *axes_dims, int axes, double theta);

/* ---- random numbers ---------------------------------------------------------------------------------------------- */

/* Philox4x32-10 in counter mode: the numbers depend only on (seed, stream, offset), on every device alike. */
typedef struct {
    uint64_t seed, stream, offset; /* offset counts blocks of four elements */
} syz_rng;

SYZ_API syz_tensor *syz_randn(syz_rng *rng, syz_shape shape);                              /* f32, normal(0,1) */
SYZ_API syz_tensor *syz_rand(syz_rng *rng, syz_shape shape);                               /* f32, uniform [0,1) */
SYZ_API syz_tensor *syz_randint(syz_rng *rng, int64_t low, int64_t high, syz_shape shape); /* i64, low..high-1 */

/* ---- files ------------------------------------------------------------------------------------------------------- */

/* Read a regular file of at most `cap` bytes. *data has one zero byte after its `size` bytes; the caller frees it. */
SYZ_API syz_status syz_file_read(uint8_t **data, size_t *size, const char *path, size_t cap);
SYZ_API syz_status syz_file_write(const char *path, const void *data, size_t size); /* whole or not at all */
SYZ_API syz_status syz_rename(const char *from, const char *to); /* survives a power cut once it returns */
SYZ_API syz_status syz_make_folders(const char *path);           /* with missing parents; one that exists is fine */

/* Lowercase hexadecimal SHA-256 with its terminating zero. */
#define SYZ_SHA256_TEXT 65
SYZ_API void syz_sha256(char text[SYZ_SHA256_TEXT], const void *data, size_t size);
SYZ_API syz_status syz_sha256_file(char text[SYZ_SHA256_TEXT], const char *path);

/* ---- image files, weight files, data ----------------------------------------------------------------------------- */

/* Images are u8 tensors [H,W,3]. PNG and JPEG are told apart by content; transparency is laid on white, grey becomes
 * RGB, 16 bits become 8. `name` is what error messages call the bytes. */
SYZ_API syz_tensor *syz_image_load(const char *path);
SYZ_API syz_tensor *syz_image_decode(const void *data, size_t size, const char *name);
/* u8, or f32 with 0 black and 1 full, clamped. A file is PNG or JPEG by its ending, and whole or absent. */
SYZ_API syz_status syz_image_save(const char *path, const syz_tensor *image);
/* PNG with quality 0, JPEG with 1 to 100; the caller frees *data with free(). */
SYZ_API syz_status syz_image_encode(uint8_t **data, size_t *size, const syz_tensor *image, int jpeg_quality);

/* Weight files: `.safetensors`; what torch.save wrote (.pt, .pth, .bin, .ckpt), of which nothing is executed; or an
 * .index.json of either that lists the shards beside it. The content tells the format. The files are mapped, not read:
 * what is never asked for costs nothing, and a file must not be truncated while it is open. docs/design/weights.md */
typedef struct syz_weights syz_weights;

typedef struct {
    const char *name, *dtype; /* as in the file ("F32", "F8_E4M3"); borrowed until the close */
    syz_shape shape;
    size_t bytes;
} syz_weight_info;

SYZ_API syz_weights *syz_weights_open(const char *path); /* checks everything but the values; NULL on failure */
SYZ_API void syz_weights_close(syz_weights *weights);    /* tensors taken from it stay valid; NULL is allowed */
SYZ_API int64_t syz_weights_count(const syz_weights *weights);
SYZ_API syz_weight_info syz_weights_info(const syz_weights *weights, int64_t index); /* 0..count-1, sorted by name */
SYZ_API int64_t syz_weights_find(const syz_weights *weights, const char *name);      /* -1 if absent */
/* The tensor, sharing the file's memory where its alignment allows. Values written to it never reach the file. */
SYZ_API syz_tensor *syz_weights_get(const syz_weights *weights, const char *name);
SYZ_API const char *syz_weights_metadata(const syz_weights *weights, const char *key); /* borrowed; NULL if absent */
/* The metadata key after `previous` (NULL: the first), with its value; NULL after the last. */
SYZ_API const char *syz_weights_next_metadata(const syz_weights *weights, const char *previous, const char **value);
/* Write a `.safetensors` file: whole or not at all, and the same bytes for the same content. `metadata` holds
 * `nmetadata` pairs of key and value. */
SYZ_API syz_status syz_weights_save(const char *path, const char *const names[], syz_tensor *const tensors[],
                                    int64_t count, const char *const (*metadata)[2], int64_t nmetadata);

/* WebDataset: an uncompressed tar file whose neighbouring members with one name up to the first dot form a sample. */
typedef struct syz_webdataset syz_webdataset;

typedef struct {
    const char *extension; /* after the first dot, lower case: "png", "seg.png" */
    const void *data;
    size_t size;
} syz_sample_file;

typedef struct {
    const char *key; /* "folder/0001"; a label, never a path to open */
    const syz_sample_file *files;
    int64_t count;
} syz_sample;

SYZ_API syz_webdataset *syz_webdataset_open(const char *path); /* walks all headers; NULL on failure */
SYZ_API void syz_webdataset_close(syz_webdataset *shard);      /* NULL is allowed */
SYZ_API int64_t syz_webdataset_count(const syz_webdataset *shard);
/* In the archive's order; everything is borrowed until the close; a null key beyond the end. */
SYZ_API syz_sample syz_webdataset_sample(const syz_webdataset *shard, int64_t index);

/* Configuration text: YAML (1.2 core schema; no aliases, no duplicate keys, bounded) to JSON text and back. `name` is
 * what error messages call the text; the caller frees the result with free(); NULL on failure. */
SYZ_API char *syz_yaml_to_json(const char *text, size_t size, const char *name);
SYZ_API char *syz_yaml_from_json(const char *text, size_t size, const char *name);

/* TensorBoard event files, for a file name that contains "tfevents". Every event is on its way to the disk when its
 * call returns. Times are seconds since 1970. */
typedef struct syz_events syz_events;

/* A new file, or an existing one to append to, whose torn last record, if any, is cut off. NULL on failure. */
SYZ_API syz_events *syz_events_open(const char *path, double wall_time);
SYZ_API void syz_events_close(syz_events *events); /* NULL is allowed */
SYZ_API syz_status syz_events_scalar(syz_events *events, const char *tag, int64_t step, double value, double wall_time);
SYZ_API syz_status syz_events_image(syz_events *events, const char *tag, int64_t step, const syz_tensor *image,
                                    double wall_time); /* as for syz_image_save */

/* ---- models ------------------------------------------------------------------------------------------------------ */

/* A network of published architecture: its parameters under the names of published checkpoints, and its methods. Made
 * from the checkpoint's own config.json; its class is "_class_name" or the first of "architectures" there. */
typedef struct syz_model syz_model;

/* A model whose parameters have names and shapes but no values: follow with syz_model_init(). The caller releases. */
SYZ_API syz_status syz_model_create(syz_model **m, const char *config_text);
/* From a folder with config.json and diffusion_pytorch_model.safetensors or model.safetensors (or the .index.json of
 * shards, or PyTorch's .bin where there is neither), or from a weights file with a config.json beside it or of a layout
 * that tells its configuration (flux1-dev.safetensors). Every parameter must be there once, with its shape, and nothing
 * else, under our names or those of a layout that the class knows. Values become f32. */
SYZ_API syz_status syz_model_load(syz_model **m, const char *path);
/* The same, but values keep the stored dtype and share the file's memory: for large frozen models. */
SYZ_API syz_status syz_model_load_stored(syz_model **m, const char *path);
/* Either, with a configuration of the caller's (NULL: as above). */
SYZ_API syz_status syz_model_load_as(syz_model **m, const char *path, const char *config_text, bool stored);
/* Give a model that was loaded as stored f32 values of its own, to be trained: new tensors, where they were not f32. */
SYZ_API syz_status syz_model_to_f32(syz_model *m);
/* Moves parameters, gradients and adapters. A call moves its inputs there; on a GPU it computes in the weights' type.
 */
SYZ_API syz_status syz_model_to_device(syz_model *m, int device);
SYZ_API int syz_model_device(const syz_model *m);
/* The same in bf16, rounded to nearest: a training then keeps the rest of the f32 masters beside them (syz_adamw). */
SYZ_API syz_status syz_model_to_bf16(syz_model *m);
/* What the values are to be when the model is trained: SYZ_BF16 after syz_model_to_bf16(), else SYZ_F32. */
SYZ_API syz_dtype syz_model_trained_dtype(const syz_model *m);
/* Whether a folder's or file's weights are those of the model, which needs no values: by name and shape alone. */
SYZ_API syz_status syz_model_check(const syz_model *m, const char *path);
/* The layout of another library that a file's names are in, and the class that it is of; NULL: none that is known. */
SYZ_API const char *syz_weights_layout(const syz_weights *weights, const char **class_name);
/* The configuration that such a file tells, as JSON text to be freed; NULL with an error naming `path` if it cannot. */
SYZ_API char *syz_weights_config(const syz_weights *weights, const char *path);
/* Draw starting values; the same seed gives the same values, whatever else the process did. */
SYZ_API syz_status syz_model_init(syz_model *m, uint64_t seed);
/* Write config.json and the weights, converted to `dtype`, under the name the architecture's library uses: one file, or
 * above `max_shard_bytes` shards NAME-00001-of-00003.safetensors and their index, as diffusers and transformers have
 * them. Either all of it takes the place of what was saved there before, or nothing. */
#define SYZ_MAX_SHARD_BYTES ((uint64_t)10000000000) /* diffusers' "10GB" */
SYZ_API syz_status syz_model_save(const syz_model *m, const char *folder, syz_dtype dtype);
SYZ_API syz_status syz_model_save_sharded(const syz_model *m, const char *folder, syz_dtype dtype,
                                          uint64_t max_shard_bytes);
/* Write a model that was only created: each parameter is drawn as syz_model_init() draws it and written before the
 * next, so that memory for the largest one is enough. Without `zeros`, matrices that start at zero get small normal
 * numbers instead, since the output of a fresh flow transformer is zero otherwise. */
typedef struct {
    uint64_t seed;
    bool zeros;
    void (*progress)(void *context, uint64_t done, uint64_t total); /* bytes, after each parameter; may be NULL */
    void *context;
} syz_random_weights;
SYZ_API syz_status syz_model_save_random(const syz_model *m, const char *folder, syz_dtype dtype,
                                         uint64_t max_shard_bytes, const syz_random_weights *how);
SYZ_API syz_model *syz_model_retain(syz_model *m); /* returns m; NULL stays NULL */
SYZ_API void syz_model_release(syz_model *m);      /* graphs that its methods recorded stay valid */

SYZ_API const char *syz_model_class(const syz_model *m);   /* "FluxTransformer2DModel"; borrowed, like all names here */
SYZ_API const char *syz_model_config(const syz_model *m);  /* JSON text */
SYZ_API int64_t syz_model_param_count(const syz_model *m); /* tensors */
SYZ_API int64_t syz_model_numel(const syz_model *m);       /* numbers in them, whether they have values yet or not */
SYZ_API const char *syz_model_param_name(const syz_model *m, int64_t index);
SYZ_API syz_tensor *syz_model_param(const syz_model *m, int64_t index);     /* borrowed; NULL before it has values */
SYZ_API int64_t syz_model_param_find(const syz_model *m, const char *name); /* -1 if absent */
SYZ_API bool syz_model_is_linear(const syz_model *m, int64_t index);        /* the weight of a linear layer */
SYZ_API void syz_model_set_requires_grad(syz_model *m, bool on);            /* every parameter; off at first */
SYZ_API void syz_model_set_checkpointing(syz_model *m, bool on);            /* recompute blocks in backward */
/* Calls without gradients on a GPU are recorded and repeated (CUDA graphs): off at first, on with SYZ_GRAPHS=1. */
SYZ_API void syz_model_set_graphs(syz_model *m, bool on);
typedef struct {
    int64_t recorded, replayed, refused;
    char reason[256]; /* why work was refused last */
} syz_graph_counts;
SYZ_API syz_graph_counts syz_model_graph_counts(const syz_model *m);
SYZ_API double syz_model_flops(const syz_model *m); /* of its methods and their backward passes, as syz_flops() */
/* Methods are called by name. Inputs and outputs are named, separated by blanks; an input ending in `?` may be NULL. */
SYZ_API int syz_model_method_count(const syz_model *m);
SYZ_API const char *syz_model_method_name(const syz_model *m, int method);
SYZ_API const char *syz_model_method_inputs(const syz_model *m, int method);
SYZ_API const char *syz_model_method_outputs(const syz_model *m, int method);
/* Inputs missing at the end count as NULL. Writes at most `capacity` outputs, which belong to the current scope, and
 * their number. Shapes are described in models/<architecture>.c. */
SYZ_API syz_status syz_model_call(syz_model *m, const char *method, syz_tensor *const in[], int nin, syz_tensor *out[],
                                  int capacity, int *nout);

/* ---- LoRA -------------------------------------------------------------------------------------------------------- */

/* Low-rank adapters on the linear layers of a model, as PEFT defines them: such a layer computes W x + b + scale * B A
 * x with A [rank,in] and B [out,rank] in f32. The model's own parameters, which may be stored in half precision, stop
 * requiring gradients, the adapters' begin to. A model has one set of adapters at a time.
 *
 * config_text is JSON with the keys of PEFT's LoraConfig: r, lora_alpha (both 8 unless given), target_modules (a list
 * of layers' names or of their ends, or "all-linear"), rank_pattern, alpha_pattern, use_rslora, and init_lora_weights
 * (true, or "gaussian"). B starts at zero, A at random numbers of `seed`. SYZ_ENOTFOUND for a target that names no
 * layer; SYZ_EINVAL for a rank above a layer's size. */
SYZ_API syz_status syz_lora_attach(syz_model *m, const char *config_text, uint64_t seed);
/* Attach what a file holds, or a folder with pytorch_lora_weights.safetensors (diffusers) or adapter_model.safetensors
 * and adapter_config.json (PEFT). `component` is the model's name in its pipeline ("transformer"), with which diffusers
 * begins its names; NULL if it has none. SYZ_EFORMAT names the key that does not fit the model. */
SYZ_API syz_status syz_lora_load(syz_model *m, const char *path, const char *component);
/* Give attached adapters the values of such a file, which must hold the same layers, ranks and scales. */
SYZ_API syz_status syz_lora_assign(syz_model *m, const char *path, const char *component);
/* In f32, in the layout of diffusers with a component, in that of PEFT without. Files are replaced whole or not. */
SYZ_API syz_status syz_lora_save(const syz_model *m, const char *folder, const char *component);
/* Two parameters per layer, 0 without adapters; "<layer>.lora_A.weight"; everything borrowed until they are removed. */
SYZ_API int64_t syz_lora_count(const syz_model *m);
SYZ_API const char *syz_lora_param_name(const syz_model *m, int64_t index);
SYZ_API syz_tensor *syz_lora_param(const syz_model *m, int64_t index);
SYZ_API const char *syz_lora_config(const syz_model *m); /* JSON text, NULL without adapters */
/* Switched off, the model computes as if it had none. */
SYZ_API void syz_lora_set_enabled(syz_model *m, bool on);
SYZ_API bool syz_lora_enabled(const syz_model *m);
SYZ_API void syz_lora_set_strength(syz_model *m, double strength); /* multiplies every scale; 1 at first; not saved */
/* Replace each adapted weight W by W + scale * B A, computed in f32 and kept in W's dtype. The originals are kept, so
 * that unmerging gives back the same bits. */
SYZ_API syz_status syz_lora_merge(syz_model *m);
SYZ_API syz_status syz_lora_unmerge(syz_model *m);
/* Without adapters the model is what it was before, or, when they were merged, stays what it is. */
SYZ_API void syz_lora_remove(syz_model *m);

/* ---- processes of one run ---------------------------------------------------------------------------------------- */

/* The ranks 0 to size-1 of a run call the same operations on tensors of the same size in the same order. When one
 * ends, is silent too long or calls another one, the comm ends on all with SYZ_EIO or SYZ_EINVAL, and later calls
 * repeat the cause. Refused arguments leave it as it was. docs/distributed.md */
typedef struct syz_comm syz_comm;
#define SYZ_COMM_MAX_SIZE 1024
typedef struct {
    int rank, size, local_rank; /* local_rank: of those on one machine; picks the GPU */
    const char *address;        /* where rank 0 listens; NULL: 127.0.0.1 */
    int port;
    double timeout; /* seconds of silence after which the others count as lost; a start waits at most 300 */
} syz_comm_options;
typedef enum { SYZ_SUM, SYZ_MEAN } syz_reduction;
/* From RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT, as launchers set them, and SYZ_COMM_PORT and
 * SYZ_COMM_TIMEOUT; one process when WORLD_SIZE is not set. `address` is borrowed. SYZ_EINVAL names what is wrong. */
SYZ_API syz_status syz_comm_environment(syz_comm_options *options);
/* Meet the other ranks. `kind` is "single" (one process), "tcp" (tensors in host memory) or "nccl" (in GPU memory);
 * NULL: single or tcp, by the size. NULL options: those of the environment. SYZ_EUNSUPPORTED: built without NCCL;
 * SYZ_EIO: names the ranks that did not come. Freed by syz_comm_free(). */
SYZ_API syz_status syz_comm_create(syz_comm **comm, const char *kind, const syz_comm_options *options);
SYZ_API void syz_comm_free(syz_comm *comm); /* NULL is allowed */
SYZ_API const char *syz_comm_kind(const syz_comm *comm);
SYZ_API int syz_comm_rank(const syz_comm *comm);
SYZ_API int syz_comm_size(const syz_comm *comm);
/* Reductions take f32 and bf16; bf16 is summed in f32 and rounded once by tcp. All ranks get equal bits. The other
 * operations move tensors of every dtype. SYZ_ESHAPE unless `large` has size times as many elements as `small`. */
SYZ_API syz_status syz_comm_all_reduce(syz_comm *comm, syz_tensor *t, syz_reduction how);
/* Rank r gets the r-th part of the sum. */
SYZ_API syz_status syz_comm_reduce_scatter(syz_comm *comm, syz_tensor *small, const syz_tensor *large,
                                           syz_reduction how);
SYZ_API syz_status syz_comm_all_gather(syz_comm *comm, syz_tensor *large, const syz_tensor *small); /* by rank */
SYZ_API syz_status syz_comm_broadcast(syz_comm *comm, syz_tensor *t, int root);
SYZ_API syz_status syz_comm_barrier(syz_comm *comm); /* returns once every rank has called it */
/* The mean over ranks replaces each gradient (f32). One that only other ranks have counts as zero, and is made. */
SYZ_API syz_status syz_comm_all_reduce_grads(syz_comm *comm, syz_tensor *const params[], int64_t count);

/* ---- tokenizers -------------------------------------------------------------------------------------------------- */

/* CLIP's byte pairs, T5's unigram pieces or BERT's word pieces, with the ids of transformers' tokenizers
 * (docs/tokenizers.md). Immutable once open, so threads may share it. */
typedef struct syz_tokenizer syz_tokenizer;

typedef struct {
    int64_t bos, eos, pad, unk; /* what begins a text (-1: nothing, T5), ends it, fills up, stands for the unknown */
} syz_special_ids;

/* The files of a folder choose the kind: vocab.json and merges.txt, or merges.txt alone (CLIP); tokenizer.json;
 * spiece.model (T5); vocab.txt (BERT). Special and added tokens come from tokenizer_config.json,
 * special_tokens_map.json and added_tokens.json where they exist. SYZ_ENOTFOUND for a missing file, SYZ_EFORMAT for one
 * that is damaged or asks for what is not implemented. Freed by syz_tokenizer_free(). */
SYZ_API syz_status syz_tokenizer_open(syz_tokenizer **tokenizer, const char *folder);
/* As "open_clip": CLIP's vocabulary, with the text cleaned as open_clip cleans it. NULL: as above. */
SYZ_API syz_status syz_tokenizer_open_as(syz_tokenizer **tokenizer, const char *folder, const char *reading);
SYZ_API void syz_tokenizer_free(syz_tokenizer *tokenizer); /* NULL is allowed */
/* The ids of a text without bos and eos. `*count` is the number of tokens; at most `capacity` of them are written (as
 * snprintf does). A special token spelled out in the text becomes its id. SYZ_EINVAL if the text is not UTF-8 or is
 * longer than 16 MiB. */
SYZ_API syz_status syz_tokenizer_encode(const syz_tokenizer *tokenizer, const char *text, int64_t *ids, size_t capacity,
                                        size_t *count);
/* ids[length] = bos if the kind has one, as many tokens as fit, eos, then padding: `pad`, or the folder's own padding
 * token if `pad` < 0 (open_clip pads with 0). `*used`, unless NULL, counts what is not padding. */
SYZ_API syz_status syz_tokenizer_encode_padded(const syz_tokenizer *tokenizer, const char *text, int64_t pad,
                                               int64_t *ids, size_t length, size_t *used);
/* The text of ids[0..count) without special tokens, free() it; NULL for an id outside the vocabulary. Bytes are as the
 * tokens spell them, so half a character may be left at an end. */
SYZ_API char *syz_tokenizer_decode(const syz_tokenizer *tokenizer, const int64_t *ids, size_t count);
SYZ_API const char *syz_tokenizer_token(const syz_tokenizer *tokenizer, int64_t id); /* "cat</w>"; NULL if none */
SYZ_API int64_t syz_tokenizer_size(const syz_tokenizer *tokenizer);                  /* largest id + 1 */
SYZ_API int64_t syz_tokenizer_max_length(const syz_tokenizer *tokenizer); /* model_max_length; 0 if not given */
SYZ_API syz_special_ids syz_tokenizer_specials(const syz_tokenizer *tokenizer);

/* ---- optimizers -------------------------------------------------------------------------------------------------- */

/* AdamW with PyTorch's formula: weight decay is decoupled, moments are corrected for their start at zero. It keeps the
 * parameters alive and changes their values in place. They are f32, or bf16: then 16 bits more for each value, the
 * remainder, complete an f32 master, and the steps are those of an f32 parameter to the bit. Gradients are f32. */
typedef struct syz_adamw syz_adamw;

/* 8 bits: beside a scale for each 256 values, rounded at random, alike in every run. Host: f32 in the host's memory. */
typedef enum { SYZ_MOMENTS_F32, SYZ_MOMENTS_8BIT, SYZ_MOMENTS_HOST } syz_moments;

typedef struct {
    double lr, beta1, beta2, eps, weight_decay;
    syz_moments moments;
} syz_adamw_options;

/* Means of the gradient and of its square: f32 or u8 of the parameter's shape. Their scales [blocks]: f32, of 8-bit
 * moments alone. Remainders [n,2]: u8, of bf16 parameters alone; the two bytes are a little-endian integer, and the
 * master's bits are (bf16 bits << 16) + that integer. */
typedef enum {
    SYZ_ADAMW_M,
    SYZ_ADAMW_V,
    SYZ_ADAMW_M_SCALE,
    SYZ_ADAMW_V_SCALE,
    SYZ_ADAMW_REMAINDER,
    SYZ_ADAMW_STATES
} syz_adamw_state_kind;

/* SYZ_EDTYPE unless all parameters are f32 or bf16; SYZ_EINVAL for one that lies in a mapped file. */
SYZ_API syz_status syz_adamw_create(syz_adamw **optimizer, syz_tensor *const params[], int64_t count,
                                    syz_adamw_options options);
SYZ_API void syz_adamw_free(syz_adamw *optimizer); /* NULL is allowed */
/* One update with this learning rate from the accumulated gradients. A parameter without a gradient stays as it is, and
 * its own step count too. */
SYZ_API syz_status syz_adamw_step(syz_adamw *optimizer, double lr);
/* syz_clip_grad_norm() of the optimizer's parameters, for the next step alone: that multiplies gradients by the factor
 * while it reads them, and the gradients themselves stay. The same bits. The norm is what the host waits for. */
SYZ_API syz_status syz_adamw_limit(double *norm, syz_adamw *optimizer, double max_norm);
SYZ_API void syz_adamw_zero_grad(syz_adamw *optimizer); /* drops the gradients */
SYZ_API syz_adamw_options syz_adamw_get_options(const syz_adamw *optimizer);
/* By the parameter's index. States are borrowed, NULL where there is none: read them, or syz_assign(). */
SYZ_API int64_t syz_adamw_count(const syz_adamw *optimizer);
SYZ_API syz_tensor *const *syz_adamw_params(const syz_adamw *optimizer); /* borrowed, as the optimizer's array */
SYZ_API int64_t syz_adamw_steps(const syz_adamw *optimizer, int64_t index);
SYZ_API void syz_adamw_set_steps(syz_adamw *optimizer, int64_t index, int64_t steps);
SYZ_API syz_tensor *syz_adamw_state(const syz_adamw *optimizer, int64_t index, syz_adamw_state_kind kind);
/* The f32 values of a parameter, as a new tensor of the current scope; and new ones (f32, of its shape). */
SYZ_API syz_tensor *syz_adamw_master(const syz_adamw *optimizer, int64_t index);
SYZ_API syz_status syz_adamw_set_master(syz_adamw *optimizer, int64_t index, const syz_tensor *master);

/* Multiply every gradient; the mean of n accumulated ones is theirs times 1 / n. */
SYZ_API syz_status syz_scale_grads(syz_tensor *const params[], int64_t count, double factor);

/* The L2 norm of all gradients together; above `max_norm`, every gradient is scaled by max_norm / (norm + 1e-6). 0
 * only measures. When the norm is not finite it is reported and nothing is scaled: skip that step. */
SYZ_API syz_status syz_clip_grad_norm(double *norm, syz_tensor *const params[], int64_t count, double max_norm);

/* Exponential moving average of parameters: shadow = decay * shadow + (1 - decay) * parameter. Shadows are f32 and
 * start as copies. */
typedef struct syz_ema syz_ema;

SYZ_API syz_status syz_ema_create(syz_ema **ema, syz_tensor *const params[], int64_t count); /* f32 parameters */
SYZ_API syz_status syz_ema_create_for(syz_ema **ema, const syz_adamw *optimizer); /* bf16 ones too, by their masters */
SYZ_API void syz_ema_free(syz_ema *ema);                                          /* NULL is allowed */
SYZ_API syz_status syz_ema_update(syz_ema *ema, double decay);
/* Exchanges values with the parameters, exactly: once to evaluate, again to go on. */
SYZ_API syz_status syz_ema_swap(syz_ema *ema);
SYZ_API int64_t syz_ema_count(const syz_ema *ema);
SYZ_API syz_tensor *syz_ema_shadow(const syz_ema *ema, int64_t index); /* borrowed; for checkpoints */

#ifdef __cplusplus
}
#endif
#endif
