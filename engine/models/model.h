/* Models, inside the engine: what one file per architecture provides, and what they share. */
#ifndef SYZ_MODELS_MODEL_H
#define SYZ_MODELS_MODEL_H

#include "core/error.h"
#include "io/json.h"
#include "models/layout.h"
#include "models/lora.h"
#include "models/params.h"
#include "models/replay.h"
#include "ops/ops.h"
#include "tensor/tensor.h"

enum { SYZ_MODEL_MAX_INPUTS = 8, SYZ_MODEL_MAX_OUTPUTS = 4 };

/* One way to call a model. `inputs` and `outputs` are names separated by blanks; an input that ends in `?` may be NULL.
 * `run` reads all its inputs and sets all its outputs; it chains operations, so that an output is NULL and an error is
 * pending when any of them failed. */
typedef struct {
    const char *name, *inputs, *outputs;
    void (*run)(syz_model *m, syz_tensor *const in[], syz_tensor *out[]);
} syz_method;

typedef struct {
    const char *name;     /* "_class_name" or the first of "architectures" */
    const char *weights;  /* file name of the weights, without ".safetensors" */
    size_t settings_size; /* of the architecture's own structure, zeroed before build */
    /* Read the configuration into m->settings and declare every parameter. Errors stay pending. */
    void (*build)(syz_model *m, const syz_json *config);
    void (*destroy)(syz_model *m);    /* frees what m->settings points to; NULL: nothing */
    bool (*ignore)(const char *name); /* names in weight files to pass over; NULL: none */
    const syz_method *methods;        /* ends with an empty name */
    const syz_layout *layouts;        /* checkpoints with other names; ends with an empty one; NULL: none */
} syz_model_class_info;

struct syz_model {
    int refs;
    const syz_model_class_info *class;
    json_t *config;
    char *config_text;
    syz_params params;
    void *settings;
    bool checkpointing;
    bool train_bf16;  /* syz_model_to_bf16() was the last to say */
    int meter;        /* counts its floating-point operations (core/flops.h) */
    syz_lora *lora;   /* NULL without adapters */
    bool two_streams; /* on a GPU parts that do not depend on each other run side by side */
    bool graphs;      /* calls without gradients are recorded and repeated */
    syz_replays *replays;
    uint64_t dropped; /* counts what calls kept on the device between them, and have freed */
};

/* An integer of the configuration, refused outside low..high. */
int64_t syz_config_int(const syz_json *config, const char *key, int64_t missing, int64_t low, int64_t high);
/* Refuse a configuration that asks for something this implementation does not have. */
void syz_config_refuse(const syz_json *config, const char *key, const char *why);

/* ---- layers: declaring them and applying them by name ---- */

/* PyTorch's defaults: weight and bias uniform in +-1/sqrt(inputs). */
void syz_add_linear(syz_model *m, const char *name, int64_t in, int64_t out, bool bias);
void syz_add_linear_zero(syz_model *m, const char *name, int64_t in, int64_t out); /* starts at zero, as adaLN-Zero */
void syz_add_linear_normal(syz_model *m, const char *name, int64_t in, int64_t out, bool bias, double deviation);
void syz_add_conv(syz_model *m, const char *name, int64_t in, int64_t out, int64_t size); /* size x size, with bias */
void syz_add_norm(syz_model *m, const char *name, int64_t channels);                      /* weight 1, bias 0 */
void syz_add_weight(syz_model *m, const char *name, syz_shape shape, syz_init init);      /* one parameter */

/* The parameter; NULL with an error when it has no values yet. */
syz_tensor *syz_weight(const syz_model *m, const char *name);
/* x of [..., in] -> [..., out]; a bias is used where it was declared, and an adapter where one is attached. */
syz_tensor *syz_apply_linear(const syz_model *m, const char *name, syz_tensor *x);
/* gelu_tanh of that, in one operation where no adapter is attached */
syz_tensor *syz_apply_linear_gelu(const syz_model *m, const char *name, syz_tensor *x);
/* Whether pixels are [N,side,side,channels]; an error if not. */
bool syz_check_pixels(const syz_model *m, const syz_tensor *pixels, int64_t side, int64_t channels);
/* x of [N,H,W,C]; `pad` rows and columns of zeros on every side */
syz_tensor *syz_apply_conv(const syz_model *m, const char *name, syz_tensor *x, int64_t stride, int64_t pad);
syz_tensor *syz_apply_layer_norm(const syz_model *m, const char *name, syz_tensor *x, double eps);
syz_tensor *syz_apply_group_norm(const syz_model *m, const char *name, syz_tensor *x, int64_t groups, double eps,
                                 bool silu);

/* Rows of the table `name` [V,C] for ids i64 [B,T] -> [B,T,C], f32 also when the table is stored in half precision:
 * only the rows are converted then. */
syz_tensor *syz_apply_embedding(const syz_model *m, const char *name, syz_tensor *ids);

/* Columns begin..begin+length-1 of dimension `dim`. */
syz_tensor *syz_narrow(syz_tensor *x, int64_t dim, int64_t begin, int64_t length);
/* The same without a copy where the elements lie together; for what does not outlive x, which stays alive with it. */
syz_tensor *syz_narrow_view(syz_tensor *x, int64_t dim, int64_t begin, int64_t length);

/* Whether blocks keep only their inputs now: the model is set so, and gradients are recorded. */
bool syz_is_checkpointing(const syz_model *m);
/* Run one block keeping only its inputs. The graph keeps the model alive. The block's own inputs come first in its
 * list; what follows them is not for it. */
syz_tensor *syz_checkpoint_block(syz_model *m, syz_segment block, int64_t index, syz_tensor *const in[], int nin);

/* Run one block of a model in a scope of its own, so that temporaries die with it; checkpointed when the model is set
 * so and gradients are recorded. */
syz_tensor *syz_run_block(syz_model *m, syz_segment block, int64_t index, syz_tensor *const in[], int nin);

#endif
