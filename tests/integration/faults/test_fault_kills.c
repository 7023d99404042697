/* SPDX-License-Identifier: Apache-2.0 */
/* Engines that are killed or stopped while KV moves. The victim is always caught in the middle: the
 * prefill engine is frozen first, and the test looks that a ticket is live. */
#include "support/cluster.h"

#include <signal.h>
#include <stdio.h>

enum { LONG_PROMPT = 3000 };

/* Freezes prefill in the middle of its one transfer to decode. */
static void freeze_in_the_middle(const bt_node *prefill, const bt_node *decode)
{
    bt_wait_metric(decode, "baton_receiver_chunks_landed_total", 2);
    bt_child_freeze(prefill->child);
    assert_true(bt_metric(decode, "baton_receiver_tickets_live") == 1);
    assert_true(bt_metric(decode, "baton_receiver_pages_reserved") > 0);
}

static void a_killed_decode_engine_fails_the_transfer_once(void **state)
{
    (void)state;
    bt_node prefill, decode, other;
    bt_node_start(&prefill, "prefill", NULL);
    bt_node_start(&decode, "decode", NULL);
    bt_node_start(&other, "decode", NULL);
    int fd = bt_prefill_open(&prefill, 1, LONG_PROMPT, &decode, "lost", NULL);
    freeze_in_the_middle(&prefill, &decode);
    bt_child_kill(decode.child);
    bt_child_signal(prefill.child, SIGCONT);

    bt_http_answer answer;
    bt_http_finish(fd, &answer);
    bt_check_error(&answer, 502, NULL);
    bt_check_idle_prefill(&prefill);
    assert_true(bt_metric(&prefill, "baton_engine_transfers_total{result=\"begun\"}") == 1);
    assert_true(bt_metric(&prefill, "baton_engine_transfers_total{result=\"failed\"}") == 1);
    assert_true(bt_metric(&prefill, "baton_sender_transfers_failed_total") == 1);
    assert_true(bt_metric(&prefill, "baton_sender_peers_lost_total") == 1);
    /* UCX may notice before the pidfd does. */
    assert_true(bt_child_has_logged(prefill.child, "hand-off failed status=ERR_PEER_GONE") ||
                bt_child_has_logged(prefill.child, "hand-off failed status=ERR_UNREACHABLE"));

    bt_check_hand_off(&prefill, &other, 2, "next");
    bt_check_idle_prefill(&prefill);
    bt_check_idle_decode(&other);
    bt_child_stop(prefill.child);
    bt_child_stop(other.child);
}

static void a_killed_prefill_engine_gives_its_pages_back(void **state)
{
    (void)state;
    bt_node prefill, decode, other;
    bt_node_start(&prefill, "prefill", NULL);
    bt_node_start(&decode, "decode", NULL);
    int fd = bt_prefill_open(&prefill, 1, LONG_PROMPT, &decode, "lost", NULL);
    freeze_in_the_middle(&prefill, &decode);
    bt_child_kill(prefill.child);

    bt_http_answer answer;
    bt_http_finish(fd, &answer);
    assert_int_equal(answer.status, 0);
    bt_http_answer_clear(&answer);
    bt_wait_metric_is(&decode, "baton_receiver_requests_failed_total", 1);
    bt_check_idle_decode(&decode);
    assert_true(bt_metric(&decode, "baton_receiver_peers_lost_total") == 1);
    assert_true(bt_metric(&decode, "baton_receiver_requests_ready_total") == 0);
    bt_child_wait_log(decode.child, "status=ERR_PEER_GONE");

    bt_node_start(&other, "prefill", NULL);
    bt_check_hand_off(&other, &decode, 2, "next");
    bt_check_idle_decode(&decode);
    bt_child_stop(other.child);
    bt_child_stop(decode.child);
}

/* A stopped writer may still be in the middle of a copy into the page: nothing but its own word, or
 * its end, gives the page back. */
