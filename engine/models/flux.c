/* FluxTransformer2DModel of diffusers: the velocity field of FLUX.1.
 *
 * Text and image tokens run through double-stream blocks (weights of their own, one joint attention) and then, joined,
 * through single-stream blocks (attention and feed-forward in parallel). Every block is modulated by noise level,
 * pooled prompt and guidance (adaLN). S text tokens come before T image tokens wherever both are together. */
#include "models/model.h"
#include "models/rotary.h"

#define EPS   1e-6
#define THETA 10000.0

enum { MAX_AXES = 8, SINUSOIDS = 256, TEXT = 0, IMAGE = 1 };

typedef struct {
    int64_t in, out, layers, single_layers, heads, head_dim, width, joint, pooled;
    int64_t axes[MAX_AXES]; /* rotary dimensions of each position coordinate; their sum is head_dim */
    int naxes;
    bool guidance;
    syz_rotary rotary;
} settings;

/* Names inside a block. */
typedef struct {
    const char *q, *k, *v, *norm_q, *norm_k;
} projections;

/* The two streams inside a double block. */
static const struct {
    projections attn;
    const char *norm, *out, *ff;
} streams[2] = {
    {{"attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.norm_added_q", "attn.norm_added_k"},
     "norm1_context",
     "attn.to_add_out",
     "ff_context"},
    {{"attn.to_q", "attn.to_k", "attn.to_v", "attn.norm_q", "attn.norm_k"}, "norm1", "attn.to_out.0", "ff"},
};

static syz_path double_path(int64_t index) {
    return syz_pathf("transformer_blocks.%d", (int)index);
}

static syz_path single_path(int64_t index) {
    return syz_pathf("single_transformer_blocks.%d", (int)index);
}

/* ---- configuration and parameters ---- */

static void read_settings(settings *s, const syz_json *config) {
    s->in = syz_config_int(config, "in_channels", 64, 1, 1 << 16);
    int64_t patch = syz_config_int(config, "patch_size", 1, 1, 64);
    s->out = syz_config_int(config, "out_channels", s->in, 1, 1 << 16) * patch * patch;
    s->layers = syz_config_int(config, "num_layers", 19, 0, 1024);
    s->single_layers = syz_config_int(config, "num_single_layers", 38, 0, 1024);
    s->heads = syz_config_int(config, "num_attention_heads", 24, 1, 1024);
    s->head_dim = syz_config_int(config, "attention_head_dim", 128, 2, 1024);
    s->width = s->heads * s->head_dim;
    s->joint = syz_config_int(config, "joint_attention_dim", 4096, 1, 1 << 20);
    s->pooled = syz_config_int(config, "pooled_projection_dim", 768, 1, 1 << 20);
    s->guidance = syz_json_bool(config, "guidance_embeds", false);
    s->naxes = syz_json_ints(config, "axes_dims_rope", s->axes, MAX_AXES);
    if (s->naxes == 0) {
        s->naxes = 3;
        s->axes[0] = 16, s->axes[1] = s->axes[2] = 56;
    }
    int64_t sum = 0;
    for (int a = 0; a < s->naxes; a++) {
        if (s->axes[a] < 2 || s->axes[a] > s->head_dim || s->axes[a] % 2)
            syz_config_refuse(config, "axes_dims_rope", "must hold even numbers up to attention_head_dim");
        sum += s->axes[a];
    }
    if (sum != s->head_dim) syz_config_refuse(config, "axes_dims_rope", "must add up to attention_head_dim");
}

static void add_embedder(syz_model *m, const char *name, int64_t in, int64_t width) {
    syz_add_linear(m, syz_join(name, "linear_1").text, in, width, true);
    syz_add_linear(m, syz_join(name, "linear_2").text, width, width, true);
}

static void add_double_block(syz_model *m, const settings *s, const char *block) {
    for (int k = IMAGE; k >= TEXT; k--) {
        syz_add_linear_zero(m, syz_pathf("%s.%s.linear", block, streams[k].norm).text, s->width, 6 * s->width);
        const char *linears[] = {streams[k].attn.q, streams[k].attn.k, streams[k].attn.v, streams[k].out};
        for (int n = 0; n < 4; n++)
            syz_add_linear(m, syz_join(block, linears[n]).text, s->width, s->width, true);
        syz_shape head = SYZ_SHAPE(s->head_dim);
        syz_add_weight(m, syz_pathf("%s.%s.weight", block, streams[k].attn.norm_q).text, head, SYZ_INIT_ONES);
        syz_add_weight(m, syz_pathf("%s.%s.weight", block, streams[k].attn.norm_k).text, head, SYZ_INIT_ONES);
        syz_add_linear(m, syz_pathf("%s.%s.net.0.proj", block, streams[k].ff).text, s->width, 4 * s->width, true);
        syz_add_linear(m, syz_pathf("%s.%s.net.2", block, streams[k].ff).text, 4 * s->width, s->width, true);
    }
}

