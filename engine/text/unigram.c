/* T5's tokenizer: normalise, mark spaces, and find the most probable pieces of each word. */
#include "text/unigram.h"

#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/error.h"
#include "text/buffer.h"
#include "text/tokenizer.h"

#define MAX_WORD ((size_t)16 << 20)
#define MARK     "\xe2\x96\x81" /* U+2581, which stands for a space */
#define MARK_N   ((size_t)3)

void syz_unigram_free(syz_unigram *unigram) {
    free(unigram->score);
    syz_charsmap_free(&unigram->map);
    *unigram = (syz_unigram){0};
}

static syz_status normalize(const syz_tokenizer *tok, char **out, size_t *out_n, const char *text, size_t n) {
    *out = NULL;
    SYZ_TRY(syz_utf8_check(text, n));
    return syz_charsmap_apply(&tok->unigram.map, out, out_n, text, n);
}

/* ---- the best path ----------------------------------------------------------------------------------------------- */

struct syz_lattice_node {
    double score;
    int32_t start; /* where its last piece begins; -1: not reached yet */
    int32_t id;    /* of that piece; -1: an unknown character */
};

void syz_lattice_free(syz_lattice *lattice) {
    free(lattice->node);
    free(lattice->word);
    *lattice = (syz_lattice){0};
}

static syz_status reserve(syz_lattice *lattice, size_t n) {
    if (n <= lattice->room) return SYZ_OK;
    if (n > MAX_WORD) return syz_fail(SYZ_EINVAL, "a word of %zu bytes is too long to tokenize", n);
    n = n < 256 ? 256 : n + n / 2;
    free(lattice->node);
    lattice->room = 0;
    if (!(lattice->node = syz_alloc(n, sizeof *lattice->node))) return SYZ_ENOMEM;
    lattice->room = n;
    return SYZ_OK;
}

static void offer(struct syz_lattice_node *end, double score, size_t start, int32_t id) {
    if (end->start < 0 || score > end->score) *end = (struct syz_lattice_node){score, (int32_t)start, id};
}

/* node[i] becomes the best path to byte i of a word. */
static void search(const syz_tokenizer *tok, struct syz_lattice_node *node, const char *word, size_t n) {
    const syz_trie *trie = &tok->vocabulary;
    for (size_t i = 0; i <= n; i++)
        node[i].start = -1;
    node[0].score = 0;
    size_t size;
    for (size_t start = 0; start < n; start += size) {
        syz_utf8_next(&size, word, start, n);
        double score = node[start].score;
        bool covered = false;
        uint32_t at = 0;
        for (size_t end = start; end < n && (at = syz_trie_step(trie, at, (unsigned char)word[end]));) {
            int32_t id = trie->node[at].value;
            end++;
            if (id < 0) continue;
            offer(&node[end], tok->unigram.score[id] + score, start, id);
            if (end == start + size) covered = true;
        }
        if (!covered) offer(&node[start + size], tok->unigram.unknown + score, start, -1);
    }
}

/* The ids of a run of unknown characters: one for all, or one a byte where the vocabulary has every byte of them. */
static void emit_unknown(syz_encoder *e, const char *text, size_t n) {
    const syz_tokenizer *tok = e->tok;
    int32_t whole = syz_trie_find(&tok->vocabulary, text, n); /* together they may spell a token, such as <unk> */
    if (whole >= 0) {
        syz_encoder_emit(e, whole);
        return;
    }
    bool bytes = tok->unigram.byte_fallback;
    for (size_t i = 0; i < n && bytes; i++)
        bytes = tok->unigram.byte_id[(unsigned char)text[i]] >= 0;
    if (!bytes) syz_encoder_emit(e, tok->special[SYZ_UNK]);
    for (size_t i = 0; i < n && bytes; i++)
        syz_encoder_emit(e, tok->unigram.byte_id[(unsigned char)text[i]]);
}

static bool unknown(const syz_tokenizer *tok, const struct syz_lattice_node *node) {
    return node->id < 0 || node->id == tok->special[SYZ_UNK];
}

static syz_status encode_word(syz_encoder *e, const char *word, size_t n) {
    SYZ_TRY(reserve(&e->lattice, n + 1));
    struct syz_lattice_node *node = e->lattice.node;
    search(e->tok, node, word, n);
    /* Turn the links around: from the end back, each start learns where its piece ends. */
    for (int32_t end = (int32_t)n, start, next = -1; end >= 0; next = end, end = start) {
        start = node[end].start;
        node[end].start = next;
        if (end == 0) break;
    }
    for (int32_t start = 0, end; (end = node[start].start) >= 0 && !syz_encoder_full(e); start = end) {
        if (!unknown(e->tok, &node[end])) {
            syz_encoder_emit(e, node[end].id);
            continue;
        }
        while (node[end].start >= 0 && unknown(e->tok, &node[node[end].start]))
            end = node[end].start;
        emit_unknown(e, word + start, (size_t)(end - start));
    }
    return SYZ_OK;
}

/* ---- words ------------------------------------------------------------------------------------------------------- */

/* A word with a space mark in front, cut before each mark that the text itself has. */
static syz_status encode_marked(syz_encoder *e, const char *text, size_t n) {
    syz_buffer word = {e->lattice.word, 0, e->lattice.word_room, false};
    if (n < MARK_N || memcmp(text, MARK, MARK_N) != 0) syz_buffer_put(&word, MARK, MARK_N);
    syz_buffer_put(&word, text, n);
    e->lattice.word = word.text;
    e->lattice.word_room = word.room;
    if (word.failed) return SYZ_ENOMEM;
    for (size_t start = 0, end; start < word.n && !syz_encoder_full(e); start = end) {
        end = start + 1;
        while (end < word.n && (word.n - end < MARK_N || memcmp(word.text + end, MARK, MARK_N) != 0))
            end++;
        SYZ_TRY(encode_word(e, word.text + start, end - start));
    }
    return SYZ_OK;
}

static syz_status encode(syz_encoder *e, const char *text, size_t n) {
    for (size_t start = 0, end, size; start < n && !syz_encoder_full(e); start = end) {
        for (end = start; end < n && !syz_is_space(syz_utf8_next(&size, text, end, n)); end += size)
            ;
        if (end > start) SYZ_TRY(encode_marked(e, text + start, end - start));
        if (end < n) end += size;
    }
    return SYZ_OK;
}

/* Marks as spaces, but for that of the first token. */
static size_t spell(char *out, size_t n, const char *token) {
    for (bool begins = n == 0; *token;) {
        bool mark = strncmp(token, MARK, MARK_N) == 0;
        if (!mark)
            out[n++] = *token;
        else if (!begins)
            out[n++] = ' ';
        token += mark ? MARK_N : 1;
    }
    return n;
}

const syz_tokenizer_kind syz_kind_unigram = {normalize, encode, spell};
