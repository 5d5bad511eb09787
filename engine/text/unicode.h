/* Unicode text as the tokenizers read it. */
#ifndef SYZ_TEXT_UNICODE_H
#define SYZ_TEXT_UNICODE_H

#include "syzygy.h"

/* Refuses what the normaliser must not be given: SYZ_EINVAL if the text is not UTF-8 or stacks more than 1024 combining
 * marks. Tells whether all of it is ASCII. */
syz_status syz_text_check(bool *ascii, const char *text, size_t n);

/* The lower case of a character in UTF-8, at most 4 bytes: i and a combining dot for dotted capital I. */
size_t syz_text_lower(uint8_t *to, int32_t c);

/* NFC and lower case of text[0..n), character by character as in transformers (no final-sigma rule). `*out` (NUL-ended)
 * belongs to the caller, free(). SYZ_EINVAL if the text is not UTF-8 or stacks more than 1024 combining marks. */
syz_status syz_text_normalize(char **out, size_t *out_n, const char *text, size_t n);

/* A walk over the pieces of normalised text: a run of letters, one digit, an English contraction such as 's, or a run
 * of anything else but white space. Begin with {.text, .n}; each call that returns true leaves a piece in
 * [start, end). */
typedef struct {
    const char *text;
    size_t n, start, end;
    size_t limit;             /* no piece crosses it: the end of a marker being read */
    const char *const *marks; /* two texts that are pieces of their own where one begins; NULL: none */
    int mark;                 /* which of them the piece is, 1 or 2; 0: neither */
} syz_text_scan;

bool syz_text_piece(syz_text_scan *scan);

#endif
