/* The files of tokenizers: what opens gives ids inside the vocabulary, and text back. The first byte of the input
 * chooses the file, the rest is its content; or a text for the bundled vocabularies. */
#include "fuzz/fuzz.h"

#include <string.h>

static const char *const names[] = {"spiece.model", "tokenizer.json", "vocab.txt", "merges.txt"};

static char folder[] = "/tmp/syzygy-fuzz-XXXXXX", path[64];

static void remove_folder(void) {
    unlink(path);
    rmdir(folder);
}

static void write_file(const uint8_t *data, size_t size) {
    if (!path[0]) {
        fuzz_check(mkdtemp(folder));
        atexit(remove_folder);
    }
    unlink(path);
    snprintf(path, sizeof path, "%s/%s", folder, names[size > 0 ? data[0] % 4 : 0]);
    FILE *file = fopen(path, "wb");
    fuzz_check(file);
    if (size > 1) fuzz_check(fwrite(data + 1, 1, size - 1, file) == size - 1);
    fuzz_check(fclose(file) == 0);
}

/* Encodes and decodes; what fails is the text's fault. */
static void read_text(const syz_tokenizer *tok, const char *text) {
    int64_t ids[256];
    size_t count;
    if (syz_tokenizer_encode_padded(tok, text, -1, ids, 256, &count) != SYZ_OK) {
        fuzz_check(syz_error_status() == SYZ_EINVAL);
        syz_error_clear();
        return;
    }
    for (size_t i = 0; i < 256; i++)
        fuzz_check(ids[i] >= 0 && ids[i] < syz_tokenizer_size(tok));
    char *back = syz_tokenizer_decode(tok, ids, count);
    fuzz_check(back);
    free(back);
}

static void read_bundled(const uint8_t *data, size_t size) {
    static syz_tokenizer *all[3];
    if (!all[0]) {
        fuzz_check(syz_tokenizer_open(&all[0], "lua/syz/vocabularies/clip") == SYZ_OK);
        fuzz_check(syz_tokenizer_open_as(&all[1], "lua/syz/vocabularies/clip", "open_clip") == SYZ_OK);
        fuzz_check(syz_tokenizer_open(&all[2], "lua/syz/vocabularies/bert") == SYZ_OK);
    }
    char *text = malloc(size + 1);
    fuzz_check(text);
    memcpy(text, data, size);
    text[size] = '\0';
    for (int i = 0; i < 3; i++)
        read_text(all[i], text);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char text[] = "AbA\xcc\x81 ab cat  \xe4\xb8\xad\r\n <extra_id_0>[CLS]</s>";
    syz_tokenizer *tok;
    if (size > 0 && data[0] == '4') {
        read_bundled(data + 1, size - 1);
        return 0;
    }
    write_file(data, size);
    (void)syz_tokenizer_open(&tok, folder);
    fuzz_check_outcome(tok);
    if (!tok) return 0;
    read_text(tok, text);
    syz_tokenizer_free(tok);
    return 0;
}
