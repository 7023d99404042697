/* SPDX-License-Identifier: Apache-2.0 */
/* What senders and receivers answer when they are asked what goes on: in every state, within
 * bounds, and as JSON. */
#include "handoffkit.h"

#include "receiver/rxadmin.h"
#include "sender/txadmin.h"

#include <jansson.h>
#include <stdio.h>

#define TRACE "4bf92f3577b34da6a3ce929d0e0e4736"

static void open_pair(const pair_options *options)
{
    pair_create(&kit, options);
    for (uint32_t i = 0; i < kit.n_senders; i++)
        assert_ok(bt_tracelog_create(&kit.senders[i].tx->traces));
    assert_ok(bt_tracelog_create(&kit.rx->traces));
}

static bt_admin_query query_of(const char *name)
{
    bt_admin_query query = {.limit = BT_ADMIN_ROWS_DEFAULT};
    snprintf(query.name, sizeof(query.name), "%s", name);
    return query;
}

static json_t *parsed(unsigned status, bt_strbuf *out)
{
    json_error_t error;
    assert_int_equal(status, 200);
    assert_ok(bt_strbuf_status(out));
    json_t *json = json_loads(bt_strbuf_text(out), JSON_REJECT_DUPLICATES, &error);
    if (json == NULL)
        fail_msg("%s in %s", error.text, bt_strbuf_text(out));
    bt_strbuf_free(out);
    return json;
}

static json_t *ask_tx(uint32_t sender, const bt_admin_query *query)
{
    bt_strbuf out = {0};
    baton_sender_stats stats;
    bt_tx *tx = kit.senders[sender].tx;
    bt_tx_get_stats(tx, &stats);
    return parsed(bt_tx_admin_answer(tx, &stats, query, &out), &out);
}

static json_t *ask_rx(const bt_admin_query *query)
{
    bt_strbuf out = {0};
    baton_receiver_stats stats;
    bt_rx_get_stats(kit.rx, &stats);
    return parsed(bt_rx_admin_answer(kit.rx, &stats, query, &out), &out);
}

/* Row n of the list in an answer; borrowed. */
static json_t *row(json_t *answer, const char *list, size_t n)
{
    json_t *found = json_array_get(json_object_get(answer, list), n);
    if (found == NULL) {
        char *text = json_dumps(answer, 0);
        fail_msg("no row %zu of %s in %s", n, list, text);
    }
    return found;
}

static size_t n_rows(json_t *answer, const char *list)
{
    return json_array_size(json_object_get(answer, list));
}

static const char *text_of(json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "(none)";
}

static double number_of(json_t *object, const char *key)
{
    json_t *value = json_object_get(object, key);
    if (!json_is_number(value))
        fail_msg("%s is no number", key);
    return json_number_value(value);
}

static void live_transfers_say_where_they_stand_and_what_they_wait_for(void **state)
{
    (void)state;
    const bt_admin_query transfers = query_of("transfers");
    open_pair(&(pair_options){.n_senders = 2, .n_pages = 2, .mapped = true});
    kit.traceparent = "00-" TRACE "-00f067aa0ba902b7-01";
    pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
    pair_begin(&kit, 0, "first", tokens, 2 * PAIR_CHUNK, 60000);
    pair_run(&kit);
    pair_tokens(2, 0, 2 * PAIR_CHUNK, tokens);
    pair_begin(&kit, 1, "second", tokens, 2 * PAIR_CHUNK, 30000);
    pair_advance(&kit, 1000);

    json_t *answer = ask_tx(0, &transfers), *first = row(answer, "transfers", 0);
    assert_string_equal(text_of(answer, "role"), "sender");
    assert_string_equal(text_of(first, "request"), "first");
    assert_string_equal(text_of(first, "trace"), TRACE);
    assert_string_equal(text_of(first, "state"), "MOVING");
    assert_string_equal(text_of(first, "waits_for"), "chunks of the engine");
    assert_string_equal(text_of(first, "peer"), "127.0.0.1:1");
    assert_true(number_of(first, "stage_ms") >= 1000 && number_of(first, "stage_ms") < 1500);
    assert_true(number_of(first, "deadline_ms") <= 59000 && number_of(first, "deadline_ms") > 0);
    assert_int_equal(number_of(first, "chunks"), 2);
    assert_int_equal(n_rows(answer, "transfers"), 1);
    assert_true(json_is_null(json_object_get(answer, "next")));
    json_decref(answer);

    answer = ask_tx(1, &transfers);
    json_t *second = row(answer, "transfers", 0);
    assert_string_equal(text_of(second, "state"), "WAIT_GRANT");
    assert_string_equal(text_of(second, "waits_for"), "pages, in the receiver's queue");
    json_decref(answer);

    answer = ask_rx(&transfers);
    assert_string_equal(text_of(answer, "role"), "receiver");
    assert_int_equal(n_rows(answer, "transfers"), 2);
    assert_string_equal(text_of(row(answer, "transfers", 0), "state"), "GRANTED");
    assert_string_equal(text_of(row(answer, "transfers", 0), "trace"), TRACE);
    second = row(answer, "transfers", 1);
    assert_string_equal(text_of(second, "state"), "QUEUED");
    assert_string_equal(text_of(second, "waits_for"), "free pages");
    assert_true(number_of(second, "deadline_ms") <= 29000);
    json_decref(answer);
    pair_destroy(&kit);
}