static void add_single_block(syz_model *m, const settings *s, const char *block) {
    syz_add_linear_zero(m, syz_join(block, "norm.linear").text, s->width, 3 * s->width);
    syz_add_linear(m, syz_join(block, "attn.to_q").text, s->width, s->width, true);
    syz_add_linear(m, syz_join(block, "attn.to_k").text, s->width, s->width, true);
    syz_add_linear(m, syz_join(block, "attn.to_v").text, s->width, s->width, true);
    syz_add_weight(m, syz_join(block, "attn.norm_q.weight").text, SYZ_SHAPE(s->head_dim), SYZ_INIT_ONES);
    syz_add_weight(m, syz_join(block, "attn.norm_k.weight").text, SYZ_SHAPE(s->head_dim), SYZ_INIT_ONES);
    syz_add_linear(m, syz_join(block, "proj_mlp").text, s->width, 4 * s->width, true);
    syz_add_linear(m, syz_join(block, "proj_out").text, 5 * s->width, s->width, true);
}

static void build(syz_model *m, const syz_json *config) {
    settings *s = m->settings;
    read_settings(s, config);
    if (syz_failed()) return;
    add_embedder(m, "time_text_embed.timestep_embedder", SINUSOIDS, s->width);
    if (s->guidance) add_embedder(m, "time_text_embed.guidance_embedder", SINUSOIDS, s->width);
    add_embedder(m, "time_text_embed.text_embedder", s->pooled, s->width);
    syz_add_linear(m, "context_embedder", s->joint, s->width, true);
    syz_add_linear(m, "x_embedder", s->in, s->width, true);
    for (int64_t i = 0; i < s->layers; i++)
        add_double_block(m, s, double_path(i).text);
    for (int64_t i = 0; i < s->single_layers; i++)
        add_single_block(m, s, single_path(i).text);
    syz_add_linear_zero(m, "norm_out.linear", s->width, 2 * s->width);
    syz_add_linear_zero(m, "proj_out", s->width, s->out);
}

/* ---- conditioning ---- */

static syz_tensor *embedder(const syz_model *m, const char *name, syz_tensor *x) {
    x = syz_silu(syz_apply_linear(m, syz_join(name, "linear_1").text, x));
    return syz_apply_linear(m, syz_join(name, "linear_2").text, x);
}

static syz_tensor *sinusoids(syz_tensor *value) {
    return syz_timestep_embedding(syz_affine(value, 1000, 0), SINUSOIDS);
}

/* silu of the sum of the embedded noise level [B], guidance [B] and pooled prompt [B,P] -> [B,C] */
static syz_tensor *conditioning(const syz_model *m, syz_tensor *timestep, syz_tensor *guidance, syz_tensor *pooled) {
    syz_tensor *sum = embedder(m, "time_text_embed.timestep_embedder", sinusoids(timestep));
    if (guidance) sum = syz_add(sum, embedder(m, "time_text_embed.guidance_embedder", sinusoids(guidance)));
    return syz_silu(syz_add(sum, embedder(m, "time_text_embed.text_embedder", pooled)));
}

/* ---- modulation ---- */

/* The layers that give modulation vectors, in order: text and image of each double block, single blocks, the end. Of
 * the table of them all, layer `index` has columns begin..begin + columns - 1. */
typedef struct {
    syz_path path;
    int64_t begin, columns;
} modulation_layer;

static int64_t modulation_layers(const settings *s) {
    return 2 * s->layers + s->single_layers + 1;
}

