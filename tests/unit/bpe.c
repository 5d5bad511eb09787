/* CLIP's tokenizer against the ids of transformers (tests/oracle/tokenizer.py), its special tokens, and bad folders. */
#include <jansson.h>
#include <sys/stat.h>
#include <zlib.h>

#include "core/alloc.h"
#include "core/error.h"
#include "io/file.h"
#include "unit/temporary.h"

#define DATA       "tests/text/data/"
#define BUNDLED    "lua/syz/vocabularies/clip"
#define ALL_MERGES 48894

static char merges_text[1 << 20];
static int64_t ids[1 << 20];
static char line[1 << 17];

/* ---- folders ----------------------------------------------------------------------------------------------------- */

static void put(const char *folder, const char *name, const char *text) {
    char path[64];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(syz_make_folders(temporary_path(folder)), SYZ_OK);
    temporary_file(path, text, strlen(text));
}

/* 256 byte symbols, the same with </w>, one entry a merge, the two marks: CLIP's own numbering. */
static void put_vocabulary(const char *folder, char *merges) {
    json_t *vocabulary = json_object();
    json_int_t next = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (int printed = 1; printed >= 0; printed--) {
            for (int byte = 0, other = 256; byte < 256; byte++) {
                bool prints = (byte > 32 && byte < 127) || (byte > 160 && byte != 173);
                int code = prints ? byte : other;
                other += !prints;
                if (prints != printed) continue;
                char symbol[8] = {0};
                if (code < 128)
                    symbol[0] = (char)code;
                else
                    symbol[0] = (char)(0xc0 | code >> 6), symbol[1] = (char)(0x80 | (code & 63));
                json_object_set_new(vocabulary, strcat(symbol, pass ? "</w>" : ""), json_integer(next++));
            }
        }
    }
    for (char *at = strchr(merges, '\n') + 1; *at; at = strchr(at, '\n') + 1) {
        char left[512], right[512];
        assert_int_equal(sscanf(at, "%255s %255s", left, right), 2);
        json_object_set_new(vocabulary, strcat(left, right), json_integer(next++));
    }
    json_object_set_new(vocabulary, "<|startoftext|>", json_integer(next++));
    json_object_set_new(vocabulary, "<|endoftext|>", json_integer(next++));
    char *text = json_dumps(vocabulary, 0);
    put(folder, "vocab.json", text);
    free(text);
    json_decref(vocabulary);
}

/* A folder with the first `count` merges. */
static const char *make_folder(const char *folder, int count) {
    char *end = strchr(merges_text, '\n') + 1;
    for (int i = 0; i < count; i++)
        end = strchr(end, '\n') + 1;
    char kept = *end;
    *end = '\0';
    put(folder, "merges.txt", merges_text);
    put_vocabulary(folder, merges_text);
    *end = kept;
    return temporary_path(folder);
}

static syz_tokenizer *open_folder(const char *folder) {
    syz_tokenizer *tok;
    if (syz_tokenizer_open(&tok, folder) != SYZ_OK) fail_msg("%s", syz_error_message());
    return tok;
}

static int setup(void **state) {
    if (temporary_setup(state) != 0) return -1;
    gzFile file = gzopen(BUNDLED "/merges.txt.gz", "rb");
    if (!file || gzread(file, merges_text, sizeof merges_text - 1) <= 0) return -1;
    gzclose(file);
    *state = open_folder(make_folder("clip", ALL_MERGES));
    return 0;
}

static int teardown(void **state) {
    syz_tokenizer_free(*state);
    return temporary_teardown(state);
}

/* ---- ids --------------------------------------------------------------------------------------------------------- */

static size_t encode(const syz_tokenizer *tok, const char *text) {
    size_t count;
    if (syz_tokenizer_encode(tok, text, ids, sizeof ids / sizeof *ids, &count) != SYZ_OK)
        fail_msg("\"%.60s\": %s", text, syz_error_message());
    return count;
}

