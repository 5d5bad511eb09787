/* Special and added tokens: which ids frame a text, and what is found in it before anything else. */
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/error.h"
#include "text/folder.h"

/* The list is searched from its beginning; no published tokenizer adds more than a few thousand. */
#define MAX_ADDED 16384

/* The tokens that a kind must have, with the names of their keys and what they are called without a configuration. */
typedef struct {
    int role;
    const char *key, *text;
} part;

static const part clip_parts[] = {{SYZ_BOS, "bos_token", "<|startoftext|>"},
                                  {SYZ_EOS, "eos_token", "<|endoftext|>"},
                                  {SYZ_UNK, "unk_token", "<|endoftext|>"},
                                  {SYZ_PAD, "pad_token", "<|endoftext|>"},
                                  {-1, NULL, NULL}};
static const part unigram_parts[] = {
    {SYZ_EOS, "eos_token", "</s>"}, {SYZ_UNK, "unk_token", "<unk>"}, {SYZ_PAD, "pad_token", "<pad>"}, {-1, NULL, NULL}};
static const part wordpiece_parts[] = {{SYZ_BOS, "cls_token", "[CLS]"},
                                       {SYZ_EOS, "sep_token", "[SEP]"},
                                       {SYZ_UNK, "unk_token", "[UNK]"},
                                       {SYZ_PAD, "pad_token", "[PAD]"},
                                       {-1, NULL, NULL}};

static const part *parts_of(const syz_tokenizer *tok) {
    if (tok->kind == &syz_kind_unigram) return unigram_parts;
    return tok->kind == &syz_kind_wordpiece ? wordpiece_parts : clip_parts;
}

/* ---- the list ---------------------------------------------------------------------------------------------------- */

/* A token as a configuration writes it: "text", or {"content": "text", "normalized": ...}. Borrows the text. */
static bool read_token(syz_added *out, const json_t *value, bool special) {
    *out = (syz_added){.special = special};
    if (json_is_object(value)) {
        out->normalized = json_is_true(json_object_get(value, "normalized"));
        out->single_word = json_is_true(json_object_get(value, "single_word"));
        out->strip_left = json_is_true(json_object_get(value, "lstrip"));
        out->strip_right = json_is_true(json_object_get(value, "rstrip"));
        out->special = special || json_is_true(json_object_get(value, "special"));
        value = json_object_get(value, "content");
    }
    out->text = (char *)json_string_value(value);
    return out->text && json_string_length(value) > 0;
}

syz_status syz_folder_list(syz_folder *folder, syz_added added) {
    syz_tokenizer *tok = folder->tok;
    for (size_t i = 0; i < tok->added_n; i++) {
        if (strcmp(tok->added[i].text, added.text) != 0) continue;
        added.text = tok->added[i].text;
        tok->added[i] = added;
        return SYZ_OK;
    }
    if (tok->added_n == MAX_ADDED)
        return syz_fail(SYZ_EFORMAT, "%s: more than %d special and added tokens", folder->path, MAX_ADDED);
    if (tok->added_n == tok->added_room) {
        size_t room = 2 * tok->added_room + 16;
        syz_added *larger = syz_alloc(room, sizeof *larger);
        if (!larger) return SYZ_ENOMEM;
        if (tok->added_n > 0) memcpy(larger, tok->added, tok->added_n * sizeof *larger);
        free(tok->added);
        tok->added = larger;
        tok->added_room = room;
    }
    if (!(added.text = syz_strdup(added.text))) return SYZ_ENOMEM;
    tok->added[tok->added_n++] = added;
    return SYZ_OK;
}

/* A token that is not in the vocabulary gets `id`, or the next free one if id < 0. */
static syz_status add(syz_folder *folder, syz_added added, int64_t id, const char *name) {
    added.id = syz_folder_find(folder, added.text);
    if (added.id < 0) {
        added.id = (int32_t)(id < 0 ? folder->tok->size : id);
        SYZ_TRY(syz_folder_token(folder, id < 0 ? folder->tok->size : id, added.text, strlen(added.text), name));
    }
    return syz_folder_list(folder, added);
}

