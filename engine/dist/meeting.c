#include "dist/meeting.h"
#include "core/alloc.h"
#include "dist/sockets.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAGIC         UINT64_C(0x53595a434f4d4d31) /* of this version of the protocol, in the byte order of the machine */
#define LONGEST_START 300.0                        /* seconds */
#define MAX_STRANGERS 32                           /* connections that have not said yet who they are */
#define TEXT          512

/* What a rank says first on every connection. */
typedef struct {
    uint64_t magic;
    uint32_t rank, size, port; /* port: where it listens */
    uint32_t unused;
    uint8_t token[16]; /* of this meeting; zero towards rank 0, who chooses it */
} hello;

/* What rank 0 answers, followed by `size` places where `refused` is zero. */
typedef struct {
    uint64_t magic;
    uint32_t status, unused; /* of syz_status; SYZ_OK */
    uint8_t token[16];
    char text[TEXT]; /* why it ended */
} answer;

typedef struct {
    uint32_t port;
    char host[SYZ_HOST_TEXT]; /* "": that of rank 0 */
} place;

typedef struct {
    int fd; /* -1: free */
    size_t got;
    hello hello;
} caller;

typedef struct {
    const syz_comm_options *options;
    const char *address;
    double deadline, seconds;
    int *fd; /* [size] */
    int listener;
    uint8_t token[16];
    place *places;         /* [size] */
    bool *chosen;          /* [size], for messages */
    struct pollfd *polled; /* [1 + MAX_STRANGERS + size] */
    caller strangers[MAX_STRANGERS];
} meeting;

const char *syz_rank_names(char *text, size_t capacity, const bool chosen[], int size) {
    int count = 0, named = 0;
    for (int r = 0; r < size; r++)
        count += chosen[r];
    size_t used = (size_t)snprintf(text, capacity, count == 1 ? "rank" : "ranks");
    for (int r = 0; r < size && used < capacity; r++) {
        if (!chosen[r]) continue;
        const char *between = named == 0 ? " " : named == count - 1 ? " and " : ", ";
        used += (size_t)snprintf(text + used, capacity - used, "%s%d", between, r);
        if (++named == 20 && count > 20 && used < capacity) {
            snprintf(text + used, capacity - used, " and %d more", count - named);
            break;
        }
    }
    return text;
}

