/* The folders of tokenizers: what each format may hold, what is refused and how, allocations that fail. */
#include <jansson.h>

#include "core/alloc.h"
#include "core/error.h"
#include "unit/temporary.h"

static int64_t ids[256];

/* ---- folders ----------------------------------------------------------------------------------------------------- */

static const char *empty_folder(void) {
    static int number;
    char name[32];
    snprintf(name, sizeof name, "folder%d", number++);
    assert_int_equal(syz_make_folders(temporary_path(name)), SYZ_OK);
    return temporary_path(name);
}

static void put(const char *folder, const char *name, const void *data, size_t size) {
    char path[1200];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    fclose(file);
}

static const char *folder_of(const char *name, const char *text) {
    const char *folder = empty_folder();
    put(folder, name, text, strlen(text));
    return folder;
}

static syz_tokenizer *open_folder(const char *folder) {
    syz_tokenizer *tok;
    if (syz_tokenizer_open(&tok, folder) != SYZ_OK) fail_msg("%s", syz_error_message());
    return tok;
}

static void refuse(const char *folder, syz_status status, const char *text) {
    syz_tokenizer *tok = NULL;
    assert_int_equal(syz_tokenizer_open(&tok, folder), status);
    assert_null(tok);
    assert_failed(status, text);
}

/* Opens, compares the ids of one text, and closes. */
#define EXPECT(folder, text, ...)                                                                                      \
    do {                                                                                                               \
        syz_tokenizer *tok_ = open_folder(folder);                                                                     \
        int64_t expected_[] = {__VA_ARGS__};                                                                           \
        size_t count_;                                                                                                 \
        assert_int_equal(syz_tokenizer_encode(tok_, text, ids, 256, &count_), SYZ_OK);                                 \
        assert_int_equal(count_, sizeof expected_ / sizeof *expected_);                                                \
        assert_memory_equal(ids, expected_, sizeof expected_);                                                         \
        syz_tokenizer_free(tok_);                                                                                      \
    } while (0)

/* ---- tokenizer.json ---------------------------------------------------------------------------------------------- */

#define METASPACE  "{\"type\":\"Metaspace\",\"replacement\":\"\u2581\",\"add_prefix_space\":true}"
#define UNIGRAM(p) "{\"model\":{\"type\":\"Unigram\",\"unk_id\":2,\"vocab\":" p "},\"pre_tokenizer\":" METASPACE "}"
#define UNIGRAM_N(n)                                                                                                   \
    "{\"normalizer\":" n ",\"model\":{\"type\":\"Unigram\",\"vocab\":" PIECES "},\"pre_tokenizer\":" METASPACE "}"
#define PIECES                                                                                                         \
    "[[\"<pad>\",0],[\"</s>\",0],[\"<unk>\",0],[\"\u2581\",-2.5],[\"\u2581a\",-3],[\"b\",-4],[\"<extra_id_0>\",0]]"

