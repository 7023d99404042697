/* SPDX-License-Identifier: Apache-2.0 */
/* Notices that are early, lost, late, doubled, failed or somebody else's. */
#include "rig.h"

#include "wire/control.h"
#include "wire/messages.h"
#include "wire/noticepush.h"

#include <stdio.h>
#include <stdlib.h>

static const char body[] = "{\"prompt\":[1],\"max_tokens\":4}";
static rig r;

static void notice_before_the_prefill_engines_answer(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){.notices = FAKE_NOTICE_NONE});
    fake_set(r.prefill[0], &(fake_script){.way = FAKE_HOLDS});
    conversation c = rig_begin(&r, "/v1/completions", body);
    notice_send(r.notice_url, fake_nth(r.prefill[0], 0)->attempt, 0, 1, 0);
    rig_wait_metric(&r, "baton_proxy_kv_notices_total{result=\"ready\"}", 1);
    assert_int_equal(fake_count(r.decode[0]), 0);
    fake_release(r.prefill[0]);
    reply answer = rig_finish(&c);
    assert_int_equal(answer.status, 200);
    reply_free(&answer);
    rig_close(&r);
}

static void notice_after_the_prefill_engines_answer(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){.notices = FAKE_NOTICE_NONE});
    conversation c =
        rig_begin(&r, "/v1/completions", "{\"prompt\":[1],\"max_tokens\":4,\"stream\":true}");
    /* The first token does not wait for the KV; the second does. */
    rig_read_until(&c, "\"text\":\"A\"");
    assert_int_equal(fake_count(r.decode[0]), 0);
    notice_send(r.notice_url, fake_nth(r.prefill[0], 0)->attempt, 0, 1, 0);
    reply answer = rig_finish(&c);
    assert_non_null(strstr(answer.body, "[DONE]"));
    reply_free(&answer);
    rig_close(&r);
}

static void doubled_notice_does_not_stand_for_another_rank(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){.n_ranks = 2, .notices = FAKE_NOTICE_NONE});
    conversation c = rig_begin(&r, "/v1/completions", body);
    const char *id = fake_nth(r.prefill[0], 0)->attempt;
    notice_send(r.notice_url, id, 1, 2, 0);
    notice_send(r.notice_url, id, 1, 2, 0);
    rig_wait_metric(&r, "baton_proxy_kv_notices_total{result=\"duplicate\"}", 1);
    assert_int_equal(fake_count(r.decode[0]), 0);
    notice_send(r.notice_url, id, 0, 2, 0);
    reply answer = rig_finish(&c);
    assert_int_equal(answer.status, 200);
    reply_free(&answer);
    rig_close(&r);
}

static void lost_notice_is_asked_for(void **state)
{
    (void)state;
    char id[64];
    rig_open(&r, &(rig_options){.notices = FAKE_NOTICE_NONE, .options.ms.status_after = 10});
    conversation c = rig_begin(&r, "/v1/completions", body);
    /* Not yet there: it is asked again. */
    assert_string_equal(rig_question(&r, 0, id, BT_REQUEST_MOVING), "STATUS");
    assert_string_equal(id, fake_nth(r.prefill[0], 0)->attempt);
    assert_string_equal(rig_question(&r, 0, id, BT_REQUEST_UNKNOWN), "STATUS");
    assert_int_equal(fake_count(r.decode[0]), 0);
    assert_string_equal(rig_question(&r, 0, id, BT_REQUEST_READY), "STATUS");
    reply answer = rig_finish(&c);
    assert_int_equal(answer.status, 200);
    reply_free(&answer);
    rig_close(&r);
}

static void make_keys(const char *folder, const char *name)
{
    char prefix[64];
    bt_curve_keys keys;
    snprintf(prefix, sizeof(prefix), "%s/%s", folder, name);
    assert_ok(bt_curve_generate(&keys));
    assert_ok(bt_curve_save(prefix, &keys));
}