static void close_fd(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

/* ---- callers ----------------------------------------------------------------------------------------------------- */

/* A new connection takes a free place, or that of the first who has said nothing yet. */
static void let_in(meeting *m) {
    int fd = syz_accept(m->listener);
    if (fd < 0) return;
    caller *slot = &m->strangers[0];
    for (int i = MAX_STRANGERS - 1; i >= 0; i--)
        if (m->strangers[i].fd < 0) slot = &m->strangers[i];
    close_fd(&slot->fd);
    *slot = (caller){.fd = fd};
}

/* Somebody has said who it is. */
static syz_status welcome(meeting *m, caller *c) {
    const hello *h = &c->hello;
    int size = m->options->size;
    if (h->magic != MAGIC || memcmp(h->token, m->token, sizeof h->token) != 0) { /* not of this run */
        close_fd(&c->fd);
        return SYZ_OK;
    }
    if ((int)h->size != size)
        return syz_fail(SYZ_EINVAL, "rank %u was started with WORLD_SIZE %u, rank %d with %d", h->rank, h->size,
                        m->options->rank, size);
    if ((int)h->rank >= size || (int)h->rank <= m->options->rank || m->fd[h->rank] >= 0)
        return syz_fail(SYZ_EINVAL, "two processes were started as rank %u: each needs a RANK of its own, 0 to %d",
                        h->rank, size - 1);
    m->fd[h->rank] = c->fd;
    m->places[h->rank].port = h->port;
    syz_peer_host(m->places[h->rank].host, c->fd);
    c->fd = -1;
    return SYZ_OK;
}

static syz_status listen_to(meeting *m, caller *c) {
    syz_transfer t = {.fd = c->fd, .in = (char *)&c->hello + c->got, .in_left = sizeof c->hello - c->got};
    size_t before = t.in_left;
    syz_outcome outcome = syz_exchange(&t, 1, 0); /* only what is there */
    c->got += before - t.in_left;
    if (outcome == SYZ_PEER_CLOSED) close_fd(&c->fd);
    if (outcome == SYZ_EXCHANGE_FAILED) return syz_error_status();
    return outcome == SYZ_EXCHANGED ? welcome(m, c) : SYZ_OK;
}

/* The ranks from `first` on that are there, or that are not. */
static const char *name_ranks(meeting *m, char text[TEXT], int first, bool there) {
    for (int r = 0; r < m->options->size; r++)
        m->chosen[r] = r >= first && (m->fd[r] >= 0) == there;
    return syz_rank_names(text, TEXT, m->chosen, m->options->size);
}

static syz_status too_late(meeting *m, int first, int missing) {
    char absent[TEXT], present[TEXT];
    name_ranks(m, absent, first, false);
    if (missing == m->options->size - first)
        return syz_fail(SYZ_EIO, "%s of %d did not come within %g s: were they started?", absent, m->options->size,
                        m->seconds);
    return syz_fail(SYZ_EIO, "%s of %d did not come within %g s; %s did", absent, m->options->size, m->seconds,
                    name_ranks(m, present, first, true));
}

/* Wait for one tick and deal with what came. */
static syz_status attend(meeting *m) {
    int size = m->options->size, n = 0;
    m->polled[n++] = (struct pollfd){.fd = m->listener, .events = POLLIN};
    for (int i = 0; i < MAX_STRANGERS; i++)
        m->polled[n++] = (struct pollfd){.fd = m->strangers[i].fd, .events = POLLIN};
    for (int r = 0; r < size; r++)
        m->polled[n++] = (struct pollfd){.fd = m->fd[r], .events = POLLRDHUP};
    if (!syz_poll(m->polled, n)) return syz_error_status();
    for (int r = 0; r < size; r++)
        if (m->polled[1 + MAX_STRANGERS + r].revents)
            return syz_fail(SYZ_EIO, "rank %d came and has ended before all were there: its own messages tell why", r);
    for (int i = 0; i < MAX_STRANGERS; i++)
        if (m->polled[1 + i].revents) SYZ_TRY(listen_to(m, &m->strangers[i]));
    if (m->polled[0].revents) let_in(m);
    return SYZ_OK;
}

/* Until the ranks from `first` on have come. */
static syz_status gather(meeting *m, int first) {
    for (;;) {
        int missing = 0;
        for (int r = first; r < m->options->size; r++)
            missing += m->fd[r] < 0;
        if (missing == 0) return SYZ_OK;
        if (syz_seconds() > m->deadline) return too_late(m, first, missing);
        SYZ_TRY(attend(m));
    }
}

/* ---- rank 0 ------------------------------------------------------------------------------------------------------ */

/* To all who are there, strangers included: one of them may be the second of its rank. Nobody is waited for. */
static void tell_why(meeting *m) {
    answer a = {.magic = MAGIC, .status = (uint32_t)syz_error_status()};
    snprintf(a.text, sizeof a.text, "%s", syz_error_message());
    for (int i = 0; i < m->options->size + MAX_STRANGERS; i++) {
        int fd = i < m->options->size ? m->fd[i] : m->strangers[i - m->options->size].fd;
        if (fd >= 0) send(fd, &a, sizeof a, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
}

static syz_status answer_all(meeting *m) {
    int size = m->options->size;
    answer a = {.magic = MAGIC, .status = SYZ_OK};
    memcpy(a.token, m->token, sizeof a.token);
    for (int r = 1; r < size; r++) {
        syz_transfer parts[2] = {
            {.fd = m->fd[r], .out = (const char *)&a, .out_left = sizeof a},
            {.fd = m->fd[r], .out = (const char *)m->places, .out_left = (size_t)size * sizeof *m->places}};
        for (int k = 0; k < 2; k++)
            if (syz_exchange(&parts[k], 1, m->deadline) != SYZ_EXCHANGED)
                return syz_fail(SYZ_EIO, "rank %d came and has ended before all were there: its own messages tell why",
                                r);
    }
    return SYZ_OK;
}

static syz_status host(meeting *m) {
    SYZ_TRY(syz_listen(&m->listener, m->address, m->options->port));
    syz_status status = gather(m, 1);
    if (status != SYZ_OK) {
        tell_why(m);
        return status;
    }
    if (getrandom(m->token, sizeof m->token, 0) != sizeof m->token)
        return syz_fail(SYZ_EIO, "the system gives no random numbers");
    return answer_all(m);
}

/* ---- the others -------------------------------------------------------------------------------------------------- */

static syz_status introduce(meeting *m, int to) {
    hello h = {.magic = MAGIC,
               .rank = (uint32_t)m->options->rank,
               .size = (uint32_t)m->options->size,
               .port = (uint32_t)syz_listening_port(m->listener)};
    memcpy(h.token, m->token, sizeof h.token);
    syz_transfer t = {.fd = m->fd[to], .out = (const char *)&h, .out_left = sizeof h};
    if (syz_exchange(&t, 1, m->deadline) == SYZ_EXCHANGED) return SYZ_OK;
    return syz_fail(SYZ_EIO, "rank %d ended the connection at once: its own messages tell why", to);
}

static syz_status receive(meeting *m, void *data, size_t size) {
    syz_transfer t = {.fd = m->fd[0], .in = data, .in_left = size};
    switch (syz_exchange(&t, 1, m->deadline)) {
    case SYZ_EXCHANGED:
        return SYZ_OK;
    case SYZ_PEER_CLOSED:
        return syz_fail(SYZ_EIO, "rank 0 ended before all ranks were there: its own messages tell why");
    case SYZ_TOO_LATE:
        return syz_fail(SYZ_EIO, "rank 0 at %s:%d did not answer within %g s: is MASTER_PORT that of this run?",
                        m->address, m->options->port, m->seconds);
    default:
        return syz_error_status();
    }
}

static syz_status learn_places(meeting *m) {
    answer a;
    SYZ_TRY(receive(m, &a, sizeof a));
    if (a.magic != MAGIC)
        return syz_fail(SYZ_EIO, "what listens at %s:%d is no rank 0 of this version: is MASTER_PORT that of this run?",
                        m->address, m->options->port);
    a.text[TEXT - 1] = '\0';
    if (a.status != SYZ_OK) return syz_fail(a.status <= SYZ_EINTERNAL ? (syz_status)a.status : SYZ_EIO, "%s", a.text);
    memcpy(m->token, a.token, sizeof m->token);
    SYZ_TRY(receive(m, m->places, (size_t)m->options->size * sizeof *m->places));
    for (int r = 0; r < m->options->size; r++)
        m->places[r].host[SYZ_HOST_TEXT - 1] = '\0';
    return SYZ_OK;
}

static syz_status attend_meeting(meeting *m) {
    SYZ_TRY(syz_listen(&m->listener, m->address, 0));
    if (syz_connect(&m->fd[0], m->address, m->options->port, m->deadline) != SYZ_OK) {
        char cause[TEXT];
        syz_status status = syz_error_status();
        if (status == SYZ_ECANCELED) return status;
        snprintf(cause, sizeof cause, "%s", syz_error_message());
        syz_error_clear();
        return syz_fail(status, "rank 0 did not come within %g s (%s): was it started, there?", m->seconds, cause);
    }
    m->deadline = syz_seconds() + m->seconds + 5; /* rank 0's time is over before: it tells who is missing */
    SYZ_TRY(introduce(m, 0));
    SYZ_TRY(learn_places(m));
    for (int r = 1; r < m->options->rank; r++) {
        const place *p = &m->places[r];
        SYZ_TRY(syz_connect(&m->fd[r], p->host[0] ? p->host : m->address, (int)p->port, m->deadline));
        SYZ_TRY(introduce(m, r));
    }
    return gather(m, m->options->rank + 1);
}

/* ---- all --------------------------------------------------------------------------------------------------------- */

static void leave(meeting *m, bool failed) {
    close_fd(&m->listener);
    for (int i = 0; i < MAX_STRANGERS; i++)
        close_fd(&m->strangers[i].fd);
    for (int r = 0; r < m->options->size && failed; r++)
        close_fd(&m->fd[r]);
    free(m->places);
    free(m->chosen);
    free(m->polled);
    free(m);
}

syz_status syz_meet(int fd[], const syz_comm_options *options) {
    size_t size = (size_t)options->size;
    for (size_t r = 0; r < size; r++)
        fd[r] = -1;
    if (size == 1) return SYZ_OK;
    meeting *m = syz_alloc(1, sizeof *m);
    if (!m) return SYZ_ENOMEM;
    *m = (meeting){.options = options,
                   .address = options->address ? options->address : "127.0.0.1",
                   .seconds = options->timeout < LONGEST_START ? options->timeout : LONGEST_START,
                   .fd = fd,
                   .listener = -1,
                   .places = syz_alloc(size, sizeof(place)),
                   .chosen = syz_alloc(size, sizeof(bool)),
                   .polled = syz_alloc(1 + MAX_STRANGERS + size, sizeof(struct pollfd))};
    m->deadline = syz_seconds() + m->seconds;
    for (int i = 0; i < MAX_STRANGERS; i++)
        m->strangers[i].fd = -1;
    syz_status status = SYZ_ENOMEM;
    if (m->places && m->chosen && m->polled) status = options->rank == 0 ? host(m) : attend_meeting(m);
    leave(m, status != SYZ_OK);
    return status;
}
