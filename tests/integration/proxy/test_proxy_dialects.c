/* SPDX-License-Identifier: Apache-2.0 */
/* Requests through engines of other projects, which read what they get and answer as the real ones
 * do; and what goes wrong between them. The bytes are in tests/unit/proxy/test_dialect.c. */
#include "enginebrains.h"
#include "rig.h"

#include <stdio.h>

static rig r;
static brain_kv kv;

static const char whole[] = "{\"prompt\":\"x\",\"max_tokens\":4,\"min_tokens\":2}";
static const char stream[] = "{\"prompt\":\"x\",\"max_tokens\":4,\"stream\":true,"
                             "\"stream_options\":{\"include_usage\":true}}";
static const char chat[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],"
                           "\"max_completion_tokens\":4}";

typedef struct {
    bt_dialect_id id;
    fake_brain prefill, decode;
    const char *prefill_zmq, *decode_zmq;
    uint32_t decode_tp;
} pair;

static const pair pairs[] = {
    {BT_DIALECT_NIXL_PULL, brain_nixl_prefill, brain_nixl_decode, "", "", 0},
    {BT_DIALECT_TRTLLM, brain_trtllm_prefill, brain_trtllm_decode, "", "", 0},
    {BT_DIALECT_P2P_NCCL, brain_p2p_prefill, brain_p2p_decode, "10.9.0.1:21001", "10.9.0.2:22001",
     0},
    {BT_DIALECT_MORIIO_READ, brain_moriio_prefill, brain_moriio_decode,
     "host:10.9.0.1,handshake:6301,notify:61005", "host:10.9.0.2,handshake:6301,notify:61005", 2},
};
enum { N_PAIRS = sizeof(pairs) / sizeof(pairs[0]) };

/* n engines of each role that speak the dialect. */
static void open_pair(const pair *p, unsigned n, const rig_options *given)
{
    rig_options options = *given;
    bt_worker_address as_prefill = {.dialect = p->id}, as_decode = {.dialect = p->id};
    snprintf(as_prefill.zmq, sizeof(as_prefill.zmq), "%s", p->prefill_zmq);
    snprintf(as_decode.zmq, sizeof(as_decode.zmq), "%s", p->decode_zmq);
    as_decode.tp = p->decode_tp;
    options.as_prefill = &as_prefill;
    options.as_decode = &as_decode;
    options.n_prefill = options.n_decode = n;
    options.no_ports = true;
    memset(&kv, 0, sizeof(kv));
    rig_open(&r, &options);
    for (unsigned i = 0; i < n; i++) {
        fake_set_brain(r.prefill[i], p->prefill, &kv);
        fake_set_brain(r.decode[i], p->decode, &kv);
    }
}

static void kv_of_one_engine_is_used_by_the_other(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_PAIRS; i++) {
        open_pair(&pairs[i], 1, &(rig_options){0});
        rig_expect_answer(&r, "/v1/completions", whole, "\"text\":\"AB\"");
        rig_expect_answer(&r, "/v1/completions", stream, "data: [DONE]");
        rig_expect_answer(&r, "/v1/chat/completions", chat, "\"text\":\"AB\"");
        rig_expect_handed_over(&kv, 3);
        /* The decode engine answers alone what the client asked for, byte for byte. */
        const char *min_tokens = strstr(fake_nth(r.decode[0], 0)->body, "\"min_tokens\":2");
        assert_non_null(min_tokens);
        assert_non_null(strstr(fake_nth(r.decode[0], 1)->body, "\"include_usage\":true"));
        assert_string_equal(fake_nth(r.prefill[0], 2)->path, "/v1/chat/completions");
        assert_int_equal(rig_metric(&r, "baton_proxy_kv_params_missing_total"), 0);
        rig_close(&r);
    }
}

static void engine_that_hands_nothing_over_is_counted(void **state)
{
    (void)state;
    open_pair(&pairs[0], 1, &(rig_options){0});
    fake_set(r.prefill[0], &(fake_script){.body = "{\"choices\":[{\"index\":0,\"text\":\"A\","
                                                  "\"finish_reason\":\"length\"}],"
                                                  "\"kv_transfer_params\":null}"});
    rig_expect_answer(&r, "/v1/completions", whole, "\"text\":\"AB\"");
    assert_int_equal(atomic_load(&kv.n_recomputed), 1);
    assert_null(strstr(fake_nth(r.decode[0], 0)->body, "kv_transfer_params"));
    assert_int_equal(rig_metric(&r, "baton_proxy_kv_params_missing_total"), 1);
    rig_close(&r);
}