static void expect(const syz_tokenizer *tok, const char *text, size_t count, const int64_t *expected) {
    assert_int_equal(encode(tok, text), count);
    for (size_t i = 0; i < count; i++)
        if (ids[i] != expected[i])
            fail_msg("\"%s\": token %zu is %lld, not %lld", text, i, (long long)ids[i], (long long)expected[i]);
}
#define EXPECT(tok, text, ...)                                                                                         \
    expect(tok, text, sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), (int64_t[]){__VA_ARGS__})

static json_t *next_row(FILE *file) {
    if (!fgets(line, sizeof line, file)) return NULL;
    json_t *row = json_loads(line, 0, NULL);
    assert_non_null(row);
    return row;
}

/* The readable sample, id by id, and its texts back. */
static void test_sample(void **state) {
    const syz_tokenizer *tok = *state;
    FILE *file = fopen(DATA "clip_tokens.jsonl", "r");
    assert_non_null(file);
    int rows = 0;
    for (json_t *row; (row = next_row(file)); json_decref(row), rows++) {
        const json_t *list = json_object_get(row, "ids");
        size_t n = json_array_size(list) - 2;
        int64_t expected[256];
        for (size_t i = 0; i < n; i++)
            expected[i] = json_integer_value(json_array_get(list, i + 1));
        expect(tok, json_string_value(json_object_get(row, "text")), n, expected);
    }
    fclose(file);
    assert_true(rows > 150);
}

/* "49406 ... 49407", as the sums were taken. */
static const char *ids_text(size_t count) {
    static char text[1 << 20];
    char *end = text + sprintf(text, "49406 ");
    for (size_t i = 0; i < count; i++)
        end += sprintf(end, "%lld ", (long long)ids[i]);
    strcpy(end, "49407");
    return text;
}

/* All 12,000 prompts, by checksum. */
static void test_prompts(void **state) {
    const syz_tokenizer *tok = *state;
    FILE *file = fopen(DATA "clip_prompts.jsonl", "r");
    assert_non_null(file);
    int rows = 0;
    for (json_t *row; (row = next_row(file)); json_decref(row), rows++) {
        const char *text = json_string_value(json_object_get(row, "text")), *found = ids_text(encode(tok, text));
        char sum[16];
        snprintf(sum, sizeof sum, "%08lx", crc32(0, (const Bytef *)found, (uInt)strlen(found)));
        if (strcmp(sum, json_string_value(json_object_get(row, "clip"))) != 0)
            fail_msg("line %d: \"%.80s\" gives %.200s", rows + 1, text, found);
    }
    fclose(file);
    assert_int_equal(rows, 12000);
}

/* The same as open_clip reads them. Two differ, by a reference that only HTML 5 names (&ic;) and by one that ftfy takes
 * for a text decoded wrongly. */
static void test_open_clip(void **state) {
    (void)state;
    syz_tokenizer *tok;
    assert_int_equal(syz_tokenizer_open_as(&tok, BUNDLED, "open_clip"), SYZ_OK);
    FILE *file = fopen(DATA "clip_prompts.jsonl", "r");
    assert_non_null(file);
    int rows = 0, different[3] = {0}, n = 0;
    for (json_t *row; (row = next_row(file)); json_decref(row)) {
        const char *text = json_string_value(json_object_get(row, "text")), *found = ids_text(encode(tok, text));
        const char *expected = json_string_value(json_object_get(row, "open_clip"));
        if (!expected) expected = json_string_value(json_object_get(row, "clip"));
        rows++;
        if (crc32(0, (const Bytef *)found, (uInt)strlen(found)) == strtoul(expected, NULL, 16)) continue;
        if (n == 2) fail_msg("line %d: \"%.80s\" gives %.200s", rows, text, found);
        different[n++] = rows;
    }
    fclose(file);
    assert_int_equal(rows, 12000);
    assert_int_equal(different[0], 4948);
    assert_int_equal(different[1], 11414);
    EXPECT(tok, "CAF&Eacute; &amp;amp; \u201cquotes\u201d", 15304, 261, 257, 5808, 257);
    EXPECT(tok, "a <end_of_text>", 320, 49407);
    EXPECT(tok, "\u039f\u0394\u039f\u03a3 &EACUTE;", 138, 123, 138, 112, 138, 123, 139, 480, 4166);
    syz_tokenizer_free(tok);
    (void)syz_tokenizer_open_as(&tok, BUNDLED, "laion");
    assert_failed(SYZ_EINVAL, "not as \"laion\"");
    assert_int_equal(syz_tokenizer_open_as(&tok, "lua/syz/vocabularies/bert", "open_clip"), SYZ_EFORMAT);
    assert_failed(SYZ_EFORMAT, "another tokenizer than CLIP's");
}

