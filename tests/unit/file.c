/* Files: bounded reads, writes that are whole or absent, folders, SHA-256 against published sums. */
#include "io/file.h"
#include "core/error.h"
#include "unit/temporary.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static void check_content(const char *path, const char *expected) {
    uint8_t *data;
    size_t size;
    assert_int_equal(syz_file_read(&data, &size, path, 1 << 20), SYZ_OK);
    assert_int_equal(size, strlen(expected));
    assert_memory_equal(data, expected, size + 1);
    free(data);
}

static int count_entries(const char *folder) {
    DIR *dir = opendir(folder);
    int n = 0;
    while (readdir(dir))
        n++;
    closedir(dir);
    return n - 2;
}

static void test_read(void **state) {
    (void)state;
    uint8_t *data;
    size_t size;
    const char *path = temporary_file("ten", "0123456789", 10);
    check_content(path, "0123456789");
    assert_int_equal(syz_file_read(&data, &size, path, 10), SYZ_OK);
    free(data);
    syz_file_read(&data, &size, path, 9);
    assert_failed(SYZ_EFORMAT, "ten: has 10 bytes, at most 9 are read");
    assert_null(data);
    check_content(temporary_file("empty", "", 0), "");
    syz_file_read(&data, &size, temporary_path("absent"), 9);
    assert_failed(SYZ_ENOTFOUND, "absent: cannot open: No such file");
    syz_file_read(&data, &size, temporary_folder(), 9);
    assert_failed(SYZ_EIO, "not a regular file");
    path = temporary_path("pipe");
    assert_int_equal(mkfifo(path, 0600), 0);
    syz_file_read(&data, &size, path, 9); /* and does not wait for a writer */
    assert_failed(SYZ_EIO, "not a regular file");
}

static void test_map(void **state) {
    (void)state;
    syz_mapping *mapping = syz_file_map(temporary_file("mapped", "abc", 3));
    assert_non_null(mapping);
    assert_int_equal(mapping->size, 3);
    mapping->bytes[0] = 'x';
    check_content(temporary_path("mapped"), "abc");
    mapping->refs++;
    syz_mapping_release(mapping);
    assert_int_equal(mapping->bytes[0], 'x');
    syz_mapping_release(mapping);
    syz_mapping_release(NULL);
    mapping = syz_file_map(temporary_file("mapped", "", 0));
    assert_non_null(mapping);
    assert_int_equal(mapping->size, 0);
    syz_mapping_release(mapping);
}

static void test_write(void **state) {
    (void)state;
    assert_int_equal(syz_make_folders(temporary_path("write/a/b")), SYZ_OK);
    assert_int_equal(syz_make_folders(temporary_path("write/a/b/")), SYZ_OK);
    const char *path = temporary_path("write/a/b/file");
    assert_int_equal(syz_file_write(path, "first", 5), SYZ_OK);
    assert_int_equal(syz_file_write(path, "second", 6), SYZ_OK);
    check_content(path, "second");
    struct stat info;
    mode_t mask = umask(022);
    assert_int_equal(syz_file_write(path, "", 0), SYZ_OK);
    umask(mask);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0644);
    assert_int_equal(info.st_size, 0);
    /* reserved more than written */
    syz_file_writer *writer = syz_file_begin(path, 1 << 16);
    assert_non_null(writer);
    assert_int_equal(syz_file_put(writer, "abc", 3), SYZ_OK);
    assert_int_equal(syz_file_commit(writer), SYZ_OK);
    check_content(path, "abc");
    /* discarded: the old file stays, and nothing lies about */
    writer = syz_file_begin(path, 0);
    syz_file_put(writer, "lost", 4);
    syz_file_discard(writer);
    syz_file_discard(NULL);
    check_content(path, "abc");
    assert_int_equal(count_entries(temporary_path("write/a/b")), 1);
    syz_make_folders(temporary_path("write/a/b/file/c"));
    assert_failed(SYZ_EIO, "write/a/b/file: cannot make the folder: a file has that name");
    syz_file_write(temporary_path("absent/file"), "x", 1);
    assert_failed(SYZ_ENOTFOUND, "absent/file: cannot create");
    syz_file_write(temporary_path("write/a"), "x", 1); /* a folder has the name */
    assert_failed(SYZ_EIO, "write/a: cannot save");
    assert_int_equal(count_entries(temporary_path("write")), 1);
}

/* A full disk, played by the limit on file sizes: an error, the old file, no leftovers. */
static void test_full(void **state) {
    (void)state;
    assert_int_equal(syz_make_folders(temporary_path("full")), SYZ_OK);
    const char *path = temporary_path("full/file");
    assert_int_equal(syz_file_write(path, "kept", 4), SYZ_OK);
    struct rlimit old, small;
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 4096;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    syz_file_writer *reserved = syz_file_begin(path, 1 << 20);
    syz_status reserve_status = syz_error_status();
    syz_error_clear();
    syz_file_writer *writer = syz_file_begin(path, 0);
    static const char block[3000];
    syz_status first = writer ? syz_file_put(writer, block, sizeof block) : SYZ_EINTERNAL;
    syz_status second = writer ? syz_file_put(writer, block, sizeof block) : SYZ_EINTERNAL;
    syz_error_clear();
    syz_status committed = writer ? syz_file_commit(writer) : SYZ_EINTERNAL;
    setrlimit(RLIMIT_FSIZE, &old);
    assert_null(reserved);
    assert_int_equal(reserve_status, SYZ_EIO);
    assert_int_equal(first, SYZ_OK);
    assert_int_equal(second, SYZ_EIO);
    assert_int_equal(committed, SYZ_EIO);
    assert_failed(SYZ_EIO, "not saved, an earlier write failed");
    check_content(path, "kept");
    assert_int_equal(count_entries(temporary_path("full")), 1);
}

static void test_sha256(void **state) {
    (void)state;
    char text[SYZ_SHA256_TEXT];
    syz_sha256(text, "", 0);
    assert_string_equal(text, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    syz_sha256(text, "abc", 3);
    assert_string_equal(text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    /* a million letters, longer than one read */
    size_t size = 1000000;
    char *data = malloc(size);
    memset(data, 'a', size);
    assert_int_equal(syz_sha256_file(text, temporary_file("million", data, size)), SYZ_OK);
    assert_string_equal(text, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    free(data);
    syz_sha256_file(text, temporary_path("absent"));
    assert_failed(SYZ_ENOTFOUND, "absent: cannot open");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read), cmocka_unit_test(test_map),    cmocka_unit_test(test_write),
        cmocka_unit_test(test_full), cmocka_unit_test(test_sha256),
    };
    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