static modulation_layer modulation_at(const settings *s, int64_t index) {
    int64_t first = 2 * s->layers, last = first + s->single_layers, width = s->width;
    if (index < first) {
        const char *norm = streams[index % 2].norm;
        return (modulation_layer){syz_pathf("%s.%s.linear", double_path(index / 2).text, norm), 6 * width * index,
                                  6 * width};
    }
    int64_t begin = 6 * width * first + 3 * width * (index - first);
    if (index < last)
        return (modulation_layer){syz_join(single_path(index - first).text, "norm.linear"), begin, 3 * width};
    return (modulation_layer){syz_pathf("norm_out.linear"), begin, 2 * width};
}

/* What modulates the blocks: the embedded conditions, or the table [B,columns] of what they give in every layer. */
typedef struct {
    syz_tensor *emb, *table;
} conditions;

static syz_tensor *modulation(const syz_model *m, const conditions *c, int64_t index) {
    modulation_layer layer = modulation_at(m->settings, index);
    return c->table ? syz_narrow_view(c->table, 1, layer.begin, layer.columns)
                    : syz_apply_linear(m, layer.path.text, c->emb);
}

/* The columns of `count` layers side by side, in groups of as many as one operation takes. */
static syz_tensor *join_modulations(const syz_model *m, const conditions *c, int64_t first, int64_t count) {
    syz_tensor *parts[SYZ_MAX_INPUTS];
    int64_t n = count < SYZ_MAX_INPUTS ? count : SYZ_MAX_INPUTS;
    if (count == 1) return modulation(m, c, first);
    if (syz_scope_push() != SYZ_OK) return NULL;
    for (int64_t k = 0; k < n; k++) {
        int64_t begin = count * k / n, end = count * (k + 1) / n;
        parts[k] = join_modulations(m, c, first + begin, end - begin);
    }
    syz_tensor *joined = syz_scope_return(syz_concat(parts, n, 1));
    syz_scope_pop();
    return joined;
}

static bool check_guidance(const settings *s, const syz_tensor *guidance) {
    if (s->guidance == (guidance != NULL)) return true;
    syz_fail(SYZ_EINVAL, "FluxTransformer2DModel: guidance is %s: its configuration has guidance_embeds %s",
             s->guidance ? "missing" : "not taken", s->guidance ? "true" : "false");
    return false;
}

/* pooled_projections [N,P], timestep [N], guidance [N] -> [N,columns]: for steps of a rollout, whose conditions are
 * known before their latents, all in one product per layer instead of one per layer and step. */
static void modulations(syz_model *m, syz_tensor *const in[], syz_tensor *out[]) {
    if (!check_guidance(m->settings, in[2])) return;
    conditions c = {.emb = conditioning(m, in[1], in[2], in[0])};
    out[0] = join_modulations(m, &c, 0, modulation_layers(m->settings));
}

/* ---- rotary positions ---- */

static syz_status check_ids(const settings *s, const syz_tensor *ids, const syz_tensor *tokens, const char *name) {
    if (ids->shape.n == 2 && ids->shape.dim[0] == tokens->shape.dim[1] && ids->shape.dim[1] == s->naxes) return SYZ_OK;
    return syz_fail(SYZ_ESHAPE, "FluxTransformer2DModel: %s has shape %s for tokens of shape %s and %d position axes",
                    name, syz_dims(ids), syz_dims(tokens), s->naxes);
}

/* rotation[0] cosines and rotation[1] sines, [S+T, D/2] */
static void rotary_tables(settings *s, syz_tensor *rotation[2], syz_tensor *txt_ids, syz_tensor *img_ids) {
    syz_tensor *parts[] = {syz_cast(syz_copy_to(txt_ids, 0), SYZ_F32), syz_cast(syz_copy_to(img_ids, 0), SYZ_F32)};
    syz_tensor *ids = syz_concat(parts, 2, 0);
    if (ids) syz_rotary_tables(&s->rotary, rotation, ids, s->axes, s->naxes, THETA);
}

static void destroy(syz_model *m) {
    settings *s = m->settings;
    syz_rotary_clear(&s->rotary);
}

/* ---- blocks ---- */

/* The k-th of the modulation vectors [B,C] that lie side by side in mod [B,nC]. */
static syz_tensor *chunk(syz_tensor *mod, const settings *s, int64_t k) {
    return syz_narrow_view(mod, 1, k * s->width, s->width);
}

