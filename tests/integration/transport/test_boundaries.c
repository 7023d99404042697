/* SPDX-License-Identifier: Apache-2.0 */
/* A sender and a receiver on one host, with what containers and users put between them: real
 * namespaces, real uids, a /dev/shm that is too small, and floors that the path cannot meet. Both
 * are forked, so that each may leave the test's own namespaces and user. The bytes must arrive
 * right, and exactly one line says why they do not go straight into the receiver's memory. */
#include "support/test.h"

#include <baton/log.h>
#include <baton/receiver.h>
#include <baton/sender.h>

#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    CHUNK_TOKENS = 64,
    N_CHUNKS = 4,
    N_TOKENS = N_CHUNKS * CHUNK_TOKENS - 7,
    TOKEN_BYTES = 2 * 2 * 2 * 32 * 2, /* of the layout below */
    POOL_BYTES = 8 * CHUNK_TOKENS * TOKEN_BYTES,
    NOBODY = 65534,
};

/* What one side is put into, and wants. */
typedef struct {
    int namespaces; /* CLONE_NEW* */
    bool small_shm; /* with CLONE_NEWNS: a /dev/shm smaller than the pool, and no other shared
                       memory; UCX itself takes 4 MiB of it for each worker */
    bool engine_pool;
    uid_t uid; /* 0: stays root */
    baton_path_choice path;
    baton_data_path data;
} side;

/* What the sender's process tells the test. */
typedef struct {
    bool could_enter;
    baton_sender_event end;
    baton_sender_peer peer;
    unsigned n_lines; /* that say "cannot be mapped" */
} sender_report;

static baton_layout layout(void)
{
    return (baton_layout){.model = "boundaries",
                          .dtype = BATON_DTYPE_BF16,
                          .n_layers = 2,
                          .n_planes = 2,
                          .n_kv_heads = 2,
                          .head_dim = 32,
                          .chunk_tokens = CHUNK_TOKENS,
                          .block_tokens = 16,
                          .tp_size = 1,
                          .pp_size = 1};
}

static void fill_prompt(uint32_t *tokens, uint8_t *bytes)
{
    bt_rng rng = {.state = 5};
    for (uint32_t i = 0; i < N_TOKENS; i++)
        tokens[i] = 7 * i + 1;
    bt_rng_fill(&rng, bytes, (size_t)N_TOKENS * TOKEN_BYTES);
}

static atomic_uint n_lines;
static void count_lines(void *ctx, baton_log_level level, const char *line)
{
    (void)ctx;
    if (level == BATON_LOG_WARN && strstr(line, "cannot be mapped") != NULL)
        atomic_fetch_add(&n_lines, 1);
    else if (level <= BATON_LOG_WARN)
        fprintf(stderr, "%s\n", line);
}

