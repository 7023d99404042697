/* SPDX-License-Identifier: Apache-2.0 */
/* Two prefill and two decode engines and the proxy, while clients ask and processes are killed,
 * stopped and restarted, a pool shrinks, control frames get lost and clients hang up. At the end
 * every request has had the right tokens or an error, and every page, pin, lease, descriptor and
 * endpoint is accounted for.
 *
 *   BATON_CHAOS_SECONDS   how long things go wrong [20]
 *   BATON_CHAOS_SEED      which things, and when [1] */
#include "chaos.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { GROWTH_PERCENT = 10, GROWTH_KIB = 4096, FDS_SLACK = 8, SHOW_EVERY_S = 10 };

/* ---- journal ---- */

uint64_t chaos_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void chaos_journal_begin(chaos_journal *journal)
{
    pthread_mutex_lock(&journal->lock);
    if (journal->n == journal->capacity) {
        journal->capacity = journal->capacity * 2 + 64;
        journal->begun_ms = realloc(journal->begun_ms, journal->capacity * sizeof(uint64_t));
        assert_non_null(journal->begun_ms);
    }
    journal->begun_ms[journal->n++] = chaos_now_ms();
    journal->n_on++;
    pthread_mutex_unlock(&journal->lock);
}

void chaos_journal_end(chaos_journal *journal)
{
    pthread_mutex_lock(&journal->lock);
    journal->n_on--;
    pthread_mutex_unlock(&journal->lock);
}

bool chaos_journal_is_disturbed(chaos_journal *journal)
{
    pthread_mutex_lock(&journal->lock);
    bool is = journal->n_on > 0;
    pthread_mutex_unlock(&journal->lock);
    return is;
}

uint64_t chaos_journal_first(chaos_journal *journal, uint64_t from_ms)
{
    uint64_t first = 0;
    pthread_mutex_lock(&journal->lock);
    for (size_t i = journal->n; i-- > 0 && journal->begun_ms[i] >= from_ms;)
        first = journal->begun_ms[i];
    pthread_mutex_unlock(&journal->lock);
    return first;
}

/* ---- what processes hold ---- */

typedef struct {
    long rss_kib[CHAOS_NODES], fds[CHAOS_NODES];
} sample;

static void check_idle(const chaos_fleet *fleet)
{
    for (unsigned i = 0; i < CHAOS_PREFILL; i++)
        bt_check_idle_prefill(&fleet->slots[i].node);
    for (unsigned i = CHAOS_PREFILL; i < CHAOS_PROXY; i++)
        bt_check_idle_decode(&fleet->slots[i].node);
    bt_wait_metric_is(&fleet->slots[CHAOS_PROXY].node, "baton_proxy_inflight", 0);
    /* No endpoints of former lives. The proxy is no peer. */
    for (unsigned i = 0; i < CHAOS_DECODE; i++)
        bt_wait_metric_at_most(&fleet->slots[CHAOS_PREFILL + i].node, "baton_receiver_peers",
                               CHAOS_PREFILL);
    for (unsigned i = 0; i < CHAOS_PREFILL; i++)
        bt_wait_metric_at_most(&fleet->slots[i].node, "baton_sender_peers_ready", CHAOS_DECODE);
}

/* The same load without faults before and after, by baton-load, so that RSS can be compared. */
static void steady_load(const chaos_fleet *fleet, sample *out)
{
    char url[64];
    snprintf(url, sizeof(url), "http://127.0.0.1:%u", chaos_proxy_port(fleet));
    bt_child *child = bt_child_start(
        "baton-load", (const char *const[]){"--url", url, "--requests", "60", "--concurrency", "8",
                                            "--seed", "9", "--prompt-len", "16:256", "--output-len",
                                            "1:16", "--json", "--quiet", NULL});
    if (bt_child_wait(child) != 0) {
        char *text = bt_child_text(child->out);
        fail_msg("a request failed although nothing is disturbed: %s", text);
    }
    bt_child_forget(child);
    check_idle(fleet);
    for (unsigned i = 0; i < CHAOS_NODES; i++) {
        out->rss_kib[i] = bt_child_rss_kib(fleet->slots[i].node.child);
        out->fds[i] = bt_child_n_fds(fleet->slots[i].node.child);
    }
}

typedef struct {
    const chaos_fleet *fleet;
    const sample *steady;
} fds_wanted;

