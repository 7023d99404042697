/* SPDX-License-Identifier: Apache-2.0 */
/* Plain sockets over loopback: pages leave shuffled slots with sendmsg and are received where they
 * belong with recvmsg, and the target answers one byte when it has them all. One connection, or
 * --lanes of them, a thread each; --buffer sets the sockets' buffers. What moves pages over tcp on
 * this machine can hardly be faster. --latency: from before the first send until the target has the
 * last byte, by CLOCK_MONOTONIC, which both processes share.
 *
 *   parent (source) ── lanes: pages ──▶ child (target)
 *                   ◀── lane: one byte when its pages are there
 *                   ◀─▶ a socket pair beside it: "check", verdict and CPU time */
#include "floor_common.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LANES_MAX = 16, PIECES = 64 };

typedef struct {
    const floor_work *work;
    uint8_t *memory;
    const size_t *slots;
    size_t first, end; /* pages of this lane */
    int fd;
    bool sends;
    uint64_t moved_ns; /* when its pages were there, or gone */
} lane;

typedef struct {
    uint32_t good;
    uint64_t cpu_ns, moved_ns;
} verdict;

/* A turn that finds nothing gives the core away, should both ends have to share it. */
static bool try_again(const floor_work *work, ssize_t done)
{
    if (!work->poll || done >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK))
        return false;
    sched_yield();
    return true;
}

static void move_all(const floor_work *work, int fd, struct iovec *pieces, size_t n, bool sends)
{
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = n};
    int flags = work->poll ? MSG_DONTWAIT : 0;
    while (message.msg_iovlen > 0) {
        ssize_t done =
            sends ? sendmsg(fd, &message, MSG_NOSIGNAL | flags) : recvmsg(fd, &message, flags);
        if (try_again(work, done))
            continue;
        if (done <= 0)
            floor_die("floor_tcp: socket");
        while (message.msg_iovlen > 0 && (size_t)done >= message.msg_iov->iov_len) {
            done -= (ssize_t)message.msg_iov->iov_len;
            message.msg_iov++;
            message.msg_iovlen--;
        }
        if (message.msg_iovlen > 0) {
            message.msg_iov->iov_base = (char *)message.msg_iov->iov_base + done;
            message.msg_iov->iov_len -= (size_t)done;
        }
    }
}

static void *run_lane(void *ctx)
{
    lane *l = ctx;
    struct iovec pieces[PIECES];
    for (size_t page = l->first; page < l->end;) {
        size_t n = 0;
        for (; n < PIECES && page < l->end; n++, page++)
            pieces[n] = (struct iovec){l->memory + l->slots[page] * l->work->page_bytes,
                                       l->work->page_bytes};
        move_all(l->work, l->fd, pieces, n, l->sends);
    }
    l->moved_ns = floor_now_ns();
    char byte = 'x';
    struct iovec answer = {&byte, 1};
    move_all(l->work, l->fd, &answer, 1, !l->sends);
    return NULL;
}

/* Lane 0 on the calling thread. */
static void run_lanes(lane *lanes, unsigned n)
{
    pthread_t threads[LANES_MAX];
    for (unsigned i = 1; i < n; i++) {
        if (pthread_create(&threads[i], NULL, run_lane, &lanes[i]) != 0)
            floor_die("floor_tcp: thread");
    }
    run_lane(&lanes[0]);
    for (unsigned i = 1; i < n; i++)
        pthread_join(threads[i], NULL);
}

static void make_lanes(const floor_work *work, uint8_t *memory, bool sends, const int *fds,
                       lane *lanes)
{
    for (unsigned i = 0; i < work->lanes; i++)
        lanes[i] = (lane){.work = work,
                          .memory = memory,
                          .slots = sends ? work->from : work->to,
                          .first = work->n_pages * i / work->lanes,
                          .end = work->n_pages * (i + 1) / work->lanes,
                          .fd = fds[i],
                          .sends = sends};
}

static void set_options(const floor_work *work, int fd)
{
    int yes = 1, bytes = (int)work->buffer;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
    if (bytes > 0) {
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
    }
}

static int listen_loopback(const floor_work *work, struct sockaddr_in *address)
{
    socklen_t bytes = sizeof(*address);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    *address =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    set_options(work, fd); /* accepted ones take them over */
    if (fd < 0 || bind(fd, (struct sockaddr *)address, sizeof(*address)) != 0 ||
        listen(fd, LANES_MAX) != 0 || getsockname(fd, (struct sockaddr *)address, &bytes) != 0)
        floor_die("floor_tcp: listen");
    return fd;
}

/* All of it through the pair beside the lanes; false: the other end has left. */
static bool ask_side(const floor_work *work, int side, void *bytes, size_t n, bool sends)
{
    struct iovec piece = {bytes, n};
    if (sends)
        return send(side, bytes, n, MSG_NOSIGNAL) == (ssize_t)n;
    for (;;) {
        struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
        ssize_t done = recvmsg(side, &message, work->poll ? MSG_DONTWAIT : MSG_WAITALL);
        if (!try_again(work, done))
            return done == (ssize_t)n;
    }
}