/* Queries, keys, values and the norms of queries and keys: what joint attention takes of a stream x [B,T,C]. */
static void project(const syz_model *m, const char *block, const projections *names, syz_tensor *x,
                    syz_tensor *stream[5]) {
    stream[0] = syz_apply_linear(m, syz_join(block, names->q).text, x);
    stream[1] = syz_apply_linear(m, syz_join(block, names->k).text, x);
    stream[2] = syz_apply_linear(m, syz_join(block, names->v).text, x);
    stream[3] = syz_weight(m, syz_pathf("%s.%s.weight", block, names->norm_q).text);
    stream[4] = syz_weight(m, syz_pathf("%s.%s.weight", block, names->norm_k).text);
}

/* -> [B,S+T,C]; b: NULLs for one stream */
static syz_tensor *attend(syz_tensor *const a[5], syz_tensor *const b[5], syz_tensor *const rotation[2]) {
    return syz_joint_attention(a[0], a[1], a[2], a[3], a[4], b[0], b[1], b[2], b[3], b[4], rotation[0], rotation[1],
                               EPS);
}

/* An adapter reads its input in one piece; the layer does not. */
static syz_tensor *linear_concat(const syz_model *m, const char *name, syz_tensor *x, syz_tensor *x2) {
    syz_tensor *y = syz_linear_concat(x, syz_weight(m, syz_pathf("%s.weight", name).text),
                                      syz_weight(m, syz_pathf("%s.bias", name).text), x2);
    bool adapted = syz_lora_acts_on(m, name);
    return adapted ? syz_lora_apply(m, name, syz_concat((syz_tensor *[]){x, x2}, 2, 2), y) : y;
}

static syz_tensor *feed_forward(const syz_model *m, const char *block, const char *name, syz_tensor *x) {
    x = syz_apply_linear_gelu(m, syz_pathf("%s.%s.net.0.proj", block, name).text, x);
    return syz_apply_linear(m, syz_pathf("%s.%s.net.2", block, name).text, x);
}

/* One stream after the joint attention: x [B,T,C], attended [B,T,C], mod [B,6C] */
static syz_tensor *finish_stream(const syz_model *m, const char *block, int stream, syz_tensor *x, syz_tensor *attended,
                                 syz_tensor *mod) {
    const settings *s = m->settings;
    attended = syz_apply_linear(m, syz_join(block, streams[stream].out).text, attended);
    x = syz_gated_residual(x, chunk(mod, s, 2), attended);
    syz_tensor *y = syz_layer_norm_modulate(x, chunk(mod, s, 3), chunk(mod, s, 4), EPS);
    return syz_gated_residual(x, chunk(mod, s, 5), feed_forward(m, block, streams[stream].ff, y));
}

/* The text's part of a double block runs beside the image's if the model is set so: of 512 tokens its products do not
 * fill a GPU. The text comes first. */
static void begin_part(const syz_model *m, int part, int device) {
    if (!m->two_streams || device == 0) return;
    if (part == TEXT)
        syz_stream_fork(device);
    else
        syz_stream_back(device);
}

static void end_parts(const syz_model *m, int device) {
    if (m->two_streams && device) syz_stream_join(device);
}

/* in: text [B,S,C], image [B,T,C], their modulations [B,6C], cosines, sines; out: text, image */
static void double_block(const syz_model *m, int64_t index, syz_tensor *const in[], syz_tensor *out[2]) {
    const settings *s = m->settings;
    syz_path path = double_path(index);
    const char *block = path.text;
    syz_tensor *stream[2][5];
    int device = in[TEXT]->device;
    for (int n = TEXT; n <= IMAGE; n++) {
        begin_part(m, n, device);
        syz_tensor *x = syz_layer_norm_modulate(in[n], chunk(in[2 + n], s, 0), chunk(in[2 + n], s, 1), EPS);
        project(m, block, &streams[n].attn, x, stream[n]);
    }
    end_parts(m, device);
    syz_tensor *x = attend(stream[TEXT], stream[IMAGE], in + 4);
    int64_t begin = 0;
    for (int n = TEXT; n <= IMAGE; n++) {
        begin_part(m, n, device);
        int64_t length = in[n]->shape.dim[1];
        out[n] = finish_stream(m, block, n, in[n], syz_narrow_view(x, 1, begin, length), in[2 + n]);
        begin += length;
    }
    end_parts(m, device);
}

/* A segment has one result, so the two streams leave it joined. */
static syz_tensor *double_segment(void *m, int64_t index, syz_tensor *const in[], int nin) {
    (void)nin;
    syz_tensor *out[2];
    double_block(m, index, in, out);
    return syz_concat(out, 2, 1);
}

