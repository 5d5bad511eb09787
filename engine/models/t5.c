/* The encoder of T5, transformers' T5EncoderModel: FLUX.1's second text encoder.
 *
 * Pre-norm layers with RMS norms and no biases. Attention is not scaled; what it knows of positions is a bias per head
 * and bucket of distances, which layer 0 carries for all layers. */
#include "models/model.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define TOKENS         "shared.weight"
#define ENCODER_TOKENS "encoder.embed_tokens.weight"
#define POSITIONS      "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"

typedef struct {
    int64_t vocabulary, width, inner, layers, heads, head_dim;
    int64_t buckets, max_distance;
    double eps;
    bool gated; /* gelu_tanh(wi_0 x) * wi_1 x, of v1.1, rather than relu(wi x) */
} settings;

static syz_path layer_path(int64_t index) {
    return syz_pathf("encoder.block.%d", (int)index);
}

/* ---- configuration and parameters ---- */

static void read_settings(settings *s, const syz_json *config) {
    s->vocabulary = syz_config_int(config, "vocab_size", 32128, 1, 1 << 24);
    s->width = syz_config_int(config, "d_model", 512, 1, 1 << 16);
    s->head_dim = syz_config_int(config, "d_kv", 64, 1, 1024);
    s->inner = syz_config_int(config, "d_ff", 2048, 1, 1 << 18);
    s->layers = syz_config_int(config, "num_layers", 6, 1, 1024);
    s->heads = syz_config_int(config, "num_heads", 8, 1, 1024);
    s->buckets = syz_config_int(config, "relative_attention_num_buckets", 32, 4, 1 << 16);
    s->max_distance = syz_config_int(config, "relative_attention_max_distance", 128, 2, 1 << 24);
    s->eps = syz_json_number(config, "layer_norm_epsilon", 1e-6);
    const char *kind = syz_json_string(config, "feed_forward_proj", "relu");
    s->gated = strcmp(kind, "gated-gelu") == 0;
    if (!s->gated && strcmp(kind, "relu") != 0)
        syz_config_refuse(config, "feed_forward_proj", "must be \"gated-gelu\" or \"relu\"");
    if (s->max_distance <= s->buckets / 4)
        syz_config_refuse(config, "relative_attention_max_distance",
                          "must be above a quarter of relative_attention_num_buckets");
}

/* The starting deviations are those of transformers. */
static void add_layer(syz_model *m, const settings *s, const char *layer) {
    double width = pow((double)s->width, -0.5);
    int64_t inner = s->heads * s->head_dim;
    syz_add_linear_normal(m, syz_join(layer, "layer.0.SelfAttention.q").text, s->width, inner, false,
                          width * pow((double)s->head_dim, -0.5));
    syz_add_linear_normal(m, syz_join(layer, "layer.0.SelfAttention.k").text, s->width, inner, false, width);
    syz_add_linear_normal(m, syz_join(layer, "layer.0.SelfAttention.v").text, s->width, inner, false, width);
    syz_add_linear_normal(m, syz_join(layer, "layer.0.SelfAttention.o").text, inner, s->width, false,
                          pow((double)inner, -0.5));
    syz_add_weight(m, syz_join(layer, "layer.0.layer_norm.weight").text, SYZ_SHAPE(s->width), SYZ_INIT_ONES);
    const char *in[] = {s->gated ? "layer.1.DenseReluDense.wi_0" : "layer.1.DenseReluDense.wi",
                        "layer.1.DenseReluDense.wi_1"};
    for (int k = 0; k < (s->gated ? 2 : 1); k++)
        syz_add_linear_normal(m, syz_join(layer, in[k]).text, s->width, s->inner, false, width);
    syz_add_linear_normal(m, syz_join(layer, "layer.1.DenseReluDense.wo").text, s->inner, s->width, false,
                          pow((double)s->inner, -0.5));
    syz_add_weight(m, syz_join(layer, "layer.1.layer_norm.weight").text, SYZ_SHAPE(s->width), SYZ_INIT_ONES);
}

static void build(syz_model *m, const syz_json *config) {
    settings *s = m->settings;
    read_settings(s, config);
    if (syz_failed()) return;
    syz_add_weight(m, TOKENS, SYZ_SHAPE(s->vocabulary, s->width), (syz_init){SYZ_INIT_NORMAL, 1});
    syz_add_weight(m, POSITIONS, SYZ_SHAPE(s->buckets, s->heads),
                   (syz_init){SYZ_INIT_NORMAL, pow((double)s->width, -0.5)});
    for (int64_t i = 0; i < s->layers; i++)
        add_layer(m, s, layer_path(i).text);
    syz_add_weight(m, "encoder.final_layer_norm.weight", SYZ_SHAPE(s->width), SYZ_INIT_ONES);
}

/* In transformers the encoder's table is the shared one, under a second name that many checkpoints store too. */
static bool ignore(const char *name) {
    return strcmp(name, ENCODER_TOKENS) == 0;
}

