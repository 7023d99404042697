/* SPDX-License-Identifier: Apache-2.0 */
/* The classic failure over real paths: decode gives a request up, its pages are used again, and the
 * old prefill still writes. The old writer is a process of its own (latewriter.c) that is stopped
 * in the middle of a copy: into a page that it has mapped, or behind a put whose bytes still wait
 * in the receiver's socket, in the writer's device, which says them again and again until a link
 * that was cut takes them (rc), or in the writer itself (ud). The receiver is driven by the test,
 * on a clock that the test can move on. Arguments: the writer; for verbs, in a virtual machine
 * (tests/rdma), also UCX_TLS, the device of either side, and the network device of the writer's. */
#include "latewriter.h"

#include <baton/receiver.h>

#include "core/clock.h"
#include "receiver/rxshell.h"
#include "support/children.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { HANG_GUARD_S = 300, SILENT_MS = LATE_PATIENCE_MS + 1000, RETIRE_MS = 61000 };

/* Mapped pages are written without tcp: who connects over it may be stopped before he has answered,
 * and UCX 1.13 ends a receiver's process that takes leave of such a peer. */
typedef enum { IN_THE_PAGE, IN_THE_SOCKET, IN_THE_DEVICE, IN_THE_WRITER } whereabouts;
typedef struct {
    const char *transports;  /* UCX_TLS of the writer */
    whereabouts first_bytes; /* of the old request, once its writer has stopped */
    bool is_mapped;
} way;
static const way mapped = {"", IN_THE_PAGE, true}, tcp = {"tcp", IN_THE_SOCKET, false};

static const char *writer_program;
static const char *verbs, *device, *writer_device, *link_device; /* NULL: none */

static uint64_t moved_on_ns;
static _Atomic bool sender_is_gone;

static uint64_t now_ns(void *ctx)
{
    (void)ctx;
    return bt_now_ns(&bt_clock_monotonic) + moved_on_ns;
}

static const bt_clock moving_clock = {.now_ns = now_ns};

typedef struct {
    way how;
    baton_receiver *receiver;
    bt_child *writer;
    int fd; /* to it */
    baton_sender *sender;
    baton_transfer transfer;
    uint8_t *source; /* the new request's */
    bt_page_ref old_pages[LATE_CHUNKS];
    bool is_connected, is_given_up, was_written_late, is_done;
} scene;

static scene s;

static baton_receiver_stats stats(void)
{
    baton_receiver_stats now;
    baton_receiver_get_stats(s.receiver, &now);
    assert_int_equal(now.pages_free + now.pages_reserved + now.pages_landed +
                         now.pages_quarantined + now.pages_retired,
                     now.pages_total);
    return now;
}

/* What leaves the writer's device gets lost, or does not any more. */
static void cut_link(bool is_cut)
{
    char command[128];
    snprintf(command, sizeof(command), "tc qdisc replace dev %s root netem loss %d%%", link_device,
             is_cut ? 100 : 0);
    assert_int_equal(system(command), 0);
}

/* A byte of the old request's first page. */
static uint8_t old_byte(size_t at)
{
    return ((const volatile uint8_t *)bt_rx_page_address(s.receiver->rx, s.old_pages[0]))[at];
}

/* One turn of the receiver, and a look at the new sender's events. */
static void turn(void)
{
    baton_sender_event event;
    if (s.receiver != NULL)
        baton_receiver_progress(s.receiver);
    if (s.receiver != NULL && s.is_given_up)
        s.was_written_late = s.was_written_late || old_byte(0) == LATE_OLD;
    if (s.sender != NULL && baton_sender_poll(s.sender, &event, 1) == 1 &&
        event.kind != BATON_SENDER_SOURCE_FREE) {
        assert_int_equal(event.kind, BATON_SENDER_DONE);
        s.is_done = true;
    }
}

static void run_until(bool (*is_true)(void), const char *what)
{
    uint64_t start = bt_now_ns(&bt_clock_monotonic);
    while (!is_true()) {
        turn();
        if (bt_now_ns(&bt_clock_monotonic) - start > HANG_GUARD_S * BT_NS_PER_S)
            fail_msg("never came true: %s", what);
    }
}

