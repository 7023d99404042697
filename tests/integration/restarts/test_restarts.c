/* SPDX-License-Identifier: Apache-2.0 */
/* Peers that come back on the same address with a new epoch: they are connected again, what was
 * under way ends with a typed failure, and nothing of their earlier lives stays behind.
 *
 *   test_restarts [RESTARTS [KILLS [TEST]]]
 *
 * of each kind: 1,000 in this process (200 with sanitizers), 64 of processes. */
#include "restartkit.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { HANG_GUARD_MS = 60000, EVENTS_AT_ONCE = 16 };

static uint32_t n_restarts = BT_HAS_SANITIZER ? 200 : 1000, n_kills = 64;
static const baton_path_choice paths[] = {BATON_PATH_AUTO, BATON_PATH_PUT};
enum { N_PATHS = sizeof(paths) / sizeof(paths[0]) };
static usage_log usage;
static prompt prompts[SLOTS];

/* What has ended since the last round. */
typedef struct {
    uint32_t done, failed, ready, receiver_failed;
    baton_status last; /* of a failure */
} ends;

static void assert_none_failed(const ends *so_far)
{
    if (so_far->failed > 0)
        fail_msg("%u hand-overs failed, the last with %s", so_far->failed,
                 baton_status_name(so_far->last));
}

static void take_sender(baton_sender *sender, ends *so_far)
{
    baton_sender_event events[EVENTS_AT_ONCE];
    uint32_t n = baton_sender_poll(sender, events, EVENTS_AT_ONCE);
    for (uint32_t i = 0; i < n; i++) {
        so_far->done += events[i].kind == BATON_SENDER_DONE;
        so_far->failed += events[i].kind == BATON_SENDER_FAILED;
        if (events[i].kind == BATON_SENDER_FAILED)
            so_far->last = events[i].status;
    }
}

static void take_receiver(baton_receiver *receiver, ends *so_far)
{
    baton_receiver_event events[EVENTS_AT_ONCE];
    uint32_t n = baton_receiver_poll(receiver, events, EVENTS_AT_ONCE);
    for (uint32_t i = 0; i < n; i++) {
        so_far->ready += events[i].kind == BATON_RECEIVER_READY;
        so_far->receiver_failed += events[i].kind == BATON_RECEIVER_FAILED;
    }
}

typedef struct {
    baton_sender *senders[SLOTS];
    uint32_t n_senders;
    baton_receiver *receivers[SLOTS];
    uint32_t n_receivers;
    bool have_threads;
} world;

/* Moves everybody on who has no thread, and takes what has ended; else sleeps until something
 * happens, but not for long: what a thread does is looked at now and then. */
static void turn(const world *w, ends *so_far)
{
    enum { LOOK_MS = 20 };
    static uint32_t n_idle;
    struct pollfd fds[2 * SLOTS];
    uint32_t n = 0, ms = LOOK_MS;
    for (uint32_t i = 0; i < w->n_senders; i++) {
        uint32_t wait = w->have_threads ? LOOK_MS : baton_sender_progress(w->senders[i]);
        int fd = w->have_threads ? baton_sender_event_fd(w->senders[i])
                                 : baton_sender_progress_fd(w->senders[i]);
        ms = wait < ms ? wait : ms;
        fds[n++] = (struct pollfd){.fd = fd, .events = POLLIN};
        take_sender(w->senders[i], so_far);
    }
    for (uint32_t i = 0; i < w->n_receivers; i++) {
        uint32_t wait = w->have_threads ? LOOK_MS : baton_receiver_progress(w->receivers[i]);
        int fd = w->have_threads ? baton_receiver_event_fd(w->receivers[i])
                                 : baton_receiver_progress_fd(w->receivers[i]);
        ms = wait < ms ? wait : ms;
        fds[n++] = (struct pollfd){.fd = fd, .events = POLLIN};
        take_receiver(w->receivers[i], so_far);
    }
    n_idle = poll(fds, n, (int)ms) == 0 && ms == LOOK_MS ? n_idle + 1 : 0;
    if (n_idle >= HANG_GUARD_MS / LOOK_MS)
        fail_msg("nothing happens: %u done, %u failed, %u ready", so_far->done, so_far->failed,
                 so_far->ready);
}

static baton_sender_stats sum(const world *w)
{
    baton_sender_stats all = {0}, one;
    for (uint32_t i = 0; i < w->n_senders; i++) {
        baton_sender_get_stats(w->senders[i], &one);
        all.tickets_granted_total += one.tickets_granted_total;
        all.peers_lost_total += one.peers_lost_total;
        all.transfers_live += one.transfers_live;
        all.moves_refused_total += one.moves_refused_total;
    }
    return all;
}

