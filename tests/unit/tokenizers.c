/* T5's and BERT's tokenizers against the ids of transformers (tests/oracle/tokenizer_kinds.py). */
#include <jansson.h>
#include <zlib.h>

#include "core/alloc.h"
#include "core/error.h"
#include "unit/temporary.h"

#define DATA "tests/text/data/"

/* What the sums are called, the file of the folder, and a configuration beside it. */
typedef struct {
    const char *name, *file, *config;
} variant;

static const variant variants[] = {
    {"t5_nmt.model", "spiece.model", NULL},      {"t5_nmt.json", "tokenizer.json", NULL},
    {"t5_identity.model", "spiece.model", NULL}, {"t5_bytes.json", "tokenizer.json", NULL},
    {"bert_small.json", "tokenizer.json", NULL}, {"bert_added.json", "tokenizer.json", "bert_added.config"},
    {"bert_cased.txt", "vocab.txt", NULL},
};
enum { VARIANTS = sizeof variants / sizeof *variants };

static char unpacked[1 << 21];
static int64_t ids[1 << 20];
static char line[1 << 17];

static void put(const char *folder, const char *name, const void *data, size_t size) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(syz_make_folders(temporary_path(folder)), SYZ_OK);
    temporary_file(path, data, size);
}

static size_t unpack(const char *name) {
    char path[128];
    snprintf(path, sizeof path, DATA "%s.gz", name);
    gzFile file = gzopen(path, "rb");
    assert_non_null(file);
    int size = gzread(file, unpacked, sizeof unpacked);
    gzclose(file);
    assert_true(size > 0 && (size_t)size < sizeof unpacked);
    return (size_t)size;
}

static syz_tokenizer *open_folder(const char *folder) {
    syz_tokenizer *tok;
    if (syz_tokenizer_open(&tok, folder) != SYZ_OK) fail_msg("%s", syz_error_message());
    return tok;
}

static syz_tokenizer *open_variant(const variant *v) {
    put(v->name, v->file, unpacked, unpack(v->name));
    if (v->config) put(v->name, "tokenizer_config.json", unpacked, unpack(v->config));
    if (strcmp(v->name, "bert_cased.txt") == 0) put(v->name, "tokenizer_config.json", "{\"do_lower_case\": false}", 24);
    return open_folder(temporary_path(v->name));
}

static syz_tokenizer *open_bundled(void) {
    return open_folder("lua/syz/vocabularies/bert");
}

/* ---- ids --------------------------------------------------------------------------------------------------------- */

/* The complete ids of a text. */
static size_t encode(const syz_tokenizer *tok, const char *text) {
    size_t count, front = syz_tokenizer_specials(tok).bos >= 0;
    if (syz_tokenizer_encode(tok, text, ids + front, sizeof ids / sizeof *ids - 2, &count) != SYZ_OK)
        fail_msg("\"%.60s\": %s", text, syz_error_message());
    if (front) ids[0] = syz_tokenizer_specials(tok).bos;
    ids[front + count] = syz_tokenizer_specials(tok).eos;
    return front + count + 1;
}

#define EXPECT(tok, text, ...)                                                                                         \
    do {                                                                                                               \
        int64_t expected_[] = {__VA_ARGS__};                                                                           \
        assert_int_equal(encode(tok, text), sizeof expected_ / sizeof *expected_);                                     \
        assert_memory_equal(ids, expected_, sizeof expected_);                                                         \
    } while (0)

static json_t *next_row(FILE *file) {
    if (!fgets(line, sizeof line, file)) return NULL;
    json_t *row = json_loads(line, 0, NULL);
    assert_non_null(row);
    return row;
}

static unsigned long add_to_sum(unsigned long sum, size_t count) {
    static char text[1 << 21];
    char *end = text;
    for (size_t i = 0; i < count; i++)
        end += sprintf(end, "%lld%c", (long long)ids[i], i + 1 < count ? ' ' : '\n');
    return crc32(sum, (const Bytef *)text, (uInt)(end - text));
}