static void broken_prefill_engine_is_replaced_before_decode_hears_of_it(void **state)
{
    (void)state;
    static const fake_script faults[] = {
        {.status = 500, .body = "{}", .only_first = 1},
        {.way = FAKE_CUTS_HEAD, .only_first = 1},
        {.way = FAKE_CUTS_BODY, .only_first = 1},
    };
    for (size_t i = 0; i < N_PAIRS; i++) {
        for (size_t k = 0; k < sizeof(faults) / sizeof(faults[0]); k++) {
            open_pair(&pairs[i], 2, &(rig_options){.options.retries = 1});
            fake_set(r.prefill[0], &faults[k]);
            for (int n = 0; n < 2; n++)
                rig_expect_answer(&r, "/v1/completions", whole, "\"text\":\"AB\"");
            rig_expect_handed_over(&kv, 2);
            assert_int_equal(rig_metric(&r, "baton_proxy_retries_total{leg=\"prefill\"}"), 1);
            rig_close(&r);
        }
    }
}

static void client_that_leaves_ends_the_leg_under_way(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_PAIRS; i++) {
        open_pair(&pairs[i], 1, &(rig_options){0});
        fake_set(r.prefill[0], &(fake_script){.way = FAKE_HOLDS, .only_first = 1});
        conversation c = rig_begin(&r, "/v1/completions", whole);
        fake_nth(r.prefill[0], 0);
        rig_leave(&c);
        fake_wait_gone(r.prefill[0], 1);
        assert_int_equal(fake_count(r.decode[0]), 0);
        fake_set(r.decode[0], &(fake_script){.way = FAKE_HOLDS, .only_first = 1});
        c = rig_begin(&r, "/v1/completions", whole);
        fake_nth(r.decode[0], 0);
        rig_leave(&c);
        fake_wait_gone(r.decode[0], 1);
        rig_close(&r);
    }
}

static void words_of_the_client_to_engines_do_not_pass(void **state)
{
    (void)state;
    static const char body[] =
        "{\"prompt\":\"x\",\"kv_transfer_params\":{\"remote_host\":\"evil\"},"
        "\"disaggregated_params\":{\"request_type\":\"generation_only\"}}";
    for (size_t i = 0; i < N_PAIRS; i++) {
        open_pair(&pairs[i], 1, &(rig_options){0});
        rig_expect_answer(&r, "/v1/completions", body, "\"text\":\"AB\"");
        rig_expect_handed_over(&kv, 1);
        assert_null(strstr(fake_nth(r.prefill[0], 0)->body, "evil"));
        assert_null(strstr(fake_nth(r.decode[0], 0)->body, "evil"));
        rig_close(&r);
    }
}

static void several_sequences_go_where_they_can(void **state)
{
    (void)state;
    static const char two_prompts[] = "{\"prompt\":[\"a\",\"b\"]}";
    static const char two_choices[] = "{\"prompt\":\"a\",\"n\":2}";
    open_pair(&pairs[0], 1, &(rig_options){0});
    rig_expect_answer(&r, "/v1/completions", two_prompts, "AB");
    rig_expect_answer(&r, "/v1/completions", two_choices, "AB");
    assert_int_equal(fake_count(r.prefill[0]), 0);
    assert_int_equal(rig_metric(&r, "baton_proxy_bypass_total{reason=\"several\"}"), 2);
    rig_close(&r);
    open_pair(&pairs[2], 1, &(rig_options){0});
    rig_expect_answer(&r, "/v1/completions", two_prompts, "AB");
    rig_expect_handed_over(&kv, 1);
    reply answer = rig_post(&r, "/v1/completions", "", two_choices);
    assert_int_equal(answer.status, 400);
    assert_non_null(strstr(answer.body, "one choice"));
    reply_free(&answer);
    rig_close(&r);
}

/* A decode engine that cannot compute a prompt never gets one to itself. */
static void short_prompts_stay_local_only_where_they_can(void **state)
{
    (void)state;
    open_pair(&pairs[0], 1, &(rig_options){.options.local_below = 1000});
    rig_expect_answer(&r, "/v1/completions", whole, "AB");
    assert_int_equal(fake_count(r.prefill[0]), 0);
    rig_close(&r);
    open_pair(&pairs[2], 1, &(rig_options){.options.local_below = 1000});
    rig_expect_answer(&r, "/v1/completions", whole, "AB");
    rig_expect_handed_over(&kv, 1);
    rig_close(&r);
}

static void post_named(const char *named, unsigned status)
{
    char header[128];
    snprintf(header, sizeof(header), "X-Prefiller-Host-Port: %s\r\n", named);
    reply answer = rig_post(&r, "/v1/completions", named[0] == 0 ? "" : header, whole);
    if (answer.status != status)
        fail_msg("%s: wanted %u, found %u %s", named, status, answer.status, answer.body);
    reply_free(&answer);
}

