/* Images: every pixel format against the formula that made the files (tests/fuzz/seeds.py), round trips, refusals. */
#include "check.h"
#include "core/alloc.h"
#include "io/file.h"
#include "unit/temporary.h"

#include <stdlib.h>
#include <zlib.h>

#define CORPUS "tests/fuzz/corpus/image/"

enum { WIDTH = 5, HEIGHT = 4 };

static int channel(int x, int y, int c) {
    return c == 0 ? 40 * x + 10 : c == 1 ? 60 * y + 5 : 200 - 10 * x * y;
}
static int grey(int x, int y) {
    return 50 * x + 10 * y;
}
static int on_white(int value, int alpha) {
    return (int)(value * (alpha / 255.0) + 255 * (1 - alpha / 255.0) + 0.5);
}

static int expect_rgb(int x, int y, int c) {
    return channel(x, y, c);
}
static int expect_rgba(int x, int y, int c) {
    return on_white(channel(x, y, c), 60 * x);
}
static int expect_grey(int x, int y, int c) {
    (void)c;
    return grey(x, y);
}
static int expect_grey_alpha(int x, int y, int c) {
    (void)c;
    return on_white(grey(x, y), 60 * x);
}
static int expect_palette(int x, int y, int c) {
    (void)y;
    return on_white(channel(x, 0, c), 60 * x);
}
static int expect_bits(int x, int y, int c) {
    (void)c;
    return (x + y) % 2 == 0 ? 255 : 0;
}

static void test_png_formats(void **state) {
    (void)state;
    static const struct {
        const char *path;
        int (*expected)(int x, int y, int c);
    } cases[] = {
        {CORPUS "rgb.png", expect_rgb},         {CORPUS "rgb16.png", expect_rgb},
        {CORPUS "rgba.png", expect_rgba},       {CORPUS "interlaced.png", expect_rgba},
        {CORPUS "grey.png", expect_grey},       {CORPUS "grey_alpha.png", expect_grey_alpha},
        {CORPUS "palette.png", expect_palette}, {CORPUS "bits.png", expect_bits},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        syz_tensor *image = syz_image_load(cases[i].path);
        check_ok(image);
        assert_int_equal(image->dtype, SYZ_U8);
        assert_true(syz_shape_equal(image->shape, SYZ_SHAPE(HEIGHT, WIDTH, 3)));
        const uint8_t *pixels = syz_data(image);
        for (int k = 0; k < HEIGHT * WIDTH * 3; k++) {
            int x = k / 3 % WIDTH, y = k / 3 / WIDTH, want = cases[i].expected(x, y, k % 3);
            if (pixels[k] != want)
                fail_msg("%s: (%d,%d,%d) is %d, not %d", cases[i].path, x, y, k % 3, pixels[k], want);
        }
    }
}

static void check_smooth(const syz_tensor *image, bool is_grey, int tolerance) {
    check_ok(image);
    assert_true(syz_shape_equal(image->shape, SYZ_SHAPE(16, 24, 3)));
    const uint8_t *pixels = syz_data(image);
    for (int k = 0; k < 16 * 24; k++) {
        int x = k % 24, y = k / 24, want[3] = {4 * x + 60, 6 * y + 40, 120};
        int luma = (int)(0.299 * want[0] + 0.587 * want[1] + 0.114 * want[2] + 0.5);
        for (int c = 0; c < 3; c++)
            assert_in_range(pixels[3 * k + c] + 100 - (is_grey ? luma : want[c]), 100 - tolerance, 100 + tolerance);
    }
}

static void test_jpeg(void **state) {
    (void)state;
    check_smooth(syz_image_load(CORPUS "smooth.jpg"), false, 4);
    check_smooth(syz_image_load(CORPUS "progressive.jpg"), false, 8);
    check_smooth(syz_image_load(CORPUS "grey.jpg"), true, 3);
    assert_null(syz_image_load(CORPUS "cmyk.jpg"));
    assert_failed(SYZ_EUNSUPPORTED, "cmyk.jpg: a CMYK JPEG");
}

static void test_round_trip(void **state) {
    (void)state;
    syz_tensor *image = syz_image_load(CORPUS "rgb.png");
    const char *path = temporary_path("out.png");
    assert_int_equal(syz_image_save(path, image), SYZ_OK);
    syz_tensor *back = syz_image_load(path);
    check_ok(back);
    assert_memory_equal(syz_data(back), syz_data(image), syz_nbytes(image));
    /* f32 is clamped and rounded; NaN is black */
    syz_tensor *values = syz_from(SYZ_F32, SYZ_SHAPE(1, 2, 3), (float[]){-1, 0.5f, 2, NAN, 1, 0.2f});
    uint8_t *data;
    size_t size;
    assert_int_equal(syz_image_encode(&data, &size, values, 0), SYZ_OK);
    back = syz_image_decode(data, size, "memory");
    check_ok(back);
    assert_memory_equal(syz_data(back), ((uint8_t[]){0, 128, 255, 0, 255, 51}), 6);
    free(data);
    image = syz_image_load(CORPUS "smooth.jpg");
    assert_int_equal(syz_image_encode(&data, &size, image, 95), SYZ_OK);
    check_smooth(syz_image_decode(data, size, "memory"), false, 8);
    free(data);
    assert_int_equal(syz_image_save(temporary_path("out.JPEG"), image), SYZ_OK);
}