static bool is_granted(void)
{
    uint8_t said;
    s.is_connected = s.is_connected || recv(s.fd, &said, 1, MSG_DONTWAIT) == 1;
    return s.is_connected && stats().tickets_granted_total == 1;
}
static bool is_revoked(void)
{
    return stats().pages_reserved == 0;
}
static bool new_is_queued_or_done(void)
{
    return s.is_done || stats().tickets_queued == 1;
}
static bool new_is_done(void)
{
    return s.is_done;
}
static bool all_is_free(void)
{
    return stats().pages_free == LATE_CHUNKS;
}
static bool pool_is_whole(void)
{
    baton_receiver_stats now = stats();
    return now.pages_total == LATE_CHUNKS && now.pages_retired == 0;
}
static bool writer_has_ended(void)
{
    return bt_child_has_ended(s.writer);
}
static bool was_written_late(void)
{
    return s.was_written_late;
}
static bool is_heard_no_more(void)
{
    return stats().peers == 0;
}

static void open_receiver(void)
{
    const baton_receiver_options options = {.layout = late_layout(),
                                            .pool_bytes = LATE_CHUNKS * LATE_PAGE_BYTES,
                                            .n_regions = LATE_CHUNKS,
                                            .admin = "off",
                                            .progress = BATON_PROGRESS_MANUAL,
                                            .timeouts = {.silent_ms = LATE_PATIENCE_MS},
                                            .data = {.data_devices = &device,
                                                     .n_data_devices = device != NULL,
                                                     .no_tcp = s.how.is_mapped,
                                                     .clock = &moving_clock}};
    assert_ok(baton_receiver_create(&options, &s.receiver));
}

static void start_writer(bool is_on_another_host)
{
    int fds[2];
    char fd_text[16];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    snprintf(fd_text, sizeof(fd_text), "%d", fds[1]);
    s.writer = bt_child_start(writer_program, (const char *const[]){fd_text, NULL});
    close(fds[1]);
    s.fd = fds[0];
    late_orders orders = {.stops_in_chunk = s.how.is_mapped ? 0 : 1,
                          .is_on_another_host = is_on_another_host,
                          .is_mapped = s.how.is_mapped};
    baton_receiver_ports(s.receiver, &orders.init_port, &orders.alloc_port);
    snprintf(orders.transports, sizeof(orders.transports), "%s", s.how.transports);
    snprintf(orders.device, sizeof(orders.device), "%s",
             writer_device != NULL ? writer_device : "");
    assert_int_equal(send(s.fd, &orders, sizeof(orders), 0), sizeof(orders));
}

/* What was on its way comes only now, after the old request's end. What is in the writer comes when
 * that goes on. */
static void await_late_bytes(void)
{
    if (s.how.first_bytes == IN_THE_WRITER)
        return;
    if (s.how.first_bytes == IN_THE_DEVICE)
        cut_link(false);
    run_until(was_written_late, "a late write");
}

/* The old request has its pages, the receiver sleeps, and the writer stops: half of the first page
 * is written, or all of it is on its way. Then decode gives the request up. */
static void begin(way how, bool is_on_another_host)
{
    s = (scene){.how = how};
    if (how.first_bytes == IN_THE_DEVICE)
        cut_link(false); /* which a test that has failed may have left so */
    open_receiver();
    start_writer(is_on_another_host);
    run_until(is_granted, "the old request's grant");
    const bt_grant *grant = s.receiver->rx->first_ticket->grant;
    for (uint32_t i = 0; i < LATE_CHUNKS; i++)
        assert_true(bt_grant_page(grant, i, &s.old_pages[i]));
    if (how.first_bytes == IN_THE_DEVICE)
        cut_link(true);
    assert_int_equal(send(s.fd, "", 1, 0), 1);
    int status;
    assert_int_equal(waitpid(s.writer->pid, &status, WUNTRACED), s.writer->pid);
    assert_true(WIFSTOPPED(status));
    assert_int_equal(old_byte(0), how.is_mapped ? LATE_OLD : 0);
    assert_int_equal(old_byte(LATE_PAGE_BYTES - 1), 0);
    assert_ok(baton_receiver_release(s.receiver, "old"));
    run_until(is_revoked, "the old request's end");
    assert_int_equal(stats().pages_quarantined, LATE_CHUNKS);
    s.is_given_up = true;
    await_late_bytes();
}

