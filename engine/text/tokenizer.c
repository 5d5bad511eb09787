/* CLIP's tokenizer: opening a folder, text to ids, ids to text. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/alloc.h"
#include "core/error.h"
#include "text/bpe.h"
#include "text/unicode.h"

#define MAX_TEXT ((size_t)16 << 20)
#define MAX_FILE ((size_t)64 << 20)
#define MAX_ID   (1 << 24)

enum { BOS, EOS, UNK, PAD, SPECIALS };

typedef struct {
    char *text;      /* as written in a prompt */
    size_t n;        /* its length */
    int32_t id;      /* in the vocabulary */
    bool normalized; /* looked for in the normalised text instead of the raw one */
} special;

struct syz_tokenizer {
    char **token; /* [size] by id; NULL in a gap */
    int32_t size;
    int64_t max_length;
    int32_t byte_id[2][256]; /* a byte inside a word, and at its end */
    special special[SPECIALS];
    syz_merges merges;
};

/* ---- bytes as characters ----------------------------------------------------------------------------------------- */

/* The vocabulary spells every byte as one printable character: itself where Latin-1 prints it, 256, 257, ... for the
 * others in order. */
static bool printable(int byte) {
    return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

static int byte_code(int byte) {
    if (printable(byte)) return byte;
    int code = 256;
    for (int b = 0; b < byte; b++)
        code += !printable(b);
    return code;
}

/* The byte that a character stands for, or -1. */
static int code_byte(int code) {
    if (code < 256) return printable(code) ? code : -1;
    for (int b = 0; b < 256; b++)
        if (!printable(b) && code-- == 256) return b;
    return -1;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

/* The file as one NUL-ended string, free() it. A missing file is an error unless `optional`, then *text is NULL. */
static syz_status read_file(char **text, const char *folder, const char *name, bool optional) {
    *text = NULL;
    char *path = syz_format("%s/%s", folder, name);
    if (!path) return SYZ_ENOMEM;
    syz_status status = SYZ_OK;
    struct stat info;
    FILE *file = fopen(path, "rb");
    if (!file || fstat(fileno(file), &info) != 0) {
        if (!optional || errno != ENOENT)
            status = syz_fail(errno == ENOENT ? SYZ_ENOTFOUND : SYZ_EIO, "cannot open %s: %s", path, strerror(errno));
    } else if (!S_ISREG(info.st_mode) || (size_t)info.st_size > MAX_FILE) {
        status = syz_fail(SYZ_EFORMAT, "%s is not a file of at most %zu MiB", path, MAX_FILE >> 20);
    } else if (!(*text = syz_alloc((size_t)info.st_size + 1, 1))) {
        status = SYZ_ENOMEM;
    } else if (fread(*text, 1, (size_t)info.st_size, file) != (size_t)info.st_size) {
        status = syz_fail(SYZ_EIO, "cannot read %s", path);
        free(*text);
        *text = NULL;
    }
    if (file) fclose(file);
    free(path);
    return status;
}

/* A JSON object; *object stays NULL where an optional file is missing. json_decref() it. */
static syz_status read_object(json_t **object, const char *folder, const char *name, bool optional) {
    char *text;
    *object = NULL;
    SYZ_TRY(read_file(&text, folder, name, optional));
    if (!text) return SYZ_OK;
    json_error_t error;
    *object = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    free(text);
    if (!*object) return syz_fail(SYZ_EFORMAT, "%s/%s line %d: %s", folder, name, error.line, error.text);
    if (json_is_object(*object)) return SYZ_OK;
    json_decref(*object);
    *object = NULL;
    return syz_fail(SYZ_EFORMAT, "%s/%s is not a JSON object", folder, name);
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
        int code = byte_code(byte);
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
    char *text;
    SYZ_TRY(read_file(&text, folder, "merges.txt", false));
    size_t lines = 1;
    for (const char *c = text; *c; c++)
        lines += *c == '\n';
    syz_status status = syz_merges_init(&tok->merges, lines);
    int32_t rank = 0;
    int number = 1;
    for (char *line = text, *end; status == SYZ_OK && *line; line = end, number++) {
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
static syz_status read_special(special *out, const json_t *config, const char *key, const char *folder) {
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
    *out = (special){text, 0, -1, normalized};
    return SYZ_OK;
}

/* A newer configuration lists its added tokens by id, and their flags count there. */
static void read_flags(special *out, json_t *added) {
    const char *id;
    json_t *entry;
    json_object_foreach(added, id, entry) {
        const char *content = json_string_value(json_object_get(entry, "content"));
        if (content && strcmp(content, out->text) == 0)
            out->normalized = json_is_true(json_object_get(entry, "normalized"));
    }
}

/* A token that is looked for in normalised text must itself be normalised. */
static syz_status prepare(special *s) {
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
    for (int i = 0; i < SPECIALS; i++) {
        special *s = &tok->special[i];
        SYZ_TRY(read_special(s, config, keys[i], folder));
        if (!added) SYZ_TRY(read_special(s, map, keys[i], folder));
        if (!s->text && !(s->text = syz_strdup(i == BOS ? "<|startoftext|>" : "<|endoftext|>"))) return SYZ_ENOMEM;
        read_flags(s, added);
        if ((s->id = find_id(vocabulary, s->text)) < 0)
            return syz_fail(SYZ_EFORMAT, "%s/vocab.json lacks the %s \"%s\"", folder, keys[i], s->text);
        SYZ_TRY(prepare(s));
    }
    const json_t *length = json_object_get(config, "model_max_length");
    if (json_is_integer(length) && json_integer_value(length) > 0 && json_integer_value(length) <= MAX_ID)
        tok->max_length = json_integer_value(length);
    return SYZ_OK;
}

static syz_status read_specials(syz_tokenizer *tok, const json_t *vocabulary, const char *folder) {
    json_t *config = NULL, *map = NULL;
    syz_status status = read_object(&config, folder, "tokenizer_config.json", true);
    if (status == SYZ_OK) status = read_object(&map, folder, "special_tokens_map.json", true);
    if (status == SYZ_OK) status = resolve_specials(tok, config, map, vocabulary, folder);
    json_decref(config);
    json_decref(map);
    return status;
}

syz_status syz_tokenizer_open(syz_tokenizer **tokenizer, const char *folder) {
    *tokenizer = NULL;
    json_t *vocabulary;
    SYZ_TRY(read_object(&vocabulary, folder, "vocab.json", false));
    syz_tokenizer *tok = syz_alloc(1, sizeof *tok);
    syz_status status = tok ? read_vocabulary(tok, vocabulary, folder) : SYZ_ENOMEM;
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
    for (int i = 0; i < SPECIALS; i++)
        free(tok->special[i].text);
    syz_merges_free(&tok->merges);
    free(tok);
}

/* ---- encoding ---------------------------------------------------------------------------------------------------- */

typedef struct {
    const syz_tokenizer *tok;
    int64_t *ids;
    size_t capacity, count;
    bool stop_when_full; /* else go on counting */
    syz_bpe bpe;
    int32_t *piece; /* [piece_n] working space */
    size_t piece_n;
} encoder;

static void emit(encoder *e, int32_t id) {
    if (e->count < e->capacity) e->ids[e->count] = id;
    e->count++;
}

static bool full(const encoder *e) {
    return e->stop_when_full && e->count >= e->capacity;
}

static syz_status encode_piece(encoder *e, const char *text, size_t n) {
    if (n > e->piece_n) {
        free(e->piece);
        e->piece_n = n < 256 ? 256 : n;
        if (!(e->piece = syz_alloc(e->piece_n, sizeof *e->piece))) return SYZ_ENOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        int32_t id = e->tok->byte_id[i + 1 == n][(unsigned char)text[i]];
        e->piece[i] = id < 0 ? e->tok->special[UNK].id : id;
    }
    SYZ_TRY(syz_bpe_apply(&e->bpe, &e->tok->merges, e->piece, n, &n));
    for (size_t i = 0; i < n; i++)
        emit(e, e->piece[i]);
    return SYZ_OK;
}

static syz_status encode_pieces(encoder *e, const char *text, size_t n) {
    syz_text_scan scan = {.text = text, .n = n};
    while (!full(e) && syz_text_piece(&scan))
        SYZ_TRY(encode_piece(e, text + scan.start, scan.end - scan.start));
    return SYZ_OK;
}

/* The first special token from `*at` on, the longest where several start together; `*at` moves to it, or to n. */
static const special *find_special(const syz_tokenizer *tok, const char *text, size_t n, bool normalized, size_t *at) {
    const special *found = NULL;
    for (; *at < n && !found; *at += !found) {
        for (int i = 0; i < SPECIALS; i++) {
            const special *s = &tok->special[i];
            if (s->normalized == normalized && s->text[0] == text[*at] && s->n <= n - *at &&
                memcmp(s->text, text + *at, s->n) == 0 && (!found || s->n > found->n))
                found = s;
        }
    }
    return found;
}

static syz_status encode_raw(encoder *e, const char *text, size_t n);

/* Cuts the text at special tokens and encodes what lies between. */
static syz_status encode_around(encoder *e, const char *text, size_t n, bool normalized) {
    const special *found;
    for (size_t start = 0, at = 0; !full(e); start = at) {
        found = find_special(e->tok, text, n, normalized, &at);
        SYZ_TRY((normalized ? encode_pieces : encode_raw)(e, text + start, at - start));
        if (!found || full(e)) break;
        emit(e, found->id);
        at += found->n;
    }
    return SYZ_OK;
}

/* White space needs no normalising: pieces never contain it. */
static syz_status encode_raw(encoder *e, const char *text, size_t n) {
    char *normal;
    SYZ_TRY(syz_text_normalize(&normal, &n, text, n));
    syz_status status = encode_around(e, normal, n, true);
    free(normal);
    return status;
}

static syz_status encode(encoder *e, const char *text) {
    size_t n = strnlen(text, MAX_TEXT + 1);
    if (n > MAX_TEXT) return syz_fail(SYZ_EINVAL, "a text to tokenize is longer than %zu MiB", MAX_TEXT >> 20);
    syz_status status = encode_around(e, text, n, false);
    syz_bpe_free(&e->bpe);
    free(e->piece);
    return status;
}

syz_status syz_tokenizer_encode(const syz_tokenizer *tok, const char *text, int64_t *ids, size_t capacity,
                                size_t *count) {
    encoder e = {.tok = tok, .ids = ids, .capacity = capacity};
    syz_status status = encode(&e, text);
    *count = status == SYZ_OK ? e.count : 0;
    return status;
}

syz_status syz_tokenizer_encode_padded(const syz_tokenizer *tok, const char *text, int64_t pad, int64_t *ids,
                                       size_t length, size_t *used) {
    if (length < 2) return syz_fail(SYZ_EINVAL, "token length %zu leaves no room for the two end marks", length);
    if (pad >= tok->size)
        return syz_fail(SYZ_EINVAL, "padding id %lld is not below the vocabulary's size %d", (long long)pad, tok->size);
    encoder e = {.tok = tok, .ids = ids + 1, .capacity = length - 2, .stop_when_full = true};
    SYZ_TRY(encode(&e, text));
    size_t count = e.count < e.capacity ? e.count : e.capacity;
    ids[0] = tok->special[BOS].id;
    ids[count + 1] = tok->special[EOS].id;
    for (size_t i = count + 2; i < length; i++)
        ids[i] = pad < 0 ? tok->special[PAD].id : pad;
    if (used) *used = count + 2;
    return SYZ_OK;
}

/* ---- decoding and questions -------------------------------------------------------------------------------------- */

static bool is_special(const syz_tokenizer *tok, int64_t id) {
    for (int i = 0; i < SPECIALS; i++)
        if (tok->special[i].id == id) return true;
    return false;
}

/* Appends the bytes that a token spells, each "</w>" as one space. Room for strlen(token) bytes is enough. */
static size_t spell(char *out, const char *token) {
    size_t n = 0;
    while (*token) {
        unsigned char c = (unsigned char)*token;
        if (strncmp(token, "</w>", 5) == 0) {
            out[n++] = ' ';
            break;
        }
        int code = c < 0x80 ? c : (c & 0x1f) << 6 | (token[1] & 0x3f);
        int byte = c < 0x80 || (c >= 0xc0 && c < 0xe0) ? code_byte(code) : -1;
        out[n++] = (char)(byte < 0 ? c : byte);
        token += byte < 0 || c < 0x80 ? 1 : 2;
    }
    return n;
}

char *syz_tokenizer_decode(const syz_tokenizer *tok, const int64_t *ids, size_t count) {
    size_t room = 1, n = 0;
    for (size_t i = 0; i < count; i++) {
        const char *token = syz_tokenizer_token(tok, ids[i]);
        if (!token) return syz_fail_null(SYZ_EINVAL, "token id %lld is not in the vocabulary", (long long)ids[i]);
        room += strlen(token);
    }
    char *text = syz_alloc(room, 1);
    if (!text) return NULL;
    for (size_t i = 0; i < count; i++)
        if (!is_special(tok, ids[i])) n += spell(text + n, tok->token[ids[i]]);
    while (n > 0 && text[n - 1] == ' ')
        n--;
    text[n] = '\0';
    return text;
}

const char *syz_tokenizer_token(const syz_tokenizer *tok, int64_t id) {
    return id >= 0 && id < tok->size ? tok->token[id] : NULL;
}

int64_t syz_tokenizer_size(const syz_tokenizer *tok) {
    return tok->size;
}

int64_t syz_tokenizer_max_length(const syz_tokenizer *tok) {
    return tok->max_length;
}

syz_special_ids syz_tokenizer_specials(const syz_tokenizer *tok) {
    return (syz_special_ids){tok->special[BOS].id, tok->special[EOS].id, tok->special[PAD].id, tok->special[UNK].id};
}
