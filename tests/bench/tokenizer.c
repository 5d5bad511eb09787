/* How fast the prompts of tests/text/data/clip_prompts.jsonl are tokenized: bench_tokenizer FOLDER [open_clip].
 * Processor time, best of ten rounds. tests/oracle/bench_tokenizer.py measures the tokenizers library on the same. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "syzygy.h"

enum { ROUNDS = 10, MOST = 20000 };

static char *prompts[MOST];
static int64_t ids[1 << 16];

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static int read_prompts(size_t *bytes) {
    static char line[1 << 17];
    int count = 0;
    FILE *file = fopen("tests/text/data/clip_prompts.jsonl", "r");
    while (file && count < MOST && fgets(line, sizeof line, file)) {
        json_t *row = json_loads(line, 0, NULL);
        prompts[count] = strdup(json_string_value(json_object_get(row, "text")));
        *bytes += strlen(prompts[count++]);
        json_decref(row);
    }
    if (file) fclose(file);
    return count;
}

int main(int argc, char **argv) {
    syz_tokenizer *tok;
    size_t bytes = 0, tokens = 0, count;
    int n = read_prompts(&bytes);
    double best = 1e9, start = now();
    if (argc < 2 || n == 0 || syz_tokenizer_open_as(&tok, argv[1], argc > 2 ? argv[2] : NULL) != SYZ_OK) {
        fprintf(stderr, "bench_tokenizer FOLDER [open_clip], from the root of the source tree: %s\n",
                syz_error_message());
        return 2;
    }
    double open = now() - start;
    for (int round = 0; round < ROUNDS; round++) {
        start = now();
        tokens = 0;
        for (int i = 0; i < n; i++) {
            if (syz_tokenizer_encode(tok, prompts[i], ids, sizeof ids / sizeof *ids, &count) != SYZ_OK) return 1;
            tokens += count;
        }
        if (now() - start < best) best = now() - start;
    }
    printf("%d prompts, %zu tokens: %.1f ms, %.1f MB/s; opened in %.0f ms\n", n, tokens, 1e3 * best,
           1e-6 * (double)bytes / best, 1e3 * open);
    syz_tokenizer_free(tok);
    for (int i = 0; i < n; i++)
        free(prompts[i]);
    return 0;
}