/* folder/receiver.{key,pub} and folder/proxy.{key,pub}: who has one of them is let in everywhere.
 */
typedef struct {
    char folder[64], receiver[2][80], proxy[2][80];
    baton_security receivers;
    bt_proxy_options options;
} keys_test;

static void open_keys(keys_test *t)
{
    static const char *const ends[] = {"key", "pub"};
    char folder[] = "/tmp/baton-proxy-keys-XXXXXX";
    assert_non_null(mkdtemp(folder));
    make_keys(folder, "receiver");
    make_keys(folder, "proxy");
    memset(t, 0, sizeof(*t));
    strcpy(t->folder, folder);
    for (int i = 0; i < 2; i++) {
        snprintf(t->receiver[i], sizeof(t->receiver[i]), "%s/receiver.%s", folder, ends[i]);
        snprintf(t->proxy[i], sizeof(t->proxy[i]), "%s/proxy.%s", folder, ends[i]);
    }
    t->receivers = (baton_security){.key_file = t->receiver[0], .clients_path = t->folder};
    t->options = (bt_proxy_options){
        .key_file = t->proxy[0], .receiver_key = t->receiver[1], .clients_path = t->folder};
}

static void close_keys(const keys_test *t)
{
    char command[80];
    snprintf(command, sizeof(command), "rm -rf %s", t->folder);
    assert_int_equal(system(command), 0);
}

static void receivers_that_want_keys_are_asked_with_them(void **state)
{
    (void)state;
    char id[64];
    keys_test t;
    open_keys(&t);
    t.options.ms.status_after = 10;
    rig_open(&r, &(rig_options){
                     .notices = FAKE_NOTICE_NONE, .security = &t.receivers, .options = t.options});
    conversation c = rig_begin(&r, "/v1/completions", body);
    assert_string_equal(rig_question(&r, 0, id, BT_REQUEST_READY), "STATUS");
    reply answer = rig_finish(&c);
    assert_int_equal(answer.status, 200);
    reply_free(&answer);
    rig_close(&r);
    close_keys(&t);
}

/* A stranger knows the request's name and says that it failed. */
static void with_keys_only_known_engines_notices_are_heard(void **state)
{
    (void)state;
    char id[64];
    keys_test t;
    bt_control engine;
    bt_noticepush *push;
    open_keys(&t);
    rig_open(&r, &(rig_options){
                     .notices = FAKE_NOTICE_NONE, .security = &t.receivers, .options = t.options});
    conversation c = rig_begin(&r, "/v1/completions", body);
    snprintf(id, sizeof(id), "%s", fake_nth(r.prefill[0], 0)->attempt);
    const baton_security security = {
        .key_file = t.receiver[0], .server_key = t.proxy[1], .proxy_key = t.proxy[1]};
    assert_ok(bt_control_open_client(&security, &engine));
    assert_ok(bt_noticepush_create(engine.context, NULL, &push));
    bt_notice notice = {.id = bt_blob_of_text(id),
                        .epoch = 77,
                        .world = 1,
                        .status = BATON_ERR_PUT_TIMEOUT,
                        .text = bt_blob_of_text("of a stranger")};
    bt_noticepush_send(push, r.notice_url, &notice);
    bt_noticepush_destroy(push, 0);
    assert_ok(bt_noticepush_create(engine.context, &engine.security, &push));
    notice.status = BATON_OK;
    bt_noticepush_send(push, r.notice_url, &notice);
    reply answer = rig_finish(&c);
    assert_int_equal(answer.status, 200);
    assert_int_equal(rig_metric(&r, "baton_proxy_notice_frames_total"), 1);
    reply_free(&answer);
    bt_noticepush_destroy(push, 0);
    bt_control_close(&engine);
    rig_close(&r);
    close_keys(&t);
}