static void pages_name_who_holds_them_and_why(void **state)
{
    (void)state;
    bt_admin_query pages = query_of("pages");
    open_pair(&(pair_options){.n_senders = 1, .n_pages = 8, .n_regions = 2, .mapped = true});
    pair_tokens(1, 0, 3 * PAIR_CHUNK, tokens);
    hand_off(0, "held", 3 * PAIR_CHUNK);
    pair_tokens(2, 0, 2 * PAIR_CHUNK, tokens);
    pair_begin(&kit, 0, "written", tokens, 2 * PAIR_CHUNK, 60000);
    pair_run(&kit);

    json_t *answer = ask_rx(&pages), *counts = json_object_get(answer, "counts");
    assert_int_equal(number_of(counts, "total"), 8);
    assert_int_equal(number_of(counts, "free"), 3);
    assert_int_equal(number_of(counts, "reserved"), 2);
    assert_int_equal(number_of(counts, "landed"), 3);
    assert_int_equal(n_rows(answer, "pages"), 5);
    assert_true(json_is_true(json_object_get(answer, "owners_are_complete")));
    for (size_t i = 0; i < 5; i++) {
        json_t *page = row(answer, "pages", i);
        bool is_landed = strcmp(text_of(page, "state"), "LANDED") == 0;
        assert_string_equal(text_of(page, "why"),
                            is_landed ? "waits for decode" : "a sender may write it");
        assert_int_equal(number_of(page, "n_owners"), 1);
        json_t *owner = row(page, "owners", 0);
        assert_string_equal(text_of(owner, "request"), is_landed ? "held" : "written");
    }
    json_decref(answer);

    snprintf(pages.state, sizeof(pages.state), "free");
    answer = ask_rx(&pages);
    assert_int_equal(n_rows(answer, "pages"), 3);
    json_decref(answer);

    /* In windows of two, each page once. */
    pages = query_of("pages");
    pages.limit = 2;
    double last = -1;
    size_t n_seen = 0;
    for (bool has_more = true; has_more;) {
        answer = ask_rx(&pages);
        assert_true(n_rows(answer, "pages") <= 2);
        for (size_t i = 0; i < n_rows(answer, "pages"); i++, n_seen++) {
            assert_true(number_of(row(answer, "pages", i), "page") > last);
            last = number_of(row(answer, "pages", i), "page");
        }
        has_more = !json_is_null(json_object_get(answer, "next"));
        pages.from = has_more ? (uint64_t)number_of(answer, "next") : 0;
        json_decref(answer);
    }
    assert_int_equal(n_seen, 5);
    pages.from = 1000;
    answer = ask_rx(&pages);
    assert_int_equal(n_rows(answer, "pages"), 0);
    json_decref(answer);
    pair_destroy(&kit);
}

