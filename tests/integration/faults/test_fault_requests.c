/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that are too large, malformed, or whose client leaves. */
#include "rawpeer.h"

#include <stdio.h>
#include <unistd.h>

enum { LONG_PROMPT = 3000, SMALL_POOL_PAGES = 8 };

typedef struct {
    bt_node prefill, decode, proxy;
} system_test;

static void open_system(system_test *t, const char *const *decode_args)
{
    bt_node_start(&t->prefill, "prefill", NULL);
    bt_node_start(&t->decode, "decode", decode_args);
    bt_proxy_start(&t->proxy, &t->prefill, 1, &t->decode, 1, NULL);
}

static void close_system(system_test *t)
{
    bt_check_idle_prefill(&t->prefill);
    bt_check_idle_decode(&t->decode);
    bt_child_stop(t->proxy.child);
    bt_child_stop(t->prefill.child);
    bt_child_stop(t->decode.child);
}

static void a_request_larger_than_the_pool_is_refused_with_both_numbers(void **state)
{
    (void)state;
    system_test t;
    bt_node alone;
    raw_notices notices;
    char text[BT_TEXT_BYTES_MAX + 1];
    raw_notices_open(&notices);
    bt_node_start(&alone, "both", NULL);
    open_system(&t, (const char *const[]){"--set", "pool_bytes=131072", "--set", "n_regions=1",
                                          NULL}); /* pages of 16 KiB */
    assert_true(bt_metric(&t.decode, "baton_receiver_pages_total") == SMALL_POOL_PAGES);
    uint32_t n_tokens = (SMALL_POOL_PAGES + 1) * BT_CLUSTER_CHUNK_TOKENS;
    int fd = bt_prefill_open(&t.prefill, 1, n_tokens, &t.decode, "large", notices.url);
    bt_notice notice = raw_notices_next(&notices);
    assert_int_equal(notice.status, BATON_ERR_TOO_LARGE);
    bt_blob_to_text(notice.text, text, sizeof(text));
    if (strstr(text, "wanted 9 pages") == NULL || strstr(text, "pool has 8") == NULL)
        fail_msg("not both numbers: %s", text);
    close(fd);

    bt_strbuf body = bt_completion(2, n_tokens, 4, false);
    bt_http_answer answer;
    bt_http_call(t.proxy.port, "POST", "/v1/completions", bt_strbuf_text(&body), &answer);
    bt_check_error(&answer, 413, "wanted 9 pages, the whole pool has 8");
    bt_strbuf_free(&body);
    assert_true(bt_metric(&t.proxy, "baton_proxy_retries_total{leg=\"decode\"}") == 0);
    bt_check_completion(&t.proxy, &alone, 3, SMALL_POOL_PAGES * BT_CLUSTER_CHUNK_TOKENS);
    raw_notices_close(&notices);
    bt_child_stop(alone.child);
    close_system(&t);
}

static void a_prompt_longer_than_the_cache_is_refused_with_both_numbers(void **state)
{
    (void)state;
    bt_node engine;
    bt_node_start(&engine, "both", (const char *const[]){"--kv-blocks", "20", NULL});
    bt_strbuf body = bt_completion(1, 400, 1, false);
    bt_http_answer answer;
    bt_http_call(engine.port, "POST", "/v1/completions", bt_strbuf_text(&body), &answer);
    assert_non_null(strstr(bt_strbuf_text(&answer.body), "40"));  /* tokens wanted, 400 or 401 */
    assert_non_null(strstr(bt_strbuf_text(&answer.body), "320")); /* tokens there are */
    bt_check_error(&answer, 400, NULL);
    bt_strbuf_free(&body);
    bt_child_stop(engine.child);
}

