#include "dist/sockets.h"
#include "core/threads.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define TICK_MS 100

double syz_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

bool syz_is_loopback(const char *host) {
    return strcmp(host, "localhost") == 0 || strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0;
}

bool syz_poll(struct pollfd *fds, int count) {
    if (poll(fds, (nfds_t)count, TICK_MS) < 0) {
        if (errno != EINTR) {
            syz_fail(SYZ_EIO, "waiting for other processes failed: %s", strerror(errno));
            return false;
        }
        for (int i = 0; i < count; i++)
            fds[i].revents = 0;
    }
    return syz_check_cancel() == SYZ_OK;
}

/* ---- listening --------------------------------------------------------------------------------------------------- */

static int listen_on(const struct sockaddr *address, socklen_t length) {
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1, off = 0;
    if (fd < 0) return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on); /* a port whose last run has just ended is free */
    if (address->sa_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (bind(fd, address, length) == 0 && listen(fd, SOMAXCONN) == 0) return fd;
    int cause = errno;
    close(fd);
    errno = cause;
    return -1;
}

static int listen_on_loopback(const char *host, int port) {
    char service[16];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *found;
    snprintf(service, sizeof service, "%d", port);
    if (getaddrinfo(host, service, &hints, &found) != 0) {
        errno = EADDRNOTAVAIL;
        return -1;
    }
    int fd = listen_on(found->ai_addr, found->ai_addrlen);
    int cause = errno;
    freeaddrinfo(found);
    errno = cause;
    return fd;
}

static int listen_on_all(int port) {
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = in6addr_any, .sin6_port = htons((uint16_t)port)};
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = listen_on((struct sockaddr *)&six, sizeof six); /* takes IPv4 too */
    if (fd >= 0 || errno == EADDRINUSE) return fd;
    return listen_on((struct sockaddr *)&four, sizeof four);
}

syz_status syz_listen(int *fd, const char *host, int port) {
    *fd = syz_is_loopback(host) ? listen_on_loopback(host, port) : listen_on_all(port);
    if (*fd >= 0) return SYZ_OK;
    const char *remedy = errno == EADDRINUSE ? "; another run uses this port: choose another MASTER_PORT" : "";
    return syz_fail(SYZ_EIO, "cannot listen at %s:%d: %s%s", host, port, strerror(errno), remedy);
}

int syz_listening_port(int fd) {
    struct sockaddr_storage address = {0};
    socklen_t length = sizeof address;
    getsockname(fd, (struct sockaddr *)&address, &length);
    bool six = address.ss_family == AF_INET6;
    return ntohs(six ? ((struct sockaddr_in6 *)&address)->sin6_port : ((struct sockaddr_in *)&address)->sin_port);
}

/* Small messages must not wait for more to send with them. */
static void no_delay(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

int syz_accept(int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) no_delay(fd);
    return fd;
}

void syz_peer_host(char text[SYZ_HOST_TEXT], int fd) {
    struct sockaddr_storage address = {0};
    socklen_t length = sizeof address;
    text[0] = '\0';
    if (getpeername(fd, (struct sockaddr *)&address, &length) != 0) return;
    if (getnameinfo((struct sockaddr *)&address, length, text, SYZ_HOST_TEXT, NULL, 0, NI_NUMERICHOST) != 0)
        text[0] = '\0';
    if (strncmp(text, "::ffff:", 7) == 0) memmove(text, text + 7, strlen(text + 7) + 1);
    if (syz_is_loopback(text)) text[0] = '\0';
}

/* ---- connecting -------------------------------------------------------------------------------------------------- */

/* Where nobody listens, the kernel may join a socket to itself: the port is then its own. */
static bool is_own_end(int fd) {
    struct sockaddr_storage own = {0}, other = {0};
    socklen_t own_length = sizeof own, other_length = sizeof other;
    getsockname(fd, (struct sockaddr *)&own, &own_length);
    getpeername(fd, (struct sockaddr *)&other, &other_length);
    return own_length == other_length && memcmp(&own, &other, own_length) == 0;
}

