#include "models/encoder.h"

#include <math.h>
#include <string.h>

syz_tensor *syz_as_type_of(const syz_tensor *like, syz_tensor *x) {
    if (!like || !x) return NULL;
    return x->dtype == like->dtype ? x : syz_cast(x, like->dtype);
}

syz_tensor *syz_as_f32(syz_tensor *x) {
    return x && x->dtype != SYZ_F32 ? syz_cast(x, SYZ_F32) : x;
}

bool syz_encoder_ignore(const char *name) {
    static const char positions[] = ".position_ids";
    size_t length = strlen(name), tail = sizeof positions - 1;
    return length > tail && strcmp(name + length - tail, positions) == 0;
}

/* ---- configuration ---- */

static void read_activation(syz_encoder *e, const syz_json *config, const char *missing) {
    static const char *const names[] = {
        [SYZ_GELU] = "gelu", [SYZ_GELU_TANH] = "gelu_pytorch_tanh", [SYZ_QUICK_GELU] = "quick_gelu"};
    const char *name = syz_json_string(config, "hidden_act", missing);
    for (int k = SYZ_GELU; k <= SYZ_QUICK_GELU; k++) {
        if (strcmp(name, names[k]) != 0) continue;
        e->activation = k;
        return;
    }
    syz_config_refuse(config, "hidden_act", "must be \"quick_gelu\", \"gelu\" or \"gelu_pytorch_tanh\"");
}

void syz_encoder_read(syz_encoder *e, const syz_json *config, const syz_encoder_defaults *missing) {
    e->width = syz_config_int(config, "hidden_size", missing->width, 1, 1 << 16);
    e->inner = syz_config_int(config, "intermediate_size", missing->inner, 1, 1 << 18);
    e->layers = syz_config_int(config, "num_hidden_layers", missing->layers, 0, 1024);
    e->heads = syz_config_int(config, "num_attention_heads", missing->heads, 1, 1024);
    e->eps = syz_json_number(config, "layer_norm_eps", missing->eps);
    read_activation(e, config, missing->activation);
    if (e->width % e->heads) syz_config_refuse(config, "num_attention_heads", "must divide hidden_size");
}

/* ---- parameters ---- */

static double outer_deviation(const syz_encoder *e) {
    return pow((double)e->width, -0.5);
}

static double inner_deviation(const syz_encoder *e) {
    return outer_deviation(e) * pow(2.0 * (double)e->layers, -0.5);
}

void syz_encoder_declare_mlp(syz_model *m, const syz_encoder *e, const char *prefix) {
    syz_add_linear_normal(m, syz_join(prefix, "fc1").text, e->width, e->inner, true, outer_deviation(e) * sqrt(0.5));
    syz_add_linear_normal(m, syz_join(prefix, "fc2").text, e->inner, e->width, true, inner_deviation(e));
}

void syz_encoder_declare(syz_model *m, const syz_encoder *e) {
    static const char *const projections[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"};
    for (int64_t i = 0; i < e->layers; i++) {
        syz_path layer = syz_pathf("%s.encoder.layers.%d", e->name, (int)i);
        for (int k = 0; k < 3; k++)
            syz_add_linear_normal(m, syz_join(layer.text, projections[k]).text, e->width, e->width, true,
                                  inner_deviation(e));
        syz_add_linear_normal(m, syz_join(layer.text, "self_attn.out_proj").text, e->width, e->width, true,
                              outer_deviation(e));
        syz_add_norm(m, syz_join(layer.text, "layer_norm1").text, e->width);
        syz_encoder_declare_mlp(m, e, syz_join(layer.text, "mlp").text);
        syz_add_norm(m, syz_join(layer.text, "layer_norm2").text, e->width);
    }
}

/* ---- layers ---- */

static syz_tensor *self_attention(const syz_model *m, const syz_encoder *e, const char *layer, syz_tensor *x) {
    syz_shape tokens = x->shape, heads = SYZ_SHAPE(tokens.dim[0], tokens.dim[1], e->heads, e->width / e->heads);
    syz_tensor *y = syz_apply_layer_norm(m, syz_join(layer, "layer_norm1").text, x, e->eps);
    syz_tensor *q = syz_reshape(syz_apply_linear(m, syz_join(layer, "self_attn.q_proj").text, y), heads);
    syz_tensor *k = syz_reshape(syz_apply_linear(m, syz_join(layer, "self_attn.k_proj").text, y), heads);
    syz_tensor *v = syz_reshape(syz_apply_linear(m, syz_join(layer, "self_attn.v_proj").text, y), heads);
    y = syz_reshape(syz_attention(q, k, v, NULL, 0, e->causal), tokens);
    return syz_add(x, syz_apply_linear(m, syz_join(layer, "self_attn.out_proj").text, y));
}

syz_tensor *syz_encoder_mlp(const syz_model *m, const syz_encoder *e, const char *prefix, syz_tensor *x) {
    syz_path first = syz_join(prefix, "fc1");
    if (e->activation == SYZ_GELU_TANH) {
        x = syz_apply_linear_gelu(m, first.text, x);
    } else {
        x = syz_apply_linear(m, first.text, x);
        x = e->activation == SYZ_GELU ? syz_gelu(x) : syz_quick_gelu(x);
    }
    return syz_apply_linear(m, syz_join(prefix, "fc2").text, x);
}

syz_tensor *syz_encoder_layer(const syz_model *m, const syz_encoder *e, int64_t index, syz_tensor *x) {
    syz_path path = syz_pathf("%s.encoder.layers.%d", e->name, (int)index);
    x = self_attention(m, e, path.text, x);
    syz_tensor *y = syz_apply_layer_norm(m, syz_join(path.text, "layer_norm2").text, x, e->eps);
    return syz_add(x, syz_encoder_mlp(m, e, syz_join(path.text, "mlp").text, y));
}
