/* SPDX-License-Identifier: Apache-2.0 */
/* baton-ctl on live processes: a request's whole way, a transfer that is stuck, clients that mean
 * no good, and what is said when there is nobody to ask. */
#include "support/adminask.h"
#include "support/cluster.h"

#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define TRACE "4bf92f3577b34da6a3ce929d0e0e4736"
#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})

enum { N_TOKENS = 3 * BT_CLUSTER_CHUNK_TOKENS + 5 };

/* wanted: the exit status. What it printed; freed with free. */
static char *ctl(int wanted, const char *const *args)
{
    bt_child *child = bt_child_start("baton-ctl", args);
    int status = bt_child_wait(child);
    char *text = bt_child_text(child->out);
    if (status != wanted) {
        char *log = bt_child_text(child->log);
        fail_msg("wanted exit status %d, found %d:\n%s\n%s", wanted, status, text, log);
    }
    return text;
}

static char *ctl_error(int wanted, const char *const *args)
{
    bt_child *child = bt_child_start("baton-ctl", args);
    assert_int_equal(bt_child_wait(child), wanted);
    return bt_child_text(child->log);
}

static json_t *ctl_json(int wanted, const char *const *args)
{
    char *text = ctl(wanted, args);
    json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    if (json == NULL)
        fail_msg("no JSON: %s", text);
    free(text);
    return json;
}

static void contains(char *text, const char *wanted)
{
    if (strstr(text, wanted) == NULL)
        fail_msg("wanted %s in\n%s", wanted, text);
}

static void ask_proxy(const bt_node *proxy, const char *headers)
{
    char address[32];
    bt_strbuf body = bt_completion(7, N_TOKENS, 4, false), request = {0};
    bt_strbuf_printf(&request,
                     "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                     "Content-Type: application/json\r\nContent-Length: %zu\r\n%s\r\n%s",
                     body.length, headers, bt_strbuf_text(&body));
    snprintf(address, sizeof(address), "127.0.0.1:%u", proxy->port);
    int fd = bt_admin_connect(address);
    bt_admin_send(fd, bt_strbuf_text(&request));
    char *answer = bt_admin_receive(fd);
    contains(answer, "HTTP/1.1 200 ");
    free(answer);
    bt_strbuf_free(&body);
    bt_strbuf_free(&request);
}

/* The stages of a timeline as "proxy:received sender:opened ...". */
static bt_strbuf stages_of(json_t *report)
{
    bt_strbuf stages = {0};
    size_t i;
    json_t *stage;
    double last = 0;
    json_array_foreach(json_object_get(report, "timeline"), i, stage)
    {
        const char *who = json_string_value(json_object_get(stage, "who"));
        double at = json_number_value(json_object_get(stage, "wall_ns"));
        assert_true(at >= last);
        last = at;
        bt_strbuf_printf(&stages, " %.*s:%s;", (int)strcspn(who, ":"), who,
                         json_string_value(json_object_get(stage, "stage")));
    }
    return stages;
}

/* Each of them, one behind the other. */
static void has_in_order(const bt_strbuf *stages, const char *const *wanted)
{
    const char *at = bt_strbuf_text(stages);
    for (; *wanted != NULL; wanted++) {
        char piece[64];
        snprintf(piece, sizeof(piece), " %s;", *wanted);
        at = strstr(at, piece);
        if (at == NULL)
            fail_msg("wanted %s, in this place, in\n%s", *wanted, bt_strbuf_text(stages));
    }
}