/* The merges alone give the whole vocabulary. */
static void test_bundled(void **state) {
    syz_tokenizer *tok = open_folder(BUNDLED);
    assert_int_equal(syz_tokenizer_max_length(tok), 77);
    assert_int_equal(syz_tokenizer_size(tok), syz_tokenizer_size(*state));
    for (int64_t id = 0; id < syz_tokenizer_size(tok); id++)
        assert_string_equal(syz_tokenizer_token(tok, id), syz_tokenizer_token(*state, id));
    EXPECT(tok, "a photo<|endoftext|>", 320, 1125, 49407);
    syz_tokenizer_free(tok);
}

static void test_padded(void **state) {
    const syz_tokenizer *tok = *state;
    int64_t row[8];
    size_t used;
    assert_int_equal(syz_tokenizer_encode_padded(tok, "a photo", -1, row, 8, &used), SYZ_OK);
    assert_int_equal(used, 4);
    assert_memory_equal(row, ((int64_t[]){49406, 320, 1125, 49407, 49407, 49407, 49407, 49407}), sizeof row);
    assert_int_equal(syz_tokenizer_encode_padded(tok, "a photo", 0, row, 8, NULL), SYZ_OK);
    assert_memory_equal(row, ((int64_t[]){49406, 320, 1125, 49407, 0, 0, 0, 0}), sizeof row);
    assert_int_equal(syz_tokenizer_encode_padded(tok, "a photo of a cat <|endoftext|>", -1, row, 5, &used), SYZ_OK);
    assert_int_equal(used, 5);
    assert_memory_equal(row, ((int64_t[]){49406, 320, 1125, 539, 49407}), 5 * sizeof *row);
    assert_int_equal(syz_tokenizer_encode_padded(tok, "", -1, row, 2, &used), SYZ_OK);
    assert_memory_equal(row, ((int64_t[]){49406, 49407}), 2 * sizeof *row);
    (void)syz_tokenizer_encode_padded(tok, "a", -1, row, 1, NULL);
    assert_failed(SYZ_EINVAL, "no room");
    (void)syz_tokenizer_encode_padded(tok, "a", 49408, row, 8, NULL);
    assert_failed(SYZ_EINVAL, "padding id 49408");
}

/* What does not fit is counted and not written. */
static void test_capacity(void **state) {
    int64_t row[3] = {-7, -7, -7};
    size_t count;
    assert_int_equal(syz_tokenizer_encode(*state, "a photo of a cat", row, 2, &count), SYZ_OK);
    assert_int_equal(count, 5);
    assert_memory_equal(row, ((int64_t[]){320, 1125, -7}), sizeof row);
}

static void test_questions(void **state) {
    const syz_tokenizer *tok = *state;
    assert_int_equal(syz_tokenizer_size(tok), 49408);
    assert_int_equal(syz_tokenizer_max_length(tok), 0);
    assert_string_equal(syz_tokenizer_token(tok, 2368), "cat</w>");
    assert_null(syz_tokenizer_token(tok, 49408));
    assert_null(syz_tokenizer_token(tok, -1));
    syz_special_ids special = syz_tokenizer_specials(tok);
    assert_int_equal(special.bos, 49406);
    assert_int_equal(special.eos, 49407);
    assert_int_equal(special.unk, 49407);
    assert_int_equal(special.pad, 49407);
}