/* in: x [B,S+T,C], its modulation [B,3C], cosines, sines */
static syz_tensor *single_segment(void *model, int64_t index, syz_tensor *const in[], int nin) {
    (void)nin;
    const syz_model *m = model;
    const settings *s = m->settings;
    syz_path path = single_path(index);
    const char *block = path.text;
    syz_tensor *x = syz_layer_norm_modulate(in[0], chunk(in[1], s, 0), chunk(in[1], s, 1), EPS);
    syz_tensor *stream[5], *none[5] = {0};
    project(m, block, &streams[IMAGE].attn, x, stream);
    syz_tensor *mlp = syz_apply_linear_gelu(m, syz_join(block, "proj_mlp").text, x);
    syz_tensor *y = linear_concat(m, syz_join(block, "proj_out").text, attend(stream, none, in + 2), mlp);
    return syz_gated_residual(in[0], chunk(in[1], s, 2), y);
}

/* ---- forward ---- */

/* x: text and image, replaced. Modulations are computed outside the segments: they are small, and so their gradients
 * add up in the same order with and without checkpointing. */
static void run_double(syz_model *m, int64_t index, syz_tensor *x[2], const conditions *c,
                       syz_tensor *const rotation[2]) {
    syz_tensor *in[] = {x[0], x[1], NULL, NULL, rotation[0], rotation[1]};
    for (int n = TEXT; n <= IMAGE; n++)
        in[2 + n] = modulation(m, c, 2 * index + n);
    if (syz_failed()) return;
    if (syz_is_checkpointing(m)) {
        int64_t text = x[TEXT]->shape.dim[1], image = x[IMAGE]->shape.dim[1];
        syz_tensor *joined = syz_checkpoint_block(m, double_segment, index, in, 6);
        x[TEXT] = syz_narrow_view(joined, 1, 0, text);
        x[IMAGE] = syz_narrow_view(joined, 1, text, image);
    } else if (syz_scope_push() == SYZ_OK) {
        double_block(m, index, in, x);
        syz_scope_return(x[TEXT]);
        syz_scope_return(x[IMAGE]);
        syz_scope_pop();
    }
}

static syz_tensor *run_single(syz_model *m, int64_t index, syz_tensor *x, const conditions *c,
                              syz_tensor *const rotation[2]) {
    const settings *s = m->settings;
    syz_tensor *in[] = {x, modulation(m, c, 2 * s->layers + index), rotation[0], rotation[1]};
    return syz_run_block(m, single_segment, index, in, 4);
}

static void check_inputs(const settings *s, syz_tensor *const in[]) {
    if (in[0]->shape.n != 3 || in[1]->shape.n != 3 || in[0]->shape.dim[0] != in[1]->shape.dim[0]) {
        syz_fail(SYZ_ESHAPE,
                 "FluxTransformer2DModel: hidden_states %s and encoder_hidden_states %s must be [B,T,%d] "
                 "and [B,S,%d]",
                 syz_dims(in[0]), syz_dims(in[1]), (int)s->in, (int)s->joint);
    } else if (check_ids(s, in[5], in[0], "img_ids") == SYZ_OK) {
        check_ids(s, in[6], in[1], "txt_ids");
    }
    modulation_layer last = modulation_at(s, modulation_layers(s) - 1);
    syz_shape table = SYZ_SHAPE(in[0]->shape.dim[0], last.begin + last.columns);
    if (check_guidance(s, in[4]) && in[7] && !syz_shape_equal(in[7]->shape, table))
        syz_fail(SYZ_ESHAPE, "FluxTransformer2DModel: modulation has shape %s, [%lld,%lld] is needed", syz_dims(in[7]),
                 (long long)table.dim[0], (long long)table.dim[1]);
}

