/* LoRA (arXiv 2106.09685) inside the engine: low-rank adapters beside the linear layers of a model, under PEFT's names.
 * There is no dropout on the adapter's input: what PEFT calls lora_dropout is always 0 here. */
#ifndef SYZ_MODELS_LORA_H
#define SYZ_MODELS_LORA_H

#include "io/json.h"
#include "models/params.h"

/* The adapter of one linear layer; its tensors are items[2k] and items[2k + 1] of the parameters. */
typedef struct {
    char *module;   /* "transformer_blocks.0.attn.to_q" */
    int64_t weight; /* the layer's weight among the model's parameters */
    int64_t rank;
    double alpha, scale;  /* alpha / rank, or alpha / sqrt(rank) */
    syz_tensor *original; /* the weight as it was before the merge; NULL while not merged */
} syz_adapter;

typedef struct syz_lora {
    syz_params params; /* "<module>.lora_A.weight" [rank,in], "<module>.lora_B.weight" [out,rank], by adapter */
    syz_adapter *items;
    int64_t count, capacity;
    json_t *targets; /* target_modules as asked for, or NULL: every adapted layer by its name */
    int64_t rank;    /* of adapters that no pattern names */
    double alpha;
    bool rslora, gaussian;
    double strength; /* multiplies every scale */
    bool enabled, merged;
    char *config_text; /* JSON, PEFT's LoraConfig */
} syz_lora;

/* y of [...,out] plus scale * B A x, or y itself where no adapter acts on this layer. */
syz_tensor *syz_lora_apply(const syz_model *m, const char *module, syz_tensor *x, syz_tensor *y);
/* Whether one acts on this layer: then its result is not that of the weight alone. */
bool syz_lora_acts_on(const syz_model *m, const char *module);
/* False while adapters are switched off: recomputing a block later would find them on again. */
bool syz_lora_is_steady(const syz_model *m);
syz_status syz_lora_move(syz_lora *lora, int device);
void syz_lora_free(syz_lora *lora); /* NULL is allowed */

/* ---- between lora.c and lora_file.c ---- */

syz_lora *syz_lora_new(void);
/* Declare the adapter of a layer whose weight is parameter `weight`. */
syz_status syz_lora_declare(syz_lora *lora, const syz_model *m, int64_t weight, int64_t rank, double alpha);
/* Make a declared and filled set of adapters the model's; frozen base, trainable adapters. */
syz_status syz_lora_install(syz_lora *lora, syz_model *m);
/* r, lora_alpha, patterns and switches of a LoraConfig; refuses what is not implemented. */
syz_status syz_lora_read_config(syz_lora *lora, const syz_json *config);
/* What a pattern of the configuration ("rank_pattern", "alpha_pattern") says about a layer, or `missing`. */
double syz_lora_pattern(const syz_json *config, const char *key, const char *module, double missing);
char *syz_lora_config_text(const syz_lora *lora, const char *prefix); /* free() it */

#endif