static void test_decode(void **state) {
    const syz_tokenizer *tok = *state;
    size_t count = encode(tok, "<|startoftext|>A  caf\u00e9, it's \U0001f600 2024<|endoftext|>");
    char *text = syz_tokenizer_decode(tok, ids, count);
    assert_non_null(text);
    assert_string_equal(text, "a caf\u00e9 , it 's \U0001f600 2 0 2 4");
    free(text);
    text = syz_tokenizer_decode(tok, NULL, 0);
    assert_string_equal(text, "");
    free(text);
    assert_null(syz_tokenizer_decode(tok, (int64_t[]){49408}, 1));
    assert_failed(SYZ_EINVAL, "49408");
}

/* One word of a million letters ends in time only if merging is not quadratic. CLIP has "aaaa", so 250,000 tokens at
 * most; the ids of 10,000 letters are among the prompts above. */
static void test_long_word(void **state) {
    size_t n = 1000000;
    char *word = malloc(n + 1);
    assert_non_null(word);
    memset(word, 'a', n);
    word[n] = '\0';
    size_t count = encode(*state, word);
    assert_in_range(count, 1, n / 4);
    char *text = syz_tokenizer_decode(*state, ids, count);
    assert_string_equal(text, word);
    free(text);
    free(word);
}

static void test_bad_text(void **state) {
    size_t count;
    (void)syz_tokenizer_encode(*state, "a \xff b", ids, 8, &count);
    assert_failed(SYZ_EINVAL, "not UTF-8 (byte 0xff at offset 2)");
    (void)syz_tokenizer_encode(*state, "\xed\xa0\x80", ids, 8, &count); /* half of a surrogate pair */
    assert_failed(SYZ_EINVAL, "not UTF-8");
    char marks[2 * 1025 + 2] = "a";
    for (int i = 0; i < 1025; i++)
        memcpy(marks + 1 + 2 * i, "\u0301", 2);
    (void)syz_tokenizer_encode(*state, marks, ids, 8, &count);
    assert_failed(SYZ_EINVAL, "1024 combining marks");
    size_t n = ((size_t)16 << 20) + 1;
    char *text = malloc(n + 1);
    assert_non_null(text);
    memset(text, ' ', n);
    text[n] = '\0';
    (void)syz_tokenizer_encode(*state, text, ids, 8, &count);
    assert_failed(SYZ_EINVAL, "16 MiB");
    free(text);
}

/* ---- folders, cut and configured --------------------------------------------------------------------------------- */

/* With no merges a word is its bytes; with the first four, " th" "e</w>" appear. Numbers from CLIP's own order. */
static void test_cut(void **state) {
    (void)state;
    syz_tokenizer *tok = open_folder(make_folder("bytes", 0));
    assert_int_equal(syz_tokenizer_size(tok), 514);
    EXPECT(tok, "Cat", 'c' - 33, 'a' - 33, 't' - 33 + 256);
    syz_tokenizer_free(tok);
    tok = open_folder(make_folder("few", 12));
    size_t count = encode(tok, "the other inner thing");
    int64_t first = ids[0];
    assert_string_equal(syz_tokenizer_token(tok, first), "the</w>");
    char *text = syz_tokenizer_decode(tok, ids, count);
    assert_string_equal(text, "the other inner thing");
    free(text);
    syz_tokenizer_free(tok);
}

/* The embedded world's own tokenizer, with every caption of the generator's subjects. */
static void test_emoji(void **state) {
    (void)state;
    syz_tokenizer *tok = open_folder("examples/emoji/tokenizer");
    assert_int_equal(syz_tokenizer_size(tok), 4096);
    assert_int_equal(syz_tokenizer_max_length(tok), 16);
    FILE *file = fopen(DATA "emoji_tokens.jsonl", "r");
    assert_non_null(file);
    int rows = 0;
    for (json_t *row; (row = next_row(file)); json_decref(row), rows++) {
        const char *text = json_string_value(json_object_get(row, "text"));
        const json_t *list = json_object_get(row, "ids");
        size_t n = json_array_size(list), used;
        int64_t padded[16];
        assert_int_equal(syz_tokenizer_encode_padded(tok, text, -1, padded, 16, &used), SYZ_OK);
        assert_int_equal(used, n);
        for (size_t i = 0; i < 16; i++)
            if (padded[i] != (i < n ? json_integer_value(json_array_get(list, i)) : 4095))
                fail_msg("\"%s\": token %zu is %lld", text, i, (long long)padded[i]);
    }
    fclose(file);
    assert_int_equal(rows, 320 * 6);
    syz_tokenizer_free(tok);
}

