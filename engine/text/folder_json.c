/* tokenizer.json of the tokenizers library: the model's type says which kind it is. */
#include <nettle/base64.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/error.h"
#include "text/folder.h"

#define FILE_NAME "tokenizer.json"

static const char *type_of(const json_t *part) {
    const char *type = json_string_value(json_object_get(part, "type"));
    return type ? type : "";
}

static syz_status unknown(const syz_folder *folder, const char *what, const json_t *part) {
    return syz_fail(SYZ_EFORMAT, "%s/" FILE_NAME ": %s \"%.40s\" is not one that CLIP's, T5's or BERT's tokenizer has",
                    folder->path, what, type_of(part));
}

static syz_status malformed(const syz_folder *folder, const char *what) {
    return syz_fail(SYZ_EFORMAT, "%s/" FILE_NAME ": %s", folder->path, what);
}

/* ---- CLIP -------------------------------------------------------------------------------------------------------- */

/* vocab as {"text": id}. */
static syz_status read_map(syz_folder *folder, json_t *vocabulary) {
    const char *text;
    json_t *id;
    if (json_object_size(vocabulary) == 0) return malformed(folder, "model.vocab is not an object of tokens");
    json_object_foreach(vocabulary, text, id) {
        SYZ_TRY(
            syz_folder_token(folder, json_is_integer(id) ? json_integer_value(id) : -1, text, strlen(text), FILE_NAME));
    }
    return syz_folder_index(folder);
}

/* A merge is "left right", or ["left", "right"] in newer files. */
static syz_status read_merge(syz_folder *folder, const json_t *merge, int32_t rank) {
    const char *left = json_string_value(json_array_get(merge, 0));
    const char *right = json_string_value(json_array_get(merge, 1)), *line = json_string_value(merge);
    const char *gap = line ? strchr(line, ' ') : NULL;
    char where[64];
    snprintf(where, sizeof where, FILE_NAME " merge %d", rank);
    if (left && right) return syz_folder_merge(folder, left, right, rank, where);
    if (!gap) return malformed(folder, "model.merges is not a list of pairs");
    char *first = syz_format("%.*s", (int)(gap - line), line);
    syz_status status = first ? syz_folder_merge(folder, first, gap + 1, rank, where) : SYZ_ENOMEM;
    free(first);
    return status;
}

static syz_status read_bpe(syz_folder *folder, const json_t *model) {
    const char *suffix = json_string_value(json_object_get(model, "end_of_word_suffix"));
    const json_t *merges = json_object_get(model, "merges");
    folder->tok->kind = &syz_kind_clip;
    if (!suffix || strcmp(suffix, "</w>") != 0)
        return malformed(folder, "a BPE model without \"</w>\" at the ends of words is not CLIP's");
    if (!json_is_array(merges)) return malformed(folder, "model.merges is not a list of pairs");
    SYZ_TRY(read_map(folder, json_object_get(model, "vocab")));
    SYZ_TRY(syz_merges_init(&folder->tok->merges, json_array_size(merges)));
    syz_folder_bytes(folder);
    for (size_t i = 0; i < json_array_size(merges); i++)
        SYZ_TRY(read_merge(folder, json_array_get(merges, i), (int32_t)i));
    return SYZ_OK;
}

/* ---- BERT -------------------------------------------------------------------------------------------------------- */

static bool flag(const json_t *part, const char *key, bool missing) {
    const json_t *value = json_object_get(part, key);
    return json_is_boolean(value) ? json_is_true(value) : missing;
}

static syz_status read_wordpiece(syz_folder *folder, const json_t *model) {
    syz_tokenizer *tok = folder->tok;
    const json_t *normalizer = json_object_get(folder->json, "normalizer");
    const json_t *splitter = json_object_get(folder->json, "pre_tokenizer");
    const json_t *prefix = json_object_get(model, "continuing_subword_prefix");
    const json_t *longest = json_object_get(model, "max_input_chars_per_word");
    tok->kind = &syz_kind_wordpiece;
    if (strcmp(type_of(normalizer), "BertNormalizer") != 0) return unknown(folder, "the normalizer", normalizer);
    if (strcmp(type_of(splitter), "BertPreTokenizer") != 0) return unknown(folder, "the pre_tokenizer", splitter);
    if (prefix && (!json_is_string(prefix) || strcmp(json_string_value(prefix), "##") != 0))
        return malformed(folder, "model.continuing_subword_prefix is not \"##\"");
    SYZ_TRY(read_map(folder, json_object_get(model, "vocab")));
    syz_folder_wordpiece(folder);
    if (json_is_integer(longest) && json_integer_value(longest) >= 0 && json_integer_value(longest) < INT32_MAX)
        tok->longest_word = (int32_t)json_integer_value(longest);
    tok->clean = flag(normalizer, "clean_text", true);
    tok->lower = flag(normalizer, "lowercase", true);
    tok->space_cjk = flag(normalizer, "handle_chinese_chars", true);
    tok->strip_accents = flag(normalizer, "strip_accents", tok->lower);
    return SYZ_OK;
}

/* ---- T5 ---------------------------------------------------------------------------------------------------------- */