static void one_requests_whole_way_is_told(void **state)
{
    (void)state;
    bt_node prefill, decode, proxy;
    bt_node_start(&prefill, "prefill", NULL);
    bt_node_start(&decode, "decode", NULL);
    bt_proxy_start(&proxy, &prefill, 1, &decode, 1, ARGS("--threads", "2"));
    ask_proxy(&proxy, "traceparent: 00-" TRACE "-00f067aa0ba902b7-01\r\nX-Request-Id: mine\r\n");
    bt_wait_metric_is(&decode, "baton_receiver_pins_live", 0);
    static const char *const ids[] = {TRACE, "mine", "00-" TRACE "-00f067aa0ba902b7-01"};
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        json_t *report = ctl_json(0, ARGS("--json", "trace", ids[i]));
        bt_strbuf stages = stages_of(report);
        has_in_order(&stages,
                     ARGS("proxy:received", "proxy:prefill sent", "sender:opened",
                          "sender:alloc sent", "receiver:alloc", "receiver:granted",
                          "sender:granted", "sender:last byte out", "sender:final commit sent",
                          "receiver:last commit", "sender:committed", "sender:notified",
                          "proxy:KV ready", "proxy:decode sent", "receiver:looked up",
                          "receiver:pinned", "receiver:released", "proxy:done"));
        has_in_order(&stages, ARGS("proxy:prefill sent", "sender:first chunk pushed",
                                   "sender:last chunk pushed", "sender:last byte out"));
        has_in_order(&stages,
                     ARGS("proxy:prefill sent", "proxy:prefill answered", "proxy:decode sent"));
        has_in_order(&stages, ARGS("proxy:received", "proxy:first byte", "proxy:done"));
        has_in_order(&stages, ARGS("receiver:granted", "receiver:first commit"));
        bt_strbuf_free(&stages);
        json_decref(report);
    }
    char *text = ctl(0, ARGS("trace", TRACE));
    contains(text, "last byte out");
    contains(text, "looked up");
    free(text);
    text = ctl(0, ARGS("slow"));
    contains(text, TRACE);
    free(text);
    text = ctl(0, ARGS("endpoints"));
    contains(text, "proxy:");
    contains(text, "sender:");
    contains(text, "receiver:");
    free(text);
    text = ctl(0, ARGS("peers"));
    contains(text, "READY");
    contains(text, "CONNECTED");
    contains(text, "UP");
    free(text);
    text = ctl(0, ARGS("counters"));
    contains(text, "requests_ready_total");
    contains(text, "relay_bytes_total");
    free(text);
    text = ctl(0, ARGS("all"));
    contains(text, "no hand-off is under way");
    free(text);
    text = ctl_error(1, ARGS("trace", "nobody's"));
    contains(text, "wanted a request nobody's, found none at 3 endpoints");
    free(text);
}

typedef struct {
    const char *at, *state, *waits_for;
    bool is_there;
} stuck;

/* A transfer in that state, that waits for that, with its deadline ahead. */
static bool is_stuck(void *ctx)
{
    stuck *s = ctx;
    json_t *report = ctl_json(0, ARGS("--json", "--at", s->at, "transfers"));
    json_t *endpoint = json_array_get(json_object_get(report, "transfers"), 0);
    json_t *row = json_array_get(json_object_get(endpoint, "transfers"), 0);
    const char *found = json_string_value(json_object_get(row, "state"));
    const char *waits = json_string_value(json_object_get(row, "waits_for"));
    bool is = found != NULL && strcmp(found, s->state) == 0 && waits != NULL &&
              strcmp(waits, s->waits_for) == 0;
    if (is) {
        double left = json_number_value(json_object_get(row, "deadline_ms"));
        assert_true(left > 0 && left < 300000);
        assert_true(json_number_value(json_object_get(row, "age_ms")) > 0);
        assert_string_equal(json_string_value(json_object_get(row, "request")), "stuck");
    }
    json_decref(report);
    return is;
}

/* The address of the only endpoint of that role. */
static void address_of(const char *role, char address[256])
{
    size_t i;
    json_t *endpoint, *report = ctl_json(0, ARGS("--json", "endpoints"));
    address[0] = 0;
    json_array_foreach(json_object_get(report, "endpoints"), i, endpoint)
    {
        if (strcmp(json_string_value(json_object_get(endpoint, "role")), role) == 0)
            snprintf(address, 256, "%s", json_string_value(json_object_get(endpoint, "at")));
    }
    json_decref(report);
    assert_true(address[0] != 0);
}

