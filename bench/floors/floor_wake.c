/* SPDX-License-Identifier: Apache-2.0 */
/* Threads that wake each other, and nothing else: the sleeping, waking and signalling of a hand-off
 * between two processes whose threads are all asleep, without a byte of it. What is done in this
 * way cannot be seen by the receiver any sooner.
 *
 *   parent: user ── eventfd ──▶ progress thread ── datagram ──▶ progress thread ── eventfd ──▶ user
 *                                                               (child)              (its clock)
 *           ◀───────────────── a socket: when it woke, and CPU time ─────────────────────────┘
 *
 * Each thread sleeps in poll, as those of the library do. Before each turn nothing happens for a
 * millisecond. --pages and --page-bytes mean nothing here. */
#include "floor_common.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SETTLE_MS = 1 };

typedef struct {
    uint64_t at_ns, cpu_ns;
} seen;

/* From one descriptor to the next, 8 bytes each time. */
typedef struct {
    int from, to;
} relay;

/* Sleeps until there is something; false: the other side has left. */
static bool take(int fd)
{
    uint64_t value;
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    return poll(&ready, 1, -1) == 1 && read(fd, &value, sizeof(value)) == (ssize_t)sizeof(value);
}

static bool give(int fd)
{
    uint64_t one = 1;
    return write(fd, &one, sizeof(one)) == (ssize_t)sizeof(one);
}

static void *pass_on(void *ctx)
{
    const relay *r = ctx;
    while (take(r->from) && give(r->to))
        continue;
    return NULL;
}

static void start(relay *r)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, pass_on, r) != 0)
        floor_die("floor_wake: thread");
    pthread_detach(thread); /* it ends with its process */
}

static int make_eventfd(void)
{
    int fd = eventfd(0, EFD_CLOEXEC);
    if (fd < 0)
        floor_die("floor_wake: eventfd");
    return fd;
}

static _Noreturn void be_receiver(const floor_work *work, int datagrams, int answers)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    relay progress = {.from = datagrams, .to = make_eventfd()};
    start(&progress);
    uint64_t cpu_ns = floor_cpu_ns();
    for (unsigned i = 0; i < FLOOR_WARMUP + work->n_iterations; i++) {
        if (!take(progress.to))
            _exit(1);
        seen now = {.at_ns = floor_now_ns(), .cpu_ns = floor_cpu_ns() - cpu_ns};
        if (write(answers, &now, sizeof(now)) != (ssize_t)sizeof(now))
            _exit(1);
        cpu_ns = floor_cpu_ns();
    }
    _exit(0);
}

static void measure(floor_work *work, int user, int answers)
{
    for (unsigned i = 0; i < FLOOR_WARMUP + work->n_iterations; i++) {
        seen there;
        poll(NULL, 0, SETTLE_MS); /* everybody is asleep after that */
        uint64_t cpu_ns = floor_cpu_ns(), start_ns = floor_now_ns();
        if (!give(user) || read(answers, &there, sizeof(there)) != (ssize_t)sizeof(there))
            floor_die("floor_wake: second process");
        if (i < FLOOR_WARMUP)
            continue;
        work->wall_us[i - FLOOR_WARMUP] = (double)(there.at_ns - start_ns) / 1e3;
        work->sender_cpu_us += (double)(floor_cpu_ns() - cpu_ns) / 1e3;
        work->receiver_cpu_us += (double)there.cpu_ns / 1e3;
    }
}

int main(int argc, char **argv)
{
    floor_work work;
    int datagrams[2], answers[2];
    floor_parse(argc, argv, &work);
    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, datagrams) != 0 ||
        socketpair(AF_UNIX, SOCK_STREAM, 0, answers) != 0)
        floor_die("floor_wake: sockets");
    pid_t child = fork();
    if (child < 0)
        floor_die("floor_wake: second process");
    if (child == 0) {
        close(answers[0]);
        be_receiver(&work, datagrams[1], answers[1]);
    }
    close(answers[1]);
    relay progress = {.from = make_eventfd(), .to = datagrams[0]};
    start(&progress);
    measure(&work, progress.from, answers[0]);
    waitpid(child, NULL, 0);
    floor_report(&work, "two eventfds and a datagram, three threads asleep in poll");
    return 0;
}