static syz_status read_charsmap(syz_folder *folder, const json_t *step) {
    const json_t *text = json_object_get(step, "precompiled_charsmap");
    size_t n = json_string_length(text), size = BASE64_DECODE_LENGTH(n);
    struct base64_decode_ctx decoder;
    if (folder->tok->unigram.map.n > 0) return malformed(folder, "more than one precompiled_charsmap");
    uint8_t *blob = syz_alloc(size + 1, 1);
    if (!blob) return SYZ_ENOMEM;
    base64_decode_init(&decoder);
    bool good = text && base64_decode_update(&decoder, &size, blob, n, json_string_value(text)) &&
                base64_decode_final(&decoder);
    syz_status status = good ? syz_folder_charsmap(folder, blob, size, FILE_NAME)
                             : malformed(folder, "a precompiled_charsmap is not base64");
    free(blob);
    return status;
}

/* transformers takes the map from the file and splits at white space itself, whatever else the file says; so spaces at
 * the ends and in rows, which files of different ages treat by Strip and Replace, need no treatment. */
static syz_status read_step(syz_folder *folder, const json_t *part) {
    const json_t *pattern = json_object_get(json_object_get(part, "pattern"), "Regex");
    const char *type = type_of(part), *spaces = json_string_value(pattern);
    if (strcmp(type, "Precompiled") == 0) return read_charsmap(folder, part);
    if (strcmp(type, "Strip") == 0 || (strcmp(type, "Replace") == 0 && spaces && strcmp(spaces, " {2,}") == 0))
        return SYZ_OK;
    return unknown(folder, "the normalizer", part);
}

/* One part, or a Sequence of parts under `key`, each given to `read`. */
static syz_status read_parts(syz_folder *folder, const json_t *part, const char *key,
                             syz_status (*read)(syz_folder *folder, const json_t *part)) {
    if (!part || json_is_null(part)) return SYZ_OK;
    if (strcmp(type_of(part), "Sequence") != 0) return read(folder, part);
    const json_t *parts = json_object_get(part, key);
    for (size_t i = 0; i < json_array_size(parts); i++)
        SYZ_TRY(read(folder, json_array_get(parts, i)));
    return SYZ_OK;
}

/* Metaspace: whether a word begins with the mark was add_prefix_space once and is prepend_scheme now. */
static syz_status read_splitter(syz_folder *folder, const json_t *part) {
    if (strcmp(type_of(part), "WhitespaceSplit") == 0) return SYZ_OK;
    if (strcmp(type_of(part), "Metaspace") != 0) return unknown(folder, "the pre_tokenizer", part);
    const char *mark = json_string_value(json_object_get(part, "replacement"));
    const char *scheme = json_string_value(json_object_get(part, "prepend_scheme"));
    if (mark && strcmp(mark, "\xe2\x96\x81") != 0)
        return malformed(folder, "a Metaspace with another mark than U+2581");
    if (scheme ? strcmp(scheme, "never") == 0 : !flag(part, "add_prefix_space", true))
        return malformed(folder, "a Metaspace without a mark before the first word is not T5's");
    return SYZ_OK;
}

/* vocab as [["text", score], ...]. */
static syz_status read_scores(syz_folder *folder, const json_t *vocabulary) {
    size_t n = json_array_size(vocabulary);
    if (n == 0) return malformed(folder, "model.vocab is not a list of [text, score]");
    if (!(folder->tok->unigram.score = syz_alloc(n, sizeof *folder->tok->unigram.score))) return SYZ_ENOMEM;
    for (size_t i = 0; i < n; i++) {
        const json_t *entry = json_array_get(vocabulary, i), *text = json_array_get(entry, 0);
        const json_t *score = json_array_get(entry, 1);
        if (!json_is_string(text) || !json_is_number(score))
            return malformed(folder, "model.vocab is not a list of [text, score]");
        folder->tok->unigram.score[i] = json_number_value(score);
        SYZ_TRY(syz_folder_token(folder, (int64_t)i, json_string_value(text), json_string_length(text), FILE_NAME));
    }
    return SYZ_OK;
}

static syz_status read_unigram(syz_folder *folder, const json_t *model) {
    folder->tok->kind = &syz_kind_unigram;
    folder->tok->unigram.byte_fallback = flag(model, "byte_fallback", false);
    SYZ_TRY(read_scores(folder, json_object_get(model, "vocab")));
    SYZ_TRY(read_parts(folder, json_object_get(folder->json, "normalizer"), "normalizers", read_step));
    const json_t *splitter = json_object_get(folder->json, "pre_tokenizer");
    if (!splitter || json_is_null(splitter)) return malformed(folder, "a Unigram model without a pre_tokenizer");
    SYZ_TRY(read_parts(folder, splitter, "pretokenizers", read_splitter));
    return syz_folder_unigram(folder);
}

/* ---- which ------------------------------------------------------------------------------------------------------- */

syz_status syz_read_json(syz_folder *folder) {
    SYZ_TRY(syz_folder_object(folder, FILE_NAME, false, false, &folder->json));
    const json_t *model = json_object_get(folder->json, "model");
    const char *type = type_of(model);
    /* Files from before 2021 leave the type out. */
    if (!*type && json_object_get(model, "merges")) type = "BPE";
    if (!*type && json_object_get(model, "unk_id")) type = "Unigram";
    if (!*type && json_object_get(model, "max_input_chars_per_word")) type = "WordPiece";
    if (strcmp(type, "BPE") == 0) return read_bpe(folder, model);
    if (strcmp(type, "Unigram") == 0) return read_unigram(folder, model);
    if (strcmp(type, "WordPiece") == 0) return read_wordpiece(folder, model);
    return unknown(folder, "the model", model);
}