/* False: this user may not. */
static bool enter(const side *s)
{
    if (s->namespaces != 0 && unshare(s->namespaces) != 0)
        return false;
    if ((s->namespaces & CLONE_NEWPID) != 0) { /* only children are in it */
        pid_t pid = fork();
        if (pid != 0) {
            int status = 0;
            waitpid(pid, &status, 0);
            _exit(pid > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : 1);
        }
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    }
    if ((s->namespaces & CLONE_NEWNS) != 0 &&
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        return false;
    if ((s->namespaces & CLONE_NEWPID) != 0 && mount("proc", "/proc", "proc", 0, NULL) != 0)
        return false;
    if (s->small_shm) {
        setenv("UCX_TLS", "posix,tcp", 1);
        if (mount("shm", "/dev/shm", "tmpfs", 0, "size=24m") != 0)
            return false;
    }
    /* UCX lets its own group in, too. */
    return s->uid == 0 || (setgroups(0, NULL) == 0 && setresgid(s->uid, s->uid, s->uid) == 0 &&
                           setresuid(s->uid, s->uid, s->uid) == 0);
}

static bool write_all(int fd, const void *bytes, size_t n)
{
    return write(fd, bytes, n) == (ssize_t)n;
}

/* Right bytes of all tokens. */
static bool has_prompt(baton_receiver *receiver)
{
    static uint32_t tokens[N_TOKENS];
    static uint8_t bytes[N_TOKENS * TOKEN_BYTES];
    fill_prompt(tokens, bytes);
    baton_pin *pin;
    uint32_t n_matched;
    if (baton_receiver_lookup(receiver, tokens, N_TOKENS, &pin, &n_matched) != BATON_OK ||
        n_matched != N_TOKENS)
        return false;
    bool right = true;
    size_t at = 0;
    for (uint32_t i = 0; i < baton_pin_chunks(pin); i++) {
        baton_pinned_chunk chunk;
        right = right && baton_pin_chunk(pin, i, &chunk) == BATON_OK &&
                at + chunk.bytes <= sizeof(bytes) &&
                memcmp(chunk.page, bytes + at, chunk.bytes) == 0;
        at += chunk.bytes;
    }
    return baton_receiver_unpin(receiver, pin) == BATON_OK && right;
}

/* Writes its ports, {0, 0} when it cannot have what it is to be put into; then answers every byte
 * with whether it has the prompt, until the end of the file. */
static void be_receiver(const side *s, int in, int out)
{
    uint16_t ports[2] = {0};
    baton_receiver *receiver;
    if (!enter(s)) {
        write_all(out, ports, sizeof(ports));
        _exit(0);
    }
    void *pool = s->engine_pool ? aligned_alloc(4096, POOL_BYTES) : NULL;
    const baton_receiver_options options = {.layout = layout(),
                                            .pool_bytes = s->small_shm ? 32 << 20 : POOL_BYTES,
                                            .pool_base = pool,
                                            .n_regions = 1,
                                            .data = s->data};
    if (baton_receiver_create(&options, &receiver) != BATON_OK) {
        fprintf(stderr, "receiver: %s\n", baton_last_error());
        _exit(1);
    }
    baton_receiver_ports(receiver, &ports[0], &ports[1]);
    bool ok = write_all(out, ports, sizeof(ports));
    for (uint8_t byte; ok && read(in, &byte, 1) == 1;) {
        byte = has_prompt(receiver);
        ok = write_all(out, &byte, 1);
    }
    baton_receiver_destroy(receiver);
    free(pool);
    _exit(ok ? 0 : 1);
}

static void wait_for_end(baton_sender *sender, baton_sender_event *end)
{
    baton_sender_event event = {0};
    struct pollfd fd = {.fd = baton_sender_event_fd(sender), .events = POLLIN};
    while (event.kind == BATON_SENDER_SOURCE_FREE) {
        if (baton_sender_poll(sender, &event, 1) == 0 && poll(&fd, 1, 60000) != 1)
            _exit(3);
    }
    *end = event;
}

static void hand_over(baton_sender *sender, const uint16_t *ports, const uint32_t *tokens,
                      const uint8_t *bytes)
{
    const baton_layout shape = layout();
    baton_key_chain chain;
    baton_key keys[N_CHUNKS];
    baton_transfer_options options = {.request = "r",
                                      .host = "127.0.0.1",
                                      .init_port = ports[0],
                                      .alloc_port = ports[1],
                                      .keys = keys};
    baton_transfer transfer;
    baton_status status = baton_key_chain_init(&shape, 1, 0, NULL, &chain);
    if (status == BATON_OK)
        status = baton_keys_of_tokens(&chain, tokens, N_TOKENS, keys, N_CHUNKS, &options.n_chunks,
                                      &options.last_tokens);
    if (status == BATON_OK)
        status = baton_transfer_begin(sender, &options, &transfer);
    for (uint32_t i = 0; i < N_CHUNKS && status == BATON_OK; i++) {
        size_t n = i + 1 < N_CHUNKS ? CHUNK_TOKENS : options.last_tokens;
        status = baton_transfer_push_bytes(
            sender, transfer, i, bytes + (size_t)i * CHUNK_TOKENS * TOKEN_BYTES, n * TOKEN_BYTES);
        if (status == BATON_ERR_NOT_FOUND) /* refused already: its end is on the way */
            return;
    }
    if (status == BATON_OK)
        status = baton_transfer_finish(sender, transfer);
    if (status != BATON_OK && status != BATON_ERR_NOT_FOUND)
        _exit(4);
}

static void be_sender(const side *s, const uint16_t *ports, int out)
{
    static uint32_t tokens[N_TOKENS];
    static uint8_t bytes[N_TOKENS * TOKEN_BYTES];
    sender_report report = {.could_enter = enter(s)};
    if (!report.could_enter)
        _exit(write_all(out, &report, sizeof(report)) ? 0 : 1);
    fill_prompt(tokens, bytes);
    baton_log_set_sink(count_lines, NULL);
    const baton_sender_options options = {.layout = layout(), .path = s->path, .data = s->data};
    baton_sender *sender;
    if (baton_sender_create(&options, &sender) != BATON_OK) {
        fprintf(stderr, "sender: %s\n", baton_last_error());
        _exit(1);
    }
    hand_over(sender, ports, tokens, bytes);
    wait_for_end(sender, &report.end);
    baton_sender_peers(sender, &report.peer, 1);
    report.n_lines = atomic_load(&n_lines);
    bool ok = write_all(out, &report, sizeof(report));
    baton_sender_destroy(sender);
    _exit(ok ? 0 : 1);
}

static void end_child(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static pid_t start_receiver(const side *s, int *to, int *from)
{
    int in[2], out[2];
    assert_int_equal(pipe(in), 0);
    assert_int_equal(pipe(out), 0);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(in[1]);
        close(out[0]);
        be_receiver(s, in[0], out[1]);
    }
    close(in[0]);
    close(out[1]);
    *to = in[1];
    *from = out[0];
    return pid;
}

static sender_report run_sender(const side *s, const uint16_t *ports)
{
    sender_report report = {0};
    int out[2];
    assert_int_equal(pipe(out), 0);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(out[0]);
        be_sender(s, ports, out[1]);
    }
    close(out[1]);
    assert_int_equal(read(out[0], &report, sizeof(report)), sizeof(report));
    close(out[0]);
    end_child(pid);
    return report;
}