/* Even rounds: the receivers go with nothing under way. Odd ones: in the middle of a transfer. */
static void receivers_that_restart_leave_nothing_at_a_sender(void **state)
{
    (void)state;
    bt_expect_log("sender: connection ended");
    static char name[64];
    ports at[SLOTS] = {{0}};
    world w = {.n_senders = N_PATHS, .n_receivers = SLOTS};
    for (uint32_t i = 0; i < N_PATHS; i++)
        w.senders[i] = sender_open(BATON_PROGRESS_MANUAL, paths[i]);
    uint64_t n_lost = 0;
    usage.n = 0;
    for (uint32_t s = 0; s < SLOTS; s++)
        w.receivers[s] = receiver_open(BATON_PROGRESS_MANUAL, &at[s]);
    for (uint32_t round = 0; round <= n_restarts / SLOTS; round++) {
        bool in_the_middle = round % 2 == 1;
        ends so_far = {0};
        for (uint32_t s = 0; s < SLOTS; s++) {
            prompt_make(round * SLOTS + s, &prompts[s]);
            snprintf(name, sizeof(name), "%u-%u", round, s);
            hand_over(w.senders[s % N_PATHS], at[s], name, &prompts[s], N_CHUNKS, s);
        }
        while ((so_far.done < SLOTS || so_far.ready < SLOTS) && so_far.failed == 0)
            turn(&w, &so_far);
        assert_none_failed(&so_far);
        for (uint32_t s = 0; s < SLOTS; s++)
            check_landed(w.receivers[s], &prompts[s]);
        usage_note(&usage);
        for (uint32_t s = 0; s < SLOTS && in_the_middle; s++, n_lost++) {
            prompt_make(UINT32_MAX + (uint64_t)round * SLOTS + s, &prompts[s]);
            hand_over(w.senders[s % N_PATHS], at[s], "lost", &prompts[s], 1, s);
        }
        while (sum(&w).tickets_granted_total < (round + 1) * SLOTS + n_lost)
            turn(&w, &so_far);
        for (uint32_t s = 0; s < SLOTS; s++) {
            baton_receiver_destroy(w.receivers[s]);
            w.receivers[s] = receiver_open(BATON_PROGRESS_MANUAL, &at[s]);
        }
        while (so_far.failed < SLOTS * in_the_middle ||
               sum(&w).peers_lost_total < (round + 1) * SLOTS)
            turn(&w, &so_far);
        assert_int_equal(so_far.done, SLOTS);
    }
    assert_int_equal(sum(&w).transfers_live + sum(&w).moves_refused_total, 0);
    usage_check(&usage, "receivers", n_restarts);
    for (uint32_t i = 0; i < N_PATHS; i++)
        baton_sender_destroy(w.senders[i]);
    for (uint32_t s = 0; s < SLOTS; s++)
        baton_receiver_destroy(w.receivers[s]);
}

/* Until nobody is left of those that have gone: their silence has to be noticed. */
static void wait_for_peers(const world *w, ends *so_far)
{
    baton_receiver_stats stats;
    do {
        turn(w, so_far);
        baton_receiver_get_stats(w->receivers[0], &stats);
    } while (stats.peers > SLOTS || stats.pages_reserved + stats.pages_quarantined > 0);
    assert_int_equal(stats.pages_free + stats.pages_landed, stats.pages_total);
    assert_int_equal(stats.moves_refused_total, 0);
}