static void forward(syz_model *m, syz_tensor *const in[], syz_tensor *out[]) {
    settings *s = m->settings;
    check_inputs(s, in);
    if (syz_failed()) return;
    syz_tensor *rotation[2];
    rotary_tables(s, rotation, in[6], in[5]);
    m->dropped = s->rotary.dropped;
    conditions c = {.table = in[7]};
    if (!c.table) c.emb = conditioning(m, in[3], in[4], in[2]);
    syz_tensor *x[2] = {syz_apply_linear(m, "context_embedder", in[1]), syz_apply_linear(m, "x_embedder", in[0])};
    for (int64_t i = 0; i < s->layers; i++)
        run_double(m, i, x, &c, rotation);
    syz_tensor *y = syz_concat(x, 2, 1);
    for (int64_t i = 0; i < s->single_layers; i++)
        y = run_single(m, i, y, &c, rotation);
    y = syz_narrow_view(y, 1, in[1]->shape.dim[1], in[0]->shape.dim[1]);
    syz_tensor *mod = modulation(m, &c, modulation_layers(s) - 1); /* scale before shift, unlike the blocks */
    y = syz_layer_norm_modulate(y, chunk(mod, s, 1), chunk(mod, s, 0), EPS);
    out[0] = syz_apply_linear(m, "proj_out", y);
}

static const syz_method methods[] = {
    {"forward", "hidden_states encoder_hidden_states pooled_projections timestep guidance? img_ids txt_ids modulation?",
     "sample", forward},
    {"modulation", "pooled_projections timestep guidance?", "modulation", modulations},
    {0},
};

/* ---- the original single file ---- */

#define DOUBLE "transformer_blocks.#."
#define SINGLE "single_transformer_blocks.#."

static const syz_layout_rule original_rules[] = {
    {"time_text_embed.timestep_embedder.linear_1.*", "time_in.in_layer.*", SYZ_LAYOUT_SAME},
    {"time_text_embed.timestep_embedder.linear_2.*", "time_in.out_layer.*", SYZ_LAYOUT_SAME},
    {"time_text_embed.guidance_embedder.linear_1.*", "guidance_in.in_layer.*", SYZ_LAYOUT_SAME},
    {"time_text_embed.guidance_embedder.linear_2.*", "guidance_in.out_layer.*", SYZ_LAYOUT_SAME},
    {"time_text_embed.text_embedder.linear_1.*", "vector_in.in_layer.*", SYZ_LAYOUT_SAME},
    {"time_text_embed.text_embedder.linear_2.*", "vector_in.out_layer.*", SYZ_LAYOUT_SAME},
    {"context_embedder.*", "txt_in.*", SYZ_LAYOUT_SAME},
    {"x_embedder.*", "img_in.*", SYZ_LAYOUT_SAME},
    {DOUBLE "norm1.linear.*", "double_blocks.#.img_mod.lin.*", SYZ_LAYOUT_SAME},
    {DOUBLE "norm1_context.linear.*", "double_blocks.#.txt_mod.lin.*", SYZ_LAYOUT_SAME},
    {DOUBLE "attn.to_q.*", "double_blocks.#.img_attn.qkv.*", SYZ_LAYOUT_ROWS},
    {DOUBLE "attn.to_k.*", "double_blocks.#.img_attn.qkv.*", SYZ_LAYOUT_ROWS},
    {DOUBLE "attn.to_v.*", "double_blocks.#.img_attn.qkv.*", SYZ_LAYOUT_ROWS},
    {DOUBLE "attn.add_q_proj.*", "double_blocks.#.txt_attn.qkv.*", SYZ_LAYOUT_ROWS},
    {DOUBLE "attn.add_k_proj.*", "double_blocks.#.txt_attn.qkv.*", SYZ_LAYOUT_ROWS},
    {DOUBLE "attn.add_v_proj.*", "double_blocks.#.txt_attn.qkv.*", SYZ_LAYOUT_ROWS},
    {DOUBLE "attn.norm_q.weight", "double_blocks.#.img_attn.norm.query_norm.scale", SYZ_LAYOUT_SAME},
    {DOUBLE "attn.norm_k.weight", "double_blocks.#.img_attn.norm.key_norm.scale", SYZ_LAYOUT_SAME},
    {DOUBLE "attn.norm_added_q.weight", "double_blocks.#.txt_attn.norm.query_norm.scale", SYZ_LAYOUT_SAME},
    {DOUBLE "attn.norm_added_k.weight", "double_blocks.#.txt_attn.norm.key_norm.scale", SYZ_LAYOUT_SAME},
    {DOUBLE "attn.to_out.0.*", "double_blocks.#.img_attn.proj.*", SYZ_LAYOUT_SAME},
    {DOUBLE "attn.to_add_out.*", "double_blocks.#.txt_attn.proj.*", SYZ_LAYOUT_SAME},
    {DOUBLE "ff.net.0.proj.*", "double_blocks.#.img_mlp.0.*", SYZ_LAYOUT_SAME},
    {DOUBLE "ff.net.2.*", "double_blocks.#.img_mlp.2.*", SYZ_LAYOUT_SAME},
    {DOUBLE "ff_context.net.0.proj.*", "double_blocks.#.txt_mlp.0.*", SYZ_LAYOUT_SAME},
    {DOUBLE "ff_context.net.2.*", "double_blocks.#.txt_mlp.2.*", SYZ_LAYOUT_SAME},
    {SINGLE "norm.linear.*", "single_blocks.#.modulation.lin.*", SYZ_LAYOUT_SAME},
    {SINGLE "attn.to_q.*", "single_blocks.#.linear1.*", SYZ_LAYOUT_ROWS},
    {SINGLE "attn.to_k.*", "single_blocks.#.linear1.*", SYZ_LAYOUT_ROWS},
    {SINGLE "attn.to_v.*", "single_blocks.#.linear1.*", SYZ_LAYOUT_ROWS},
    {SINGLE "proj_mlp.*", "single_blocks.#.linear1.*", SYZ_LAYOUT_ROWS},
    {SINGLE "attn.norm_q.weight", "single_blocks.#.norm.query_norm.scale", SYZ_LAYOUT_SAME},
    {SINGLE "attn.norm_k.weight", "single_blocks.#.norm.key_norm.scale", SYZ_LAYOUT_SAME},
    {SINGLE "proj_out.*", "single_blocks.#.linear2.*", SYZ_LAYOUT_SAME},
    {"norm_out.linear.*", "final_layer.adaLN_modulation.1.*", SYZ_LAYOUT_SWAPPED_HALVES}, /* shift before scale there */
    {"proj_out.*", "final_layer.linear.*", SYZ_LAYOUT_SAME},
    {0},
};