/* One hand-off; false, with a line, when this machine does not let it be tried. */
static bool run_both(const side *sender, const side *receiver, sender_report *report)
{
    int to, from;
    uint16_t ports[2];
    pid_t pid = start_receiver(receiver, &to, &from);
    assert_int_equal(read(from, ports, sizeof(ports)), sizeof(ports));
    bool can = ports[0] != 0;
    if (can) {
        *report = run_sender(sender, ports);
        can = report->could_enter;
    }
    if (can && report->end.kind == BATON_SENDER_DONE) {
        uint8_t answer = 0;
        assert_true(write_all(to, &answer, 1));
        assert_int_equal(read(from, &answer, 1), 1);
        assert_int_equal(answer, 1);
    }
    close(to);
    close(from);
    end_child(pid);
    if (!can)
        printf("not tried: namespaces or users need more rights\n");
    return can;
}

static void assert_not_mapped(const sender_report *report, const char *why)
{
    if (report->end.kind != BATON_SENDER_DONE)
        fail_msg("%s", report->end.text);
    assert_true(report->peer.connected);
    assert_int_equal(report->peer.path, BATON_PATH_STAGED);
    assert_int_equal(report->n_lines, 1);
    if (strstr(report->peer.why_not_mapped, why) == NULL)
        fail_msg("\"%s\" is not in \"%s\"", why, report->peer.why_not_mapped);
}

static void assert_refused(const sender_report *report, baton_status status, const char *text)
{
    assert_int_equal(report->end.kind, BATON_SENDER_FAILED);
    assert_int_equal(report->end.status, status);
    if (strstr(report->end.text, text) == NULL)
        fail_msg("\"%s\" is not in \"%s\"", text, report->end.text);
}

static const side nothing_between;