/* The transfers that are under way in odd rounds end with their sender. */
static void senders_that_restart_leave_nothing_at_a_receiver(void **state)
{
    (void)state;
    enum { ROUNDS_TO_REST = 6 };
    static char name[64];
    ports at = {0};
    world w = {.n_senders = SLOTS, .n_receivers = 1, .have_threads = true};
    baton_receiver *receiver = w.receivers[0] = receiver_open(BATON_PROGRESS_THREAD, &at);
    uint64_t n_lost = 0;
    usage.n = 0;
    for (uint32_t s = 0; s < SLOTS; s++)
        w.senders[s] = sender_open(BATON_PROGRESS_THREAD, paths[s % N_PATHS]);
    for (uint32_t round = 0; round <= n_restarts / SLOTS; round++) {
        ends so_far = {0};
        for (uint32_t s = 0; s < SLOTS; s++) {
            prompt_make(round * SLOTS + s, &prompts[s]);
            snprintf(name, sizeof(name), "%u-%u", round, s);
            hand_over(w.senders[s], at, name, &prompts[s], N_CHUNKS, s);
        }
        while ((so_far.done < SLOTS || so_far.ready < SLOTS) && so_far.failed == 0)
            turn(&w, &so_far);
        assert_none_failed(&so_far);
        for (uint32_t s = 0; s < SLOTS; s++)
            check_landed(receiver, &prompts[s]);
        if (round % ROUNDS_TO_REST == ROUNDS_TO_REST - 1) {
            wait_for_peers(&w, &so_far);
            usage_note(&usage);
        }
        for (uint32_t s = 0; s < SLOTS && round % 2 == 1; s++, n_lost++) {
            prompt_make(UINT32_MAX + (uint64_t)round * SLOTS + s, &prompts[s]);
            hand_over(w.senders[s], at, "lost", &prompts[s], 1, s);
        }
        baton_receiver_stats stats;
        do {
            turn(&w, &so_far);
            baton_receiver_get_stats(receiver, &stats);
        } while (stats.tickets_granted_total < (round + 1) * SLOTS + n_lost);
        for (uint32_t s = 0; s < SLOTS; s++) {
            baton_sender_destroy(w.senders[s]);
            w.senders[s] = sender_open(BATON_PROGRESS_THREAD, paths[s % N_PATHS]);
        }
        assert_none_failed(&so_far);
    }
    for (uint32_t s = 0; s < SLOTS; s++)
        baton_sender_destroy(w.senders[s]);
    usage_check(&usage, "senders", n_restarts);
    baton_receiver_destroy(receiver);
}

/* ---- processes, killed ---- */

static _Noreturn void sleep_until_killed(void)
{
    fflush(stdout);
    for (;;)
        pause();
}

static _Noreturn void run_receiver(char **words)
{
    ports at = {(uint16_t)strtoul(words[0], NULL, 10), (uint16_t)strtoul(words[1], NULL, 10)};
    receiver_open(BATON_PROGRESS_THREAD, &at);
    printf("ready init=%u alloc=%u\n", at.init, at.alloc);
    sleep_until_killed();
}

/* Hands one prompt over, and is then in the middle of another. */
static _Noreturn void run_sender(char **words)
{
    const ports to = {(uint16_t)strtoul(words[0], NULL, 10), (uint16_t)strtoul(words[1], NULL, 10)};
    uint64_t n = strtoull(words[2], NULL, 10);
    baton_path_choice path = paths[strtoul(words[3], NULL, 10) % N_PATHS];
    world w = {.n_senders = 1, .have_threads = true};
    baton_sender *sender = w.senders[0] = sender_open(BATON_PROGRESS_THREAD, path);
    ends so_far = {0};
    prompt_make(n, &prompts[0]);
    hand_over(sender, to, words[2], &prompts[0], N_CHUNKS, 0);
    while (so_far.done + so_far.failed == 0)
        turn(&w, &so_far);
    prompt_make(n + UINT32_MAX, &prompts[1]);
    hand_over(sender, to, "lost", &prompts[1], 1, 0);
    while (so_far.failed == 0 && sum(&w).tickets_granted_total < 2)
        turn(&w, &so_far);
    printf("%s\n", so_far.failed == 0 ? "ready" : "failed");
    sleep_until_killed();
}

static bt_child *start_receiver(ports *at)
{
    char init[8], alloc[8];
    snprintf(init, sizeof(init), "%u", at->init);
    snprintf(alloc, sizeof(alloc), "%u", at->alloc);
    return bt_child_start("test_restarts", (const char *const[]){"receiver", init, alloc, NULL});
}

static void await_receiver(bt_child *child, ports *at)
{
    bt_child_wait_ready(child);
    *at = (ports){bt_child_port(child, "init=", 0), bt_child_port(child, "alloc=", 0)};
}

static void end(bt_child *child)
{
    bt_child_kill(child);
    bt_child_forget(child);
}