static void move_on(uint64_t ms)
{
    moved_on_ns += ms * BT_NS_PER_MS;
    for (int i = 0; i < 100; i++)
        turn();
}

/* Another request wants as many pages as the pool has. */
static void begin_new(void)
{
    const baton_layout layout = late_layout();
    const baton_sender_options sender = {.layout = layout,
                                         .path =
                                             verbs != NULL ? BATON_PATH_STAGED : BATON_PATH_AUTO,
                                         .skip_measure = true,
                                         .admin = "off",
                                         .timeouts = late_timeouts(),
                                         .data = {.data_devices = &writer_device,
                                                  .n_data_devices = writer_device != NULL,
                                                  .no_tcp = s.how.is_mapped}};
    uint32_t tokens[LATE_TOKENS], n_keys, last_tokens;
    baton_key keys[LATE_CHUNKS];
    baton_key_chain chain;
    assert_ok(baton_sender_create(&sender, &s.sender));
    late_tokens(LATE_NEW_PROMPT, tokens);
    assert_ok(baton_key_chain_init(&layout, 1, 0, NULL, &chain));
    assert_ok(baton_keys_of_tokens(&chain, tokens, LATE_TOKENS, keys, LATE_CHUNKS, &n_keys,
                                   &last_tokens));
    baton_transfer_options options = {.request = "new",
                                      .host = "127.0.0.1",
                                      .keys = keys,
                                      .n_chunks = n_keys,
                                      .last_tokens = last_tokens};
    baton_receiver_ports(s.receiver, &options.init_port, &options.alloc_port);
    assert_ok(baton_transfer_begin(s.sender, &options, &s.transfer));
    s.source = test_malloc((size_t)LATE_CHUNKS * LATE_PAGE_BYTES);
    memset(s.source, LATE_NEW, (size_t)LATE_CHUNKS * LATE_PAGE_BYTES);
    for (uint32_t i = 0; i < n_keys; i++)
        assert_ok(baton_transfer_push_bytes(
            s.sender, s.transfer, i, s.source + (size_t)i * LATE_PAGE_BYTES, LATE_PAGE_BYTES));
    assert_ok(baton_transfer_finish(s.sender, s.transfer));
}

/* The new request's pages hold its bytes and nothing else. */
static void check_new(void)
{
    uint32_t tokens[LATE_TOKENS], n_matched;
    baton_pin *pin;
    late_tokens(LATE_NEW_PROMPT, tokens);
    assert_ok(baton_receiver_lookup(s.receiver, tokens, LATE_TOKENS, &pin, &n_matched));
    assert_int_equal(n_matched, LATE_TOKENS);
    for (uint32_t i = 0; i < LATE_CHUNKS; i++) {
        baton_pinned_chunk chunk;
        assert_ok(baton_pin_chunk(pin, i, &chunk));
        assert_memory_equal(chunk.page, s.source + (size_t)i * LATE_PAGE_BYTES, LATE_PAGE_BYTES);
    }
    assert_ok(baton_receiver_unpin(s.receiver, pin));
}

/* The writer goes on with its copy, hears that its request has ended, and ends. */
static void let_the_writer_go_on(void)
{
    bt_child_signal(s.writer, SIGCONT);
    run_until(writer_has_ended, "the end of the old writer");
    assert_int_equal(bt_child_wait(s.writer), 0);
}

static void *destroy_sender(void *sender)
{
    baton_sender_destroy(sender);
    atomic_store(&sender_is_gone, true);
    return NULL;
}

static bool is_gone(void)
{
    return atomic_load(&sender_is_gone);
}

/* The receiver answers while the sender takes leave. */
static void end(void)
{
    pthread_t thread;
    baton_sender *sender = s.sender;
    s.sender = NULL;
    atomic_store(&sender_is_gone, false);
    assert_int_equal(pthread_create(&thread, NULL, destroy_sender, sender), 0);
    run_until(is_gone, "the new sender's end");
    pthread_join(thread, NULL);
    baton_receiver_destroy(s.receiver);
    test_free(s.source);
    close(s.fd);
}

static const way *ways(size_t *n)
{
    static way all[2];
    all[0] = mapped;
    all[1] = tcp;
    if (verbs != NULL)
        all[0] = (way){verbs, strcmp(verbs, "rc") == 0 ? IN_THE_DEVICE : IN_THE_WRITER, false};
    *n = verbs != NULL ? 1 : 2;
    return all;
}