/* Ends that poll have a core each, where there are two. */
static void take_core(const floor_work *work, size_t core)
{
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET(core, &cores);
    if (work->poll)
        sched_setaffinity(0, sizeof(cores), &cores); /* else the figures are worse, not wrong */
}

static void settle(const floor_work *work)
{
    uint64_t until_ns = floor_now_ns() + 1000000;
    if (work->pause && !work->poll)
        poll(NULL, 0, 1);
    while (work->pause && work->poll && floor_now_ns() < until_ns)
        continue;
}

static _Noreturn void be_target(const floor_work *work, const struct sockaddr_in *address, int side)
{
    lane lanes[LANES_MAX];
    int fds[LANES_MAX];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    take_core(work, 1);
    uint8_t *target = floor_memory(work, false);
    for (unsigned i = 0; i < work->lanes; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM, 0);
        set_options(work, fds[i]);
        if (connect(fds[i], (const struct sockaddr *)address, sizeof(*address)) != 0)
            _exit(1);
    }
    make_lanes(work, target, false, fds, lanes);
    for (unsigned i = 0; i < FLOOR_WARMUP + work->n_iterations; i++) {
        char byte;
        uint64_t cpu_ns = floor_cpu_ns();
        run_lanes(lanes, work->lanes);
        verdict v = {.cpu_ns = floor_cpu_ns() - cpu_ns, .moved_ns = lanes[0].moved_ns};
        if (!ask_side(work, side, &byte, 1, false)) /* the source has taken its time */
            _exit(1);
        v.good = floor_check(work, i, target);
        if (!ask_side(work, side, &v, sizeof(v), true))
            _exit(1);
    }
    _exit(0);
}

static bool measure(floor_work *work, lane *lanes, uint8_t *source, int side)
{
    for (unsigned i = 0; i < FLOOR_WARMUP + work->n_iterations; i++) {
        verdict v;
        char check = 'c';
        floor_fill(work, i, source);
        settle(work);
        uint64_t cpu_ns = floor_cpu_ns(), start_ns = floor_now_ns();
        run_lanes(lanes, work->lanes);
        uint64_t wall_ns = floor_now_ns() - start_ns;
        cpu_ns = floor_cpu_ns() - cpu_ns;
        if (!ask_side(work, side, &check, 1, true) || !ask_side(work, side, &v, sizeof(v), false))
            floor_die("floor_tcp: second process");
        if (work->latency)
            wall_ns = v.moved_ns - start_ns;
        if (!v.good)
            return false;
        if (i < FLOOR_WARMUP)
            continue;
        work->wall_us[i - FLOOR_WARMUP] = (double)wall_ns / 1e3;
        work->sender_cpu_us += (double)cpu_ns / 1e3;
        work->receiver_cpu_us += (double)v.cpu_ns / 1e3;
    }
    return true;
}

static void report(floor_work *work)
{
    char config[128];
    int n = 0;
    if (work->latency)
        n = snprintf(config, sizeof(config), "both %s, %s, ", work->poll ? "poll" : "sleep",
                     work->pause ? "one a millisecond" : "back to back");
    if (work->buffer > 0)
        snprintf(config + n, sizeof(config) - (size_t)n, "%u connection%s, buffers of %zu bytes",
                 work->lanes, work->lanes > 1 ? "s" : "", work->buffer);
    else
        snprintf(config + n, sizeof(config) - (size_t)n, "system's buffers");
    floor_report(work, config);
}

int main(int argc, char **argv)
{
    floor_work work;
    struct sockaddr_in address;
    int side[2], fds[LANES_MAX];
    lane lanes[LANES_MAX];
    floor_parse(argc, argv, &work);
    if (work.latency && work.lanes > 1) {
        errno = EINVAL;
        floor_die("floor_tcp: --latency wants one lane");
    }
    int listener = listen_loopback(&work, &address);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, side) != 0)
        floor_die("floor_tcp: socket pair");
    pid_t child = fork();
    if (child == 0) {
        close(side[0]);
        be_target(&work, &address, side[1]);
    }
    close(side[1]);
    if (child < 0)
        floor_die("floor_tcp: second process");
    take_core(&work, 0);
    uint8_t *source = floor_memory(&work, false);
    for (unsigned i = 0; i < work.lanes; i++) {
        fds[i] = accept(listener, NULL, NULL);
        if (fds[i] < 0)
            floor_die("floor_tcp: accept");
        set_options(&work, fds[i]);
    }
    make_lanes(&work, source, true, fds, lanes);
    bool good = measure(&work, lanes, source, side[0]);
    waitpid(child, NULL, 0);
    munmap(source, work.n_pages * work.page_bytes);
    report(&work);
    return good ? 0 : 1;
}