/* Whoever says "failed" ends a request. */
static void without_keys_notices_are_heard_on_loopback_only(void **state)
{
    (void)state;
    const bt_worker_address engine = {.host = "127.0.0.1", .port = 1};
    bt_proxy_options options = {.notice_host = "0.0.0.0",
                                .prefill = &engine,
                                .decode = &engine,
                                .n_prefill = 1,
                                .n_decode = 1,
                                .notices = BT_NOTICES_AUTO,
                                .threads = 1};
    bt_proxy *proxy;
    assert_fails(bt_proxy_start(&options, &proxy), BATON_ERR_PERMISSION, "allow_unauthenticated");
    options.key_file = "/nonexistent.key";
    options.receiver_key = "/nonexistent.pub";
    assert_fails(bt_proxy_start(&options, &proxy), BATON_ERR_NOT_FOUND, "nonexistent");
    options.key_file = options.receiver_key = NULL;
    options.allow_unauthenticated = true;
    assert_ok(bt_proxy_start(&options, &proxy));
    bt_proxy_destroy(proxy);
}

static void lost_failure_is_asked_for_too(void **state)
{
    (void)state;
    char id[64];
    bt_expect_log("kv_failed");
    rig_open(&r, &(rig_options){.notices = FAKE_NOTICE_NONE, .options.ms.status_after = 10});
    conversation c = rig_begin(&r, "/v1/completions", body);
    assert_string_equal(rig_question(&r, 0, id, BT_REQUEST_FAILED), "STATUS");
    reply answer = rig_finish(&c);
    assert_int_equal(answer.status, 502);
    assert_non_null(strstr(answer.body, "ERR_PUT_TIMEOUT"));
    reply_free(&answer);
    rig_close(&r);
}

static void foreign_engines_are_not_asked(void **state)
{
    (void)state;
    bt_expect_log("kv_timeout");
    rig_open(&r, &(rig_options){.notices = FAKE_NOTICE_NONE,
                                .options = {.engines = BT_ENGINES_LMCACHE,
                                            .ms = {.status_after = 10, .kv_wait = 60}}});
    reply answer = rig_post(&r, "/v1/completions", "", body);
    assert_int_equal(answer.status, 504);
    reply_free(&answer);
    assert_null(strstr(fake_nth(r.prefill[0], 0)->body, "notice_addr"));
    assert_int_equal(rig_metric(&r, "baton_proxy_receiver_questions_total"), 0);
    assert_int_equal(rig_metric(&r, "baton_proxy_kv_status_asked_total"), 0);
    rig_close(&r);
}

/* The RELEASE that ends an attempt may be at the receiver before the sender's ALLOC. */
static void a_hand_off_that_is_ready_too_late_is_released_again(void **state)
{
    (void)state;
    char id[64];
    rig_open(&r, &(rig_options){.notices = FAKE_NOTICE_NONE});
    reply answer = rig_post(&r, "/v1/completions", "", "{\"prompt\":[7],\"max_tokens\":1}");
    assert_int_equal(answer.status, 200);
    reply_free(&answer);
    assert_string_equal(rig_question(&r, 0, id, -1), "RELEASE");
    notice_send(r.notice_url, id, 0, 1, 0);
    rig_wait_metric(&r, "baton_proxy_kv_notices_total{result=\"late\"}", 1);
    char again[64];
    assert_string_equal(rig_question(&r, 0, again, -1), "RELEASE");
    assert_string_equal(again, id);
    rig_close(&r);
}