static void leases_say_what_ends_them(void **state)
{
    (void)state;
    const bt_admin_query leases = query_of("leases"), pages = query_of("pages");
    open_pair(&(pair_options){.n_senders = 1, .n_pages = 8, .mapped = true});
    pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
    hand_off(0, "held", 2 * PAIR_CHUNK);
    json_t *answer = ask_rx(&leases), *lease = row(answer, "leases", 0);
    assert_string_equal(text_of(lease, "kind"), "hold");
    assert_string_equal(text_of(lease, "request"), "held");
    assert_true(number_of(lease, "left_ms") > 0 && number_of(lease, "left_ms") <= 30000);
    json_decref(answer);

    baton_pin *pin;
    uint32_t matched;
    assert_ok(bt_rx_lookup(kit.rx, tokens, 2 * PAIR_CHUNK, &pin, &matched));
    pair_run(&kit);
    answer = ask_rx(&leases);
    lease = row(answer, "leases", 0);
    assert_int_equal(n_rows(answer, "leases"), 1);
    assert_string_equal(text_of(lease, "kind"), "pin");
    assert_string_equal(text_of(lease, "awaits"), "unpin of decode");
    assert_int_equal(number_of(lease, "pages"), 2);
    json_decref(answer);
    answer = ask_rx(&pages);
    assert_string_equal(text_of(row(answer, "pages", 0), "why"), "decode reads it");
    assert_int_equal(number_of(row(row(answer, "pages", 0), "owners", 0), "pin"), 1);
    json_decref(answer);
    assert_ok(bt_rx_unpin(kit.rx, pin));
    pair_run(&kit);

    /* The sender falls silent with pages granted: they wait for proof. */
    pair_tokens(2, 0, PAIR_CHUNK, tokens);
    pair_begin(&kit, 0, "stuck", tokens, PAIR_CHUNK, 60000);
    pair_run(&kit);
    answer = ask_rx(&leases);
    assert_string_equal(text_of(row(answer, "leases", 0), "kind"), "ticket");
    assert_string_equal(text_of(row(answer, "leases", 0), "awaits"), "the sender's next heartbeat");
    json_decref(answer);
    bt_expect_log("nothing heard from the receiver");
    kit.receiver_is_cut = true;
    pair_advance(&kit, 6000);
    answer = ask_rx(&leases);
    lease = row(answer, "leases", 0);
    assert_string_equal(text_of(lease, "kind"), "quarantine");
    assert_string_equal(text_of(lease, "request"), "stuck");
    assert_non_null(strstr(text_of(lease, "awaits"), "DRAINED of "));
    json_decref(answer);
    bt_admin_query quarantined = query_of("pages");
    snprintf(quarantined.state, sizeof(quarantined.state), "quarantined");
    answer = ask_rx(&quarantined);
    assert_int_equal(n_rows(answer, "pages"), 1);
    assert_string_equal(text_of(row(row(answer, "pages", 0), "owners", 0), "state"), "REVOKED");
    json_decref(answer);
    kit.receiver_is_cut = false;
    pair_destroy(&kit);
}

/* The stages of a trace, in order, joined with commas. */
static void join_stages(json_t *trace, char *out, size_t size)
{
    size_t i, n = 0;
    json_t *stage;
    double last = 0;
    json_array_foreach(json_object_get(trace, "stages"), i, stage)
    {
        assert_true(number_of(stage, "at_ns") >= last);
        last = number_of(stage, "at_ns");
        n += (size_t)snprintf(out + n, size - n, "%s%s", i > 0 ? "," : "", text_of(stage, "stage"));
    }
}

