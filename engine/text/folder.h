/* Opening a tokenizer's folder: what its readers share. */
#ifndef SYZ_TEXT_FOLDER_H
#define SYZ_TEXT_FOLDER_H

#include <jansson.h>

#include "text/tokenizer.h"

#define SYZ_TOKENIZER_MAX_FILE ((size_t)64 << 20)
#define SYZ_TOKENIZER_MAX_ID   (1 << 24)

typedef struct {
    syz_tokenizer *tok;
    const char *path;
    json_t *json, *config, *map, *added; /* tokenizer.json, tokenizer_config.json, special_tokens_map.json,
                                            added_tokens.json; NULL for a file that is missing */
} syz_folder;

/* ---- files ------------------------------------------------------------------------------------------------------- */

bool syz_folder_has(const syz_folder *folder, const char *name);
/* A text file, or the same with ".gz" behind its name; NUL-ended, free() it. */
syz_status syz_folder_text(const syz_folder *folder, const char *name, char **text, size_t *size);
/* A JSON object; `reals`: integers are read as reals, for numbers beyond every integer. NULL with SYZ_OK if the file is
 * missing and `optional`. json_decref() it. */
syz_status syz_folder_object(const syz_folder *folder, const char *name, bool optional, bool reals, json_t **object);

/* ---- vocabulary -------------------------------------------------------------------------------------------------- */

/* Token `id` is text[0..n); `name` is the file to blame. SYZ_EFORMAT if the id is taken, out of range, or the text
 * holds a NUL. */
syz_status syz_folder_token(syz_folder *folder, int64_t id, const char *text, size_t n, const char *name);
/* Closes the model's own vocabulary: from now on tokens are found by text. */
syz_status syz_folder_index(syz_folder *folder);
int32_t syz_folder_find(const syz_folder *folder, const char *text); /* -1 if there is no such token */

/* Lists a token that is found before anything else, or gives a listed one these flags. The text is copied.
 * SYZ_EFORMAT if the list is full. */
syz_status syz_folder_list(syz_folder *folder, syz_added added);

/* T5's normalisation map, from the file `name`. */
syz_status syz_folder_charsmap(syz_folder *folder, const uint8_t *blob, size_t size, const char *name);

/* ---- readers, one a format --------------------------------------------------------------------------------------- */

syz_status syz_read_clip(syz_folder *folder);       /* vocab.json, merges.txt */
syz_status syz_read_json(syz_folder *folder);       /* tokenizer.json */
syz_status syz_read_spiece(syz_folder *folder);     /* spiece.model */
syz_status syz_read_vocabulary(syz_folder *folder); /* vocab.txt */
/* The special and added tokens of the configuration, once the vocabulary is closed. */
syz_status syz_read_specials(syz_folder *folder);

/* One merge of two tokens whose texts are given; `where` is the place to blame. */
syz_status syz_folder_merge(syz_folder *folder, const char *left, const char *right, int32_t rank, const char *where);
/* Fills in what CLIP's kind derives from a closed vocabulary. */
void syz_folder_bytes(syz_folder *folder);
/* Closes T5's vocabulary and sets what its kind derives from it and the scores. */
syz_status syz_folder_unigram(syz_folder *folder);
/* Sets what BERT's kind derives from a closed vocabulary. */
void syz_folder_wordpiece(syz_folder *folder);

#endif