static void what_is_no_request_is_refused(const bt_node *node)
{
    static const char *const bodies[] = {
        "",
        "{",
        "[]",
        "null",
        "{\"prompt\":\"x\"} trailing",
        "{\"prompt\":\"x\",\"max_tokens\":\"many\"}",
        "{\"prompt\":\"x\",\"max_tokens\":-1}",
        "{\"prompt\":{\"a\":1}}",
        "{\"prompt\":[1,2,\"three\"]}",
        "{\"prompt\":\"\\ud800\"}",
        "{\"max_tokens\":1}",
        "{\"prompt\":\"\xff\xfe\"}",
    };
    static const struct {
        const char *bytes;
        unsigned status;
    } requests[] = {
        {"nonsense\r\n\r\n", 400},
        {"GET\r\n\r\n", 400},
        {"GET /health HTTP/9.9\r\nHost: x\r\n\r\n", 505},
        {"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", 400},
        {"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
         "Content-Length: 6\r\n\r\n123456",
         400},
        {"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
         400},
        {"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
         "Content-Length: 3\r\n\r\n0\r\n\r\n",
         400},
        {"GET /health HTTP/1.1\r\nbad header\r\n\r\n", 400},
    };
    bt_http_answer answer;
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        bt_http_call(node->port, "POST", "/v1/completions", bodies[i], &answer);
        bt_check_error(&answer, 400, NULL);
    }
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        bt_http_raw(node->port, requests[i].bytes, strlen(requests[i].bytes), &answer);
        bt_check_error(&answer, requests[i].status, NULL);
    }
    bt_http_call(node->port, "GET", "/health", NULL, &answer);
    assert_int_equal(answer.status, 200);
    bt_http_answer_clear(&answer);
}

static void malformed_http_and_json_get_400(void **state)
{
    (void)state;
    system_test t;
    open_system(&t, NULL);
    what_is_no_request_is_refused(&t.prefill);
    what_is_no_request_is_refused(&t.decode);
    what_is_no_request_is_refused(&t.proxy);
    assert_true(bt_metric(&t.prefill, "baton_engine_requests_total") == 0);
    assert_true(bt_metric(&t.decode, "baton_engine_requests_total") == 0);
    close_system(&t);
}

static void a_client_that_leaves_during_prefill_frees_the_kv(void **state)
{
    (void)state;
    system_test t;
    open_system(&t, NULL);
    int fd = bt_prefill_open(&t.prefill, 1, LONG_PROMPT, &t.decode, "direct", NULL);
    bt_wait_metric(&t.decode, "baton_receiver_chunks_landed_total", 2);
    close(fd);
    bt_wait_metric_is(&t.prefill, "baton_engine_finished_total{reason=\"canceled\"}", 1);
    bt_check_idle_prefill(&t.prefill);
    bt_check_idle_decode(&t.decode);

    double before = bt_metric(&t.decode, "baton_receiver_chunks_landed_total");
    bt_strbuf body = bt_completion(2, LONG_PROMPT, 4, true);
    fd = bt_http_open(t.proxy.port, "POST", "/v1/completions", bt_strbuf_text(&body), NULL);
    assert_true(fd >= 0);
    bt_strbuf_free(&body);
    bt_wait_metric(&t.decode, "baton_receiver_chunks_landed_total", before + 2);
    close(fd);
    bt_wait_metric_is(&t.prefill, "baton_engine_finished_total{reason=\"canceled\"}", 2);
    close_system(&t);
}

static void a_client_that_leaves_during_decode_frees_the_kv(void **state)
{
    (void)state;
    system_test t;
    open_system(&t, NULL);
    bt_strbuf body = bt_completion(1, 100, 4000, true);
    int fd = bt_http_open(t.proxy.port, "POST", "/v1/completions", bt_strbuf_text(&body), "data:");
    assert_true(fd >= 0);
    bt_wait_metric(&t.decode, "baton_engine_output_tokens_total", 3);
    assert_true(bt_metric(&t.decode, "baton_engine_requests{state=\"running\"}") == 1);
    close(fd);
    bt_strbuf_free(&body);
    bt_wait_metric_is(&t.decode, "baton_engine_finished_total{reason=\"canceled\"}", 1);
    close_system(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_child_test(a_request_larger_than_the_pool_is_refused_with_both_numbers),
        bt_child_test(a_prompt_longer_than_the_cache_is_refused_with_both_numbers),
        bt_child_test(malformed_http_and_json_get_400),
        bt_child_test(a_client_that_leaves_during_prefill_frees_the_kv),
        bt_child_test(a_client_that_leaves_during_decode_frees_the_kv),
    };
    return bt_run_tests(tests);
}