static void a_page_is_not_used_again_before_its_writer_is_done(void **state)
{
    (void)state;
    size_t n;
    const way *all = ways(&n);
    for (size_t i = 0; i < n; i++) {
        begin(all[i], false);
        begin_new();
        run_until(new_is_queued_or_done, "the new request at the receiver");
        bool was_early = s.is_done;
        if (was_early)
            check_new();
        let_the_writer_go_on();
        run_until(new_is_done, "the new request's end");
        check_new();
        assert_false(was_early);
        assert_true(s.was_written_late);
        end();
    }
}

/* The new request gets through, with its own bytes. */
static void hand_over_anew(const char *what)
{
    begin_new();
    run_until(new_is_done, what);
    check_new();
}

/* Nor when nothing is heard of the writer any more: whoever is stopped is silent, too. After a
 * minute its pages are given up for good, and fresh ones take their place elsewhere. */
static void a_writer_that_stays_silent_costs_pages_and_no_capacity(void **state)
{
    (void)state;
    size_t n;
    const way *all = ways(&n);
    for (size_t i = 0; i < n; i++) {
        bt_expect_log("never proven done");
        bt_expect_log("region with retired pages replaced");
        begin(all[i], false);
        move_on(SILENT_MS);
        assert_int_equal(stats().pages_quarantined, LATE_CHUNKS);
        move_on(RETIRE_MS);
        run_until(pool_is_whole, "fresh regions");
        assert_int_equal(stats().pages_free, LATE_CHUNKS);
        hand_over_anew("the new request's end");
        let_the_writer_go_on();
        check_new();
        end();
    }
}

/* Its exit is proof at once, and costs nothing. */
static void a_writer_that_is_killed_gives_its_pages_back(void **state)
{
    (void)state;
    size_t n;
    const way *all = ways(&n);
    for (size_t i = 0; i < n; i++) {
        begin(all[i], false);
        bt_child_kill(s.writer);
        run_until(all_is_free, "the pages of a writer that has exited");
        hand_over_anew("the new request's end");
        end();
    }
}

/* On another host nothing is mapped: with the worker that its bytes come through, they end. */
static void a_silent_writer_elsewhere_is_cut_off_with_its_worker(void **state)
{
    (void)state;
    size_t n;
    const way *all = ways(&n);
    begin(all[n - 1], true);
    move_on(SILENT_MS);
    run_until(is_heard_no_more, "the end of the silent peer");
    assert_int_equal(stats().pages_free, LATE_CHUNKS);
    hand_over_anew("the new request's end");
    let_the_writer_go_on();
    check_new();
    end();
}

/* The pool goes while its writer is in the middle of a page: nothing happens to the process. */
static void a_receiver_ends_under_a_writer(void **state)
{
    (void)state;
    size_t n;
    const way *all = ways(&n);
    for (size_t i = 0; i < n; i++) {
        begin(all[i], false);
        baton_receiver_destroy(s.receiver);
        s.receiver = NULL;
        s.is_given_up = false; /* the next one's pages are not the old request's */
        let_the_writer_go_on();
        open_receiver();
        hand_over_anew("a hand-off to the next receiver");
        end();
    }
}

int main(int argc, char **argv)
{
    if (argc != 2 && argc != 6)
        return 2;
    writer_program = argv[1];
    if (argc == 6) {
        verbs = argv[2];
        device = argv[3];
        writer_device = argv[4];
        link_device = argv[5];
        setenv("UCX_TLS", verbs, 1);
        if (strcmp(verbs, "rc") == 0)
            setenv("UCX_RC_TIMEOUT", "1s", 1); /* seven times: for so long a link may be cut */
    }
    const struct CMUnitTest tests[] = {
        bt_child_test(a_page_is_not_used_again_before_its_writer_is_done),
        bt_child_test(a_writer_that_stays_silent_costs_pages_and_no_capacity),
        bt_child_test(a_writer_that_is_killed_gives_its_pages_back),
        bt_child_test(a_silent_writer_elsewhere_is_cut_off_with_its_worker),
        bt_child_test(a_receiver_ends_under_a_writer),
    };
    return bt_run_tests(tests);
}
