/* Opening a tokenizer's folder: vocabulary, merges, special tokens. */
#include "text/tokenizer.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/error.h"
#include "io/file.h"
#include "text/unicode.h"

#define MAX_FILE ((size_t)64 << 20)
#define MAX_ID   (1 << 24)

/* ---- bytes as characters ----------------------------------------------------------------------------------------- */

static bool printable(int byte) {
    return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

int syz_byte_to_code(int byte) {
    if (printable(byte)) return byte;
    int code = 256;
    for (int b = 0; b < byte; b++)
        code += !printable(b);
    return code;
}

int syz_code_to_byte(int code) {
    if (code < 256) return printable(code) ? code : -1;
    for (int b = 0; b < 256; b++)
        if (!printable(b) && code-- == 256) return b;
    return -1;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

/* folder/name as a JSON object, or NULL with *status set (SYZ_OK for an optional file that is missing). json_decref().
 * transformers writes a model_max_length beyond any integer, hence numbers as reals in configurations. */
static json_t *read_object(syz_status *status, const char *folder, const char *name, bool config) {
    uint8_t *data = NULL;
    size_t size;
    json_t *object = NULL;
    json_error_t error;
    char *path = syz_format("%s/%s", folder, name);
    if (!path) {
        *status = SYZ_ENOMEM;
    } else if (config && access(path, F_OK) != 0) {
        *status = SYZ_OK;
    } else if ((*status = syz_file_read(&data, &size, path, MAX_FILE)) == SYZ_OK) {
        object =
            json_loadb((char *)data, size, JSON_REJECT_DUPLICATES | (config ? JSON_DECODE_INT_AS_REAL : 0), &error);
        if (!object)
            *status = syz_fail(SYZ_EFORMAT, "%s line %d: %s", path, error.line, error.text);
        else if (!json_is_object(object))
            *status = syz_fail(SYZ_EFORMAT, "%s must hold a JSON object {...}", path);
    }
    free(data);
    free(path);
    if (object && *status != SYZ_OK) json_decref(object);
    return *status == SYZ_OK ? object : NULL;
}

/* The id of a token, or -1. */
static int32_t find_id(const json_t *vocabulary, const char *token) {
    const json_t *id = json_object_get(vocabulary, token);
    return id ? (int32_t)json_integer_value(id) : -1;
}

static syz_status read_vocabulary(syz_tokenizer *tok, json_t *vocabulary, const char *folder) {
    const char *name;
    json_t *id;
    json_object_foreach(vocabulary, name, id) {
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= MAX_ID)
            return syz_fail(SYZ_EFORMAT, "%s/vocab.json: the id of \"%s\" is not an integer in 0..%d", folder, name,
                            MAX_ID - 1);
        if (json_integer_value(id) >= tok->size) tok->size = (int32_t)json_integer_value(id) + 1;
    }
    if (!(tok->token = syz_alloc((size_t)tok->size, sizeof *tok->token))) return SYZ_ENOMEM;
    json_object_foreach(vocabulary, name, id) {
        char **slot = &tok->token[json_integer_value(id)];
        if (*slot)
            return syz_fail(SYZ_EFORMAT, "%s/vocab.json: \"%s\" and \"%s\" have the same id", folder, *slot, name);
        if (!(*slot = syz_strdup(name))) return SYZ_ENOMEM;
    }
    return SYZ_OK;
}

static void map_bytes(syz_tokenizer *tok, const json_t *vocabulary) {
    for (int byte = 0; byte < 256; byte++) {
        int code = syz_byte_to_code(byte);
        char word[8] = {0};
        int n = 0;
        if (code >= 0x80) word[n++] = (char)(0xc0 | code >> 6);
        word[n++] = (char)(code >= 0x80 ? 0x80 | (code & 0x3f) : code);
        tok->byte_id[0][byte] = find_id(vocabulary, word);
        memcpy(word + n, "</w>", 5);
        tok->byte_id[1][byte] = find_id(vocabulary, word);
    }
}

/* One line "left right" of merges.txt; both parts and the whole must be tokens. */
static syz_status add_merge(syz_tokenizer *tok, const json_t *vocabulary, char *line, int number, int32_t rank,
                            const char *folder) {
    char *gap = strchr(line, ' ');
    if (!gap || gap == line || !gap[1] || strchr(gap + 1, ' '))
        return syz_fail(SYZ_EFORMAT, "%s/merges.txt line %d: not two tokens with one space between", folder, number);
    *gap = '\0';
    syz_merge merge = {find_id(vocabulary, line), find_id(vocabulary, gap + 1), rank, -1};
    if (merge.left < 0 || merge.right < 0)
        return syz_fail(SYZ_EFORMAT, "%s/merges.txt line %d: \"%s\" is not in vocab.json", folder, number,
                        merge.left < 0 ? line : gap + 1);
    memmove(gap, gap + 1, strlen(gap + 1) + 1);
    merge.id = find_id(vocabulary, line);
    if (merge.id < 0)
        return syz_fail(SYZ_EFORMAT, "%s/merges.txt line %d: the merged token \"%s\" is not in vocab.json", folder,
                        number, line);
    syz_merges_add(&tok->merges, merge);
    return SYZ_OK;
}

static syz_status read_merges(syz_tokenizer *tok, const json_t *vocabulary, const char *folder) {
    uint8_t *text;
    size_t size, lines = 1;
    char *path = syz_format("%s/merges.txt", folder);
    syz_status status = path ? syz_file_read(&text, &size, path, MAX_FILE) : SYZ_ENOMEM;
    free(path);
    if (status != SYZ_OK) return status;
    for (size_t i = 0; i < size; i++)
        lines += text[i] == '\n';
    status = syz_merges_init(&tok->merges, lines);
    int32_t rank = 0;
    int number = 1;
    for (char *line = (char *)text, *end; status == SYZ_OK && *line; line = end, number++) {
        end = line + strcspn(line, "\n");
        if (*end) *end++ = '\0';
        line[strcspn(line, "\r")] = '\0';
        if (!*line || strncmp(line, "#version", 8) == 0) continue;
        status = add_merge(tok, vocabulary, line, number, rank++, folder);
    }
    free(text);
    return status;
}

/* Takes one special token from a configuration: "text", or {"content": "text", "normalized": ...}. */
static syz_status read_special(syz_special *out, const json_t *config, const char *key, const char *folder) {
    const json_t *value = json_object_get(config, key);
    bool normalized = false;
    if (json_is_object(value)) {
        normalized = json_is_true(json_object_get(value, "normalized"));
        value = json_object_get(value, "content");
    }
    if (!value || json_is_null(value)) return SYZ_OK;
    if (!json_is_string(value) || json_string_length(value) == 0)
        return syz_fail(SYZ_EFORMAT, "%s: %s is not a token's text", folder, key);
    char *text = syz_strdup(json_string_value(value));
    if (!text) return SYZ_ENOMEM;
    free(out->text);
    *out = (syz_special){text, 0, -1, normalized};
    return SYZ_OK;
}

/* A newer configuration lists its added tokens by id, and their flags count there. */
static void read_flags(syz_special *out, json_t *added) {
    const char *id;
    json_t *entry;
    json_object_foreach(added, id, entry) {
        const char *content = json_string_value(json_object_get(entry, "content"));
        if (content && strcmp(content, out->text) == 0)
            out->normalized = json_is_true(json_object_get(entry, "normalized"));
    }
}

/* A token that is looked for in normalised text must itself be normalised. */
static syz_status prepare(syz_special *s) {
    s->n = strlen(s->text);
    if (!s->normalized) return SYZ_OK;
    char *normal;
    SYZ_TRY(syz_text_normalize(&normal, &s->n, s->text, s->n));
    free(s->text);
    s->text = normal;
    return SYZ_OK;
}

static syz_status resolve_specials(syz_tokenizer *tok, const json_t *config, const json_t *map,
                                   const json_t *vocabulary, const char *folder) {
    static const char *const keys[] = {"bos_token", "eos_token", "unk_token", "pad_token"};
    json_t *added = json_object_get(config, "added_tokens_decoder");
    for (int i = 0; i < SYZ_SPECIALS; i++) {
        syz_special *s = &tok->special[i];
        SYZ_TRY(read_special(s, config, keys[i], folder));
        if (!added) SYZ_TRY(read_special(s, map, keys[i], folder));
        if (!s->text && !(s->text = syz_strdup(i == SYZ_BOS ? "<|startoftext|>" : "<|endoftext|>"))) return SYZ_ENOMEM;
        read_flags(s, added);
        if ((s->id = find_id(vocabulary, s->text)) < 0)
            return syz_fail(SYZ_EFORMAT, "%s/vocab.json lacks the %s \"%s\"", folder, keys[i], s->text);
    }
    for (int i = 0; i < SYZ_SPECIALS; i++) {
        for (int j = i + 1; j < SYZ_SPECIALS; j++) /* where two name one token, the flags of the last count */
            if (tok->special[j].id == tok->special[i].id) tok->special[i].normalized = tok->special[j].normalized;
        SYZ_TRY(prepare(&tok->special[i]));
    }
    double length = json_number_value(json_object_get(config, "model_max_length"));
    if (length >= 1 && length <= MAX_ID) tok->max_length = (int64_t)length;
    return SYZ_OK;
}

static syz_status read_specials(syz_tokenizer *tok, const json_t *vocabulary, const char *folder) {
    syz_status status;
    json_t *config = read_object(&status, folder, "tokenizer_config.json", true), *map = NULL;
    if (status == SYZ_OK) map = read_object(&status, folder, "special_tokens_map.json", true);
    if (status == SYZ_OK) status = resolve_specials(tok, config, map, vocabulary, folder);
    json_decref(config);
    json_decref(map);
    return status;
}

syz_status syz_tokenizer_open(syz_tokenizer **tokenizer, const char *folder) {
    *tokenizer = NULL;
    syz_status status;
    json_t *vocabulary = read_object(&status, folder, "vocab.json", false);
    if (!vocabulary) return status;
    syz_tokenizer *tok = syz_alloc(1, sizeof *tok);
    status = tok ? read_vocabulary(tok, vocabulary, folder) : SYZ_ENOMEM;
    if (status == SYZ_OK) {
        map_bytes(tok, vocabulary);
        status = read_merges(tok, vocabulary, folder);
    }
    if (status == SYZ_OK) status = read_specials(tok, vocabulary, folder);
    json_decref(vocabulary);
    if (status == SYZ_OK)
        *tokenizer = tok;
    else
        syz_tokenizer_free(tok);
    return status;
}

void syz_tokenizer_free(syz_tokenizer *tok) {
    if (!tok) return;
    for (int32_t i = 0; tok->token && i < tok->size; i++)
        free(tok->token[i]);
    free(tok->token);
    for (int i = 0; i < SYZ_SPECIALS; i++)
        free(tok->special[i].text);
    syz_merges_free(&tok->merges);
    free(tok);
}