static void a_trace_has_every_stage_at_both_ends(void **state)
{
    (void)state;
    static const pair_options ways[] = {
        {.n_senders = 1, .n_pages = 8, .mapped = true},
        {.n_senders = 1, .n_pages = 8, .path = BATON_PATH_PUT},
    };
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        char stages[512];
        bt_admin_query trace = query_of("trace");
        open_pair(&ways[i]);
        kit.manual.tick_ns = 1; /* so that no two stages are reached at once */
        kit.traceparent = "00-" TRACE "-00f067aa0ba902b7-01";
        pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
        baton_transfer transfer = pair_begin(&kit, 0, "attempt", tokens, 2 * PAIR_CHUNK, 0);
        pair_run(&kit); /* granted before the engine has anything to push */
        pair_push_all(&kit, 0, transfer, tokens, 2 * PAIR_CHUNK, data[0]);
        pair_run(&kit);
        assert_int_equal(pair_check(&kit, tokens, 2 * PAIR_CHUNK), 2 * PAIR_CHUNK);
        pair_run(&kit);
        kit.traceparent = NULL;
        pair_tokens(9, 0, PAIR_CHUNK, tokens);
        hand_off(0, "another", PAIR_CHUNK);

        snprintf(trace.id, sizeof(trace.id), TRACE);
        json_t *answer = ask_tx(0, &trace);
        assert_int_equal(n_rows(answer, "traces"), 1);
        assert_string_equal(text_of(row(answer, "traces", 0), "request"), "attempt");
        assert_string_equal(text_of(row(answer, "traces", 0), "status"), "OK");
        join_stages(row(answer, "traces", 0), stages, sizeof(stages));
        assert_string_equal(stages, "opened,alloc sent,granted,first chunk pushed,last chunk "
                                    "pushed,last byte out,final commit sent,committed,notified");
        json_decref(answer);

        answer = ask_rx(&trace);
        assert_int_equal(n_rows(answer, "traces"), 1);
        join_stages(row(answer, "traces", 0), stages, sizeof(stages));
        assert_string_equal(stages,
                            "alloc,granted,first commit,last commit,looked up,pinned,released");
        json_decref(answer);

        snprintf(trace.id, sizeof(trace.id), "another"); /* its request names it as well */
        answer = ask_rx(&trace);
        assert_string_equal(text_of(row(answer, "traces", 0), "status"), "LIVE"); /* held */
        assert_true(json_is_null(json_object_get(row(answer, "traces", 0), "trace")));
        json_decref(answer);
        snprintf(trace.id, sizeof(trace.id), "nobody's");
        answer = ask_tx(0, &trace);
        assert_int_equal(n_rows(answer, "traces"), 0);
        json_decref(answer);
        pair_destroy(&kit);
    }
}

static void a_failed_transfer_leaves_its_reason(void **state)
{
    (void)state;
    open_pair(&(pair_options){.n_senders = 1, .n_pages = 2, .mapped = true});
    pair_tokens(1, 0, PAIR_CHUNK, tokens);
    pair_begin(&kit, 0, "late", tokens, PAIR_CHUNK, 2000);
    pair_advance(&kit, 4000);
    const bt_admin_query slow = query_of("slow");
    json_t *answer = ask_tx(0, &slow), *trace = row(answer, "traces", 0);
    assert_string_equal(text_of(trace, "status"), "ERR_DEADLINE");
    assert_non_null(strstr(text_of(trace, "text"), "deadline"));
    assert_true(number_of(trace, "took_ms") >= 2000);
    json_decref(answer);
    answer = ask_rx(&slow);
    assert_true(strcmp(text_of(row(answer, "traces", 0), "status"), "OK") != 0);
    json_decref(answer);
    pair_destroy(&kit);
}

static void a_traceparent_that_is_not_valid_is_ignored(void **state)
{
    (void)state;
    const bt_admin_query transfers = query_of("transfers");
    open_pair(&(pair_options){.n_senders = 1, .n_pages = 2, .mapped = true});
    kit.traceparent = "00-" TRACE "-00f067aa0ba902b7-01\n\"evil";
    pair_tokens(1, 0, PAIR_CHUNK, tokens);
    pair_begin(&kit, 0, "r", tokens, PAIR_CHUNK, 0);
    pair_run(&kit);
    json_t *answer = ask_rx(&transfers);
    assert_true(json_is_null(json_object_get(row(answer, "transfers", 0), "trace")));
    json_decref(answer);
    pair_destroy(&kit);
}

static void many_rows_come_in_windows(void **state)
{
    (void)state;
    enum { N = 11 };
    bt_admin_query transfers = query_of("transfers");
    open_pair(&(pair_options){.n_senders = 1, .n_pages = 2, .mapped = true});
    for (uint32_t i = 0; i < N; i++) {
        char name[16];
        snprintf(name, sizeof(name), "r%u", i);
        pair_tokens(i, 0, PAIR_CHUNK, tokens);
        pair_begin(&kit, 0, name, tokens, PAIR_CHUNK, 60000);
    }
    pair_run(&kit);
    transfers.limit = 4;
    transfers.from = 8;
    json_t *answer = ask_tx(0, &transfers);
    assert_int_equal(n_rows(answer, "transfers"), 3);
    assert_string_equal(text_of(row(answer, "transfers", 0), "request"), "r8");
    assert_true(json_is_null(json_object_get(answer, "next")));
    json_decref(answer);
    transfers.from = 0;
    snprintf(transfers.state, sizeof(transfers.state), "queued");
    answer = ask_rx(&transfers);
    assert_int_equal(n_rows(answer, "transfers"), 4);
    assert_string_equal(text_of(row(answer, "transfers", 0), "request"), "r2");
    assert_int_equal(number_of(answer, "next"), 4);
    json_decref(answer);
    pair_destroy(&kit);
}

