/* smoke CORPUS COUNT: runs a fuzz target on every seed of a folder and on COUNT mutations of them, the same ones every
 * time. It finds no more than luck allows; it keeps the targets alive and the seeds passing in every build. */
#include "fuzz/fuzz.h"

#include <dirent.h>
#include <string.h>

enum { MAX_SEEDS = 256, MAX_SIZE = 1 << 16 };

typedef struct {
    uint8_t bytes[MAX_SIZE];
    size_t size;
} input;

static input *seeds[MAX_SEEDS];
static int seed_count;
static uint64_t random_state = 0x9e3779b97f4a7c15u;

static size_t random_below(size_t n) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return n ? (size_t)(random_state >> 11) % n : 0;
}

static void load_seeds(const char *folder) {
    struct dirent **entries;
    int n = scandir(folder, &entries, NULL, alphasort);
    fuzz_check(n > 0 && n < MAX_SEEDS);
    for (int i = 0; i < n; i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
        FILE *file = entries[i]->d_name[0] == '.' ? NULL : fopen(path, "rb");
        if (file) {
            input *seed = calloc(1, sizeof *seed);
            fuzz_check(seed);
            seed->size = fread(seed->bytes, 1, MAX_SIZE, file);
            fclose(file);
            seeds[seed_count++] = seed;
        }
        free(entries[i]);
    }
    free(entries);
    fuzz_check(seed_count > 0);
}

/* Replace `count` bytes at `at` by `size` bytes of `from`, as far as there is room. */
static void splice(input *in, size_t at, size_t count, const uint8_t *from, size_t size) {
    if (in->size - count + size > MAX_SIZE) return;
    memmove(in->bytes + at + size, in->bytes + at + count, in->size - at - count);
    if (size) memcpy(in->bytes + at, from, size);
    in->size += size - count;
}

static void mutate(input *in) {
    static const uint8_t telling[] = "\x00\xff\x7f\x80[]{}:,-\"'*&!|\n 09e.";
    static uint8_t other[MAX_SIZE];
    size_t at = random_below(in->size), left = in->size - at;
    size_t count = random_below(left < 64 ? left + 1 : 64);
    switch (random_below(6)) {
    case 0:
        if (in->size) in->bytes[at] ^= (uint8_t)(1 << random_below(8));
        break;
    case 1:
        if (in->size) in->bytes[at] = telling[random_below(sizeof telling - 1)];
        break;
    case 2:
        splice(in, at, count, NULL, 0);
        break;
    case 3: /* repeat a part of itself */
        memcpy(other, in->bytes + at, count);
        splice(in, random_below(in->size), 0, other, count);
        break;
    case 4:
        in->size = at;
        break;
    default: { /* a part of another seed, in place or inserted */
        const input *from = seeds[random_below((size_t)seed_count)];
        size_t begin = random_below(from->size), rest = from->size - begin;
        size_t length = random_below(rest < 256 ? rest + 1 : 256);
        splice(in, at, random_below(2) && length <= left ? length : 0, from->bytes + begin, length);
    }
    }
}

/* In a block of its exact size, so that a sanitizer sees the first byte read beyond it. */
static void run(const input *in) {
    uint8_t *exact = malloc(in->size ? in->size : 1);
    fuzz_check(exact);
    memcpy(exact, in->bytes, in->size);
    LLVMFuzzerTestOneInput(exact, in->size);
    free(exact);
}

int main(int argc, char **argv) {
    fuzz_check(argc == 3);
    load_seeds(argv[1]);
    for (int i = 0; i < seed_count; i++)
        run(seeds[i]);
    static input in;
    int count = atoi(argv[2]);
    for (int i = 0; i < count; i++) {
        const input *seed = seeds[random_below((size_t)seed_count)];
        memcpy(in.bytes, seed->bytes, seed->size);
        in.size = seed->size;
        for (size_t k = 1 + random_below(8); k > 0; k--)
            mutate(&in);
        run(&in);
    }
    printf("%d seeds, %d mutations\n", seed_count, count);
    for (int i = 0; i < seed_count; i++)
        free(seeds[i]);
    return 0;
}