/* ---- files by themselves, such as t5xxl_fp16.safetensors: our names, and what they tell ---- */

static const syz_layout_rule rules[] = {
    {TOKENS, TOKENS, SYZ_LAYOUT_SAME},
    {TOKENS, ENCODER_TOKENS, SYZ_LAYOUT_SAME},
    {"*", "*", SYZ_LAYOUT_SAME},
    {0},
};

/* The numbers that shapes do not tell are those of every published T5: 128 and 1e-6. */
static char *config_of_file(const syz_weights *weights, const char *prefix, const char *path) {
    const char *table = syz_layout_side(weights, prefix, TOKENS, 0) ? TOKENS : ENCODER_TOKENS;
    int64_t heads = syz_layout_side(weights, prefix, POSITIONS, 1);
    int64_t attended = syz_layout_side(weights, prefix, "encoder.block.0.layer.0.SelfAttention.q.weight", 0);
    int64_t gated = syz_layout_side(weights, prefix, "encoder.block.0.layer.1.DenseReluDense.wi_0.weight", 0);
    int64_t plain = syz_layout_side(weights, prefix, "encoder.block.0.layer.1.DenseReluDense.wi.weight", 0);
    int64_t width = syz_layout_side(weights, prefix, table, 1);
    if (!heads || !width || attended % heads || (!gated && !plain))
        return syz_fail_null(SYZ_EFORMAT, "%s: its shapes do not tell the configuration of a T5 encoder", path);
    json_t *config = json_pack(
        "{s:[s], s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s}", "architectures", "T5EncoderModel", "vocab_size",
        (json_int_t)syz_layout_side(weights, prefix, table, 0), "d_model", (json_int_t)width, "d_kv",
        (json_int_t)(attended / heads), "d_ff", (json_int_t)(gated ? gated : plain), "num_layers",
        (json_int_t)syz_layout_count(weights, prefix, "encoder.block.%d.layer.0.SelfAttention.q.weight"), "num_heads",
        (json_int_t)heads, "relative_attention_num_buckets", (json_int_t)syz_layout_side(weights, prefix, POSITIONS, 0),
        "feed_forward_proj", gated ? "gated-gelu" : "relu");
    char *text = config ? json_dumps(config, 0) : NULL;
    json_decref(config);
    return text ? text : syz_fail_null(SYZ_ENOMEM, "out of memory: the configuration of %s", path);
}

static const syz_layout layouts[] = {
    {"transformers", POSITIONS, NULL, rules, ignore, config_of_file},
    {0},
};

/* ---- positions ---- */

/* Half of the buckets for keys after the query, half for those before; of each, half for one distance each, the rest in
 * logarithmic steps up to max_distance. In f32, as transformers rounds it. */
static int64_t bucket_of(const settings *s, int64_t offset) {
    int64_t half = s->buckets / 2, exact = half / 2, first = offset > 0 ? half : 0, distance = llabs(offset);
    if (distance < exact) return first + distance;
    float steps = logf((float)distance / (float)exact) / (float)log((double)s->max_distance / (double)exact);
    int64_t bucket = exact + (int64_t)(steps * (float)(half - exact));
    return first + (bucket < half - 1 ? bucket : half - 1);
}

/* The bias of every head on every pair of query and key: [1,H,T,T] */
static syz_tensor *position_bias(const syz_model *m, const settings *s, int64_t length) {
    syz_tensor *ids = syz_host_zeros(SYZ_I64, SYZ_SHAPE(length * length));
    if (!ids) return NULL;
    for (int64_t q = 0; q < length; q++)
        for (int64_t k = 0; k < length; k++)
            syz_i64(ids)[q * length + k] = bucket_of(s, k - q);
    syz_tensor *table = syz_transpose(syz_cast(syz_weight(m, POSITIONS), SYZ_F32), 0, 1);
    return syz_reshape(syz_index_select(table, 1, ids), SYZ_SHAPE(1, s->heads, length, length));
}

/* mask [B,T], 0 for padding -> [B,1,1,T], to be added to scores: so low that padding gets no weight */
static syz_tensor *padding_bias(syz_tensor *mask) {
    mask = syz_cast(syz_to_device(mask, syz_device_current()), SYZ_F32);
    syz_tensor *bias = syz_affine(mask, FLT_MAX, -FLT_MAX);
    return bias ? syz_reshape(bias, SYZ_SHAPE(mask->shape.dim[0], 1, 1, mask->shape.dim[1])) : NULL;
}

/* ---- layers ---- */

/* q, k, v [B,T,H,D], bias [B or 1,H,T,T] -> [B,T,H,D] out of single operations: the fused one gives its mask no
 * gradient. It holds the scores of all heads. */
