/* SPDX-License-Identifier: Apache-2.0 */
/* Two ranks, of which one cannot hand its part over: the request has failed, whatever the other has
 * done. */
#include "rawpeer.h"

#include <unistd.h>

enum { LONG_PROMPT = 3000 };

static const char *const two_ranks[] = {"--tp", "2", "--set", "alloc_ms=500ms", NULL};

/* Rank 0 may be done before rank 1 fails. Then decode holds its part until the lease ends, since no
 * proxy is there that would release it. */
static const char *const short_lease[] = {"--tp", "2", "--set", "lease_ms=500ms", NULL};

/* Rank 1's alloc port is one where nobody listens. */
static void spoil_rank_1(const bt_node *decode, bt_node *spoiled)
{
    raw_receiver nobody;
    raw_receiver_open(&nobody);
    *spoiled = *decode;
    spoiled->alloc_ports[1] = nobody.node.alloc_ports[0];
    raw_receiver_close(&nobody);
}

static void one_failed_rank_fails_the_request(void **state)
{
    (void)state;
    bt_node prefill, decode, spoiled;
    raw_notices notices;
    raw_notices_open(&notices);
    bt_node_start(&prefill, "prefill", two_ranks);
    bt_node_start(&decode, "decode", short_lease);
    spoil_rank_1(&decode, &spoiled);
    int fd = bt_prefill_open(&prefill, 1, LONG_PROMPT, &spoiled, "half", notices.url);
    uint32_t n_failed = 0, n_ready = 0;
    bt_notice notice;
    for (notice = raw_notices_next(&notices);; notice = raw_notices_next(&notices)) {
        assert_true(bt_blob_is_text(notice.id, "half"));
        assert_int_equal(notice.world, 2);
        n_ready += notice.kind == BT_NOTICE_READY;
        n_failed += notice.kind == BT_NOTICE_FAILED;
        if (notice.kind == BT_NOTICE_FAILED && notice.rank == 1)
            break;
    }
    assert_int_equal(notice.status, BATON_ERR_ALLOC_TIMEOUT);
    close(fd);
    bt_check_idle_prefill(&prefill);
    bt_check_idle_decode(&decode);
    while (raw_notices_poll(&notices, &notice))
        n_ready += notice.kind == BT_NOTICE_READY;
    assert_true(n_failed > 0);
    assert_true(n_ready < 2); /* never both: the proxy must not see the request ready */
    assert_true(bt_metric(&prefill, "baton_engine_transfers_total{result=\"failed\"}") == 1);

    bt_check_hand_off(&prefill, &decode, 2, "whole");
    bt_check_idle_decode(&decode);
    raw_notices_close(&notices);
    bt_child_stop(prefill.child);
    bt_child_stop(decode.child);
}

static void the_proxy_never_serves_half_a_hand_off(void **state)
{
    (void)state;
    bt_node prefill, decode, spoiled, proxy;
    bt_node_start(&prefill, "prefill", two_ranks);
    bt_node_start(&decode, "decode", (const char *const[]){"--tp", "2", NULL});
    spoil_rank_1(&decode, &spoiled);
    bt_proxy_start(&proxy, &prefill, 1, &spoiled, 1, NULL);
    bt_strbuf body = bt_completion(1, 100, 4, false);
    bt_http_answer answer;
    bt_http_call(proxy.port, "POST", "/v1/completions", bt_strbuf_text(&body), &answer);
    assert_true(answer.status >= 500);
    bt_check_error(&answer, answer.status, NULL);
    bt_strbuf_free(&body);
    assert_true(bt_metric(&decode, "baton_engine_output_tokens_total") == 0);
    bt_check_idle_prefill(&prefill);
    bt_check_idle_decode(&decode);
    bt_child_stop(proxy.child);
    bt_child_stop(prefill.child);
    bt_child_stop(decode.child);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_child_test(one_failed_rank_fails_the_request),
        bt_child_test(the_proxy_never_serves_half_a_hand_off),
    };
    return bt_run_tests(tests);
}