static void a_stopped_prefill_engine_keeps_its_pages_until_it_goes_on(void **state)
{
    (void)state;
    enum { LOOKS = 20 };
    bt_node prefill, decode;
    bt_node_start(&prefill, "prefill", NULL);
    bt_node_start(
        &decode, "decode",
        (const char *const[]){"--set", "peer_silent_ms=1s", "--set", "heartbeat_ms=100ms", NULL});
    int fd = bt_prefill_open(&prefill, 1, LONG_PROMPT, &decode, "late", NULL);
    freeze_in_the_middle(&prefill, &decode);
    double reserved = bt_metric(&decode, "baton_receiver_pages_reserved");

    bt_wait_metric_is(&decode, "baton_receiver_requests_failed_total", 1);
    bt_child_wait_log(decode.child, "status=ERR_PEER_SILENT");
    bt_wait_metric_is(&decode, "baton_receiver_pages_reserved", 0);
    for (int i = 0; i < LOOKS; i++)
        assert_true(bt_metric(&decode, "baton_receiver_pages_quarantined") == reserved);

    bt_child_signal(prefill.child, SIGCONT);
    bt_http_answer answer;
    bt_http_finish(fd, &answer);
    assert_true(answer.status >= 500);
    bt_check_error(&answer, answer.status, NULL);
    bt_check_idle_decode(&decode);
    bt_check_idle_prefill(&prefill);
    assert_true(bt_metric(&prefill, "baton_engine_transfers_total{result=\"failed\"}") == 1);
    bt_check_hand_off(&prefill, &decode, 2, "next");
    bt_check_idle_decode(&decode);
    bt_child_stop(prefill.child);
    bt_child_stop(decode.child);
}

typedef struct {
    const bt_node *nodes; /* [2] */
    int busy;             /* whose receiver has landed something; -1: nobody's yet */
} which;

static bool somebody_receives(void *ctx)
{
    which *w = ctx;
    for (int i = 0; w->busy < 0 && i < 2; i++)
        if (bt_metric(&w->nodes[i], "baton_receiver_chunks_landed_total") >= 2)
            w->busy = i;
    return w->busy >= 0;
}

/* The client gets the right tokens from the other pair, or an honest error; and the system goes
 * on with what is left. */
static void a_killed_decode_engine_is_replaced_by_the_proxy(void **state)
{
    (void)state;
    bt_node alone, prefill, decode[2], proxy;
    bt_node_start(&alone, "both", NULL);
    bt_node_start(&prefill, "prefill", NULL);
    bt_node_start(&decode[0], "decode", NULL);
    bt_node_start(&decode[1], "decode", NULL);
    bt_proxy_start(&proxy, &prefill, 1, decode, 2, NULL);

    bt_strbuf body = bt_completion(1, LONG_PROMPT, 4, false);
    int fd = bt_http_open(proxy.port, "POST", "/v1/completions", bt_strbuf_text(&body), NULL);
    assert_true(fd >= 0);
    which w = {decode, -1};
    bt_wait_until(somebody_receives, &w, "a hand-off through the proxy");
    freeze_in_the_middle(&prefill, &decode[w.busy]);
    bt_child_kill(decode[w.busy].child);
    bt_child_signal(prefill.child, SIGCONT);

    bt_http_answer answer;
    bt_http_finish(fd, &answer);
    if (answer.status == 200)
        bt_check_same_tokens(&answer, &alone, bt_strbuf_text(&body));
    else
        bt_check_error(&answer, answer.status < 500 ? 500 : answer.status, NULL);
    bt_http_answer_clear(&answer);
    bt_strbuf_free(&body);
    const bt_node *left = &decode[1 - w.busy];
    for (uint64_t seed = 10; seed < 14; seed++)
        bt_check_completion(&proxy, &alone, seed, 100);
    bt_check_idle_prefill(&prefill);
    bt_check_idle_decode(left);
    bt_child_stop(proxy.child);
    bt_child_stop(prefill.child);
    bt_child_stop(left->child);
    bt_child_stop(alone.child);
}

/* Stopped before it is asked: it takes the connection, and would keep the client waiting for as
 * long as prefill may take. */