/* How many rotary dimensions each axis has does not show in the weights; every published model has heads of 128. */
static char *original_config(const syz_weights *weights, const char *prefix, const char *path) {
    int64_t width = syz_layout_side(weights, prefix, "img_in.weight", 0);
    int64_t in = syz_layout_side(weights, prefix, "img_in.weight", 1);
    int64_t head = syz_layout_side(weights, prefix, "double_blocks.0.img_attn.norm.query_norm.scale", 0);
    if (head != 128)
        return syz_fail_null(
            SYZ_EUNSUPPORTED,
            "%s: heads of %d numbers: the weights do not tell \"axes_dims_rope\": give a configuration", path,
            (int)head);
    json_t *config = json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:[i, i, i]}", "_class_name", "FluxTransformer2DModel",
        "in_channels", (json_int_t)in, "out_channels",
        (json_int_t)syz_layout_side(weights, prefix, "final_layer.linear.weight", 0), "num_layers",
        (json_int_t)syz_layout_count(weights, prefix, "double_blocks.%d.img_attn.qkv.weight"), "num_single_layers",
        (json_int_t)syz_layout_count(weights, prefix, "single_blocks.%d.linear1.weight"), "num_attention_heads",
        (json_int_t)(width / head), "attention_head_dim", (json_int_t)head, "joint_attention_dim",
        (json_int_t)syz_layout_side(weights, prefix, "txt_in.weight", 1), "pooled_projection_dim",
        (json_int_t)syz_layout_side(weights, prefix, "vector_in.in_layer.weight", 1), "guidance_embeds",
        syz_layout_side(weights, prefix, "guidance_in.in_layer.weight", 0) > 0, "axes_dims_rope", 16, 56, 56);
    char *text = config ? json_dumps(config, 0) : NULL;
    json_decref(config);
    return text ? text : syz_fail_null(SYZ_ENOMEM, "%s: out of memory", path);
}

static const char *const original_prefixes[] = {"model.diffusion_model.", NULL}; /* ComfyUI's checkpoints */

static const syz_layout layouts[] = {
    {"FLUX.1, original", "double_blocks.0.img_attn.qkv.weight", original_prefixes, original_rules, NULL,
     original_config},
    {0},
};

const syz_model_class_info syz_flux = {
    .name = "FluxTransformer2DModel",
    .weights = "diffusion_pytorch_model",
    .settings_size = sizeof(settings),
    .build = build,
    .destroy = destroy,
    .methods = methods,
    .layouts = layouts,
};
