/* TensorBoard event files: bytes computed by hand, checksums, repair of torn ends. */
#include "check.h"
#include "io/file.h"
#include "unit/temporary.h"

#include <stdlib.h>

static uint8_t *bytes;
static size_t size;

static void read_back(const char *path) {
    free(bytes);
    assert_int_equal(syz_file_read(&bytes, &size, path, 1 << 20), SYZ_OK);
}

/* CRC-32C bit by bit, apart from the table of the writer. */
static uint32_t masked(const uint8_t *data, size_t count) {
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < 8 * count; i++) {
        if (i % 8 == 0) crc ^= data[i / 8];
        crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
    }
    crc = ~crc;
    return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

static uint64_t number(const uint8_t *at, int count) {
    uint64_t value = 0;
    for (int i = count - 1; i >= 0; i--)
        value = value << 8 | at[i];
    return value;
}

/* Checks the frame of the record at `at` and its content; returns where the next one begins. */
static size_t check_record(size_t at, const void *event, size_t length) {
    assert_in_range(at + 16 + length, 16, size);
    assert_int_equal(number(bytes + at, 8), length);
    assert_int_equal(number(bytes + at + 8, 4), masked(bytes + at, 8));
    if (event) assert_memory_equal(bytes + at + 12, event, length);
    assert_int_equal(number(bytes + at + 12 + length, 4), masked(bytes + at + 12, length));
    return at + 16 + length;
}

#define VERSION_EVENT                                                                                                  \
    "\x09\0\0\0\0\0\0\xf0\x3f\x1a\x0d"                                                                                 \
    "brain.Event:2"
#define SCALAR_EVENT                                                                                                   \
    "\x09\0\0\0\0\0\0\x00\x40\x10\xac\x02"         /* wall time 2.0, step 300 */                                       \
    "\x2a\x0d\x0a\x0b\x0a\x04loss\x15\0\0\xc0\x3f" /* summary { value { tag: "loss" simple_value: 1.5 } } */

static void test_scalar(void **state) {
    (void)state;
    assert_int_equal(masked((const uint8_t *)"123456789", 9) - 0xa282ead8u,
                     (uint32_t)(0xe3069283u >> 15 | 0xe3069283u << 17)); /* the published check value */
    const char *path = temporary_path("events.out.tfevents.1");
    syz_events *events = syz_events_open(path, 1.0);
    check_ok(events);
    assert_int_equal(syz_events_scalar(events, "loss", 300, 1.5, 2.0), SYZ_OK);
    read_back(path); /* before the close: nothing waits in a buffer */
    size_t at = check_record(0, VERSION_EVENT, sizeof VERSION_EVENT - 1);
    at = check_record(at, SCALAR_EVENT, sizeof SCALAR_EVENT - 1);
    assert_int_equal(at, size);
    syz_events_close(events);
}

static void test_image(void **state) {
    (void)state;
    const char *path = temporary_path("events.out.tfevents.2");
    syz_events *events = syz_events_open(path, 1.0);
    syz_tensor *image = syz_full(SYZ_F32, SYZ_SHAPE(2, 3, 3), 1);
    assert_int_equal(syz_events_image(events, "sample", 1, image, 2.0), SYZ_OK);
    read_back(path);
    size_t at = check_record(0, NULL, sizeof VERSION_EVENT - 1);
    check_record(at, NULL, size - at - 16);
    static const uint8_t head[] = "\x0a\x06sample\x22";
    const uint8_t *value = memmem(bytes + at, size - at, head, sizeof head - 1);
    assert_non_null(value);
    assert_memory_equal(value + sizeof head, "\x08\x02\x10\x03\x18\x03\x22", 7); /* height, width, RGB, PNG */
    uint8_t length = value[sizeof head + 7];
    syz_tensor *back = syz_image_decode(value + sizeof head + 8, length, "event");
    check_ok(back);
    assert_int_equal(((uint8_t *)syz_data(back))[0], 255);
    syz_events_image(events, "sample", 1, syz_zeros(SYZ_F32, SYZ_SHAPE(2, 3)), 2.0);
    assert_failed(SYZ_ESHAPE, "not [H,W,3]");
    syz_events_close(events);
}

/* A run that was killed in the middle of a write goes on after the last whole record, wherever the cut is. */
static void test_repair(void **state) {
    (void)state;
    const char *path = temporary_path("events.out.tfevents.3");
    syz_events *events = syz_events_open(path, 1.0);
    syz_events_scalar(events, "loss", 300, 1.5, 2.0);
    syz_events_close(events);
    read_back(path);
    size_t whole = size, first = sizeof VERSION_EVENT - 1 + 16;
    uint8_t *copy = malloc(whole);
    memcpy(copy, bytes, whole);
    for (size_t cut = first; cut <= whole; cut++) {
        events = syz_events_open(temporary_file("events.out.tfevents.3", copy, cut), 9.0);
        check_ok(events);
        assert_int_equal(syz_events_scalar(events, "loss", 300, 1.5, 2.0), SYZ_OK);
        syz_events_close(events);
        read_back(path);
        assert_int_equal(size, cut == whole ? 2 * whole - first : whole);
        size_t at = check_record(0, VERSION_EVENT, sizeof VERSION_EVENT - 1);
        while (at < size)
            at = check_record(at, SCALAR_EVENT, sizeof SCALAR_EVENT - 1);
    }
    free(copy);
}

static void test_not_events(void **state) {
    (void)state;
    const char *path = temporary_file("tfevents.txt", "precious notes of a person", 26);
    assert_null(syz_events_open(path, 1.0));
    assert_failed(SYZ_EFORMAT, "tfevents.txt: exists and is not a TensorBoard event file");
    read_back(path);
    assert_int_equal(size, 26);
    assert_null(syz_events_open(temporary_path("absent/tfevents"), 1.0));
    assert_failed(SYZ_ENOTFOUND, "cannot open");
    free(bytes);
    bytes = NULL;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(test_scalar),
        CHECK_TEST(test_image),
        CHECK_TEST(test_repair),
        CHECK_TEST(test_not_events),
    };
    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
