/* SPDX-License-Identifier: Apache-2.0 */
/* Prefill and decode engines and the proxy, while clients ask and processes are killed,
 * stopped and restarted, a pool shrinks, control frames get lost and clients hang up. At the end
 * every request has had the right tokens or an error, and every page, pin, lease, descriptor and
 * endpoint is accounted for.
 *
 *   BATON_CHAOS_SECONDS    how long things go wrong [20]
 *   BATON_CHAOS_SEED       which things, and when [1]
 *   BATON_CHAOS_PREFILLERS engines that prefill, 2 to 4 [2]
 *   BATON_CHAOS_DECODERS   engines that decode, 2 to 4 [2] */
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

void chaos_journal_begin(chaos_journal *journal, const char *text, unsigned slot)
{
    pthread_mutex_lock(&journal->lock);
    if (journal->n == journal->capacity) {
        journal->capacity = journal->capacity * 2 + 64;
        journal->entries = realloc(journal->entries, journal->capacity * sizeof(*journal->entries));
        assert_non_null(journal->entries);
    }
    journal->entries[journal->n++] = (chaos_entry){chaos_now_ms(), text, slot};
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
    for (size_t i = journal->n; i-- > 0 && journal->entries[i].begun_ms >= from_ms;)
        first = journal->entries[i].begun_ms;
    pthread_mutex_unlock(&journal->lock);
    return first;
}

void chaos_journal_tell(chaos_journal *journal, uint64_t from_ms, char *text, size_t room)
{
    pthread_mutex_lock(&journal->lock);
    size_t i = journal->n, at = 0;
    while (i > 0 && journal->entries[i - 1].begun_ms >= from_ms)
        i--;
    for (text[0] = 0; i < journal->n && at < room; i++) {
        const chaos_entry *entry = &journal->entries[i];
        at += (size_t)snprintf(text + at, room - at, "\n  %+.1f s: %s, node %u",
                               (double)(entry->begun_ms - from_ms) / 1000, entry->text,
                               entry->slot + 1);
    }
    pthread_mutex_unlock(&journal->lock);
}

/* ---- what processes hold ---- */

typedef struct {
    long rss_kib[CHAOS_SLOTS], fds[CHAOS_SLOTS];
} sample;

static void check_idle(const chaos_fleet *fleet)
{
    for (unsigned i = 0; i < fleet->n_prefill; i++)
        bt_check_idle_prefill(&fleet->slots[i].node);
    for (unsigned i = fleet->n_prefill; i < fleet->proxy; i++)
        bt_check_idle_decode(&fleet->slots[i].node);
    bt_wait_metric_is(&fleet->slots[fleet->proxy].node, "baton_proxy_inflight", 0);
    /* No endpoints of former lives. The proxy is no peer. */
    for (unsigned i = 0; i < fleet->n_decode; i++)
        bt_wait_metric_at_most(&fleet->slots[fleet->n_prefill + i].node, "baton_receiver_peers",
                               fleet->n_prefill);
    for (unsigned i = 0; i < fleet->n_prefill; i++)
        bt_wait_metric_at_most(&fleet->slots[i].node, "baton_sender_peers_ready", fleet->n_decode);
}

/* The same load without faults before and after, by baton-load, so that RSS can be compared. */
static void steady_load(const chaos_fleet *fleet, sample *out)
{
    char url[64];
    snprintf(url, sizeof(url), "http://127.0.0.1:%u", chaos_proxy_port(fleet));
    bt_child *child = bt_child_start(
        "baton-load",
        (const char *const[]){"--base-url", url, "--num-prompts", "60", "--max-concurrency", "8",
                              "--seed", "9", "--random-input-len", "16:256", "--random-output-len",
                              "1:16", "--json", "--quiet", NULL});
    if (bt_child_wait(child) != 0) {
        char *text = bt_child_text(child->out);
        fail_msg("a request failed although nothing is disturbed: %s", text);
    }
    bt_child_forget(child);
    check_idle(fleet);
    for (unsigned i = 0; i <= fleet->proxy; i++) {
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
    for (unsigned i = 0; i <= w->fleet->proxy; i++)
        if (bt_child_n_fds(w->fleet->slots[i].node.child) > w->steady->fds[i] + FDS_SLACK)
            return false;
    return true;
}

static void check_growth(const chaos_fleet *fleet, const sample *steady, const sample *end)
{
    print_message("\n%-10s %6s %14s %14s %10s %8s\n", "process", "lives", "RSS before, KiB",
                  "RSS after, KiB", "fds before", "fds after");
    for (unsigned i = 0; i <= fleet->proxy; i++)
        print_message("%-10s %6u %15ld %14ld %10ld %9ld\n", fleet->slots[i].name,
                      fleet->slots[i].lives, steady->rss_kib[i], end->rss_kib[i], steady->fds[i],
                      end->fds[i]);
    for (unsigned i = 0; i <= fleet->proxy && !BT_HAS_SANITIZER; i++)
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

static unsigned engines_from_env(const char *name)
{
    unsigned long n = from_env(name, 2);
    if (n < 2 || n > CHAOS_MOST)
        fail_msg("%s: wanted 2 to %d, found %lu", name, CHAOS_MOST, n);
    return (unsigned)n;
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
                  "%llu wrong, %llu hung\nslowest from fault to the client's error: %.1f s%s\n",
                  (unsigned long long)c->sent, (unsigned long long)c->right,
                  (unsigned long long)c->failed, (unsigned long long)c->left,
                  (unsigned long long)c->wrong, (unsigned long long)c->hung,
                  (double)c->slowest_error_ms / 1000, c->slowest);
}

static void right_or_an_error_and_nothing_left(void **state)
{
    (void)state;
    static chaos_fleet fleet;
    static chaos_journal journal = {.lock = PTHREAD_MUTEX_INITIALIZER};
    sample steady, end;
    chaos_counts counts;
    uint64_t seconds = from_env("BATON_CHAOS_SECONDS", 20), seed = from_env("BATON_CHAOS_SEED", 1);
    unsigned n_prefill = engines_from_env("BATON_CHAOS_PREFILLERS");
    unsigned n_decode = engines_from_env("BATON_CHAOS_DECODERS");
    print_message("seed %llu, %llu s, %u prefill engines, %u decode engines\n",
                  (unsigned long long)seed, (unsigned long long)seconds, n_prefill, n_decode);
    chaos_fleet_start(&fleet, n_prefill, n_decode, seed);
    steady_load(&fleet, &steady);

    progress p = {.end_ms = chaos_now_ms() + seconds * 1000};
    p.clients = chaos_clients_start(&fleet, &journal, seed);
    chaos_faults_run(&fleet, &journal, seed, p.end_ms, show, &p);
    chaos_clients_stop(p.clients, &counts);
    print_counts(&counts);
    print_message("processes that ended by themselves: %u, of them aborted by UCX 1.13: %u\n",
                  fleet.died, fleet.aborted_by_ucx);
    assert_int_equal(fleet.died, fleet.aborted_by_ucx);
    assert_int_equal(counts.wrong, 0);
    assert_int_equal(counts.hung, 0);
    assert_true(counts.right > 0);

    check_idle(&fleet);
    steady_load(&fleet, &end);
    check_growth(&fleet, &steady, &end);
    chaos_fleet_stop(&fleet);
    free(journal.entries);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_child_test(right_or_an_error_and_nothing_left),
    };
    return bt_run_tests(tests);
}
