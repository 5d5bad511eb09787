/* WebDataset shards against archives that Python's tarfile wrote (tests/fuzz/seeds.py), and what is refused. */
#include "io/file.h"
#include "unit/temporary.h"

#define CORPUS "tests/fuzz/corpus/webdataset/"

static void check_file(const syz_sample_file *file, const char *extension, const char *data) {
    assert_string_equal(file->extension, extension);
    assert_int_equal(file->size, strlen(data));
    assert_memory_equal(file->data, data, file->size);
}

static void test_ustar(void **state) {
    (void)state;
    syz_webdataset *shard = syz_webdataset_open(CORPUS "ustar.tar");
    assert_non_null(shard);
    assert_int_equal(syz_webdataset_count(shard), 2);
    syz_sample first = syz_webdataset_sample(shard, 0), second = syz_webdataset_sample(shard, 1);
    assert_string_equal(first.key, "a/0001");
    assert_int_equal(first.count, 2);
    check_file(&first.files[0], "png", "image one");
    check_file(&first.files[1], "json", "{}");
    assert_string_equal(second.key, "a/0002");
    check_file(&second.files[0], "png", "");
    assert_string_equal(second.files[1].extension, "seg.png");
    assert_int_equal(second.files[1].size, 600);
    assert_null(syz_webdataset_sample(shard, 2).key);
    assert_null(syz_webdataset_sample(shard, -1).key);
    syz_webdataset_close(shard);
}

static void test_long_names(void **state) {
    (void)state;
    static const struct {
        const char *path;
        int count;
    } cases[] = {{CORPUS "gnu.tar", 2}, {CORPUS "pax.tar", 3}};
    for (int i = 0; i < 2; i++) {
        syz_webdataset *shard = syz_webdataset_open(cases[i].path);
        assert_non_null(shard);
        assert_int_equal(syz_webdataset_count(shard), cases[i].count);
        syz_sample sample = syz_webdataset_sample(shard, 0);
        assert_int_equal(strlen(sample.key), 7 + 150);
        check_file(&sample.files[0], "txt", "long name");
        sample = syz_webdataset_sample(shard, 1);
        assert_string_equal(sample.key, "z"); /* the long name was for one member only */
        check_file(&sample.files[0], "txt", "end");
        if (i == 1) assert_string_equal(syz_webdataset_sample(shard, 2).key, "\xc3\xa9");
        syz_webdataset_close(shard);
    }
}

/* ---- archives by hand ---- */

static struct {
    uint8_t bytes[1 << 16];
    size_t size;
} tar;

static void seal(uint8_t *header) {
    unsigned sum = 0;
    memset(header + 148, ' ', 8);
    for (int i = 0; i < 512; i++)
        sum += header[i];
    snprintf((char *)header + 148, 8, "%06o", sum & 0777777u);
}

static uint8_t *add(const char *name, char type, const char *data) {
    uint8_t *header = tar.bytes + tar.size;
    size_t size = strlen(data);
    memset(header, 0, 512);
    snprintf((char *)header, 100, "%s", name);
    snprintf((char *)header + 124, 12, "%011o", (unsigned)size & 077777777u);
    header[156] = (uint8_t)type;
    memcpy(header + 257,
           "ustar\0"
           "00",
           8);
    seal(header);
    tar.size += 512;
    memset(tar.bytes + tar.size, 0, (size + 511) / 512 * 512);
    memcpy(tar.bytes + tar.size, data, size);
    tar.size += (size + 511) / 512 * 512;
    return header;
}

static void start(void) {
    memset(&tar, 0, sizeof tar);
}

static syz_webdataset *open_tar(void) {
    memset(tar.bytes + tar.size, 0, 1024);
    return syz_webdataset_open(temporary_file("x.tar", tar.bytes, tar.size + 1024));
}

static void refuse(const char *message) {
    assert_null(open_tar());
    assert_failed(SYZ_EFORMAT, message);
}

