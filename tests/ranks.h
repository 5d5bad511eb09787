/* Ranks as processes, for tests of what they do together: each is a fork that runs a function and tells what went
 * wrong through a pipe. */
#ifndef SYZ_TESTS_RANKS_H
#define SYZ_TESTS_RANKS_H

#include "check.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define RANKS_MOST 8

/* Returns NULL, or what is wrong: a string that is not freed. In a process of its own, in a scope. */
typedef const char *(*rank_body)(const syz_comm_options *options, const void *context);

typedef struct {
    char said[RANKS_MOST][1024]; /* what each rank returned; "" for NULL */
} rank_results;

/* A port that nobody uses now. */
static inline int free_port(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, length), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    close(fd);
    return ntohs(address.sin_port);
}

static inline void be_rank(rank_body body, const syz_comm_options *options, const void *context, int out) {
    alarm(120); /* a hang is a failure, not a test that never ends */
    syz_error_clear();
    syz_scope_push();
    const char *wrong = body(options, context);
    if (wrong && write(out, wrong, strlen(wrong)) < 0) _exit(2);
    _exit(wrong ? 1 : 0);
}

/* Run `body` as each rank that `started` has a bit for. A rank that ends otherwise has said "signal N" or
 * "exit code N". */
static inline void run_some_ranks(rank_results *results, unsigned started, rank_body body, syz_comm_options options,
                                  const void *context) {
    pid_t pids[RANKS_MOST] = {0};
    int pipes[RANKS_MOST][2] = {0};
    *results = (rank_results){0};
    if (!options.port) options.port = free_port();
    fflush(NULL);
    for (int r = 0; r < options.size; r++) {
        if (!(started >> r & 1u)) continue;
        assert_int_equal(pipe(pipes[r]), 0);
        options.rank = options.local_rank = r;
        if ((pids[r] = fork()) == 0) be_rank(body, &options, context, pipes[r][1]);
        close(pipes[r][1]);
    }
    for (int r = 0; r < options.size; r++) {
        if (!(started >> r & 1u)) continue;
        int status;
        ssize_t got = read(pipes[r][0], results->said[r], sizeof results->said[r] - 1);
        assert_true(got >= 0);
        assert_int_equal(waitpid(pids[r], &status, 0), pids[r]);
        close(pipes[r][0]);
        if (WIFSIGNALED(status))
            snprintf(results->said[r], sizeof results->said[r], "signal %d", WTERMSIG(status));
        else if (WEXITSTATUS(status) != 0 && got == 0)
            snprintf(results->said[r], sizeof results->said[r], "exit code %d", WEXITSTATUS(status));
    }
}

/* Every rank must end well. */
static inline void run_ranks(int size, rank_body body, const void *context) {
    rank_results results;
    run_some_ranks(&results, ~0u, body, (syz_comm_options){.size = size, .timeout = 60}, context);
    for (int r = 0; r < size; r++)
        if (results.said[r][0]) fail_msg("rank %d of %d: %s", r, size, results.said[r]);
}

#define assert_says(text, part)                                                                                        \
    do {                                                                                                               \
        if (!strstr(text, part)) fail_msg("\"%s\" does not contain \"%s\"", text, part);                               \
    } while (0)

#endif