static syz_tensor *attention_with_bias_gradient(syz_tensor *q, syz_tensor *k, syz_tensor *v, syz_tensor *bias) {
    syz_shape heads_first = SYZ_SHAPE(0, 2, 1, 3);
    syz_tensor *scores = syz_matmul(syz_permute(q, heads_first), syz_permute(k, heads_first), false, true);
    syz_tensor *weights = syz_softmax(syz_add(scores, bias), -1);
    return syz_permute(syz_matmul(weights, syz_permute(v, heads_first), false, false), heads_first);
}

static syz_tensor *self_attention(const syz_model *m, const settings *s, const char *layer, syz_tensor *x,
                                  syz_tensor *bias) {
    static const char *const names[] = {"layer.0.SelfAttention.q", "layer.0.SelfAttention.k",
                                        "layer.0.SelfAttention.v"};
    syz_shape heads = SYZ_SHAPE(x->shape.dim[0], x->shape.dim[1], s->heads, s->head_dim);
    syz_shape joined = SYZ_SHAPE(x->shape.dim[0], x->shape.dim[1], s->heads * s->head_dim);
    syz_tensor *y = syz_rms_norm(x, syz_weight(m, syz_join(layer, "layer.0.layer_norm.weight").text), s->eps), *p[3];
    for (int n = 0; n < 3; n++)
        p[n] = syz_reshape(syz_apply_linear(m, syz_join(layer, names[n]).text, y), heads);
    /* by the parameter rather than by what is recorded now: with and without checkpoints the same numbers */
    syz_tensor *table = syz_weight(m, POSITIONS);
    y = table && syz_requires_grad(table) ? attention_with_bias_gradient(p[0], p[1], p[2], bias)
                                          : syz_attention(p[0], p[1], p[2], bias, 1, false);
    return syz_add(x, syz_apply_linear(m, syz_join(layer, "layer.0.SelfAttention.o").text, syz_reshape(y, joined)));
}

static syz_tensor *feed_forward(const syz_model *m, const settings *s, const char *layer, syz_tensor *x) {
    syz_tensor *y = syz_rms_norm(x, syz_weight(m, syz_join(layer, "layer.1.layer_norm.weight").text), s->eps);
    if (s->gated) {
        syz_tensor *gate = syz_gelu_tanh(syz_apply_linear(m, syz_join(layer, "layer.1.DenseReluDense.wi_0").text, y));
        y = syz_mul(gate, syz_apply_linear(m, syz_join(layer, "layer.1.DenseReluDense.wi_1").text, y));
    } else {
        y = syz_relu(syz_apply_linear(m, syz_join(layer, "layer.1.DenseReluDense.wi").text, y));
    }
    return syz_add(x, syz_apply_linear(m, syz_join(layer, "layer.1.DenseReluDense.wo").text, y));
}

/* in: x [B,T,C], bias [B or 1,H,T,T] */
static syz_tensor *run_layer(void *model, int64_t index, syz_tensor *const in[], int nin) {
    (void)nin;
    const syz_model *m = model;
    const settings *s = m->settings;
    syz_path layer = layer_path(index);
    syz_tensor *x = self_attention(m, s, layer.text, in[0], in[1]);
    return x ? feed_forward(m, s, layer.text, x) : NULL;
}

/* ---- forward ---- */

static bool check_inputs(const syz_tensor *ids, const syz_tensor *mask) {
    if (ids->dtype != SYZ_I64 || ids->shape.n != 2 || ids->shape.dim[1] < 1)
        syz_fail(SYZ_ESHAPE, "T5EncoderModel: input_ids must be i64 [B,T], not %s %s", syz_dtype_name(ids->dtype),
                 syz_dims(ids));
    else if (mask && !syz_shape_equal(mask->shape, ids->shape))
        syz_fail(SYZ_ESHAPE, "T5EncoderModel: attention_mask has another shape than input_ids: %s", syz_dims(mask));
    return !syz_failed();
}

/* input_ids i64 [B,T], attention_mask [B,T] (1 to read a token, 0 to pass it over) -> last_hidden_state [B,T,C] */
static void forward(syz_model *m, syz_tensor *const in[], syz_tensor *out[]) {
    const settings *s = m->settings;
    if (!check_inputs(in[0], in[1])) return;
    syz_tensor *bias = position_bias(m, s, in[0]->shape.dim[1]);
    if (in[1]) bias = syz_add(bias, padding_bias(in[1]));
    syz_tensor *x = syz_apply_embedding(m, TOKENS, in[0]);
    for (int64_t i = 0; i < s->layers; i++)
        x = syz_run_block(m, run_layer, i, (syz_tensor *[]){x, bias}, 2);
    out[0] = syz_rms_norm(x, syz_weight(m, "encoder.final_layer_norm.weight"), s->eps);
}

static const syz_method methods[] = {
    {"forward", "input_ids attention_mask?", "last_hidden_state", forward},
    {0},
};

const syz_model_class_info syz_t5_encoder = {
    .name = "T5EncoderModel",
    .weights = "model",
    .settings_size = sizeof(settings),
    .build = build,
    .layouts = layouts,
    .methods = methods,
};