/* ---- lists with ids ---------------------------------------------------------------------------------------------- */

static syz_status refuse(const syz_folder *folder, const char *name, const char *key) {
    return syz_fail(SYZ_EFORMAT, "%s/%s: %s is not a list of tokens with ids", folder->path, name, key);
}

/* added_tokens_decoder of tokenizer_config.json: {"49407": {"content": ...}, ...}. */
static syz_status read_decoder(syz_folder *folder, json_t *decoder) {
    const char *key;
    json_t *value;
    if (!json_is_object(decoder)) return refuse(folder, "tokenizer_config.json", "added_tokens_decoder");
    json_object_foreach(decoder, key, value) {
        char *end;
        syz_added added;
        long id = strtol(key, &end, 10);
        if (!read_token(&added, value, false) || end == key || *end || id < 0)
            return refuse(folder, "tokenizer_config.json", "added_tokens_decoder");
        SYZ_TRY(add(folder, added, id, "tokenizer_config.json"));
    }
    return SYZ_OK;
}

/* added_tokens of tokenizer.json: [{"id": 49407, "content": ...}, ...]. */
static syz_status read_json_list(syz_folder *folder, const json_t *tokens) {
    size_t i;
    json_t *value;
    if (tokens && !json_is_array(tokens)) return refuse(folder, "tokenizer.json", "added_tokens");
    json_array_foreach(tokens, i, value) {
        syz_added added;
        const json_t *id = json_object_get(value, "id");
        if (!read_token(&added, value, false) || !json_is_integer(id) || json_integer_value(id) < 0)
            return refuse(folder, "tokenizer.json", "added_tokens");
        SYZ_TRY(add(folder, added, json_integer_value(id), "tokenizer.json"));
    }
    return SYZ_OK;
}

/* added_tokens.json, as older versions wrote it: {"text": id, ...}. */
static syz_status read_added_file(syz_folder *folder) {
    const char *text;
    json_t *id;
    json_object_foreach(folder->added, text, id) {
        if (!json_is_integer(id) || json_integer_value(id) < 0 || !*text)
            return refuse(folder, "added_tokens.json", "this");
        syz_added added = {.text = (char *)text, .normalized = true};
        SYZ_TRY(add(folder, added, json_integer_value(id), "added_tokens.json"));
    }
    return SYZ_OK;
}

static syz_status read_lists(syz_folder *folder) {
    json_t *decoder = json_object_get(folder->config, "added_tokens_decoder");
    SYZ_TRY(read_json_list(folder, json_object_get(folder->json, "added_tokens")));
    return decoder ? read_decoder(folder, decoder) : SYZ_OK;
}

/* ---- named tokens ------------------------------------------------------------------------------------------------ */

static syz_status read_part(syz_folder *folder, const part *p) {
    const json_t *sources[] = {folder->map, folder->config};
    const char *names[] = {"special_tokens_map.json", "tokenizer_config.json"};
    /* A configuration that lists its added tokens makes the older map void. */
    bool void_map = json_object_get(folder->config, "added_tokens_decoder");
    syz_added added = {.text = (char *)p->text, .special = true};
    for (int i = void_map; i < 2; i++) {
        const json_t *value = json_object_get(sources[i], p->key);
        if (!value || json_is_null(value)) continue;
        if (!read_token(&added, value, true))
            return syz_fail(SYZ_EFORMAT, "%s/%s: %s is not a token's text", folder->path, names[i], p->key);
        break;
    }
    if ((added.id = syz_folder_find(folder, added.text)) < 0)
        return syz_fail(SYZ_EFORMAT, "%s: the vocabulary lacks the %s \"%s\"", folder->path, p->key, added.text);
    folder->tok->special[p->role] = added.id;
    return syz_folder_list(folder, added);
}

static bool is_part(const syz_tokenizer *tok, const char *key) {
    for (const part *p = parts_of(tok); p->key; p++)
        if (strcmp(p->key, key) == 0) return true;
    return false;
}