/* All 13,500 prompts, 50 to a sum. */
static void check_sums(const syz_tokenizer *tok, const char *name) {
    static const char *const files[] = {DATA "clip_prompts.jsonl", DATA "tokenizer_prompts.jsonl"};
    json_t *all = json_load_file(DATA "tokenizer_sums.json", 0, NULL);
    const char *sums = json_string_value(json_object_get(all, name));
    assert_non_null(sums);
    unsigned long sum = 0;
    int rows = 0;
    for (int i = 0; i < 2; i++) {
        FILE *file = fopen(files[i], "r");
        assert_non_null(file);
        for (json_t *row; (row = next_row(file)); json_decref(row)) {
            sum = add_to_sum(sum, encode(tok, json_string_value(json_object_get(row, "text"))));
            if (++rows % 50 != 0) continue;
            if (strtoul(sums, NULL, 16) != sum)
                fail_msg("%s: prompts %d to %d do not give the ids of transformers", name, rows - 49, rows);
            sums += sums[8] ? 9 : 8;
            sum = 0;
        }
        fclose(file);
    }
    assert_int_equal(rows, 13500);
    assert_int_equal(*sums, '\0');
    json_decref(all);
}

static void test_sums(void **state) {
    (void)state;
    for (int i = 0; i < VARIANTS; i++) {
        syz_tokenizer *tok = open_variant(&variants[i]);
        check_sums(tok, variants[i].name);
        syz_tokenizer_free(tok);
    }
    syz_tokenizer *tok = open_bundled();
    check_sums(tok, "bert");
    syz_tokenizer_free(tok);
}

static void check_sample(const syz_tokenizer *tok, const char *name) {
    FILE *file = fopen(DATA "tokenizer_sample.jsonl", "r");
    assert_non_null(file);
    int rows = 0;
    for (json_t *row; (row = next_row(file)); json_decref(row), rows++) {
        const json_t *list = json_object_get(row, name);
        const char *text = json_string_value(json_object_get(row, "text"));
        assert_int_equal(encode(tok, text), json_array_size(list));
        for (size_t i = 0; i < json_array_size(list); i++)
            if (ids[i] != json_integer_value(json_array_get(list, i)))
                fail_msg("\"%s\": token %zu is %lld", text, i, (long long)ids[i]);
    }
    fclose(file);
    assert_true(rows > 100);
}

/* The readable sample, id by id. */
static void test_sample(void **state) {
    (void)state;
    syz_tokenizer *tok = open_variant(&variants[0]);
    check_sample(tok, "t5_nmt.model");
    syz_tokenizer_free(tok);
    tok = open_bundled();
    check_sample(tok, "bert");
    syz_tokenizer_free(tok);
}

/* ---- each kind's own frame --------------------------------------------------------------------------------------- */

/* BERT: [CLS] ... [SEP] [PAD]; the ids are the published ones. */
static void test_bert(void **state) {
    (void)state;
    syz_tokenizer *tok = open_bundled();
    syz_special_ids special = syz_tokenizer_specials(tok);
    assert_int_equal(special.bos, 101);
    assert_int_equal(special.eos, 102);
    assert_int_equal(special.pad, 0);
    assert_int_equal(special.unk, 100);
    assert_int_equal(syz_tokenizer_size(tok), 30524);
    assert_int_equal(syz_tokenizer_max_length(tok), 512);
    assert_string_equal(syz_tokenizer_token(tok, 30523), "[ENC]");
    EXPECT(tok, "A Caf\u00c9, [ENC]", 101, 1037, 7668, 1010, 30523, 102);
    int64_t row[6];
    size_t used;
    assert_int_equal(syz_tokenizer_encode_padded(tok, "hello world", -1, row, 6, &used), SYZ_OK);
    assert_int_equal(used, 4);
    assert_memory_equal(row, ((int64_t[]){101, 7592, 2088, 102, 0, 0}), sizeof row);
    assert_int_equal(syz_tokenizer_encode_padded(tok, "hello world", -1, row, 3, &used), SYZ_OK);
    assert_memory_equal(row, ((int64_t[]){101, 7592, 102}), 3 * sizeof *row);
    (void)syz_tokenizer_encode_padded(tok, "a", -1, row, 1, NULL);
    assert_failed(SYZ_EINVAL, "no room for the end marks");
    char *text = syz_tokenizer_decode(tok, ids, encode(tok, "embeddings of a cat!"));
    assert_string_equal(text, "embeddings of a cat !");
    free(text);
    syz_tokenizer_free(tok);
}