static void test_members(void **state) {
    (void)state;
    start();
    add("readme", '0', "no dot");
    add("folder.d/", '5', "");
    add(".hidden", '0', "x");
    add("__note__.txt", '0', "x");
    add("link.png", '2', "");
    add("../../etc/passwd.TXT", '0', "a label");
    add("v7.txt", '\0', "old");
    uint8_t *header = add("name.txt", '0', "with prefix");
    memcpy(header + 345, "some/prefix", 11);
    seal(header);
    header = add("base256.txt", '0', "binary size");
    memset(header + 124, 0, 12);
    header[124] = 0x80;
    header[135] = 11;
    seal(header);
    add("ignored", 'x', "21 path=pax/long.txt\n20 comment=anything\n");
    add("ignored.png", '0', "renamed");
    syz_webdataset *shard = open_tar();
    if (!shard) fail_msg("%s", syz_error_message());
    static const char *keys[] = {"../../etc/passwd", "v7", "some/prefix/name", "base256", "pax/long"};
    static const char *data[] = {"a label", "old", "with prefix", "binary size", "renamed"};
    assert_int_equal(syz_webdataset_count(shard), 5);
    for (int i = 0; i < 5; i++) {
        assert_string_equal(syz_webdataset_sample(shard, i).key, keys[i]);
        check_file(&syz_webdataset_sample(shard, i).files[0], "txt", data[i]);
    }
    syz_webdataset_close(shard);
    start();
    shard = open_tar();
    assert_non_null(shard);
    assert_int_equal(syz_webdataset_count(shard), 0);
    syz_webdataset_close(shard);
}

static void test_malformed(void **state) {
    (void)state;
    start();
    add("a.txt", '0', "x")[0] = 'b';
    refuse("x.tar: tar member at byte 0: bad header checksum");
    start();
    add("a.txt", '0', "x");
    add("a.TXT", '0', "y");
    refuse("sample \"a\" has two .txt files");
    static const char *sizes[] = {"77777777777", "00000009000", "-0000000001"};
    static const char *messages[] = {"run past the end", "bad size field", "bad size field"};
    for (int i = 0; i < 3; i++) {
        start();
        uint8_t *header = add("a.txt", '0', "x");
        memcpy(header + 124, sizes[i], 11);
        seal(header);
        refuse(messages[i]);
    }
    start();
    uint8_t *header = add("a.txt", '0', "x");
    memset(header + 124, 0xff, 12); /* base 256, negative */
    seal(header);
    refuse("bad size field");
    start();
    add("a.txt", 'S', "x");
    refuse("sparse");
    static const struct {
        const char *record, *message;
    } pax[] = {
        {"path=x", "bad pax record"},
        {"999 path=x\n", "bad pax record"},
        {"10 path=ab\n", "bad pax record"},
        {"0 path=x\n", "bad pax record"},
        {"11 path x\n", "bad pax record"},
        {"9 path x\n", "without '='"},
        {"8 path=\n", "1 to 4096 bytes"},
        {"10 size=x\n", "bad pax size"},
        {"8 size=\n", "bad pax size"},
        {"18446744073709551617 path=x\n", "bad pax record"},
        {"29 size=99999999999999999999\n", "bad pax size"},
        {"25 GNU.sparse.major=1234\n", "sparse"},
        {"15 size=999999\n", "run past the end"},
    };
    for (size_t i = 0; i < sizeof pax / sizeof *pax; i++) {
        start();
        add("p", 'x', pax[i].record);
        add("a.txt", '0', "x");
        refuse(pax[i].message);
    }
    start();
    for (int i = 0; i <= 100; i++) /* at most 64 KiB of test archive */
        add("a.txt", 'L', "");
    refuse("1 to 4096 bytes");
}

/* Cut anywhere before its closing block, an archive is refused. */
static void test_truncated(void **state) {
    (void)state;
    start();
    add("a.txt", '0', "some data");
    add("b.txt", 'L', "long");
    add("c.txt", '0', "more");
    size_t cuts[] = {0, 1, 511, 512, 513, 520, 1023, 1024, 1500, 2047, 2048, 2560, 3071, 3072, 3583};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        assert_null(syz_webdataset_open(temporary_file("x.tar", tar.bytes, cuts[i])));
        assert_failed(SYZ_EFORMAT, "x.tar: tar member at byte");
    }
    assert_null(syz_webdataset_open(temporary_path("absent.tar")));
    assert_failed(SYZ_ENOTFOUND, "cannot open");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ustar),     cmocka_unit_test(test_long_names), cmocka_unit_test(test_members),
        cmocka_unit_test(test_malformed), cmocka_unit_test(test_truncated),
    };
    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
