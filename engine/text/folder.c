#include "text/folder.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "core/alloc.h"
#include "core/error.h"

/* ---- files ------------------------------------------------------------------------------------------------------- */

bool syz_folder_has(const syz_folder *folder, const char *name) {
    char *path = syz_format("%s/%s", folder->path, name);
    bool there = path && access(path, F_OK) == 0;
    free(path);
    return there;
}

/* Plain or compressed: zlib reads both. */
static syz_status read_compressed(const char *path, char **text, size_t *size) {
    gzFile file = gzopen(path, "rb");
    if (!file) return syz_fail(SYZ_EIO, "%s cannot be opened", path);
    size_t room = (size_t)1 << 20;
    int got = 1;
    syz_status status = SYZ_OK;
    *text = syz_alloc(room + 1, 1);
    for (*size = 0; *text && got > 0 && *size <= SYZ_TOKENIZER_MAX_FILE; *size += got > 0 ? (size_t)got : 0) {
        if (*size == room) {
            char *larger = syz_alloc(2 * room + 1, 1);
            if (larger) memcpy(larger, *text, *size);
            free(*text);
            *text = larger;
            room *= 2;
            if (!larger) break;
        }
        got = gzread(file, *text + *size, (unsigned)(room - *size));
    }
    if (!*text)
        status = SYZ_ENOMEM;
    else if (got < 0 || (got == 0 && gzdirect(file)))
        status = syz_fail(SYZ_EFORMAT, "%s: not a gzip file, or damaged", path);
    else if (*size > SYZ_TOKENIZER_MAX_FILE)
        status = syz_fail(SYZ_EFORMAT, "%s unpacks to more than %zu MiB", path, SYZ_TOKENIZER_MAX_FILE >> 20);
    if (gzclose(file) != Z_OK && status == SYZ_OK) status = syz_fail(SYZ_EFORMAT, "%s ends too early", path);
    if (status != SYZ_OK) {
        free(*text);
        *text = NULL;
    }
    return status;
}

syz_status syz_folder_text(const syz_folder *folder, const char *name, char **text, size_t *size) {
    char *plain = syz_format("%s/%s", folder->path, name), *packed = syz_format("%s/%s.gz", folder->path, name);
    syz_status status = SYZ_ENOMEM;
    uint8_t *data = NULL;
    *text = NULL;
    if (plain && packed) {
        if (access(plain, F_OK) != 0 && access(packed, F_OK) == 0) {
            status = read_compressed(packed, text, size);
        } else {
            status = syz_file_read(&data, size, plain, SYZ_TOKENIZER_MAX_FILE);
            *text = (char *)data;
        }
    }
    free(plain);
    free(packed);
    return status;
}

syz_status syz_folder_object(const syz_folder *folder, const char *name, bool optional, bool reals, json_t **object) {
    uint8_t *data = NULL;
    size_t size;
    json_error_t error;
    *object = NULL;
    if (optional && !syz_folder_has(folder, name)) return syz_failed() ? SYZ_ENOMEM : SYZ_OK;
    char *path = syz_format("%s/%s", folder->path, name);
    syz_status status = path ? syz_file_read(&data, &size, path, SYZ_TOKENIZER_MAX_FILE) : SYZ_ENOMEM;
    if (status == SYZ_OK) {
        *object =
            json_loadb((char *)data, size, JSON_REJECT_DUPLICATES | (reals ? JSON_DECODE_INT_AS_REAL : 0), &error);
        if (!*object)
            status = syz_fail(SYZ_EFORMAT, "%s line %d: %s", path, error.line, error.text);
        else if (!json_is_object(*object))
            status = syz_fail(SYZ_EFORMAT, "%s must hold a JSON object {...}", path);
    }
    free(data);
    free(path);
    if (status != SYZ_OK) {
        json_decref(*object);
        *object = NULL;
    }
    return status;
}

/* ---- vocabulary -------------------------------------------------------------------------------------------------- */

static syz_status grow(syz_tokenizer *tok, int32_t size) {
    if (size <= tok->room) return SYZ_OK;
    int32_t room = size + size / 2 + 64;
    char **token = syz_alloc((size_t)room, sizeof *token);
    if (!token) return SYZ_ENOMEM;
    if (tok->size > 0) memcpy(token, tok->token, (size_t)tok->size * sizeof *token);
    free(tok->token);
    tok->token = token;
    tok->room = room;
    return SYZ_OK;
}

syz_status syz_folder_token(syz_folder *folder, int64_t id, const char *text, size_t n, const char *name) {
    syz_tokenizer *tok = folder->tok;
    int shown = n < 60 ? (int)n : 60;
    if (id < 0 || id >= SYZ_TOKENIZER_MAX_ID)
        return syz_fail(SYZ_EFORMAT, "%s/%s: the id of \"%.*s\" is not an integer in 0..%d", folder->path, name, shown,
                        text, SYZ_TOKENIZER_MAX_ID - 1);
    if (memchr(text, 0, n))
        return syz_fail(SYZ_EFORMAT, "%s/%s: token %lld contains a zero byte", folder->path, name, (long long)id);
    if (id < tok->size && tok->token[id])
        return syz_fail(SYZ_EFORMAT, "%s/%s: \"%.60s\" and \"%.*s\" have the same id", folder->path, name,
                        tok->token[id], shown, text);
    SYZ_TRY(grow(tok, (int32_t)id + 1));
    if (!(tok->token[id] = syz_alloc(n + 1, 1))) return SYZ_ENOMEM;
    memcpy(tok->token[id], text, n);
    if (id >= tok->size) tok->size = (int32_t)id + 1;
    return SYZ_OK;
}