static void a_stopped_prefill_engine_is_replaced_by_the_proxy(void **state)
{
    (void)state;
    bt_node alone, prefill[2], decode, proxy;
    bt_node_start(&alone, "both", NULL);
    bt_node_start(&prefill[0], "prefill", NULL);
    bt_node_start(&prefill[1], "prefill", NULL);
    bt_node_start(&decode, "decode", NULL);
    bt_proxy_start(&proxy, prefill, 2, &decode, 1,
                   (const char *const[]){"--probe-ms", "100", "--silent-ms", "1000", NULL});
    char up[96];
    snprintf(up, sizeof(up), "baton_proxy_worker_up{worker=\"127.0.0.1:%u\",role=\"prefill\"}",
             prefill[0].port);
    bt_child_freeze(prefill[0].child);
    for (uint64_t seed = 20; seed < 23; seed++)
        bt_check_completion(&proxy, &alone, seed, 100);
    assert_true(bt_metric(&proxy, up) == 0);
    bt_child_signal(prefill[0].child, SIGCONT);
    bt_wait_metric_is(&proxy, up, 1);
    for (uint64_t seed = 23; seed < 26; seed++)
        bt_check_completion(&proxy, &alone, seed, 100);
    bt_check_idle_decode(&decode);
    bt_child_stop(proxy.child);
    bt_child_stop(prefill[0].child);
    bt_child_stop(prefill[1].child);
    bt_child_stop(decode.child);
    bt_child_stop(alone.child);
}

/* The busy one of two prefill engines is killed in the middle. The proxy asks the other one, which
 * sends what has not landed; the client gets the right tokens and notices nothing. */
static void a_killed_prefill_engine_is_replaced_and_what_has_landed_is_not_sent_again(void **state)
{
    (void)state;
    enum { CHUNKS = (LONG_PROMPT + BT_CLUSTER_CHUNK_TOKENS - 1) / BT_CLUSTER_CHUNK_TOKENS };
    bt_node alone, prefill[2], decode, proxy;
    bt_node_start(&alone, "both", NULL);
    bt_node_start(&prefill[0], "prefill", NULL);
    bt_node_start(&prefill[1], "prefill", NULL);
    bt_node_start(&decode, "decode", NULL);
    bt_proxy_start(&proxy, prefill, 2, &decode, 1, NULL);

    bt_strbuf body = bt_completion(1, LONG_PROMPT, 4, false);
    int fd = bt_http_open(proxy.port, "POST", "/v1/completions", bt_strbuf_text(&body), NULL);
    assert_true(fd >= 0);
    bt_wait_metric(&decode, "baton_receiver_chunks_landed_total", 2);
    int busy = bt_metric(&prefill[0], "baton_sender_transfers_begun_total") == 1 ? 0 : 1;
    freeze_in_the_middle(&prefill[busy], &decode);
    double landed = bt_metric(&decode, "baton_receiver_chunks_landed_total");
    bt_child_kill(prefill[busy].child);

    bt_http_answer answer;
    bt_http_finish(fd, &answer);
    assert_int_equal(answer.status, 200);
    bt_check_same_tokens(&answer, &alone, bt_strbuf_text(&body));
    bt_http_answer_clear(&answer);
    bt_strbuf_free(&body);
    const bt_node *other = &prefill[1 - busy];
    double sent = bt_metric(other, "baton_sender_chunks_sent_total");
    double present = bt_metric(other, "baton_sender_chunks_present_total");
    assert_true(present >= landed && present < CHUNKS);
    assert_true(sent + present == CHUNKS);
    assert_true(bt_metric(&decode, "baton_receiver_chunks_landed_total") == CHUNKS);
    bt_check_idle_prefill(other);
    bt_check_idle_decode(&decode);
    bt_child_stop(proxy.child);
    bt_child_stop(other->child);
    bt_child_stop(decode.child);
    bt_child_stop(alone.child);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_child_test(a_killed_decode_engine_fails_the_transfer_once),
        bt_child_test(a_killed_prefill_engine_gives_its_pages_back),
        bt_child_test(a_stopped_prefill_engine_keeps_its_pages_until_it_goes_on),
        bt_child_test(a_killed_decode_engine_is_replaced_by_the_proxy),
        bt_child_test(a_stopped_prefill_engine_is_replaced_by_the_proxy),
        bt_child_test(a_killed_prefill_engine_is_replaced_and_what_has_landed_is_not_sent_again),
    };
    return bt_run_tests(tests);
}
