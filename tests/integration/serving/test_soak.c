/* SPDX-License-Identifier: Apache-2.0 */
/* Many requests at once through the proxy over two prefill and two decode engines with small pools:
 * every one is answered, and afterwards no process has grown, no descriptor and no page is held.
 *
 *   BATON_SOAK_REQUESTS   how many requests [200] */
#include "support/cluster.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    N_PREFILL = 2,
    N_DECODE = 2,
    N_NODES = N_PREFILL + N_DECODE + 1,
    GROWTH_PERCENT = 5,
    GROWTH_KIB = 2048, /* what an allocator may keep more of after a longer run */
    CLOSING_FDS =
        4, /* connections that one end has closed already, when the first sample is taken */
};

typedef struct {
    bt_node nodes[N_NODES]; /* prefill, decode, proxy */
} soak;

typedef struct {
    long rss_kib[N_NODES], fds[N_NODES];
} sample;

/* Descriptors without those of kept-alive HTTP connections, which come and go: all of them are
 * between the proxy and the engines. */
static void take_sample(const soak *s, sample *out)
{
    long n_kept = 0;
    for (int i = 0; i < N_NODES; i++) {
        bool is_engine = i < N_NODES - 1;
        long n = is_engine ? (long)bt_metric(&s->nodes[i], "baton_engine_http_connections") - 1 : 0;
        n_kept += n;
        out->rss_kib[i] = bt_child_rss_kib(s->nodes[i].child);
        out->fds[i] = bt_child_n_fds(s->nodes[i].child) - (is_engine ? n : n_kept);
    }
}

static void start(soak *s)
{
    static const char *const prefill[] = {"--kv-bytes", "4MiB", "--log-level", "info", NULL};
    static const char *const decode[] = {"--kv-bytes",  "4MiB", "--set", "pool_bytes=4MiB",
                                         "--log-level", "info", NULL};
    for (int i = 0; i < N_PREFILL + N_DECODE; i++)
        bt_node_start(&s->nodes[i], i < N_PREFILL ? "prefill" : "decode",
                      i < N_PREFILL ? prefill : decode);
    bt_proxy_start(&s->nodes[N_NODES - 1], s->nodes, N_PREFILL, s->nodes + N_PREFILL, N_DECODE,
                   NULL);
}

/* n requests; every one must be answered in full. */
static void load(const soak *s, unsigned n, const char *seed)
{
    char url[64], requests[16];
    snprintf(url, sizeof(url), "http://127.0.0.1:%u", s->nodes[N_NODES - 1].port);
    snprintf(requests, sizeof(requests), "%u", n);
    bt_child *child = bt_child_start(
        "baton-load",
        (const char *const[]){"--base-url", url, "--num-prompts", requests, "--max-concurrency",
                              "32", "--seed", seed, "--random-input-len", "16:256",
                              "--random-output-len", "1:16", "--json", "--quiet", NULL});
    int status = bt_child_wait(child);
    char *text = bt_child_text(child->out);
    json_t *report = json_loads(text, 0, NULL);
    json_int_t ok = json_integer_value(json_object_get(report, "completed"));
    if (status != 0 || ok != n)
        fail_msg("baton-load: exit %d, %d of %u answered: %s", status, (int)ok, n, text);
    print_message("%u requests: %.1f a second\n", n,
                  json_real_value(json_object_get(report, "request_throughput")));
    json_decref(report);
    free(text);
}

static void check_idle(const soak *s)
{
    for (int i = 0; i < N_PREFILL; i++)
        bt_check_idle_prefill(&s->nodes[i]);
    for (int i = 0; i < N_DECODE; i++)
        bt_check_idle_decode(&s->nodes[N_PREFILL + i]);
}

typedef struct {
    const soak *s;
    const sample *warm;
} fds_wanted;

static bool fds_are_back(void *ctx)
{
    const fds_wanted *w = ctx;
    sample now;
    take_sample(w->s, &now);
    for (int i = 0; i < N_NODES; i++)
        if (now.fds[i] > w->warm->fds[i] + CLOSING_FDS)
            return false;
    return true;
}

/* Until every prefill engine is connected to every decode engine. */
static void introduce(const soak *s)
{
    enum { MAX_ROUNDS = 100 };
    for (int i = 0; i < MAX_ROUNDS; i++) {
        int n_met = 0;
        for (int k = 0; k < N_PREFILL; k++)
            n_met += (int)bt_metric(&s->nodes[k], "baton_sender_peers_ready");
        if (n_met == N_PREFILL * N_DECODE)
            return;
        bt_strbuf body = bt_completion((uint64_t)i, 20, 2, false);
        bt_http_answer answer;
        bt_http_call(s->nodes[N_NODES - 1].port, "POST", "/v1/completions", bt_strbuf_text(&body),
                     &answer);
        assert_int_equal(answer.status, 200);
        bt_http_answer_clear(&answer);
        bt_strbuf_free(&body);
    }
    fail_msg("not every pair of engines has met");
}

static void print_growth(const soak *s, const sample *warm, const sample *end)
{
    print_message("%-14s %12s %12s %8s %8s\n", "process", "RSS KiB 20%", "RSS KiB end", "fds 20%",
                  "fds end");
    for (int i = 0; i < N_NODES; i++)
        print_message("%-14s %12ld %12ld %8ld %8ld\n", s->nodes[i].child->name, warm->rss_kib[i],
                      end->rss_kib[i], warm->fds[i], end->fds[i]);
}

static void nothing_grows_and_nothing_is_left(void **state)
{
    (void)state;
    soak s;
    sample warm, end;
    const char *text = getenv("BATON_SOAK_REQUESTS");
    unsigned n = text != NULL ? (unsigned)strtoul(text, NULL, 10) : 200;
    assert_true(n >= 10);
    start(&s);
    load(&s, n / 5, "1");
    introduce(&s);
    check_idle(&s);
    take_sample(&s, &warm);
    load(&s, n - n / 5, "2");
    check_idle(&s);
    take_sample(&s, &end);
    print_growth(&s, &warm, &end);
    for (int i = 0; i < N_NODES && !BT_HAS_SANITIZER; i++) /* sanitizers keep what was freed */
        if (end.rss_kib[i] > warm.rss_kib[i] * (100 + GROWTH_PERCENT) / 100 + GROWTH_KIB)
            fail_msg("%s %s grew from %ld to %ld KiB", s.nodes[i].child->name,
                     s.nodes[i].child->ready, warm.rss_kib[i], end.rss_kib[i]);
    fds_wanted wanted = {&s, &warm};
    bt_wait_until(fds_are_back, &wanted, "as many descriptors as after the first requests");
    for (int i = N_NODES; i-- > 0;)
        bt_child_stop(s.nodes[i].child);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_child_test(nothing_grows_and_nothing_is_left),
    };
    return bt_run_tests(tests);
}