syz_status syz_folder_index(syz_folder *folder) {
    syz_tokenizer *tok = folder->tok;
    syz_trie_key *keys = syz_alloc((size_t)tok->size, sizeof *keys);
    if (!keys) return SYZ_ENOMEM;
    size_t count = 0;
    for (int32_t id = 0; id < tok->size; id++)
        if (tok->token[id]) keys[count++] = (syz_trie_key){tok->token[id], (uint32_t)strlen(tok->token[id]), id};
    syz_status status = syz_trie_build(&tok->vocabulary, keys, count);
    free(keys);
    return status;
}

int32_t syz_folder_find(const syz_folder *folder, const char *text) {
    const syz_tokenizer *tok = folder->tok;
    int32_t id = syz_trie_find(&tok->vocabulary, text, strlen(text));
    for (size_t i = 0; i < tok->added_n && id < 0; i++)
        if (strcmp(tok->added[i].text, text) == 0) id = tok->added[i].id;
    return id;
}

syz_status syz_folder_charsmap(syz_folder *folder, const uint8_t *blob, size_t size, const char *name) {
    char *path = syz_format("%s/%s", folder->path, name);
    syz_status status = path ? syz_charsmap_read(&folder->tok->unigram.map, blob, size, path) : SYZ_ENOMEM;
    free(path);
    return status;
}

syz_status syz_folder_unigram(syz_folder *folder) {
    syz_unigram *unigram = &folder->tok->unigram;
    double least = INFINITY;
    for (int32_t id = 0; id < folder->tok->size; id++)
        if (unigram->score[id] < least) least = unigram->score[id];
    unigram->unknown = least - 10;
    SYZ_TRY(syz_folder_index(folder));
    for (int byte = 0; byte < 256; byte++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", byte);
        unigram->byte_id[byte] = syz_folder_find(folder, text);
    }
    return SYZ_OK;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static syz_status read_vocabulary(syz_folder *folder) {
    if (syz_folder_has(folder, "vocab.json") || syz_folder_has(folder, "merges.txt") ||
        syz_folder_has(folder, "merges.txt.gz"))
        return syz_read_clip(folder);
    if (syz_folder_has(folder, "tokenizer.json")) return syz_read_json(folder);
    if (syz_folder_has(folder, "spiece.model")) return syz_read_spiece(folder);
    if (syz_folder_has(folder, "vocab.txt") || syz_folder_has(folder, "vocab.txt.gz"))
        return syz_read_vocabulary(folder);
    if (syz_failed()) return SYZ_ENOMEM;
    return syz_fail(SYZ_ENOTFOUND,
                    "%s holds no tokenizer: vocab.json with merges.txt (CLIP), tokenizer.json, spiece.model (T5) or "
                    "vocab.txt (BERT)",
                    folder->path);
}

/* open_clip looks for no added tokens, and for its marks by itself. */
static syz_status read_as(syz_tokenizer *tok, const char *path, const char *reading) {
    if (!reading) return SYZ_OK;
    if (strcmp(reading, "open_clip") != 0)
        return syz_fail(SYZ_EINVAL, "a tokenizer's text is read as \"open_clip\" or as its folder says, not as \"%s\"",
                        reading);
    if (tok->kind != &syz_kind_clip)
        return syz_fail(SYZ_EFORMAT,
                        "%s holds another tokenizer than CLIP's: its text cannot be read as open_clip does", path);
    tok->kind = &syz_kind_open_clip;
    syz_trie_free(&tok->raw);
    syz_trie_free(&tok->normalized);
    return SYZ_OK;
}

syz_status syz_tokenizer_open_as(syz_tokenizer **tokenizer, const char *path, const char *reading) {
    *tokenizer = NULL;
    syz_folder folder = {.tok = syz_alloc(1, sizeof *folder.tok), .path = path};
    if (!folder.tok) return SYZ_ENOMEM;
    folder.tok->special[SYZ_BOS] = -1;
    syz_status status = syz_folder_object(&folder, "tokenizer_config.json", true, true, &folder.config);
    if (status == SYZ_OK) status = syz_folder_object(&folder, "special_tokens_map.json", true, true, &folder.map);
    if (status == SYZ_OK) status = syz_folder_object(&folder, "added_tokens.json", true, false, &folder.added);
    if (status == SYZ_OK) status = read_vocabulary(&folder);
    if (status == SYZ_OK && syz_failed()) status = SYZ_ENOMEM; /* a name that could not be made looks like no file */
    if (status == SYZ_OK) status = syz_read_specials(&folder);
    if (status == SYZ_OK) status = read_as(folder.tok, path, reading);
    json_decref(folder.json);
    json_decref(folder.config);
    json_decref(folder.map);
    json_decref(folder.added);
    if (status == SYZ_OK)
        *tokenizer = folder.tok;
    else
        syz_tokenizer_free(folder.tok);
    return status;
}

syz_status syz_tokenizer_open(syz_tokenizer **tokenizer, const char *path) {
    return syz_tokenizer_open_as(tokenizer, path, NULL);
}

void syz_tokenizer_free(syz_tokenizer *tok) {
    if (!tok) return;
    for (int32_t i = 0; i < tok->size; i++)
        free(tok->token[i]);
    free(tok->token);
    for (size_t i = 0; i < tok->added_n; i++)
        free(tok->added[i].text);
    free(tok->added);
    syz_trie_free(&tok->vocabulary);
    syz_trie_free(&tok->raw);
    syz_trie_free(&tok->normalized);
    syz_merges_free(&tok->merges);
    syz_unigram_free(&tok->unigram);
    free(tok);
}