/* Further tokens with a name (mask_token) or without (additional_special_tokens). */
static syz_status read_others(syz_folder *folder, json_t *source, const char *name) {
    static const char *const lists[] = {"additional_special_tokens", "extra_special_tokens"};
    const char *key;
    json_t *value;
    size_t k;
    syz_added added;
    json_object_foreach(source, key, value) {
        size_t n = strlen(key);
        if (n > 6 && strcmp(key + n - 6, "_token") == 0 && !is_part(folder->tok, key) &&
            read_token(&added, value, true))
            SYZ_TRY(add(folder, added, -1, name));
    }
    for (int i = 0; i < 2; i++)
        json_array_foreach(json_object_get(source, lists[i]), k, value) {
            if (!read_token(&added, value, true))
                return syz_fail(SYZ_EFORMAT, "%s/%s: %s is not a list of texts", folder->path, name, lists[i]);
            SYZ_TRY(add(folder, added, -1, name));
        }
    return SYZ_OK;
}

/* What its class makes special without being told: T5's sentinels, BERT's mask. */
static syz_status read_own(syz_folder *folder) {
    syz_tokenizer *tok = folder->tok;
    bool sentinels = tok->kind == &syz_kind_unigram;
    for (int32_t id = 0; id < tok->size && sentinels; id++) {
        const char *text = tok->token[id];
        if (!text || strncmp(text, "<extra_id_", 10) != 0) continue;
        size_t digits = strspn(text + 10, "0123456789");
        if (digits > 0 && strcmp(text + 10 + digits, ">") == 0)
            SYZ_TRY(syz_folder_list(folder, (syz_added){.text = tok->token[id], .id = id, .special = true}));
    }
    int32_t mask = tok->kind == &syz_kind_wordpiece ? syz_folder_find(folder, "[MASK]") : -1;
    return mask < 0 ? SYZ_OK : syz_folder_list(folder, (syz_added){.text = "[MASK]", .id = mask, .special = true});
}

/* ---- what is looked for ------------------------------------------------------------------------------------------ */

/* A token that is looked for in normalised text must itself be normalised. */
static syz_status prepare(syz_tokenizer *tok) {
    for (size_t i = 0; i < tok->added_n; i++) {
        syz_added *a = &tok->added[i];
        a->n = strlen(a->text);
        if (!a->normalized) continue;
        char *normal = NULL;
        syz_status status = tok->kind->normalize(tok, &normal, &a->n, a->text, a->n);
        free(status == SYZ_OK ? a->text : normal);
        if (status != SYZ_OK) return status;
        a->text = normal;
    }
    return SYZ_OK;
}

static syz_status build(syz_trie *trie, const syz_tokenizer *tok, bool normalized) {
    syz_trie_key *keys = syz_alloc(tok->added_n, sizeof *keys);
    if (!keys) return SYZ_ENOMEM;
    size_t count = 0;
    for (size_t i = 0; i < tok->added_n; i++)
        if (tok->added[i].normalized == normalized)
            keys[count++] = (syz_trie_key){tok->added[i].text, (uint32_t)tok->added[i].n, (int32_t)i};
    syz_status status = syz_trie_build(trie, keys, count);
    free(keys);
    return status;
}

syz_status syz_read_specials(syz_folder *folder) {
    syz_tokenizer *tok = folder->tok;
    bool listed = json_object_get(folder->config, "added_tokens_decoder");
    SYZ_TRY(read_lists(folder));
    if (!listed) SYZ_TRY(read_added_file(folder));
    SYZ_TRY(read_own(folder));
    for (const part *p = parts_of(tok); p->key; p++)
        SYZ_TRY(read_part(folder, p));
    SYZ_TRY(read_others(folder, folder->config, "tokenizer_config.json"));
    if (!listed) SYZ_TRY(read_others(folder, folder->map, "special_tokens_map.json"));
    SYZ_TRY(read_lists(folder)); /* once more: the flags given there count */
    SYZ_TRY(prepare(tok));
    SYZ_TRY(build(&tok->raw, tok, false));
    SYZ_TRY(build(&tok->normalized, tok, true));
    double length = json_number_value(json_object_get(folder->config, "model_max_length"));
    if (length >= 1 && length <= SYZ_TOKENIZER_MAX_ID) tok->max_length = (int64_t)length;
    return SYZ_OK;
}
