/* T5's file: spiece.model, a sentencepiece ModelProto. Only the fields named here are read. */
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/error.h"
#include "text/folder.h"

#define FILE_NAME "spiece.model"

/* ---- protocol buffers -------------------------------------------------------------------------------------------- */

typedef struct {
    const uint8_t *at, *end;
    bool broken;
} message;

typedef struct {
    uint64_t number;      /* of the field */
    uint64_t value;       /* wire types 0 and 5 */
    const uint8_t *bytes; /* wire type 2: [size] */
    size_t size;
    int wire;
} field;

static uint64_t read_varint(message *m) {
    uint64_t value = 0;
    for (int shift = 0; shift < 64 && m->at < m->end; shift += 7) {
        uint8_t byte = *m->at++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) return value;
    }
    m->broken = true;
    return 0;
}

/* The next field, or false at the end and where the message is broken. */
static bool next_field(message *m, field *f) {
    if (m->at >= m->end || m->broken) return false;
    uint64_t key = read_varint(m);
    *f = (field){.number = key >> 3, .wire = (int)(key & 7)};
    size_t fixed = f->wire == 1 ? 8 : f->wire == 5 ? 4 : 0;
    if (f->wire == 0) {
        f->value = read_varint(m);
    } else if (f->wire == 2) {
        uint64_t size = read_varint(m);
        if (size > (uint64_t)(m->end - m->at)) m->broken = true;
        f->bytes = m->at;
        f->size = m->broken ? 0 : (size_t)size;
        m->at += f->size;
    } else if (fixed && fixed <= (size_t)(m->end - m->at)) {
        for (size_t i = 0; i < fixed; i++)
            f->value |= (uint64_t)m->at[i] << 8 * i;
        m->at += fixed;
    } else {
        m->broken = true;
    }
    return !m->broken;
}

static message inside(const field *f) {
    return (message){f->bytes, f->bytes + f->size, false};
}