/* A proxy that was killed and started again hears of what it had begun: nobody will decode it. */
static void what_a_former_life_began_is_released_when_it_is_ready(void **state)
{
    (void)state;
    char id[64], asked[64];
    rig_open(&r, &(rig_options){.n_decode = 2, .notices = FAKE_NOTICE_READY});
    static const char *const no_ids[] = {"1", "0123456789abcdef.0.1.0123456789abcde",
                                         "0123456789abcdef.x.1.0123456789abcdef",
                                         "0123456789abcdef.0.1.0123456789abcdef.9"};
    for (size_t i = 0; i < sizeof(no_ids) / sizeof(no_ids[0]); i++)
        notice_send(r.notice_url, no_ids[i], 0, 1, 0);
    snprintf(id, sizeof(id), "0123456789abcdef.0.1.fedcba9876543210");
    notice_send(r.notice_url, id, 0, 1, BATON_ERR_CANCELED); /* holds nothing */
    rig_wait_metric(&r, "baton_proxy_notice_foreign_total", 5);
    assert_int_equal(rig_metric(&r, "baton_proxy_receiver_questions_total"), 0);
    notice_send(r.notice_url, id, 0, 1, 0);
    for (unsigned i = 0; i < 2; i++) { /* at whichever it was */
        assert_string_equal(rig_question(&r, i, asked, -1), "RELEASE");
        assert_string_equal(asked, id);
    }
    rig_wait_metric(&r, "baton_proxy_kv_former_released_total", 1);
    rig_close(&r);
}

static void a_full_receiver_is_an_answer_with_a_time_to_come_back(void **state)
{
    (void)state;
    static const struct {
        unsigned retry_ms;
        const char *header;
    } rows[] = {{0, "Retry-After: 1\r\n"},
                {1001, "Retry-After: 2\r\n"},
                {UINT32_MAX, "Retry-After: 60\r\n"}};
    bt_expect_log("overloaded");
    rig_open(&r, &(rig_options){.notices = FAKE_NOTICE_NONE, .options.retries = 3});
    for (unsigned i = 0; i < 3; i++) {
        conversation c = rig_begin(&r, "/v1/completions", body);
        const fake_request *leg = fake_nth(r.prefill[0], i);
        notice_send_refused(r.notice_url, leg->attempt, BATON_ERR_OVERLOADED, rows[i].retry_ms);
        reply answer = rig_finish(&c);
        assert_int_equal(answer.status, 503);
        assert_non_null(strstr(answer.head, rows[i].header));
        reply_free(&answer);
        assert_int_equal(fake_count(r.prefill[0]), i + 1); /* it is not asked again by us */
    }
    assert_int_equal(fake_count(r.decode[0]), 0);
    rig_close(&r);
}

static void another_decode_engine_may_have_room(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){.n_decode = 2, .notices = FAKE_NOTICE_NONE, .options.retries = 1});
    conversation c = rig_begin(&r, "/v1/completions", body);
    const fake_request *leg = fake_nth(r.prefill[0], 0);
    fake_set_notices(r.prefill[0], FAKE_NOTICE_READY, 1, NULL);
    notice_send_refused(r.notice_url, leg->attempt, BATON_ERR_OVERLOADED, 1000);
    reply answer = rig_finish(&c);
    assert_int_equal(answer.status, 200);
    reply_free(&answer);
    assert_int_equal(fake_count(r.decode[0]) + fake_count(r.decode[1]), 1);
    rig_close(&r);
}

/* Says no to the nth prefill leg, which has its notice outstanding. */
static void refuse(unsigned nth, baton_status status)
{
    const fake_request *leg = fake_nth(r.prefill[0], nth);
    notice_send_refused(r.notice_url, leg->attempt, status, 0);
}

static void check_too_large(reply *answer, unsigned status)
{
    assert_int_equal(answer->status, status);
    assert_non_null(strstr(answer->body, "\"code\":\"kv_too_large\""));
    assert_non_null(strstr(answer->body, "told to"));
    assert_non_null(strstr(answer->body, "send a shorter prompt"));
    assert_non_null(strstr(answer->body, "pool_bytes"));
    assert_int_equal(strstr(answer->head, "Retry-After") != NULL, status == 503);
    reply_free(answer);
    assert_int_equal(fake_count(r.decode[0]), 0);
}

static void what_never_fits_is_the_clients_to_mend(void **state)
{
    (void)state;
    bt_expect_log("kv_too_large");
    rig_open(&r, &(rig_options){.notices = FAKE_NOTICE_NONE, .options.retries = 3});
    conversation c = rig_begin(&r, "/v1/completions", body);
    refuse(0, BATON_ERR_TOO_LARGE);
    reply answer = rig_finish(&c);
    assert_non_null(strstr(answer.body, "invalid_request_error"));
    check_too_large(&answer, 413);
    assert_int_equal(fake_count(r.prefill[0]), 1); /* the same pool is not asked again */
    rig_close(&r);
}

