/* The pre-norm transformer that the towers of CLIP and SigLIP share, under the names of transformers. */
#ifndef SYZ_MODELS_ENCODER_H
#define SYZ_MODELS_ENCODER_H

#include "models/model.h"

typedef struct {
    const char *name; /* of the tower: what stands before ".encoder.layers" */
    int64_t width, inner, layers, heads;
    double eps;
    enum { SYZ_GELU, SYZ_GELU_TANH, SYZ_QUICK_GELU } activation;
    bool causal; /* token i sees tokens 0..i */
} syz_encoder;

/* What a configuration leaves out. */
typedef struct {
    int64_t width, inner, layers, heads;
    double eps;
    const char *activation;
} syz_encoder_defaults;

/* x in f32: activations stay there, whatever dtype the weights are stored in. */
syz_tensor *syz_as_f32(syz_tensor *x);
/* x in the type of `like`. */
syz_tensor *syz_as_type_of(const syz_tensor *like, syz_tensor *x);

/* Read hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, layer_norm_eps and hidden_act. `name`
 * and `causal` stay as they are. */
void syz_encoder_read(syz_encoder *e, const syz_json *config, const syz_encoder_defaults *missing);
/* Whether a tensor of a checkpoint is a buffer that old ones carry: positions 0, 1, 2, ... */
bool syz_encoder_ignore(const char *name);
/* Declare the parameters of every layer; they start as those of transformers' CLIP. */
void syz_encoder_declare(syz_model *m, const syz_encoder *e);
/* The feed-forward part under the names prefix.fc1 and prefix.fc2: its declaration, and x [...,C] -> [...,C]. */
void syz_encoder_declare_mlp(syz_model *m, const syz_encoder *e, const char *prefix);
syz_tensor *syz_encoder_mlp(const syz_model *m, const syz_encoder *e, const char *prefix, syz_tensor *x);
/* One layer: x [B,T,C] -> [B,T,C] */
syz_tensor *syz_encoder_layer(const syz_model *m, const syz_encoder *e, int64_t index, syz_tensor *x);

#endif