static float as_float(const field *f) {
    uint32_t bits = (uint32_t)f->value;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* ---- the model --------------------------------------------------------------------------------------------------- */

enum { UNIGRAM = 1, CONTROL = 3, USER_DEFINED = 4 };

typedef struct {
    syz_folder *folder;
    size_t pieces;
    const uint8_t *charsmap;
    size_t charsmap_n;
    bool byte_fallback;
} reader;

static syz_status damaged(const syz_folder *folder) {
    return syz_fail(SYZ_EFORMAT, "%s/" FILE_NAME ": not a sentencepiece model, or damaged", folder->path);
}

static syz_status read_piece(reader *r, message m) {
    syz_tokenizer *tok = r->folder->tok;
    field f, text = {0};
    uint64_t type = 0;
    float score = 0;
    while (next_field(&m, &f)) {
        if (f.number == 1 && f.wire == 2) text = f;
        if (f.number == 2 && f.wire == 5) score = as_float(&f);
        if (f.number == 3) type = f.value;
    }
    if (m.broken || !(score > -1e30f && score < 1e30f)) return damaged(r->folder);
    int32_t id = tok->size;
    tok->unigram.score[id] = (double)score;
    SYZ_TRY(syz_folder_token(r->folder, id, text.bytes ? (const char *)text.bytes : "", text.size, FILE_NAME));
    if ((type != CONTROL && type != USER_DEFINED) || !*tok->token[id]) return SYZ_OK;
    return syz_folder_list(r->folder, (syz_added){.text = tok->token[id], .id = id, .special = type == CONTROL});
}

static syz_status read_trainer(reader *r, message m) {
    field f;
    uint64_t type = UNIGRAM;
    bool suffix = false;
    while (next_field(&m, &f)) {
        if (f.number == 3) type = f.value;
        if (f.number == 24) suffix = f.value != 0;
        if (f.number == 35) r->byte_fallback = f.value != 0;
    }
    if (m.broken) return damaged(r->folder);
    if (type != UNIGRAM || suffix)
        return syz_fail(SYZ_EFORMAT, "%s/" FILE_NAME ": %s, which T5's tokenizer is not", r->folder->path,
                        suffix ? "it puts the space mark behind words" : "its model_type is not UNIGRAM");
    return SYZ_OK;
}

static syz_status read_normalizer(reader *r, message m) {
    static const char *const flags[] = {"add_dummy_prefix", "remove_extra_whitespaces", "escape_whitespaces"};
    field f;
    while (next_field(&m, &f)) {
        if (f.number == 2 && f.wire == 2) {
            r->charsmap = f.bytes;
            r->charsmap_n = f.size;
        }
        if (f.number >= 3 && f.number <= 5 && f.value == 0)
            return syz_fail(SYZ_EFORMAT, "%s/" FILE_NAME ": its %s is false, which T5's tokenizer does not know",
                            r->folder->path, flags[f.number - 3]);
    }
    return m.broken ? damaged(r->folder) : SYZ_OK;
}

static syz_status read_model(reader *r, message m) {
    field f;
    syz_status status = SYZ_OK;
    while (status == SYZ_OK && next_field(&m, &f)) {
        if (f.wire != 2) continue;
        if (f.number == 1) status = read_piece(r, inside(&f));
        if (f.number == 2) status = read_trainer(r, inside(&f));
        if (f.number == 3) status = read_normalizer(r, inside(&f));
    }
    return status == SYZ_OK && m.broken ? damaged(r->folder) : status;
}

/* How many pieces there are, so that their scores have room; SYZ_EFORMAT for a broken file or one without any. */
static syz_status count_pieces(reader *r, message m) {
    field f;
    while (next_field(&m, &f))
        r->pieces += f.number == 1 && f.wire == 2;
    return m.broken || r->pieces == 0 || r->pieces > SYZ_TOKENIZER_MAX_ID ? damaged(r->folder) : SYZ_OK;
}

/* T5 has a hundred sentinels behind its pieces, the last one first. */
static syz_status add_sentinels(syz_folder *folder, int count) {
    for (int i = count - 1; i >= 0; i--) {
        char *text = syz_format("<extra_id_%d>", i);
        syz_status status =
            text ? syz_folder_token(folder, folder->tok->size, text, strlen(text), FILE_NAME) : SYZ_ENOMEM;
        free(text);
        SYZ_TRY(status);
    }
    return SYZ_OK;
}

static syz_status read_file(syz_folder *folder, const uint8_t *data, size_t size) {
    syz_unigram *unigram = &folder->tok->unigram;
    reader r = {.folder = folder};
    message m = {data, data + size, false};
    const json_t *extra = json_object_get(folder->config, "extra_ids");
    double sentinels = extra && !json_is_null(extra) ? json_number_value(extra) : 100;
    if (!(sentinels >= 0 && sentinels <= 100000 && sentinels == (int)sentinels))
        return syz_fail(SYZ_EFORMAT, "%s/tokenizer_config.json: extra_ids is not a number of tokens", folder->path);
    SYZ_TRY(count_pieces(&r, m));
    if (!(unigram->score = syz_alloc(r.pieces + (size_t)sentinels, sizeof *unigram->score))) return SYZ_ENOMEM;
    SYZ_TRY(read_model(&r, m));
    SYZ_TRY(add_sentinels(folder, (int)sentinels));
    SYZ_TRY(syz_folder_charsmap(folder, r.charsmap, r.charsmap_n, FILE_NAME));
    unigram->byte_fallback = r.byte_fallback;
    return syz_folder_unigram(folder);
}

syz_status syz_read_spiece(syz_folder *folder) {
    uint8_t *data;
    size_t size;
    folder->tok->kind = &syz_kind_unigram;
    char *path = syz_format("%s/" FILE_NAME, folder->path);
    syz_status status = path ? syz_file_read(&data, &size, path, SYZ_TOKENIZER_MAX_FILE) : SYZ_ENOMEM;
    free(path);
    if (status != SYZ_OK) return status;
    status = read_file(folder, data, size);
    free(data);
    return status;
}