/* 0, or the error of one attempt; an error of the engine is pending when cancelled. */
static int wait_connected(int fd, double deadline) {
    double limit = syz_seconds() + 5; /* of one attempt */
    if (limit > deadline) limit = deadline;
    for (;;) {
        struct pollfd writable = {.fd = fd, .events = POLLOUT};
        if (!syz_poll(&writable, 1)) return ECANCELED;
        if (writable.revents) break;
        if (syz_seconds() > limit) return ETIMEDOUT;
    }
    int cause = 0;
    socklen_t length = sizeof cause;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &cause, &length);
    if (cause == 0 && is_own_end(fd)) cause = ECONNREFUSED;
    return cause;
}

static int connect_once(int *fd, const struct addrinfo *to, double deadline) {
    *fd = socket(to->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (*fd < 0) return errno;
    int cause = connect(*fd, to->ai_addr, to->ai_addrlen) == 0 ? 0 : errno;
    if (cause == EINPROGRESS || cause == 0) cause = wait_connected(*fd, deadline);
    if (cause == 0) {
        no_delay(*fd);
        return 0;
    }
    close(*fd);
    *fd = -1;
    return cause;
}

syz_status syz_connect(int *fd, const char *host, int port, double deadline) {
    char service[16];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    snprintf(service, sizeof service, "%d", port);
    for (;;) {
        struct addrinfo *found = NULL;
        int unknown = getaddrinfo(host, service, &hints, &found), cause = 0;
        for (struct addrinfo *to = found; to && !syz_failed(); to = to->ai_next)
            if ((cause = connect_once(fd, to, deadline)) == 0) break;
        if (found) freeaddrinfo(found);
        if (syz_failed()) return syz_error_status();
        if (!unknown && cause == 0) return SYZ_OK;
        if (syz_seconds() > deadline)
            return syz_fail(SYZ_EIO, "cannot connect to %s:%d: %s", host, port,
                            unknown ? gai_strerror(unknown) : strerror(cause));
        if (!syz_poll(NULL, 0)) return syz_error_status();
    }
}

/* ---- exchanging -------------------------------------------------------------------------------------------------- */

static bool would_wait(ssize_t moved) {
    return moved < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
}

static void advance(syz_transfer *t, short events) {
    if (t->out_left && events & (POLLOUT | POLLERR | POLLHUP)) {
        ssize_t sent = send(t->fd, t->out, t->out_left, MSG_NOSIGNAL);
        if (sent > 0) {
            t->out += sent;
            t->out_left -= (size_t)sent;
        } else if (!would_wait(sent)) {
            t->closed = true;
        }
    }
    if (t->in_left && events & (POLLIN | POLLERR | POLLHUP)) {
        ssize_t received = recv(t->fd, t->in, t->in_left, 0);
        if (received > 0) {
            t->in += received;
            t->in_left -= (size_t)received;
        } else if (!would_wait(received)) {
            t->closed = true;
        }
    }
}

syz_outcome syz_exchange(syz_transfer *transfers, int count, double deadline) {
    struct pollfd fds[SYZ_COMM_MAX_SIZE];
    for (bool first = true;; first = false) {
        bool open = false, closed = false;
        for (int i = 0; i < count; i++) {
            const syz_transfer *t = &transfers[i];
            fds[i] = (struct pollfd){.fd = -1};
            closed = closed || t->closed;
            if (t->fd < 0 || t->out_left + t->in_left == 0) continue;
            fds[i].fd = t->fd;
            fds[i].events = (short)((t->out_left ? POLLOUT : 0) | (t->in_left ? POLLIN : 0));
            open = true;
        }
        if (closed) return SYZ_PEER_CLOSED;
        if (!open) return SYZ_EXCHANGED;
        if (!first && syz_seconds() > deadline) return SYZ_TOO_LATE;
        if (!syz_poll(fds, count)) return SYZ_EXCHANGE_FAILED;
        for (int i = 0; i < count; i++)
            if (fds[i].fd >= 0 && fds[i].revents) advance(&transfers[i], fds[i].revents);
    }
}

bool syz_has_closed(int fd) {
    char byte;
    ssize_t there = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return there == 0 || (there < 0 && !would_wait(there));
}