#define AT(text, flag) "{\"content\":\"" text "\",\"normalized\":" flag "}"

/* Stable Diffusion 2 pads with "!", which then is special in the text too, and finds its marks in normalised text. The
 * ids are transformers'. */
static void test_special_map(void **state) {
    (void)state;
    make_folder("sd2", ALL_MERGES);
    put("sd2", "tokenizer_config.json", "{\"model_max_length\": 77, \"pad_token\": \"<|endoftext|>\"}");
    put("sd2", "special_tokens_map.json",
        "{\"bos_token\":" AT("<|startoftext|>", "true") ",\"eos_token\":" AT(
            "<|endoftext|>", "true") ",\"unk_token\":" AT("<|endoftext|>", "true") ",\"pad_token\":\"!\"}");
    syz_tokenizer *tok = open_folder(temporary_path("sd2"));
    assert_int_equal(syz_tokenizer_specials(tok).pad, 0);
    assert_int_equal(syz_tokenizer_max_length(tok), 77);
    int64_t row[8];
    assert_int_equal(syz_tokenizer_encode_padded(tok, "a!<|ENDOFTEXT|>", -1, row, 8, NULL), SYZ_OK);
    assert_memory_equal(row, ((int64_t[]){49406, 320, 0, 49407, 49407, 0, 0, 0}), sizeof row);
    syz_tokenizer_free(tok);
}

/* A newer configuration lists its added tokens and makes the map void; and the mark of a token named twice is the last
 * one's. A model_max_length that means "none" may exceed every integer. */
static void test_special_config(void **state) {
    (void)state;
    make_folder("new", ALL_MERGES);
    put("new", "tokenizer_config.json",
        "{\"model_max_length\": 1000000000000000019884624838656, \"pad_token\": \"!\", \"added_tokens_decoder\":"
        "{\"49407\": " AT("<|endoftext|>", "true") "}}");
    put("new", "special_tokens_map.json", "{\"pad_token\": \"<|endoftext|>\"}");
    syz_tokenizer *tok = open_folder(temporary_path("new"));
    assert_int_equal(syz_tokenizer_specials(tok).pad, 0);
    assert_int_equal(syz_tokenizer_max_length(tok), 0);
    EXPECT(tok, "a<|EndOfText|>", 320, 49407);
    syz_tokenizer_free(tok);
    put("new", "tokenizer_config.json",
        "{\"eos_token\": " AT("<|endoftext|>", "true") ", \"pad_token\": \"<|endoftext|>\"}");
    tok = open_folder(temporary_path("new"));
    EXPECT(tok, "a<|ENDOFTEXT|>", 320, 27, 347, 40786, 4160, 91, 285);
    EXPECT(tok, "a<|endoftext|>", 320, 49407);
    syz_tokenizer_free(tok);
}

static void refuse(const char *vocabulary, const char *merges, const char *config, syz_status status,
                   const char *text) {
    put("bad", "vocab.json", vocabulary);
    put("bad", "merges.txt", merges);
    put("bad", "tokenizer_config.json", config);
    syz_tokenizer *tok = NULL;
    assert_int_equal(syz_tokenizer_open(&tok, temporary_path("bad")), status);
    assert_null(tok);
    assert_failed(status, text);
}

#define MARKS ",\"<|startoftext|>\":8,\"<|endoftext|>\":9}"
#define SMALL "{\"a\":0,\"b\":1,\"ab\":2" MARKS