static void test_bad_arguments(void **state) {
    (void)state;
    uint8_t *data;
    size_t size;
    assert_int_not_equal(syz_image_save(temporary_path("x.gif"), check_randn(SYZ_SHAPE(2, 2, 3), 1)), SYZ_OK);
    assert_failed(SYZ_EINVAL, "x.gif: images are saved as .png, .jpg or .jpeg");
    syz_image_encode(&data, &size, check_randn(SYZ_SHAPE(2, 2, 4), 1), 0);
    assert_failed(SYZ_ESHAPE, "not [H,W,3]");
    syz_image_encode(&data, &size, check_randn(SYZ_SHAPE(0, 2, 3), 1), 0);
    assert_failed(SYZ_ESHAPE, "not [H,W,3]");
    syz_image_encode(&data, &size, syz_zeros(SYZ_I64, SYZ_SHAPE(2, 2, 3)), 0);
    assert_failed(SYZ_EDTYPE, "dtype i64, not u8 or f32");
    syz_image_encode(&data, &size, check_randn(SYZ_SHAPE(2, 2, 3), 1), 101);
    assert_failed(SYZ_EINVAL, "quality 101");
}

/* Cut at every length, a file is refused with one line. */
static void check_truncation(const char *path, size_t needed_tail) {
    uint8_t *data;
    size_t size;
    assert_int_equal(syz_file_read(&data, &size, path, 1 << 20), SYZ_OK);
    for (size_t length = 0; length < size - needed_tail; length++) {
        syz_scope_push();
        uint8_t *part = malloc(length ? length : 1); /* exact, so that a sanitizer sees an overrun */
        memcpy(part, data, length);
        assert_null(syz_image_decode(part, length, "part"));
        assert_failed(SYZ_EFORMAT, "part: n");
        free(part);
        syz_scope_pop();
    }
    free(data);
}

static void test_truncated(void **state) {
    (void)state;
    check_truncation(CORPUS "rgba.png", 0);
    check_truncation(CORPUS "interlaced.png", 0);
    check_truncation(CORPUS "smooth.jpg", 2); /* the end marker itself may be missing */
    check_truncation(CORPUS "progressive.jpg", 2);
}

static void put_u32(uint8_t *at, uint32_t value) {
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (24 - 8 * i));
}

static void test_claims(void **state) {
    (void)state;
    uint8_t *data;
    size_t size;
    assert_int_equal(syz_file_read(&data, &size, CORPUS "rgb.png", 1 << 20), SYZ_OK);
    static const struct {
        uint32_t width, height;
        const char *message;
    } cases[] = {
        {0, 4, "not a valid PNG"},          {5, 0, "not a valid PNG"},   {0x7fffffff, 4, "not a valid PNG"},
        {5, 32769, "not a valid PNG"},      {20000, 20000, "too short"}, {4000, 4000, "too short"},
        {0xffffffff, 1, "not a valid PNG"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_u32(data + 16, cases[i].width);
        put_u32(data + 20, cases[i].height);
        put_u32(data + 29, (uint32_t)crc32(0, data + 12, 17));
        assert_null(syz_image_decode(data, size, "claim.png"));
        assert_failed(SYZ_EFORMAT, cases[i].message);
    }
    free(data);
    /* a JPEG's claim: 65500 x 65500 in the frame header */
    assert_int_equal(syz_file_read(&data, &size, CORPUS "smooth.jpg", 1 << 20), SYZ_OK);
    uint8_t *frame = memmem(data, size, "\xff\xc0", 2);
    assert_non_null(frame);
    memcpy(frame + 5, "\xff\xdc\xff\xdc", 4);
    assert_null(syz_image_decode(data, size, "claim.jpg"));
    assert_failed(SYZ_EFORMAT, "claim.jpg: an image of 65500 x 65500 pixels");
    free(data);
}

static void test_not_images(void **state) {
    (void)state;
    assert_null(syz_image_decode("", 0, "empty"));
    assert_failed(SYZ_EFORMAT, "empty: neither a PNG nor a JPEG");
    assert_null(syz_image_decode("GIF89a..", 8, "x.gif"));
    assert_failed(SYZ_EFORMAT, "neither a PNG nor a JPEG");
    assert_null(syz_image_load(temporary_path("absent.png")));
    assert_failed(SYZ_ENOTFOUND, "absent.png: cannot open");
    uint8_t *data;
    size_t size;
    assert_int_equal(syz_file_read(&data, &size, CORPUS "rgb.png", 1 << 20), SYZ_OK);
    data[size - 20] ^= 1; /* inside the pixels: the checksum tells */
    assert_null(syz_image_decode(data, size, "flipped.png"));
    assert_failed(SYZ_EFORMAT, "flipped.png: not a valid PNG");
    free(data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(test_png_formats),   CHECK_TEST(test_jpeg),      CHECK_TEST(test_round_trip),
        CHECK_TEST(test_bad_arguments), CHECK_TEST(test_truncated), CHECK_TEST(test_claims),
        CHECK_TEST(test_not_images),
    };
    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
