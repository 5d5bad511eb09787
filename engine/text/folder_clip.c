/* CLIP's files: vocab.json and merges.txt; or the merges alone, from which the vocabulary follows. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/error.h"
#include "text/folder.h"

/* CLIP's own number of tokens. open_clip's file of merges goes on behind the last one that it uses. */
#define CLIP_MERGES 48894

static int write_code(char *to, int code) {
    int n = 0;
    if (code >= 0x80) to[n++] = (char)(0xc0 | code >> 6);
    to[n++] = (char)(code >= 0x80 ? 0x80 | (code & 0x3f) : code);
    to[n] = '\0';
    return n;
}

void syz_folder_bytes(syz_folder *folder) {
    for (int byte = 0; byte < 256; byte++) {
        char word[8];
        int n = write_code(word, syz_byte_to_code(byte));
        folder->tok->byte_id[0][byte] = syz_folder_find(folder, word);
        memcpy(word + n, "</w>", 5);
        folder->tok->byte_id[1][byte] = syz_folder_find(folder, word);
    }
}

syz_status syz_folder_merge(syz_folder *folder, const char *left, const char *right, int32_t rank, const char *where) {
    syz_merge merge = {syz_folder_find(folder, left), syz_folder_find(folder, right), rank, -1};
    if (merge.left < 0 || merge.right < 0)
        return syz_fail(SYZ_EFORMAT, "%s/%s: \"%.60s\" is not in the vocabulary", folder->path, where,
                        merge.left < 0 ? left : right);
    char *whole = syz_format("%s%s", left, right);
    if (!whole) return SYZ_ENOMEM;
    merge.id = syz_folder_find(folder, whole);
    if (merge.id >= 0)
        syz_merges_add(&folder->tok->merges, merge);
    else
        (void)syz_fail(SYZ_EFORMAT, "%s/%s: the merged token \"%.60s\" is not in the vocabulary", folder->path, where,
                       whole);
    free(whole);
    return merge.id < 0 ? SYZ_EFORMAT : SYZ_OK;
}

/* ---- merges.txt -------------------------------------------------------------------------------------------------- */

/* A walk over its lines, which it cuts up in place. */
typedef struct {
    char *next, *left, *right;
    int line;
} merge_scan;

/* The next line "left right"; *status tells a bad line from the end. */
static bool next_merge(merge_scan *scan, const syz_folder *folder, syz_status *status) {
    while (*scan->next) {
        char *line = scan->next, *gap;
        scan->next += strcspn(line, "\n");
        if (*scan->next) *scan->next++ = '\0';
        line[strcspn(line, "\r")] = '\0';
        scan->line++;
        if (!*line || strncmp(line, "#version", 8) == 0 || strncmp(line, "\"bpe_simple_vocab", 17) == 0) continue;
        gap = strchr(line, ' ');
        if (!gap || gap == line || !gap[1] || strchr(gap + 1, ' ')) {
            *status = syz_fail(SYZ_EFORMAT, "%s/merges.txt line %d: not two tokens with one space between",
                               folder->path, scan->line);
            return false;
        }
        *gap = '\0';
        scan->left = line;
        scan->right = gap + 1;
        return true;
    }
    return false;
}

static size_t count_lines(const char *text, size_t size) {
    size_t lines = 1;
    for (size_t i = 0; i < size; i++)
        lines += text[i] == '\n';
    return lines;
}

static syz_status add_merges(syz_folder *folder, char *text, size_t size, int32_t most) {
    syz_status status = syz_merges_init(&folder->tok->merges, count_lines(text, size));
    merge_scan scan = {.next = text};
    for (int32_t rank = 0; status == SYZ_OK && rank < most && next_merge(&scan, folder, &status); rank++) {
        char where[64];
        snprintf(where, sizeof where, "merges.txt line %d", scan.line);
        status = syz_folder_merge(folder, scan.left, scan.right, rank, where);
    }
    return status;
}

/* ---- the vocabulary ---------------------------------------------------------------------------------------------- */

static syz_status put(syz_folder *folder, const char *text) {
    return syz_folder_token(folder, folder->tok->size, text, strlen(text), "merges.txt");
}

/* 256 byte symbols, printable ones first, the same at a word's end, one token a merge, the two marks. */
static syz_status derive_vocabulary(syz_folder *folder, const char *text, size_t size) {
    for (int pass = 0; pass < 4; pass++)
        for (int byte = 0; byte < 256; byte++) {
            char word[8];
            int n = write_code(word, syz_byte_to_code(byte));
            if ((syz_byte_to_code(byte) >= 256) != pass % 2) continue;
            if (pass >= 2) memcpy(word + n, "</w>", 5);
            SYZ_TRY(put(folder, word));
        }
    char *copy = syz_alloc(size + 1, 1);
    if (!copy) return SYZ_ENOMEM;
    memcpy(copy, text, size);
    syz_status status = SYZ_OK;
    merge_scan scan = {.next = copy};
    for (int i = 0; i < CLIP_MERGES && status == SYZ_OK && next_merge(&scan, folder, &status); i++) {
        char *whole = syz_format("%s%s", scan.left, scan.right);
        status = whole ? put(folder, whole) : SYZ_ENOMEM;
        free(whole);
    }
    free(copy);
    if (status == SYZ_OK) status = put(folder, "<|startoftext|>");
    return status == SYZ_OK ? put(folder, "<|endoftext|>") : status;
}

static syz_status read_vocabulary(syz_folder *folder) {
    json_t *vocabulary, *id;
    const char *name;
    syz_status status = syz_folder_object(folder, "vocab.json", false, false, &vocabulary);
    json_object_foreach(vocabulary, name, id) {
        if (status == SYZ_OK)
            status = syz_folder_token(folder, json_is_integer(id) ? json_integer_value(id) : -1, name, strlen(name),
                                      "vocab.json");
    }
    json_decref(vocabulary);
    return status;
}

syz_status syz_read_clip(syz_folder *folder) {
    char *text;
    size_t size;
    bool listed = syz_folder_has(folder, "vocab.json");
    folder->tok->kind = &syz_kind_clip;
    SYZ_TRY(syz_folder_text(folder, "merges.txt", &text, &size));
    syz_status status = listed ? read_vocabulary(folder) : derive_vocabulary(folder, text, size);
    if (status == SYZ_OK) status = syz_folder_index(folder);
    if (status == SYZ_OK) {
        syz_folder_bytes(folder);
        status = add_merges(folder, text, size, listed ? INT32_MAX : CLIP_MERGES);
    }
    free(text);
    return status;
}