static void test_bad_folders(void **state) {
    (void)state;
    syz_tokenizer *tok;
    assert_int_equal(syz_tokenizer_open(&tok, temporary_path("nowhere")), SYZ_ENOTFOUND);
    assert_failed(SYZ_ENOTFOUND, "vocab.json");
    refuse("[]", "", "{}", SYZ_EFORMAT, "vocab.json must hold a JSON object");
    refuse("{\"a\":0,}", "", "{}", SYZ_EFORMAT, "vocab.json line 1");
    refuse("{\"a\":0,\"a\":1" MARKS, "", "{}", SYZ_EFORMAT, "duplicate");
    refuse("{\"a\":\"0\"" MARKS, "", "{}", SYZ_EFORMAT, "id of \"a\"");
    refuse("{\"a\":-1" MARKS, "", "{}", SYZ_EFORMAT, "id of \"a\"");
    refuse("{\"a\":4294967297" MARKS, "", "{}", SYZ_EFORMAT, "id of \"a\"");
    refuse("{\"a\":8" MARKS, "", "{}", SYZ_EFORMAT, "same id");
    refuse(SMALL, "#version: 0.2\na\n", "{}", SYZ_EFORMAT, "merges.txt line 2: not two tokens");
    refuse(SMALL, "a b c\n", "{}", SYZ_EFORMAT, "line 1: not two tokens");
    refuse(SMALL, "a b\na x\n", "{}", SYZ_EFORMAT, "line 2: \"x\" is not in the vocabulary");
    refuse(SMALL, "a b\nb a\n", "{}", SYZ_EFORMAT, "the merged token \"ba\"");
    refuse("{\"a\":0,\"<|startoftext|>\":1}", "", "{}", SYZ_EFORMAT, "lacks the eos_token");
    refuse(SMALL, "", "{\"pad_token\": \"<pad>\"}", SYZ_EFORMAT, "lacks the pad_token \"<pad>\"");
    refuse(SMALL, "", "{\"pad_token\": 3}", SYZ_EFORMAT, "pad_token is not a token's text");
    put("bad", "tokenizer_config.json", "{}");
    put("bad", "merges.txt", "#version: 0.2\r\na b\r\n");
    tok = open_folder(temporary_path("bad"));
    EXPECT(tok, "ab?", 0, 9, 9); /* no "b</w>" and no "?": unknown, and no merge */
    assert_int_equal(syz_tokenizer_size(tok), 10);
    assert_null(syz_tokenizer_token(tok, 5));
    syz_tokenizer_free(tok);
}

/* Fails the first, second, ... allocation of opening and encoding until all succeed. */
static void fail_each(const char *folder, const char *reading) {
    bool done = false;
    for (int64_t n = 0; !done; n++) {
        assert_true(n < 200);
        syz_tokenizer *tok;
        size_t count;
        syz_fault_set(n, false);
        done = syz_tokenizer_open_as(&tok, folder, reading) == SYZ_OK &&
               syz_tokenizer_encode(tok, "ab \u00e9\n&lt;\uff21", ids, 8, &count) == SYZ_OK;
        syz_fault_set(-1, false);
        assert_int_equal(syz_error_status(), done ? SYZ_OK : SYZ_ENOMEM);
        syz_error_clear();
        syz_tokenizer_free(tok);
    }
}

static void test_out_of_memory(void **state) {
    (void)state;
    put("bad", "vocab.json", SMALL);
    put("bad", "merges.txt", "a b\n");
    put("bad", "tokenizer_config.json", "{\"pad_token\": \"a\", \"eos_token\":" AT("<|endoftext|>", "true") "}");
    fail_each(temporary_path("bad"), NULL);
    fail_each(temporary_path("bad"), "open_clip");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open_clip),   cmocka_unit_test(test_bundled),
        cmocka_unit_test(test_sample),      cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_padded),      cmocka_unit_test(test_capacity),
        cmocka_unit_test(test_questions),   cmocka_unit_test(test_decode),
        cmocka_unit_test(test_long_word),   cmocka_unit_test(test_bad_text),
        cmocka_unit_test(test_cut),         cmocka_unit_test(test_emoji),
        cmocka_unit_test(test_special_map), cmocka_unit_test(test_special_config),
        cmocka_unit_test(test_bad_folders), cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
