/* BERT's file: vocab.txt, one token a line. */
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "text/folder.h"

void syz_folder_wordpiece(syz_folder *folder) {
    syz_tokenizer *tok = folder->tok;
    uint32_t node = syz_trie_step(&tok->vocabulary, 0, '#');
    tok->continuing = node ? syz_trie_step(&tok->vocabulary, node, '#') : 0;
    tok->longest_word = 100;
}

static bool setting(const syz_folder *folder, const char *key, bool missing) {
    const json_t *value = json_object_get(folder->config, key);
    return json_is_boolean(value) ? json_is_true(value) : missing;
}

syz_status syz_read_vocabulary(syz_folder *folder) {
    syz_tokenizer *tok = folder->tok;
    char *text;
    size_t size;
    tok->kind = &syz_kind_wordpiece;
    tok->clean = true;
    tok->lower = setting(folder, "do_lower_case", true);
    tok->space_cjk = setting(folder, "tokenize_chinese_chars", true);
    tok->strip_accents = setting(folder, "strip_accents", tok->lower);
    SYZ_TRY(syz_folder_text(folder, "vocab.txt", &text, &size));
    syz_status status = SYZ_OK;
    for (size_t at = 0, end, n; at < size && status == SYZ_OK; at = end + 1) {
        const char *stop = memchr(text + at, '\n', size - at);
        end = stop ? (size_t)(stop - text) : size;
        n = end - at;
        if (n > 0 && text[at + n - 1] == '\r') n--;
        status = syz_folder_token(folder, tok->size, text + at, n, "vocab.txt");
    }
    free(text);
    if (status == SYZ_OK) status = syz_folder_index(folder);
    if (status == SYZ_OK) syz_folder_wordpiece(folder);
    return status;
}