/* Also with no retries: to be refused at once is no failed attempt. */
static void a_larger_pool_is_looked_for_once_everywhere(void **state)
{
    (void)state;
    bt_expect_log("kv_too_large");
    for (unsigned n_small = 2; n_small <= 3; n_small++) {
        rig_open(&r, &(rig_options){.n_decode = 3, .notices = FAKE_NOTICE_NONE});
        conversation c = rig_begin(&r, "/v1/completions", body);
        for (unsigned i = 0; i < n_small; i++)
            refuse(i, BATON_ERR_TOO_LARGE);
        if (n_small < 3)
            notice_send(r.notice_url, fake_nth(r.prefill[0], 2)->attempt, 0, 1, 0);
        reply answer = rig_finish(&c);
        assert_int_equal(fake_count(r.prefill[0]), 3);
        if (n_small == 3) {
            check_too_large(&answer, 413);
        } else {
            assert_int_equal(answer.status, 200);
            reply_free(&answer);
        }
        rig_close(&r);
    }
}

static void a_pool_that_was_full_may_still_be_large_enough(void **state)
{
    (void)state;
    bt_expect_log("kv_too_large");
    rig_open(&r, &(rig_options){.n_decode = 2, .notices = FAKE_NOTICE_NONE, .options.retries = 1});
    conversation c = rig_begin(&r, "/v1/completions", body);
    refuse(0, BATON_ERR_OVERLOADED);
    refuse(1, BATON_ERR_TOO_LARGE);
    reply answer = rig_finish(&c);
    check_too_large(&answer, 503);
    rig_close(&r);
}

/* The prefill engine's answer overtakes the notice; a 413 for another reason is its own. */
static void what_never_fits_may_be_told_by_the_prefill_engine(void **state)
{
    (void)state;
    bt_expect_log("kv_too_large");
    static const fake_script too_large = {
        .status = 413, .body = "{\"error\":{\"message\":\"told to\",\"code\":\"ERR_TOO_LARGE\"}}"};
    static const fake_script own = {.status = 413,
                                    .body = "{\"error\":{\"message\":\"body\",\"code\":null}}"};
    rig_open(&r, &(rig_options){.n_decode = 2, .notices = FAKE_NOTICE_NONE});
    fake_set(r.prefill[0], &too_large);
    reply answer = rig_post(&r, "/v1/completions", "", body);
    check_too_large(&answer, 413);
    assert_int_equal(fake_count(r.prefill[0]), 2);
    fake_set(r.prefill[0], &own);
    answer = rig_post(&r, "/v1/completions", "", body);
    assert_int_equal(answer.status, 413);
    assert_string_equal(answer.body, own.body);
    reply_free(&answer);
    assert_int_equal(fake_count(r.prefill[0]), 3);
    rig_close(&r);
}

/* The failed attempt's sender may have said ready a moment before, or say it a moment later. */
static void a_late_notice_of_an_earlier_attempt_completes_no_later_one(void **state)
{
    (void)state;
    char id[64];
    rig_open(&r, &(rig_options){.notices = FAKE_NOTICE_NONE, .options.retries = 1});
    conversation c = rig_begin(&r, "/v1/completions", body);
    char earlier[64];
    snprintf(earlier, sizeof(earlier), "%s", fake_nth(r.prefill[0], 0)->attempt);
    notice_send(r.notice_url, earlier, 0, 1, BATON_ERR_PUT_TIMEOUT);
    const fake_request *later = fake_nth(r.prefill[0], 1);
    assert_string_not_equal(earlier, later->attempt);
    notice_send(r.notice_url, earlier, 0, 1, 0);
    rig_wait_metric(&r, "baton_proxy_kv_notices_total{result=\"late\"}", 1);
    for (int i = 0; i < 2; i++) { /* with its end, and for what came after it */
        assert_string_equal(rig_question(&r, 0, id, -1), "RELEASE");
        assert_string_equal(id, earlier);
    }
    assert_int_equal(fake_count(r.decode[0]), 0);
    notice_send(r.notice_url, later->attempt, 0, 1, 0);
    reply answer = rig_finish(&c);
    assert_int_equal(answer.status, 200);
    reply_free(&answer);
    rig_close(&r);
}

