/* SPDX-License-Identifier: Apache-2.0 */
/* How long until one end notices that the other one has died or stopped, in the middle of a
 * transfer: from the signal to the FAILED event.
 *
 *   bench_lostpeer [--path mapped|tcp|rc] [--away] [--rounds N] [--devices OURS THEIRS]
 *
 * The victim is a process of its own. --away: in its own pid namespace (root), so that nobody can
 * watch its process and it is noticed as on another host: by the transport, or by its silence. */
#include <baton/log.h>
#include <baton/receiver.h>
#include <baton/sender.h>

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CHUNKS = 3, CHUNK_TOKENS = 16, CHUNK_BYTES = 64 * 1024, ROUNDS_MAX = 100, GUARD_MS = 60000 };

typedef struct {
    const char *path; /* "mapped", "tcp", "rc" */
    const char *device, *victims_device;
    bool away;
    unsigned n_rounds;
} plan;

static void check(baton_status status, const char *what)
{
    if (status == BATON_OK)
        return;
    fprintf(stderr, "bench_lostpeer: %s: %s\n", what, baton_last_error());
    exit(2);
}

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static baton_layout layout(void)
{
    return (baton_layout){.model = "lostpeer",
                          .dtype = BATON_DTYPE_F32,
                          .n_layers = 2,
                          .n_planes = 2,
                          .n_kv_heads = 1,
                          .head_dim = CHUNK_BYTES / CHUNK_TOKENS / 16,
                          .chunk_tokens = CHUNK_TOKENS,
                          .block_tokens = 8,
                          .tp_size = 1,
                          .pp_size = 1};
}

static baton_receiver *open_receiver(const char *const *device)
{
    baton_receiver *receiver;
    const baton_receiver_options options = {.layout = layout(),
                                            .pool_bytes = 16 * CHUNK_BYTES,
                                            .admin = "off",
                                            .data = {.data_devices = device, .n_data_devices = 1}};
    check(baton_receiver_create(&options, &receiver), "receiver");
    return receiver;
}

static baton_sender *open_sender(const char *path, const char *const *device)
{
    baton_sender *sender;
    const baton_sender_options options = {.layout = layout(),
                                          .path = strcmp(path, "mapped") == 0 ? BATON_PATH_MAPPED
                                                                              : BATON_PATH_PUT,
                                          .admin = "off",
                                          .data = {.data_devices = device, .n_data_devices = 1}};
    check(baton_sender_create(&options, &sender), "sender");
    return sender;
}

/* A transfer of which one chunk is pushed, and no more. */
static void begin(baton_sender *sender, uint16_t init_port, uint16_t alloc_port)
{
    static uint8_t chunk[CHUNK_BYTES];
    uint32_t tokens[CHUNKS * CHUNK_TOKENS], n_keys, last;
    baton_key keys[CHUNKS];
    baton_key_chain chain;
    baton_transfer transfer;
    const baton_layout ours = layout();
    for (uint32_t i = 0; i < CHUNKS * CHUNK_TOKENS; i++)
        tokens[i] = i;
    check(baton_key_chain_init(&ours, 1, 0, NULL, &chain), "keys");
    check(baton_keys_of_tokens(&chain, tokens, CHUNKS * CHUNK_TOKENS, keys, CHUNKS, &n_keys, &last),
          "keys");
    const baton_transfer_options options = {.request = "lost",
                                            .host = "127.0.0.1",
                                            .init_port = init_port,
                                            .alloc_port = alloc_port,
                                            .keys = keys,
                                            .n_chunks = CHUNKS,
                                            .last_tokens = last};
    check(baton_transfer_begin(sender, &options, &transfer), "transfer");
    check(baton_transfer_push_bytes(sender, transfer, 0, chunk, sizeof(chunk)), "push");
}

/* Until the chunk has gone: it is the only event before the end. */
static void await_chunk(baton_sender *sender)
{
    struct pollfd fd = {.fd = baton_sender_event_fd(sender), .events = POLLIN};
    baton_sender_event event = {0};
    if (poll(&fd, 1, GUARD_MS) == 1)
        baton_sender_poll(sender, &event, 1);
    if (fd.revents == 0 || event.kind != BATON_SENDER_SOURCE_FREE) {
        fprintf(stderr, "bench_lostpeer: no transfer got under way: %s\n", event.text);
        exit(2);
    }
}

/* ---- the victim ---- */

static _Noreturn void be_receiver(const char *const *words)
{
    uint16_t init_port, alloc_port;
    baton_receiver_ports(open_receiver(&words[1]), &init_port, &alloc_port);
    printf("%u %u\n", init_port, alloc_port);
    fflush(stdout);
    for (;;)
        pause();
}

static _Noreturn void be_sender(const char *const *words)
{
    baton_sender *sender = open_sender(words[0], &words[1]);
    begin(sender, (uint16_t)atoi(words[2]), (uint16_t)atoi(words[3]));
    await_chunk(sender);
    printf("moving 1\n");
    fflush(stdout);
    for (;;)
        pause();
}

typedef struct {
    pid_t pid;
    FILE *out;
} victim;

/* This program again, as `role`. */
static victim start(const plan *p, const char *role, const char *init, const char *alloc)
{
    int fds[2];
    if (pipe(fds) != 0)
        exit(2);
    pid_t parent = getpid();
    unsigned long flags = SIGCHLD | (p->away ? CLONE_NEWPID : 0);
    pid_t pid = (pid_t)syscall(SYS_clone, flags, NULL, NULL, NULL, 0); /* fork, and its namespace */
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent && !p->away)
            _exit(2);
        dup2(fds[1], STDOUT_FILENO);
        close(fds[0]);
        execl("/proc/self/exe", "bench_lostpeer", role, p->path, p->victims_device, init, alloc,
              (char *)NULL);
        _exit(2);
    }
    close(fds[1]);
    if (pid < 0) {
        perror("bench_lostpeer: starting the victim (--away wants root)");
        exit(2);
    }
    return (victim){.pid = pid, .out = fdopen(fds[0], "r")};
}

