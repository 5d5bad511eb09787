#include "models/clip_layouts.h"

#include "core/alloc.h"
#include "core/error.h"
#include "io/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- open_clip ---- */

/* torch's MultiheadAttention keeps queries, keys and values as rows of one matrix; projections are multiplied from the
 * right. */
#define BLOCKS(ours, theirs)                                                                                           \
    {ours ".encoder.layers.#.self_attn.q_proj.weight", theirs ".resblocks.#.attn.in_proj_weight", SYZ_LAYOUT_ROWS},    \
        {ours ".encoder.layers.#.self_attn.k_proj.weight", theirs ".resblocks.#.attn.in_proj_weight",                  \
         SYZ_LAYOUT_ROWS},                                                                                             \
        {ours ".encoder.layers.#.self_attn.v_proj.weight", theirs ".resblocks.#.attn.in_proj_weight",                  \
         SYZ_LAYOUT_ROWS},                                                                                             \
        {ours ".encoder.layers.#.self_attn.q_proj.bias", theirs ".resblocks.#.attn.in_proj_bias", SYZ_LAYOUT_ROWS},    \
        {ours ".encoder.layers.#.self_attn.k_proj.bias", theirs ".resblocks.#.attn.in_proj_bias", SYZ_LAYOUT_ROWS},    \
        {ours ".encoder.layers.#.self_attn.v_proj.bias", theirs ".resblocks.#.attn.in_proj_bias", SYZ_LAYOUT_ROWS},    \
        {ours ".encoder.layers.#.self_attn.out_proj.*", theirs ".resblocks.#.attn.out_proj.*", SYZ_LAYOUT_SAME},       \
        {ours ".encoder.layers.#.layer_norm1.*", theirs ".resblocks.#.ln_1.*", SYZ_LAYOUT_SAME},                       \
        {ours ".encoder.layers.#.layer_norm2.*", theirs ".resblocks.#.ln_2.*", SYZ_LAYOUT_SAME},                       \
        {ours ".encoder.layers.#.mlp.fc1.*", theirs ".resblocks.#.mlp.c_fc.*", SYZ_LAYOUT_SAME}, {                     \
        ours ".encoder.layers.#.mlp.fc2.*", theirs ".resblocks.#.mlp.c_proj.*", SYZ_LAYOUT_SAME                        \
    }

static const syz_layout_rule open_clip_rules[] = {
    {"logit_scale", "logit_scale", SYZ_LAYOUT_RESHAPED}, /* some hold it as a vector of one */
    {"text_model.embeddings.token_embedding.weight", "token_embedding.weight", SYZ_LAYOUT_SAME},
    {"text_model.embeddings.position_embedding.weight", "positional_embedding", SYZ_LAYOUT_SAME},
    {"text_model.final_layer_norm.*", "ln_final.*", SYZ_LAYOUT_SAME},
    {"text_projection.weight", "text_projection", SYZ_LAYOUT_TRANSPOSED},
    BLOCKS("text_model", "transformer"),
    {"vision_model.embeddings.class_embedding", "visual.class_embedding", SYZ_LAYOUT_SAME},
    {"vision_model.embeddings.patch_embedding.weight", "visual.conv1.weight", SYZ_LAYOUT_SAME},
    {"vision_model.embeddings.position_embedding.weight", "visual.positional_embedding", SYZ_LAYOUT_SAME},
    {"vision_model.pre_layrnorm.*", "visual.ln_pre.*", SYZ_LAYOUT_SAME},
    {"vision_model.post_layernorm.*", "visual.ln_post.*", SYZ_LAYOUT_SAME},
    {"visual_projection.weight", "visual.proj", SYZ_LAYOUT_TRANSPOSED},
    BLOCKS("vision_model", "visual.transformer"),
    {0},
};

/* A buffer that open_clip used to store, and what OpenAI's archives keep beside the weights. */
static bool ignore_buffers(const char *name) {
    static const char *const names[] = {"attn_mask", "input_resolution", "context_length", "vocab_size"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0) return true;
    return false;
}

/* ---- what shapes tell, and what they do not ---- */

enum { VOCABULARY = 49408 };

/* Heads are 64 wide in every published tower but the large vision towers: ViT-H, -g, -bigG and -e; 0: unknown. */
static int64_t head_width(int64_t width) {
    static const int64_t exceptions[][2] = {{1280, 80}, {1408, 88}, {1664, 104}, {1792, 112}};
    for (size_t i = 0; i < sizeof exceptions / sizeof *exceptions; i++)
        if (exceptions[i][0] == width) return exceptions[i][1];
    return width % 64 ? 0 : 64;
}

/* The activation, as open_clip_config.json beside the file says it. Without one, OpenAI's sizes, up to ViT-L, are
 * quick_gelu, as OpenAI's weights want it, and larger towers gelu, as LAION published them, on whose ViT-H/14 HPSv2 and
 * PickScore stand. Nothing in a file tells LAION's and others' weights of OpenAI's sizes: those need a configuration
 * with "hidden_act": "gelu". */
static const char *activation(int64_t vision_width, const char *path) {
    bool quick = vision_width <= 1024;
    const char *slash = strrchr(path, '/');
    char *beside = syz_format("%.*sopen_clip_config.json", slash ? (int)(slash - path) + 1 : 0, path);
    syz_json config = {0};
    if (beside && access(beside, F_OK) == 0 && syz_json_open(&config, beside) == SYZ_OK) {
        syz_json model = syz_json_child(&config, "model_cfg");
        quick = syz_json_bool(&model, "quick_gelu", false);
    }
    syz_json_close(&config);
    free(beside);
    return quick ? "quick_gelu" : "gelu";
}