static void frames_of_existing_senders_count(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){.n_ranks = 2, .notices = FAKE_NOTICE_LEGACY});
    reply answer = rig_post(&r, "/v1/completions", "", body);
    assert_int_equal(answer.status, 200);
    reply_free(&answer);
    assert_int_equal(rig_metric(&r, "baton_proxy_kv_notices_total{result=\"ready\"}"), 1);
    rig_close(&r);
}

static void one_failed_rank_fails_the_attempt(void **state)
{
    (void)state;
    bt_expect_log("kv_failed");
    rig_open(&r, &(rig_options){.n_ranks = 2, .notices = FAKE_NOTICE_FAILED});
    reply answer = rig_post(&r, "/v1/completions", "", body);
    assert_int_equal(answer.status, 502);
    assert_non_null(strstr(answer.body, "\"code\":\"kv_failed\""));
    assert_non_null(strstr(answer.body, "told to fail"));
    reply_free(&answer);
    assert_int_equal(fake_count(r.decode[0]), 0);
    rig_close(&r);
}

static void failed_hand_off_is_made_again_under_another_id(void **state)
{
    (void)state;
    char id[64];
    rig_open(&r, &(rig_options){.notices = FAKE_NOTICE_FAILED, .options.retries = 1});
    fake_set_notices_only_first(r.prefill[0], 1);
    reply answer = rig_post(&r, "/v1/completions", "", body);
    assert_int_equal(answer.status, 200);
    reply_free(&answer);
    const fake_request *a = fake_nth(r.prefill[0], 0), *b = fake_nth(r.prefill[0], 1);
    assert_string_not_equal(a->attempt, b->attempt);
    assert_int_equal(fake_count(r.decode[0]), 1);
    assert_string_equal(rig_question(&r, 0, id, -1), "RELEASE");
    assert_string_equal(id, a->attempt);
    rig_close(&r);
}

static void receiver_that_cannot_be_reached_makes_its_engine_down(void **state)
{
    (void)state;
    bt_expect_log("cannot be reached");
    rig_open(&r, &(rig_options){.n_decode = 2,
                                .notices = FAKE_NOTICE_NONE,
                                .options = {.retries = 1, .ms.probe = 60000}});
    conversation c = rig_begin(&r, "/v1/completions", body);
    const fake_request *leg = fake_nth(r.prefill[0], 0);
    fake_set_notices(r.prefill[0], FAKE_NOTICE_READY, 1, NULL);
    notice_send(r.notice_url, leg->attempt, 0, 1, BATON_ERR_CONNECT_TIMEOUT);
    reply answer = rig_finish(&c);
    assert_int_equal(answer.status, 200);
    reply_free(&answer);
    for (int i = 0; i < 4; i++) {
        answer = rig_post(&r, "/v1/completions", "", body);
        assert_int_equal(answer.status, 200);
        reply_free(&answer);
    }
    assert_int_equal(fake_count(r.decode[0]) * fake_count(r.decode[1]), 0);
    rig_close(&r);
}