/* T5: ... </s> <pad>, nothing in front. */
static void test_t5(void **state) {
    (void)state;
    syz_tokenizer *tok = open_variant(&variants[0]);
    syz_special_ids special = syz_tokenizer_specials(tok);
    assert_int_equal(special.bos, -1);
    assert_int_equal(special.eos, 1);
    assert_int_equal(special.pad, 0);
    assert_int_equal(special.unk, 2);
    assert_int_equal(syz_tokenizer_size(tok), 1600);
    assert_string_equal(syz_tokenizer_token(tok, 1599), "<extra_id_0>");
    int64_t row[40];
    size_t used;
    size_t count = encode(tok, "A photo of a cat, \uff12\uff10\uff12\uff14 <extra_id_0>");
    assert_int_equal(ids[count - 1], 1);
    assert_int_equal(ids[count - 2], 1599);
    assert_int_equal(syz_tokenizer_encode_padded(tok, "A photo of a cat, 2024<extra_id_0>", -1, row, 40, &used),
                     SYZ_OK);
    assert_int_equal(used, count);
    assert_memory_equal(row, ids, used * sizeof *row);
    assert_int_equal(row[used], 0);
    assert_int_equal(row[39], 0);
    assert_int_equal(syz_tokenizer_encode_padded(tok, "A photo", -1, row, 1, &used), SYZ_OK);
    assert_int_equal(used, 1);
    assert_int_equal(row[0], 1);
    (void)syz_tokenizer_encode_padded(tok, "a", -1, row, 0, NULL);
    assert_failed(SYZ_EINVAL, "no room for the end mark");
    char *text = syz_tokenizer_decode(tok, ids, count);
    assert_string_equal(text, "A photo of a cat, 2024");
    free(text);
    syz_tokenizer_free(tok);
}

/* A word of a million letters, and a million unknown ones, which are one token. */
static void test_long_words(void **state) {
    (void)state;
    size_t n = 999999;
    char *word = malloc(n + 1);
    assert_non_null(word);
    memset(word, 'a', n);
    word[n] = '\0';
    syz_tokenizer *tok = open_variant(&variants[0]);
    char *text = syz_tokenizer_decode(tok, ids, encode(tok, word));
    assert_string_equal(text, word);
    free(text);
    for (size_t i = 0; i < n; i += 3)
        memcpy(word + i, "\uabcd", 3);
    size_t count = encode(tok, word);
    assert_int_equal(count, 3);
    assert_int_equal(ids[1], 2);
    syz_tokenizer_free(tok);
    tok = open_bundled();
    EXPECT(tok, word, 101, 100, 102);
    syz_tokenizer_free(tok);
    free(word);
}

static void test_bad_text(void **state) {
    (void)state;
    syz_tokenizer *all[] = {open_variant(&variants[0]), open_bundled()};
    for (int i = 0; i < 2; i++) {
        size_t count;
        (void)syz_tokenizer_encode(all[i], "a \xff b", ids, 8, &count);
        assert_failed(SYZ_EINVAL, "not UTF-8 (byte 0xff at offset 2)");
        (void)syz_tokenizer_encode(all[i], "<pad>[PAD]\xf0", ids, 8, &count);
        assert_failed(SYZ_EINVAL, "not UTF-8");
        assert_null(syz_tokenizer_decode(all[i], (int64_t[]){1, 99999}, 2));
        assert_failed(SYZ_EINVAL, "99999");
        syz_tokenizer_free(all[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums), cmocka_unit_test(test_sample),     cmocka_unit_test(test_bert),
        cmocka_unit_test(test_t5),   cmocka_unit_test(test_long_words), cmocka_unit_test(test_bad_text),
    };
    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
