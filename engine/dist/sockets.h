/* TCP sockets that never block: every wait has a deadline and ends when the run is cancelled. */
#ifndef SYZ_DIST_SOCKETS_H
#define SYZ_DIST_SOCKETS_H

#include "core/error.h"
#include "syzygy.h"

#define SYZ_HOST_TEXT 64 /* of a numeric address */

double syz_seconds(void); /* monotonic; deadlines are compared with it */

/* "localhost", 127.x.x.x or ::1: nobody on another machine can be meant. */
bool syz_is_loopback(const char *host);

/* Listen at `port`, 0: a free one. On the loopback interface when `host` is of it, else on all. SYZ_EIO. */
syz_status syz_listen(int *fd, const char *host, int port);
int syz_listening_port(int fd);

/* Connect, again and again until `deadline`: whoever shall listen may start later. SYZ_EIO with the last cause. */
syz_status syz_connect(int *fd, const char *host, int port, double deadline);

/* A connection that waits at a listening socket, or -1 if there is none. */
int syz_accept(int listener);
/* The other end's numeric address; "" when it is of the loopback interface. */
void syz_peer_host(char text[SYZ_HOST_TEXT], int fd);

/* What is to be sent through one connection and received from it; advanced by syz_exchange(). */
typedef struct {
    int fd; /* -1: nothing to do */
    const char *out;
    char *in;
    size_t out_left, in_left;
    bool closed; /* by the other end, before it was done */
} syz_transfer;

typedef enum { SYZ_EXCHANGED, SYZ_PEER_CLOSED, SYZ_TOO_LATE, SYZ_EXCHANGE_FAILED } syz_outcome;

/* Do all of it, in both directions at once. Ends early when one connection is closed, at the deadline, when the run is
 * cancelled or poll() fails, which leave an error. A deadline in the past: once, what can be done. At most
 * SYZ_COMM_MAX_SIZE transfers. */
syz_outcome syz_exchange(syz_transfer *transfers, int count, double deadline);

/* Whether the other end has closed; takes nothing from the stream. */
bool syz_has_closed(int fd);

/* poll() for at most a tenth of a second, so that whoever loops can look at the time and at cancellation. False with an
 * error pending when the run is cancelled, or poll() fails. */
struct pollfd;
bool syz_poll(struct pollfd *fds, int count);

#endif