static void failure_after_the_first_token_is_mended_behind_it(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){.notices = FAKE_NOTICE_NONE, .options.retries = 1});
    conversation c =
        rig_begin(&r, "/v1/completions", "{\"prompt\":[1],\"max_tokens\":4,\"stream\":true}");
    rig_read_until(&c, "\"text\":\"A\"");
    /* The next attempt's token may differ; the one that went out counts. */
    fake_set(r.prefill[0], &(fake_script){.body = "{\"choices\":[{\"text\":\"Z\"}],"
                                                  "\"kv_transfer_params\":{\"first_tok\":9}}"});
    fake_set_notices(r.prefill[0], FAKE_NOTICE_READY, 1, NULL);
    notice_send(r.notice_url, fake_nth(r.prefill[0], 0)->attempt, 0, 1, BATON_ERR_PUT_TIMEOUT);
    reply answer = rig_finish(&c);
    assert_non_null(strstr(answer.body, "[DONE]"));
    assert_null(strstr(answer.body, "\"Z\""));
    assert_null(strstr(answer.body, "error"));
    reply_free(&answer);
    assert_string_equal(fake_nth(r.prefill[0], 1)->path, "/v1/completions");
    assert_non_null(strstr(fake_nth(r.prefill[0], 1)->body, "\"prompt\":[1],"));
    assert_non_null(strstr(fake_nth(r.decode[0], 0)->body, "\"prompt\":[1,42]"));
    rig_close(&r);
}

static void hold_that_ran_out_after_ready_is_counted(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){0});
    fake_set(r.decode[0], &(fake_script){.way = FAKE_HOLDS});
    conversation c = rig_begin(&r, "/v1/completions", body);
    fake_nth(r.decode[0], 0);
    notice_send(r.notice_url, fake_nth(r.prefill[0], 0)->attempt, 0, 1, BATON_ERR_LEASE_EXPIRED);
    rig_wait_metric(&r, "baton_proxy_kv_notices_total{result=\"expired\"}", 1);
    fake_release(r.decode[0]);
    reply answer = rig_finish(&c);
    assert_int_equal(answer.status, 200);
    reply_free(&answer);
    rig_close(&r);
}

static void a_fixed_number_of_notices_is_enough(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){.n_ranks = 2, .notices = FAKE_NOTICE_NONE, .options.notices = 1});
    conversation c = rig_begin(&r, "/v1/completions", body);
    notice_send(r.notice_url, fake_nth(r.prefill[0], 0)->attempt, 0, 2, 0);
    reply answer = rig_finish(&c);
    assert_int_equal(answer.status, 200);
    reply_free(&answer);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(notice_before_the_prefill_engines_answer),
        bt_test(notice_after_the_prefill_engines_answer),
        bt_test(doubled_notice_does_not_stand_for_another_rank),
        bt_test(lost_notice_is_asked_for),
        bt_test(receivers_that_want_keys_are_asked_with_them),
        bt_test(with_keys_only_known_engines_notices_are_heard),
        bt_test(without_keys_notices_are_heard_on_loopback_only),
        bt_test(lost_failure_is_asked_for_too),
        bt_test(foreign_engines_are_not_asked),
        bt_test(a_hand_off_that_is_ready_too_late_is_released_again),
        bt_test(what_a_former_life_began_is_released_when_it_is_ready),
        bt_test(a_full_receiver_is_an_answer_with_a_time_to_come_back),
        bt_test(another_decode_engine_may_have_room),
        bt_test(what_never_fits_is_the_clients_to_mend),
        bt_test(a_larger_pool_is_looked_for_once_everywhere),
        bt_test(a_pool_that_was_full_may_still_be_large_enough),
        bt_test(what_never_fits_may_be_told_by_the_prefill_engine),
        bt_test(a_late_notice_of_an_earlier_attempt_completes_no_later_one),
        bt_test(frames_of_existing_senders_count),
        bt_test(one_failed_rank_fails_the_attempt),
        bt_test(failed_hand_off_is_made_again_under_another_id),
        bt_test(receiver_that_cannot_be_reached_makes_its_engine_down),
        bt_test(failure_after_the_first_token_is_mended_behind_it),
        bt_test(hold_that_ran_out_after_ready_is_counted),
        bt_test(a_fixed_number_of_notices_is_enough),
    };
    return bt_run_tests(tests);
}