static void without_a_boundary_memory_is_mapped(void **state)
{
    (void)state;
    sender_report report;
    assert_true(run_both(&nothing_between, &nothing_between, &report));
    assert_int_equal(report.end.kind, BATON_SENDER_DONE);
    assert_int_equal(report.peer.path, BATON_PATH_MAPPED);
    assert_int_equal(report.n_lines, 0);
}

static void another_ipc_namespace_is_named(void **state)
{
    (void)state;
    sender_report report;
    const side container = {.namespaces = CLONE_NEWIPC};
    if (run_both(&nothing_between, &container, &report))
        assert_not_mapped(&report, "another IPC namespace");
    if (run_both(&container, &nothing_between, &report))
        assert_not_mapped(&report, "another IPC namespace");
}

static void a_container_is_named(void **state)
{
    (void)state;
    sender_report report;
    const side container = {.namespaces = CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNS};
    if (!run_both(&nothing_between, &container, &report))
        return;
    assert_not_mapped(&report, "another IPC namespace");
    assert_non_null(strstr(report.peer.why_not_mapped, "another PID namespace"));
    assert_non_null(strstr(report.peer.why_not_mapped, "another mount namespace"));
    const side forced = {.path = BATON_PATH_MAPPED};
    if (run_both(&forced, &container, &report))
        assert_refused(&report, BATON_ERR_UNREACHABLE, "another IPC namespace");
}

static void another_user_is_named(void **state)
{
    (void)state;
    sender_report report;
    const side nobody = {.uid = NOBODY};
    if (run_both(&nobody, &nothing_between, &report))
        assert_not_mapped(&report, "another user (ours 65534, theirs 0)");
}

static void a_pool_that_is_not_shared_memory_is_named(void **state)
{
    (void)state;
    sender_report report;
    const side small = {.namespaces = CLONE_NEWNS, .small_shm = true};
    if (run_both(&nothing_between, &small, &report))
        assert_not_mapped(&report, "mount namespace");
    const side engine = {.engine_pool = true};
    assert_true(run_both(&nothing_between, &engine, &report));
    assert_int_equal(report.end.kind, BATON_SENDER_DONE);
    assert_string_equal(report.peer.why_not_mapped, "the pool is the engine's own memory");
    assert_int_equal(report.n_lines, 0); /* as it is meant; the line at connect says it */
}

static void floors_that_cannot_be_met_say_what_was_found(void **state)
{
    (void)state;
    sender_report report;
    const side rdma = {.data = {.require_rdma = true}};
    const side fast = {.data = {.min_gbps = 100000}};
    const side fast_put = {.path = BATON_PATH_PUT, .data = {.min_gbps = 100000}};
    assert_true(run_both(&rdma, &nothing_between, &report));
    assert_refused(&report, BATON_ERR_PATH,
                   "require_rdma, ours), found transport tcp on device lo");
    assert_true(run_both(&nothing_between, &rdma, &report));
    assert_refused(&report, BATON_ERR_PATH, "require_rdma, the receiver's), found transport tcp");
    assert_true(run_both(&fast, &nothing_between, &report));
    assert_refused(&report, BATON_ERR_PATH, "at least 1e+05 GB/s (min_gbps, ours), measured");
    assert_true(run_both(&fast_put, &nothing_between, &report));
    assert_refused(&report, BATON_ERR_PATH, "GB/s by put over tcp on device lo");
    const side slow = {.path = BATON_PATH_PUT, .data = {.min_gbps = 0.000001}};
    assert_true(run_both(&slow, &nothing_between, &report));
    assert_int_equal(report.end.kind, BATON_SENDER_DONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(without_a_boundary_memory_is_mapped),
        bt_test(another_ipc_namespace_is_named),
        bt_test(a_container_is_named),
        bt_test(another_user_is_named),
        bt_test(a_pool_that_is_not_shared_memory_is_named),
        bt_test(floors_that_cannot_be_met_say_what_was_found),
    };
    return bt_run_tests(tests);
}