static void test_json_unigram(void **state) {
    (void)state;
    EXPECT(folder_of("tokenizer.json", UNIGRAM(PIECES)), " ab  a\u00e9b<extra_id_0>b", 4, 5, 4, 2, 5, 6, 3, 5);
    EXPECT(
        folder_of("tokenizer.json", UNIGRAM_N("{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Strip\"},{\"type\":"
                                              "\"Replace\",\"pattern\":{\"Regex\":\" {2,}\"},\"content\":\" \"}]}")),
        "ab ", 4, 5);
    EXPECT(folder_of("tokenizer.json", "{\"model\":{\"unk_id\":2,\"vocab\":" PIECES
                                       "},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":"
                                       "\"WhitespaceSplit\"},{\"type\":\"Metaspace\",\"prepend_scheme\":\"first\"}]}}"),
           "a a", 4, 4);
    refuse(folder_of("tokenizer.json", "{}"), SYZ_EFORMAT, "tokenizer.json: the model \"\"");
    refuse(folder_of("tokenizer.json", "[]"), SYZ_EFORMAT, "must hold a JSON object");
    refuse(folder_of("tokenizer.json", "{\"model\":{\"type\":\"WordLevel\"}}"), SYZ_EFORMAT, "the model \"WordLevel\"");
    refuse(folder_of("tokenizer.json", UNIGRAM("[]")), SYZ_EFORMAT, "model.vocab is not a list of [text, score]");
    refuse(folder_of("tokenizer.json", UNIGRAM("[[\"a\"]]")), SYZ_EFORMAT, "model.vocab is not a list");
    refuse(folder_of("tokenizer.json", UNIGRAM("[[\"a\",0]]")), SYZ_EFORMAT, "lacks the eos_token \"</s>\"");
    refuse(folder_of("tokenizer.json", UNIGRAM_N("{\"type\":\"Lowercase\"}")), SYZ_EFORMAT, "normalizer \"Lowercase\"");
    refuse(folder_of("tokenizer.json", UNIGRAM_N("{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"%%\"}")),
           SYZ_EFORMAT, "not base64");
    refuse(folder_of("tokenizer.json", UNIGRAM_N("{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"////fw==\"}")),
           SYZ_EFORMAT, "precompiled_charsmap of 4 bytes");
    refuse(folder_of("tokenizer.json", "{\"model\":{\"type\":\"Unigram\",\"vocab\":" PIECES "}}"), SYZ_EFORMAT,
           "without a pre_tokenizer");
    refuse(folder_of("tokenizer.json", "{\"model\":{\"type\":\"Unigram\",\"vocab\":" PIECES
                                       "},\"pre_tokenizer\":{\"type\":\"Metaspace\",\"prepend_scheme\":\"never\"}}"),
           SYZ_EFORMAT, "without a mark before the first word");
    refuse(folder_of("tokenizer.json", "{\"model\":{\"type\":\"Unigram\",\"vocab\":" PIECES
                                       "},\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\"}}"),
           SYZ_EFORMAT, "another mark than U+2581");
}

#define BERT(normalizer, vocabulary)                                                                                   \
    "{\"normalizer\":" normalizer ",\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},\"model\":{"                     \
    "\"max_input_chars_per_word\":4,\"vocab\":" vocabulary "}}"
#define WORDS "{\"[PAD]\":0,\"[UNK]\":1,\"[CLS]\":2,\"[SEP]\":3,\"e\":4,\"##e\":5,\"E\":6}"

static void test_json_wordpiece(void **state) {
    (void)state;
    EXPECT(folder_of("tokenizer.json", BERT("{\"type\":\"BertNormalizer\"}", WORDS)), "E \u00e9e eeee eeeee", 4, 4, 5,
           4, 5, 5, 5, 1);
    EXPECT(folder_of("tokenizer.json", BERT("{\"type\":\"BertNormalizer\",\"lowercase\":false}", WORDS)), "Ee \u00e9",
           6, 5, 1);
    refuse(folder_of("tokenizer.json", BERT("{\"type\":\"NFC\"}", WORDS)), SYZ_EFORMAT, "the normalizer \"NFC\"");
    refuse(folder_of("tokenizer.json", BERT("{\"type\":\"BertNormalizer\"}", "{}")), SYZ_EFORMAT, "model.vocab");
    refuse(folder_of("tokenizer.json", BERT("{\"type\":\"BertNormalizer\"}", "{\"a\":0.5}")), SYZ_EFORMAT,
           "id of \"a\"");
    refuse(folder_of("tokenizer.json",
                     "{\"normalizer\":{\"type\":\"BertNormalizer\"},\"model\":{\"type\":\"WordPiece\"}}"),
           SYZ_EFORMAT, "the pre_tokenizer \"\"");
}

#define BPE(merges)                                                                                                    \
    "{\"model\":{\"type\":\"BPE\",\"end_of_word_suffix\":\"</w>\",\"vocab\":{\"a\":0,\"b</w>\":1,\"ab</w>\":2,"        \
    "\"<|startoftext|>\":3,\"<|endoftext|>\":4},\"merges\":" merges "}}"

/* As transformers writes CLIP's since version 5, and as it did before. */
static void test_json_bpe(void **state) {
    (void)state;
    EXPECT(folder_of("tokenizer.json", BPE("[[\"a\",\"b</w>\"]]")), "AB aab", 2, 0, 2);
    EXPECT(folder_of("tokenizer.json", BPE("[\"a b</w>\"]")), "AB aab", 2, 0, 2);
    refuse(folder_of("tokenizer.json", BPE("[\"ab\"]")), SYZ_EFORMAT, "model.merges is not a list of pairs");
    refuse(folder_of("tokenizer.json", BPE("{}")), SYZ_EFORMAT, "model.merges is not a list of pairs");
    refuse(folder_of("tokenizer.json", BPE("[\"a x\"]")), SYZ_EFORMAT, "merge 0: \"x\" is not in the vocabulary");
    refuse(folder_of("tokenizer.json", "{\"model\":{\"type\":\"BPE\"}}"), SYZ_EFORMAT, "is not CLIP's");
}

/* ---- configurations ---------------------------------------------------------------------------------------------- */

static const char *bert_with(const char *name, const char *text) {
    const char *folder = folder_of("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\ncat\r\ndog");
    put(folder, name, text, strlen(text));
    return folder;
}

static void test_added(void **state) {
    (void)state;
    EXPECT(bert_with("added_tokens.json", "{\"Dogs\": 9}"), "cat dogs dog", 4, 9, 5);
    EXPECT(bert_with("tokenizer_config.json", "{\"bos_token\":\"[DEC]\",\"additional_special_tokens\":[\"[ENC]\"]}"),
           "[DEC]cat[ENC]", 6, 4, 7);
    EXPECT(bert_with("special_tokens_map.json", "{\"cls_token\":\"[CLS]\",\"extra_special_tokens\":[\"cat\"]}"),
           "catcat", 4, 4);
    EXPECT(
        bert_with("tokenizer_config.json", "{\"added_tokens_decoder\":{\"8\":{\"content\":\"<x>\",\"lstrip\":true}}}"),
        "dog  <x>dog", 5, 8, 5);
    refuse(bert_with("tokenizer_config.json", "{\"added_tokens_decoder\":[]}"), SYZ_EFORMAT,
           "added_tokens_decoder is not a list of tokens with ids");
    refuse(bert_with("tokenizer_config.json", "{\"added_tokens_decoder\":{\"x\":{\"content\":\"<x>\"}}}"), SYZ_EFORMAT,
           "added_tokens_decoder");
    refuse(bert_with("tokenizer_config.json", "{\"added_tokens_decoder\":{\"4\":{\"content\":\"<x>\"}}}"), SYZ_EFORMAT,
           "\"cat\" and \"<x>\" have the same id");
    refuse(bert_with("added_tokens.json", "{\"a\":\"b\"}"), SYZ_EFORMAT, "added_tokens.json");
    refuse(bert_with("tokenizer_config.json", "{\"additional_special_tokens\":[1]}"), SYZ_EFORMAT,
           "additional_special_tokens is not a list of texts");
    refuse(bert_with("tokenizer_config.json", "{\"sep_token\":\"[END]\"}"), SYZ_EFORMAT,
           "lacks the sep_token \"[END]\"");
}

static void test_too_many_added(void **state) {
    (void)state;
    static char text[1 << 19];
    char *end = text + sprintf(text, "{\"additional_special_tokens\":[\"a\"");
    for (int i = 0; i < 16384; i++)
        end += sprintf(end, ",\"<%d>\"", i);
    strcpy(end, "]}");
    refuse(bert_with("tokenizer_config.json", text), SYZ_EFORMAT, "more than 16384 special and added tokens");
}

static void test_which(void **state) {
    (void)state;
    refuse(empty_folder(), SYZ_ENOTFOUND, "holds no tokenizer: vocab.json with merges.txt (CLIP), tokenizer.json");
    refuse(folder_of("vocab.json", "{}"), SYZ_ENOTFOUND, "merges.txt");
    refuse(folder_of("vocab.txt", "a\nb\n"), SYZ_EFORMAT, "lacks the cls_token \"[CLS]\"");
    refuse(folder_of("vocab.txt.gz", "[PAD]\n"), SYZ_EFORMAT, "not a gzip file");
    uint8_t *packed;
    size_t size;
    assert_int_equal(syz_file_read(&packed, &size, "lua/syz/vocabularies/bert/vocab.txt.gz", 1 << 20), SYZ_OK);
    const char *folder = empty_folder();
    put(folder, "vocab.txt.gz", packed, size / 2);
    refuse(folder, SYZ_EFORMAT, "vocab.txt.gz ends too early");
    free(packed);
}

/* ---- spiece.model ------------------------------------------------------------------------------------------------ */

typedef struct {
    uint8_t bytes[16384];
    size_t n;
} proto;

static void add_bytes(proto *p, int number, const void *data, size_t size) {
    p->bytes[p->n++] = (uint8_t)(number << 3 | 2);
    p->bytes[p->n++] = (uint8_t)(size & 0x7f) | 0x80;
    p->bytes[p->n++] = (uint8_t)(size >> 7);
    memcpy(p->bytes + p->n, data, size);
    p->n += size;
}

static void add_number(proto *p, int number, int value) {
    p->bytes[p->n++] = (uint8_t)((number << 3 & 0x7f) | (number >= 16 ? 0x80 : 0));
    if (number >= 16) p->bytes[p->n++] = (uint8_t)(number >> 4);
    p->bytes[p->n++] = (uint8_t)value;
}

static void add_piece(proto *p, const char *text, float score, int type) {
    proto piece = {.n = 0};
    add_bytes(&piece, 1, text, strlen(text));
    piece.bytes[piece.n++] = 2 << 3 | 5;
    memcpy(piece.bytes + piece.n, &score, 4);
    piece.n += 4;
    add_number(&piece, 3, type);
    add_bytes(p, 1, piece.bytes, piece.n);
}

/* A map that makes "A" to "a" and nothing else: units 0, 256 ^ 'A' and the value below it. */
static size_t make_charsmap(uint8_t *blob) {
    enum { UNITS = 840 };
    uint32_t size = UNITS * 4, root = 256 << 10, letter = 512u << 10 | 1 << 8 | 'A', value = 1u << 31 | 0;
    memset(blob, 0, 4 + UNITS * 4);
    memcpy(blob, &size, 4);
    memcpy(blob + 4, &root, 4);
    memcpy(blob + 4 + 4 * (256 ^ 'A'), &letter, 4);
    memcpy(blob + 4 + 4 * ((256 ^ 'A') ^ 512), &value, 4);
    memcpy(blob + 4 + UNITS * 4, "a", 2);
    return 4 + UNITS * 4 + 2;
}

static proto small_model(void) {
    static uint8_t blob[4096];
    proto p = {.n = 0}, normalizer = {.n = 0}, trainer = {.n = 0};
    add_piece(&p, "<pad>", 0, 3);
    add_piece(&p, "</s>", 0, 3);
    add_piece(&p, "<unk>", 0, 2);
    add_piece(&p, "\u2581a", -3, 1);
    add_piece(&p, "b", -4, 1);
    add_piece(&p, "ab", -1, 4);
    add_number(&trainer, 3, 1);
    add_bytes(&p, 2, trainer.bytes, trainer.n);
    add_bytes(&normalizer, 2, blob, make_charsmap(blob));
    add_number(&normalizer, 3, 1);
    add_bytes(&p, 3, normalizer.bytes, normalizer.n);
    return p;
}

static const char *spiece(const proto *p) {
    const char *folder = empty_folder();
    put(folder, "spiece.model", p->bytes, p->n);
    return folder;
}

static const char *with_flag(int message, int number, int value) {
    proto p = small_model(), inner = {.n = 0};
    add_number(&inner, number, value);
    add_bytes(&p, message, inner.bytes, inner.n);
    return spiece(&p);
}

static void test_spiece(void **state) {
    (void)state;
    proto p = small_model();
    EXPECT(spiece(&p), "Ab B ab </s><extra_id_99>b", 3, 4, 2, 5, 1, 6, 2, 4);
    const char *folder = spiece(&p);
    put(folder, "tokenizer_config.json", "{\"extra_ids\": 3}", 16);
    syz_tokenizer *tok = open_folder(folder);
    assert_int_equal(syz_tokenizer_size(tok), 9);
    syz_tokenizer_free(tok);
    put(folder, "tokenizer_config.json", "{\"extra_ids\": -1}", 17);
    refuse(folder, SYZ_EFORMAT, "extra_ids is not a number of tokens");
    for (size_t n = 0; n < p.n; n += n < 150 ? 1 : 97) { /* cut anywhere, it lacks a token or is damaged */
        proto cut = {.n = n};
        memcpy(cut.bytes, p.bytes, n);
        tok = NULL;
        if (syz_tokenizer_open(&tok, spiece(&cut)) != SYZ_OK) assert_int_equal(syz_error_status(), SYZ_EFORMAT);
        syz_error_clear();
        syz_tokenizer_free(tok);
    }
    refuse(folder_of("spiece.model", ""), SYZ_EFORMAT, "spiece.model: not a sentencepiece model");
    refuse(folder_of("spiece.model", "version https://git-lfs"), SYZ_EFORMAT, "not a sentencepiece model");
    refuse(with_flag(2, 3, 2), SYZ_EFORMAT, "its model_type is not UNIGRAM");
    refuse(with_flag(2, 24, 1), SYZ_EFORMAT, "space mark behind words");
    refuse(with_flag(3, 3, 0), SYZ_EFORMAT, "its add_dummy_prefix is false");
    refuse(with_flag(3, 5, 0), SYZ_EFORMAT, "its escape_whitespaces is false");
}

/* Offsets that leave the map are no matches; nor are those to the middle of a string's character. */
static void test_bad_charsmap(void **state) {
    (void)state;
    static const size_t units[] = {0, 256 ^ 'A', (256 ^ 'A') ^ 512};
    static const uint32_t values[] = {UINT32_MAX, 0x7ffffe00u | 'A', 0x80000002u, 0x7ffffd00u | 'A'};
    uint8_t blob[4096];
    size_t n = make_charsmap(blob), count;
    for (int i = 0; i < 12; i++) {
        proto p = small_model(), normalizer = {.n = 0};
        memcpy(blob + 4 + 4 * units[i / 4], &values[i % 4], 4);
        add_bytes(&normalizer, 2, blob, n);
        add_bytes(&p, 3, normalizer.bytes, normalizer.n);
        make_charsmap(blob);
        syz_tokenizer *tok = open_folder(spiece(&p));
        assert_int_equal(syz_tokenizer_encode(tok, "AbA\u0301", ids, 256, &count), SYZ_OK);
        assert_in_range(count, 2, 3); /* "A" stays, which no piece begins with */
        syz_tokenizer_free(tok);
    }
}

/* ---- allocations ------------------------------------------------------------------------------------------------- */

/* Fails the first, second, ... allocation of opening and encoding until all succeed. */
static void fail_each(const char *folder) {
    bool done = false;
    for (int64_t n = 0; !done; n++) {
        assert_true(n < 2000);
        syz_tokenizer *tok;
        size_t count;
        syz_fault_set(n, false);
        done = syz_tokenizer_open(&tok, folder) == SYZ_OK &&
               syz_tokenizer_encode(tok, "ab \u00e9 [CLS]b", ids, 8, &count) == SYZ_OK;
        syz_fault_set(-1, false);
        assert_int_equal(syz_error_status(), done ? SYZ_OK : SYZ_ENOMEM);
        syz_error_clear();
        syz_tokenizer_free(tok);
    }
}

static void test_out_of_memory(void **state) {
    (void)state;
    proto p = small_model();
    const char *folder = spiece(&p);
    put(folder, "tokenizer_config.json", "{\"extra_ids\": 2}", 16);
    fail_each(folder);
    fail_each(folder_of("tokenizer.json", UNIGRAM(PIECES)));
    fail_each(folder_of("tokenizer.json", BERT("{\"type\":\"BertNormalizer\"}", WORDS)));
    fail_each(folder_of("tokenizer.json", BPE("[[\"a\",\"b</w>\"]]")));
    fail_each(folder_of("merges.txt", "a b\n"));
    fail_each(bert_with("tokenizer_config.json", "{\"bos_token\":{\"content\":\"[DEC]\",\"normalized\":true}}"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_unigram),   cmocka_unit_test(test_json_wordpiece),
        cmocka_unit_test(test_json_bpe),       cmocka_unit_test(test_added),
        cmocka_unit_test(test_too_many_added), cmocka_unit_test(test_which),
        cmocka_unit_test(test_spiece),         cmocka_unit_test(test_bad_charsmap),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