static bool fds_are_back(void *ctx)
{
    const fds_wanted *w = ctx;
    for (unsigned i = 0; i < CHAOS_NODES; i++)
        if (bt_child_n_fds(w->fleet->slots[i].node.child) > w->steady->fds[i] + FDS_SLACK)
            return false;
    return true;
}

static void check_growth(const chaos_fleet *fleet, const sample *steady, const sample *end)
{
    print_message("\n%-10s %6s %14s %14s %10s %8s\n", "process", "lives", "RSS before, KiB",
                  "RSS after, KiB", "fds before", "fds after");
    for (unsigned i = 0; i < CHAOS_NODES; i++)
        print_message("%-10s %6u %15ld %14ld %10ld %9ld\n", fleet->slots[i].name,
                      fleet->slots[i].lives, steady->rss_kib[i], end->rss_kib[i], steady->fds[i],
                      end->fds[i]);
    for (unsigned i = 0; i < CHAOS_NODES && !BT_HAS_SANITIZER; i++)
        if (end->rss_kib[i] > steady->rss_kib[i] * (100 + GROWTH_PERCENT) / 100 + GROWTH_KIB)
            fail_msg("%s grew from %ld to %ld KiB", fleet->slots[i].name, steady->rss_kib[i],
                     end->rss_kib[i]);
    fds_wanted wanted = {fleet, steady};
    bt_wait_until(fds_are_back, &wanted, "as many descriptors as before");
}

/* ---- the run ---- */

static unsigned long from_env(const char *name, unsigned long fallback)
{
    const char *text = getenv(name);
    return text != NULL && text[0] != 0 ? strtoul(text, NULL, 10) : fallback;
}

typedef struct {
    chaos_clients *clients;
    uint64_t end_ms, shown_ms;
} progress;

static void show(void *ctx)
{
    progress *p = ctx;
    uint64_t now_ms = chaos_now_ms();
    chaos_counts c;
    if (now_ms - p->shown_ms < SHOW_EVERY_S * 1000)
        return;
    p->shown_ms = now_ms;
    chaos_clients_count(p->clients, &c);
    print_message("%5llu s left: %llu sent, %llu right, %llu failed, %llu wrong, %llu hung\n",
                  (unsigned long long)(p->end_ms > now_ms ? (p->end_ms - now_ms) / 1000 : 0),
                  (unsigned long long)c.sent, (unsigned long long)c.right,
                  (unsigned long long)c.failed, (unsigned long long)c.wrong,
                  (unsigned long long)c.hung);
}

static void print_counts(const chaos_counts *c)
{
    print_message("\nrequests: %llu sent, %llu right, %llu failed, %llu hung up by the client, "
                  "%llu wrong, %llu hung\nslowest from fault to the client's error: %.1f s\n",
                  (unsigned long long)c->sent, (unsigned long long)c->right,
                  (unsigned long long)c->failed, (unsigned long long)c->left,
                  (unsigned long long)c->wrong, (unsigned long long)c->hung,
                  (double)c->slowest_error_ms / 1000);
}

static void right_or_an_error_and_nothing_left(void **state)
{
    (void)state;
    static chaos_fleet fleet;
    static chaos_journal journal = {.lock = PTHREAD_MUTEX_INITIALIZER};
    sample steady, end;
    chaos_counts counts;
    uint64_t seconds = from_env("BATON_CHAOS_SECONDS", 20), seed = from_env("BATON_CHAOS_SEED", 1);
    print_message("seed %llu, %llu s\n", (unsigned long long)seed, (unsigned long long)seconds);
    chaos_fleet_start(&fleet);
    steady_load(&fleet, &steady);

    progress p = {.end_ms = chaos_now_ms() + seconds * 1000};
    p.clients = chaos_clients_start(&fleet, &journal, seed);
    chaos_faults_run(&fleet, &journal, seed, p.end_ms, show, &p);
    chaos_clients_stop(p.clients, &counts);
    print_counts(&counts);
    print_message("processes that ended by themselves: %u\n", fleet.aborted);
    assert_int_equal(counts.wrong, 0);
    assert_int_equal(counts.hung, 0);
    assert_true(counts.right > 0);

    check_idle(&fleet);
    steady_load(&fleet, &end);
    check_growth(&fleet, &steady, &end);
    chaos_fleet_stop(&fleet);
    free(journal.begun_ms);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_child_test(right_or_an_error_and_nothing_left),
    };
    return bt_run_tests(tests);
}