static void end(victim *v)
{
    kill(v->pid, SIGKILL);
    waitpid(v->pid, NULL, 0);
    fclose(v->out);
}

/* ---- rounds ---- */

static double until_failed(int fd, baton_sender *sender, baton_receiver *receiver, double start_ms,
                           baton_status *why)
{
    baton_sender_event sent = {0};
    baton_receiver_event received = {0};
    for (;;) {
        struct pollfd one = {.fd = fd, .events = POLLIN};
        if (poll(&one, 1, GUARD_MS) != 1)
            return -1;
        double end_ms = now_ms();
        if (sender != NULL && baton_sender_poll(sender, &sent, 1) == 1 &&
            sent.kind == BATON_SENDER_FAILED) {
            *why = sent.status;
            return end_ms - start_ms;
        }
        if (receiver != NULL && baton_receiver_poll(receiver, &received, 1) == 1 &&
            received.kind == BATON_RECEIVER_FAILED) {
            *why = received.status;
            return end_ms - start_ms;
        }
    }
}

static double lose_receiver(const plan *p, int signal, baton_status *why)
{
    unsigned init_port, alloc_port;
    victim v = start(p, "receiver", "", "");
    if (fscanf(v.out, "%u %u", &init_port, &alloc_port) != 2)
        exit(2);
    baton_sender *sender = open_sender(p->path, &p->device);
    begin(sender, (uint16_t)init_port, (uint16_t)alloc_port);
    await_chunk(sender);
    double start_ms = now_ms();
    kill(v.pid, signal);
    double ms = until_failed(baton_sender_event_fd(sender), sender, NULL, start_ms, why);
    end(&v);
    baton_sender_destroy(sender);
    return ms;
}

static double lose_sender(const plan *p, int signal, baton_status *why)
{
    uint16_t init_port, alloc_port;
    unsigned n;
    char init[8], alloc[8];
    baton_receiver *receiver = open_receiver(&p->device);
    baton_receiver_ports(receiver, &init_port, &alloc_port);
    snprintf(init, sizeof(init), "%u", init_port);
    snprintf(alloc, sizeof(alloc), "%u", alloc_port);
    victim v = start(p, "sender", init, alloc);
    if (fscanf(v.out, "moving %u", &n) != 1)
        exit(2);
    double start_ms = now_ms();
    kill(v.pid, signal);
    double ms = until_failed(baton_receiver_event_fd(receiver), NULL, receiver, start_ms, why);
    end(&v);
    baton_receiver_destroy(receiver);
    return ms;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(const plan *p, const char *who, int signal,
                    double (*lose)(const plan *p, int signal, baton_status *why))
{
    double ms[ROUNDS_MAX];
    baton_status why = BATON_OK;
    for (unsigned i = 0; i < p->n_rounds; i++)
        ms[i] = lose(p, signal, &why);
    qsort(ms, p->n_rounds, sizeof(ms[0]), by_size);
    printf("%-7s %-5s %-8s %-8s %7.0f %7.0f  %s\n", p->path, p->away ? "away" : "here", who,
           signal == SIGKILL ? "killed" : "stopped", ms[p->n_rounds / 2], ms[p->n_rounds - 1],
           baton_status_name(why));
    fflush(stdout);
}

static void read_plan(int argc, char **argv, plan *p)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--away") == 0)
            p->away = true;
        else if (strcmp(argv[i], "--path") == 0 && i + 1 < argc)
            p->path = argv[++i];
        else if (strcmp(argv[i], "--rounds") == 0 && i + 1 < argc)
            p->n_rounds = (unsigned)atoi(argv[++i]);
        else if (strcmp(argv[i], "--devices") == 0 && i + 2 < argc) {
            p->device = argv[++i];
            p->victims_device = argv[++i];
        } else {
            fprintf(stderr, "usage: bench_lostpeer [--path mapped|tcp|rc] [--away] [--rounds N] "
                            "[--devices OURS THEIRS]\n");
            exit(strcmp(argv[i], "--help") == 0 ? 0 : 2);
        }
    }
    if (p->n_rounds == 0 || p->n_rounds > ROUNDS_MAX)
        p->n_rounds = ROUNDS_MAX;
}

int main(int argc, char **argv)
{
    baton_log_set_level(BATON_LOG_ERROR); /* what is measured is what the API says */
    if (argc > 5 && strcmp(argv[1], "receiver") == 0)
        be_receiver((const char *const *)argv + 2);
    if (argc > 5 && strcmp(argv[1], "sender") == 0)
        be_sender((const char *const *)argv + 2);
    plan p = {.path = "mapped", .device = "lo", .victims_device = "lo", .n_rounds = 9};
    read_plan(argc, argv, &p);
    if (strcmp(p.path, "mapped") != 0)
        setenv("UCX_TLS", p.path, 0);
    printf("path    where victim   is       median   worst  ms, and how it is named\n");
    measure(&p, "receiver", SIGKILL, lose_receiver);
    measure(&p, "sender", SIGKILL, lose_sender);
    measure(&p, "receiver", SIGSTOP, lose_receiver);
    measure(&p, "sender", SIGSTOP, lose_sender);
    return 0;
}