static void a_stuck_transfer_is_seen_with_its_stage_and_deadline(void **state)
{
    (void)state;
    bt_node prefill, decode;
    char sender[256], receiver[256];
    bt_node_start(&prefill, "prefill", ARGS("--set", "alloc_ms=60s"));
    bt_node_start(&decode, "decode", ARGS("--set", "peer_silent_ms=60s"));
    bt_check_hand_off(&prefill, &decode, 1, "first"); /* so that they know each other */
    address_of("sender", sender);
    address_of("receiver", receiver);
    bt_child_freeze(decode.child);
    int fd = bt_prefill_open(&prefill, 2, N_TOKENS, &decode, "stuck", NULL);
    stuck s = {.at = sender, .state = "WAIT_GRANT", .waits_for = "the answer to ALLOC"};
    bt_wait_until(is_stuck, &s, "a transfer that waits for its grant");
    /* Whoever is stopped cannot be asked, which is said too. */
    char *text = ctl_error(1, ARGS("--timeout", "200ms", "--at", receiver, "transfers"));
    contains(text, "is the process stopped?");
    free(text);
    bt_child_signal(decode.child, SIGCONT);
    bt_http_answer answer;
    bt_http_finish(fd, &answer);
    assert_int_equal(answer.status, 200);
    bt_http_answer_clear(&answer);
    bt_child_stop(prefill.child);
    bt_child_stop(decode.child);
    text = ctl_error(2, ARGS("transfers"));
    contains(text, "found none");
    free(text);
}

static void clients_that_mean_no_good_stop_nobody(void **state)
{
    (void)state;
    enum { N_FDS = 60 };
    bt_node prefill, decode;
    char address[256];
    int fds[N_FDS];
    bt_node_start(&prefill, "prefill", NULL);
    bt_node_start(&decode, "decode", NULL);
    address_of("receiver", address);
    static const char *const heads[] = {"GET /pages?limit=500 HTTP/1.1\r\n\r\n", "GET /pages HT",
                                        "\0\xff\r\n\r\n", "POST / HTTP/1.1\r\n\r\n"};
    for (int i = 0; i < N_FDS; i++) {
        fds[i] = bt_admin_connect(address);
        bt_admin_send(fds[i], heads[i % 4]);
    }
    bt_check_hand_off(&prefill, &decode, 1, "meanwhile");
    char *text = ctl(0, ARGS("pages"));
    contains(text, "LANDED");
    free(text);
    for (int i = 0; i < N_FDS; i++)
        close(fds[i]);
    bt_child_kill(decode.child); /* its file stays, and is not taken for an endpoint */
    text = ctl(0, ARGS("endpoints"));
    assert_null(strstr(text, "receiver:"));
    contains(text, "sender:");
    free(text);
}

static void wrong_words_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *args[4];
        const char *wanted;
    } cases[] = {
        {{NULL}, "wanted transfers, pages"},
        {{"nonsense", NULL}, "found nonsense"},
        {{"trace", NULL}, "wanted an ID"},
        {{"peers", "x", NULL}, "wanted nothing behind it"},
        {{"--at", "nowhere", "peers", NULL}, "HOST:PORT"},
        {{"--limit", "0", "peers", NULL}, "limit"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bool is_asked = cases[i].args[0] != NULL && strcmp(cases[i].args[0], "--at") == 0;
        char *text = ctl_error(is_asked ? 1 : 2, cases[i].args);
        contains(text, cases[i].wanted);
        free(text);
    }
    char *text = ctl(0, ARGS("--help"));
    contains(text, "  trace ID    the whole way of one request");
    free(text);
}

/* Its own folder, so that nobody else's processes are asked. */
int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_child_test(one_requests_whole_way_is_told),
        bt_child_test(a_stuck_transfer_is_seen_with_its_stage_and_deadline),
        bt_child_test(clients_that_mean_no_good_stop_nobody),
        bt_child_test(wrong_words_are_refused),
    };
    bt_admin_own_folder();
    int n_failed = bt_run_tests(tests);
    bt_admin_remove_folder();
    return n_failed;
}