static void killed_receivers_leave_nothing_at_a_sender(void **state)
{
    (void)state;
    bt_expect_log("sender: connection ended");
    static char name[64];
    ports at[SLOTS] = {{0}};
    bt_child *receivers[SLOTS];
    world w = {.n_senders = N_PATHS, .have_threads = true};
    usage.n = 0;
    for (uint32_t i = 0; i < N_PATHS; i++)
        w.senders[i] = sender_open(BATON_PROGRESS_THREAD, paths[i]);
    for (uint32_t round = 0; round <= n_kills / SLOTS; round++) {
        ends so_far = {0};
        for (uint32_t s = 0; s < SLOTS; s++)
            receivers[s] = start_receiver(&at[s]);
        for (uint32_t s = 0; s < SLOTS; s++) {
            await_receiver(receivers[s], &at[s]);
            prompt_make(s, &prompts[s]);
            snprintf(name, sizeof(name), "%u-%u", round, s);
            hand_over(w.senders[s % N_PATHS], at[s], name, &prompts[s], N_CHUNKS, s);
        }
        while (so_far.done < SLOTS && so_far.failed == 0)
            turn(&w, &so_far);
        assert_none_failed(&so_far);
        usage_note(&usage);
        for (uint32_t s = 0; s < SLOTS; s++) {
            prompt_make(UINT32_MAX + (uint64_t)s, &prompts[s]);
            hand_over(w.senders[s % N_PATHS], at[s], "lost", &prompts[s], 1, s);
        }
        while (sum(&w).tickets_granted_total < 2 * SLOTS * (round + 1) && so_far.failed == 0)
            turn(&w, &so_far);
        for (uint32_t s = 0; s < SLOTS; s++)
            end(receivers[s]);
        while (so_far.failed < SLOTS)
            turn(&w, &so_far);
        assert_true(so_far.last == BATON_ERR_PEER_GONE || so_far.last == BATON_ERR_UNREACHABLE);
    }
    assert_int_equal(sum(&w).transfers_live + sum(&w).moves_refused_total, 0);
    usage_check(&usage, "receivers, killed", n_kills);
    for (uint32_t i = 0; i < N_PATHS; i++)
        baton_sender_destroy(w.senders[i]);
}

static void killed_senders_leave_nothing_at_a_receiver(void **state)
{
    (void)state;
    static char init[8], alloc[8], n[16], path[8];
    ports at = {0};
    bt_child *senders[SLOTS];
    world w = {.n_receivers = 1, .have_threads = true};
    w.receivers[0] = receiver_open(BATON_PROGRESS_THREAD, &at);
    snprintf(init, sizeof(init), "%u", at.init);
    snprintf(alloc, sizeof(alloc), "%u", at.alloc);
    usage.n = 0;
    for (uint32_t round = 0; round <= n_kills / SLOTS; round++) {
        ends so_far = {0};
        for (uint32_t s = 0; s < SLOTS; s++) {
            snprintf(n, sizeof(n), "%u", round * SLOTS + s);
            snprintf(path, sizeof(path), "%u", s);
            senders[s] = bt_child_start(
                "test_restarts", (const char *const[]){"sender", init, alloc, n, path, NULL});
        }
        for (uint32_t s = 0; s < SLOTS; s++)
            bt_child_wait_ready(senders[s]);
        while (so_far.ready < SLOTS)
            turn(&w, &so_far);
        for (uint32_t s = 0; s < SLOTS; s++) {
            prompt_make(round * SLOTS + s, &prompts[s]);
            check_landed(w.receivers[0], &prompts[s]);
        }
        usage_note(&usage);
        for (uint32_t s = 0; s < SLOTS; s++)
            end(senders[s]);
        baton_receiver_stats stats;
        do {
            turn(&w, &so_far);
            baton_receiver_get_stats(w.receivers[0], &stats);
        } while (stats.peers > 0 || so_far.receiver_failed < SLOTS);
        assert_int_equal(stats.pages_free + stats.pages_landed, stats.pages_total);
        assert_int_equal(stats.moves_refused_total, 0);
    }
    usage_check(&usage, "senders, killed", n_kills);
    baton_receiver_destroy(w.receivers[0]);
}

int main(int argc, char **argv)
{
    usage_open();
    if (argc > 3 && strcmp(argv[1], "receiver") == 0)
        run_receiver(argv + 2);
    if (argc > 5 && strcmp(argv[1], "sender") == 0)
        run_sender(argv + 2);
    if (argc > 1)
        n_restarts = (uint32_t)strtoul(argv[1], NULL, 10);
    if (argc > 2)
        n_kills = (uint32_t)strtoul(argv[2], NULL, 10);
    if (argc > 3)
        cmocka_set_test_filter(argv[3]);
    const struct CMUnitTest tests[] = {
        bt_child_test(receivers_that_restart_leave_nothing_at_a_sender),
        bt_child_test(senders_that_restart_leave_nothing_at_a_receiver),
        bt_child_test(killed_receivers_leave_nothing_at_a_sender),
        bt_child_test(killed_senders_leave_nothing_at_a_receiver),
    };
    return bt_run_tests(tests);
}