/* What both towers' configurations have. NULL with an error when the width tells no number of heads. */
static json_t *tower_config(const syz_weights *weights, const char *prefix, const char *blocks, int64_t width,
                            const char *act, const char *path) {
    int64_t head = strcmp(blocks, "transformer") == 0 ? (width % 64 ? 0 : 64) : head_width(width);
    if (!head)
        return syz_fail_null(SYZ_EUNSUPPORTED,
                             "%s: a tower of width %d: the weights do not tell \"num_attention_heads\": give a "
                             "configuration",
                             path, (int)width);
    syz_path ln = syz_pathf("%s.resblocks.%%d.ln_1.weight", blocks);
    syz_path fc = syz_pathf("%s.resblocks.0.mlp.c_fc.weight", blocks);
    return json_pack("{s:I, s:I, s:I, s:I, s:s}", "hidden_size", (json_int_t)width, "intermediate_size",
                     (json_int_t)syz_layout_side(weights, prefix, fc.text, 0), "num_hidden_layers",
                     (json_int_t)syz_layout_count(weights, prefix, ln.text), "num_attention_heads",
                     (json_int_t)(width / head), "hidden_act", act);
}

/* The vision tower's own fields; false with an error when the positions are no square of patches. */
static bool add_vision_fields(json_t *config, const syz_weights *weights, const char *prefix, const char *path) {
    int64_t positions = syz_layout_side(weights, prefix, "visual.positional_embedding", 0) - 1;
    int64_t patch = syz_layout_side(weights, prefix, "visual.conv1.weight", 2);
    int64_t side = (int64_t)lround(sqrt((double)(positions > 0 ? positions : 0)));
    if (positions < 1 || side * side != positions) {
        syz_fail(SYZ_EUNSUPPORTED,
                 "%s: \"%svisual.positional_embedding\" has %d positions, which are no square of patches and one more: "
                 "give a configuration",
                 path, prefix, (int)positions + 1);
        return false;
    }
    json_object_set_new(config, "patch_size", json_integer(patch));
    json_object_set_new(config, "image_size", json_integer(patch * side));
    json_object_set_new(config, "num_channels",
                        json_integer(syz_layout_side(weights, prefix, "visual.conv1.weight", 1)));
    return true;
}

/* The text tower's; eos_token_id 2 stands for the end token's historical rule, the first of the largest id. */
static bool add_text_fields(json_t *config, const syz_weights *weights, const char *prefix, const char *path) {
    int64_t vocabulary = syz_layout_side(weights, prefix, "token_embedding.weight", 0);
    if (vocabulary > VOCABULARY) {
        syz_fail(SYZ_EUNSUPPORTED,
                 "%s: a vocabulary of %d is not CLIP's %d: the end of a text is not known; give a "
                 "configuration",
                 path, (int)vocabulary, VOCABULARY);
        return false;
    }
    json_object_set_new(config, "vocab_size", json_integer(vocabulary));
    json_object_set_new(config, "max_position_embeddings",
                        json_integer(syz_layout_side(weights, prefix, "positional_embedding", 0)));
    json_object_set_new(config, "eos_token_id", json_integer(2));
    return true;
}

static char *open_clip_config(const syz_weights *weights, const char *prefix, const char *path) {
    int64_t vision_width = syz_layout_side(weights, prefix, "visual.conv1.weight", 0);
    int64_t text_width = syz_layout_side(weights, prefix, "token_embedding.weight", 1);
    if (!text_width)
        return syz_fail_null(SYZ_EFORMAT, "%s: \"%stoken_embedding.weight\" is missing: a CLIP has two towers", path,
                             prefix);
    const char *act = activation(vision_width, path);
    if (syz_failed()) return NULL;
    json_t *text = tower_config(weights, prefix, "transformer", text_width, act, path);
    json_t *vision = text ? tower_config(weights, prefix, "visual.transformer", vision_width, act, path) : NULL;
    char *result = NULL;
    if (vision && add_text_fields(text, weights, prefix, path) && add_vision_fields(vision, weights, prefix, path)) {
        json_t *config = json_pack("{s:[s], s:s, s:I, s:O, s:O}", "architectures", "CLIPModel", "model_type", "clip",
                                   "projection_dim", (json_int_t)syz_layout_side(weights, prefix, "text_projection", 1),
                                   "text_config", text, "vision_config", vision);
        result = config ? json_dumps(config, 0) : NULL;
        json_decref(config);
    }
    if (!result && !syz_failed()) syz_fail(SYZ_ENOMEM, "out of memory: the configuration of %s", path);
    json_decref(text);
    json_decref(vision);
    return result;
}

static const char *const parallel[] = {"module.", NULL}; /* saved from within torch's DistributedDataParallel */

const syz_layout syz_clip_layouts[] = {
    {"open_clip", "visual.class_embedding", parallel, open_clip_rules, ignore_buffers, open_clip_config},
    {0},
};

/* ---- lone towers of transformers 5, which leaves out the tower's name ---- */

static const syz_layout_rule text_rules[] = {
    {"text_model.*", "*", SYZ_LAYOUT_SAME},
    {0},
};

static const syz_layout_rule vision_rules[] = {
    {"vision_model.*", "*", SYZ_LAYOUT_SAME},
    {0},
};

const syz_layout syz_clip_text_layouts[] = {
    {"transformers 5", "embeddings.token_embedding.weight", NULL, text_rules, NULL, NULL},
    {0},
};

const syz_layout syz_siglip_layouts[] = {
    {"transformers 5", "head.probe", NULL, vision_rules, NULL, NULL},
    {0},
};