static void front_end_names_the_prefill_engine(void **state)
{
    (void)state;
    char named[96];
    open_pair(&pairs[0], 2, &(rig_options){.options.prefiller_header = "x-prefiller-host-port"});
    snprintf(named, sizeof(named), "127.0.0.1:%u", fake_port(r.prefill[1]));
    for (int i = 0; i < 3; i++)
        post_named(named, 200);
    assert_int_equal(fake_count(r.prefill[0]), 0);
    assert_int_equal(fake_count(r.prefill[1]), 3);
    assert_null(strcasestr(fake_nth(r.prefill[1], 0)->headers, "x-prefiller"));
    /* One of several, of which it knows one. */
    snprintf(named, sizeof(named), "10.9.9.9:1, 127.0.0.1:%u", fake_port(r.prefill[0]));
    post_named(named, 200);
    assert_int_equal(fake_count(r.prefill[0]), 1);
    post_named("10.9.9.9:1", 400);
    rig_expect_handed_over(&kv, 4);
    /* No word of it: the front end wants no hand-off. */
    post_named("", 200);
    assert_int_equal(atomic_load(&kv.n_recomputed), 1);
    assert_int_equal(rig_metric(&r, "baton_proxy_bypass_total{reason=\"front_end\"}"), 1);
    rig_close(&r);
}

/* Two kinds of engines behind one proxy: each request stays among its own, also when it is tried
 * again. */
static void mixed_pools_never_mix_a_pair(void **state)
{
    (void)state;
    bt_worker_address prefill[4], decode[2];
    memset(&r, 0, sizeof(r));
    memset(&kv, 0, sizeof(kv));
    static brain_kv other;
    memset(&other, 0, sizeof(other));
    fakes_start();
    fake *p[4], *d[2];
    for (unsigned i = 0; i < 4; i++) {
        bool is_nixl = i % 2 == 0;
        p[i] = fake_open(true);
        fake_set_brain(p[i], is_nixl ? brain_nixl_prefill : brain_trtllm_prefill,
                       is_nixl ? &kv : &other);
        prefill[i] =
            (bt_worker_address){.host = "127.0.0.1",
                                .port = fake_port(p[i]),
                                .dialect = is_nixl ? BT_DIALECT_NIXL_PULL : BT_DIALECT_TRTLLM};
    }
    for (unsigned i = 0; i < 2; i++) {
        d[i] = fake_open(false);
        fake_set_brain(d[i], i == 0 ? brain_nixl_decode : brain_trtllm_decode,
                       i == 0 ? &kv : &other);
        decode[i] = (bt_worker_address){
            .host = "127.0.0.1", .port = fake_port(d[i]), .dialect = prefill[i].dialect};
    }
    bt_proxy_options options = {.prefill = prefill,
                                .decode = decode,
                                .n_prefill = 4,
                                .n_decode = 2,
                                .threads = 1,
                                .retries = 1};
    fake_set(p[0], &(fake_script){.status = 500, .body = "{}", .only_first = 1});
    fake_set(p[1], &(fake_script){.status = 500, .body = "{}", .only_first = 1});
    assert_ok(bt_proxy_start(&options, &r.proxy));
    r.port = bt_proxy_port(r.proxy);
    for (int i = 0; i < 8; i++)
        rig_expect_answer(&r, "/v1/completions", whole, "\"text\":\"AB\"");
    rig_expect_handed_over(&kv, 4);
    assert_int_equal(atomic_load(&other.n_taken), 4);
    assert_int_equal(brain_stranded(&other), 0);
    rig_close(&r);
}

static void dialect_without_a_partner_does_not_start(void **state)
{
    (void)state;
    bt_worker_address prefill = {.host = "127.0.0.1", .port = 1, .dialect = BT_DIALECT_NIXL_PULL};
    bt_worker_address decode = {.host = "127.0.0.1", .port = 2};
    bt_proxy_options options = {
        .prefill = &prefill, .decode = &decode, .n_prefill = 1, .n_decode = 1, .threads = 1};
    bt_proxy *proxy = NULL;
    assert_fails(bt_proxy_start(&options, &proxy), BATON_ERR_INVALID_ARG,
                 "decode engine that speak lmcache-pd, found only a decode engine");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(kv_of_one_engine_is_used_by_the_other),
        bt_test(engine_that_hands_nothing_over_is_counted),
        bt_test(broken_prefill_engine_is_replaced_before_decode_hears_of_it),
        bt_test(client_that_leaves_ends_the_leg_under_way),
        bt_test(words_of_the_client_to_engines_do_not_pass),
        bt_test(several_sequences_go_where_they_can),
        bt_test(short_prompts_stay_local_only_where_they_can),
        bt_test(front_end_names_the_prefill_engine),
        bt_test(mixed_pools_never_mix_a_pair),
        bt_test(dialect_without_a_partner_does_not_start),
    };
    return bt_run_tests(tests);
}