static void peers_and_counters_are_told(void **state)
{
    (void)state;
    const bt_admin_query peers = query_of("peers"), counters = query_of("counters");
    open_pair(&(pair_options){.n_senders = 1, .n_pages = 2, .mapped = true});
    pair_tokens(1, 0, PAIR_CHUNK, tokens);
    hand_off(0, "r", PAIR_CHUNK);
    json_t *answer = ask_tx(0, &peers), *peer = row(answer, "peers", 0);
    assert_string_equal(text_of(peer, "state"), "READY");
    assert_string_equal(text_of(peer, "path"), "mapped");
    assert_string_equal(text_of(peer, "memory"), "host");
    assert_int_equal(strlen(text_of(peer, "epoch")), 16);
    json_decref(answer);
    answer = ask_rx(&peers);
    assert_string_equal(text_of(row(answer, "peers", 0), "state"), "CONNECTED");
    json_decref(answer);
    answer = ask_tx(0, &counters);
    assert_int_equal(number_of(json_object_get(answer, "counters"), "transfers_done_total"), 1);
    json_decref(answer);
    answer = ask_rx(&counters);
    assert_int_equal(number_of(json_object_get(answer, "counters"), "requests_ready_total"), 1);
    json_decref(answer);
    pair_destroy(&kit);
}

/* Whoever may ask is not told what would let them write or read pages. */
static void nothing_secret_is_told(void **state)
{
    (void)state;
    static const char *const names[] = {"",       "transfers", "pages", "peers",
                                        "leases", "counters",  "trace", "slow"};
    open_pair(&(pair_options){.n_senders = 1, .n_pages = 4, .mapped = true});
    pair_tokens(1, 0, PAIR_CHUNK, tokens);
    hand_off(0, "held", PAIR_CHUNK);
    pair_tokens(2, 0, PAIR_CHUNK, tokens);
    pair_begin(&kit, 0, "moving", tokens, PAIR_CHUNK, 60000);
    pair_run(&kit);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const bt_admin_query query = query_of(names[i]);
        json_t *answers[] = {ask_tx(0, &query), ask_rx(&query)};
        for (int side = 0; side < 2; side++) {
            char *text = json_dumps(answers[side], 0);
            static const char *const secret[] = {"nonce", "rkey", "generation", "base", "key\""};
            for (size_t s = 0; s < sizeof(secret) / sizeof(secret[0]); s++)
                if (strstr(text, secret[s]) != NULL)
                    fail_msg("%s in %s", secret[s], text);
            free(text);
            json_decref(answers[side]);
        }
    }
    pair_destroy(&kit);
}

static void other_questions_are_not_known(void **state)
{
    (void)state;
    const bt_admin_query query = query_of("secrets");
    bt_strbuf out = {0};
    baton_sender_stats tx_stats = {0};
    baton_receiver_stats rx_stats = {0};
    open_pair(&(pair_options){.n_senders = 1, .n_pages = 2, .mapped = true});
    assert_int_equal(bt_tx_admin_answer(kit.senders[0].tx, &tx_stats, &query, &out), 404);
    assert_non_null(strstr(bt_strbuf_text(&out), "\"found\":\"secrets\""));
    bt_strbuf_clear(&out);
    assert_int_equal(bt_rx_admin_answer(kit.rx, &rx_stats, &query, &out), 404);
    bt_strbuf_free(&out);
    pair_destroy(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(live_transfers_say_where_they_stand_and_what_they_wait_for),
        bt_test(pages_name_who_holds_them_and_why),
        bt_test(leases_say_what_ends_them),
        bt_test(a_trace_has_every_stage_at_both_ends),
        bt_test(a_failed_transfer_leaves_its_reason),
        bt_test(a_traceparent_that_is_not_valid_is_ignored),
        bt_test(many_rows_come_in_windows),
        bt_test(peers_and_counters_are_told),
        bt_test(nothing_secret_is_told),
        bt_test(other_questions_are_not_known),
    };
    return bt_run_tests(tests);
}
