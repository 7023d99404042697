/* SPDX-License-Identifier: Apache-2.0 */
/* Every dialect's legs, byte for byte, and what is taken from the answers between them. */
#include "proxy/dialect.h"
#include "proxy/bodyplan.h"
#include "support/test.h"

#include <stdio.h>

#define TRACEPARENT "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
#define UUID "01234567-89ab-4def-8123-456789abcdef"
#define HEX "0123456789ab4def8123456789abcdef"

static const bt_worker_address prefill = {.host = "10.0.0.1",
                                          .port = 8100,
                                          .zmq = "10.0.0.1:21001",
                                          .handshake_port = 6301,
                                          .notify_port = 61005,
                                          .bootstrap_port = 8999,
                                          .tp = 2};
static const bt_worker_address decode = {.host = "10.0.0.2",
                                         .port = 8200,
                                         .init_ports = {7300, 7301},
                                         .alloc_ports = {7400, 7401},
                                         .n_ranks = 2,
                                         .zmq = "10.0.0.2:22001",
                                         .handshake_port = 6302,
                                         .notify_port = 61006,
                                         .tp = 4,
                                         .dp = 8};
static const bt_worker_address no_ports = {.host = "10.0.0.2", .port = 8200};

static bt_dialect_values values_for(const bt_worker_address *decoder)
{
    return (bt_dialect_values){.req_id = "e.0.1.r",
                               .uuid = UUID,
                               .prefill = &prefill,
                               .decode = decoder,
                               .notice_addr = "tcp://10.0.0.1:8500",
                               .traceparent = TRACEPARENT,
                               .kv_wait_ms = 35000,
                               .room = INT64_MAX};
}

static bt_json_value json_of(const char *text)
{
    bt_json_value value = {.type = BT_JSON_ABSENT};
    if (text != NULL)
        assert_ok(bt_json_check(text, strlen(text), &value));
    return value;
}

/* The prefill leg's kv_transfer_params. */
static void check_params(bt_mode mode, bt_engines engines, const bt_worker_address *decoder,
                         const char *wanted)
{
    bt_leg_members members = {0};
    bt_dialect_values values = values_for(decoder);
    const bt_dialect *dialect = bt_dialect_find(BT_DIALECT_LMCACHE_PD, mode, engines);
    assert_ok(bt_dialect_fill(dialect, BT_LEG_PREFILL, &values, &members));
    assert_string_equal(bt_strbuf_text(&members.text), wanted);
    assert_int_equal(members.n, wanted[0] != 0);
    bt_strbuf_free(&members.text);
}

static void parameters_are_what_the_engines_expect(void **state)
{
    (void)state;
    check_params(BT_MODE_EARLY_FIRST_TOKEN, BT_ENGINES_LMCACHE, &decode,
                 "{\"ret_first_tok\":true,\"disagg_spec\":{\"req_id\":\"e.0.1.r\","
                 "\"receiver_host\":\"10.0.0.2\",\"receiver_init_port\":[7300,7301],"
                 "\"receiver_alloc_port\":[7400,7401]}}");
    check_params(BT_MODE_EARLY_FIRST_TOKEN, BT_ENGINES_BATON, &decode,
                 "{\"ret_first_tok\":true,\"disagg_spec\":{\"req_id\":\"e.0.1.r\","
                 "\"receiver_host\":\"10.0.0.2\",\"receiver_init_port\":[7300,7301],"
                 "\"receiver_alloc_port\":[7400,7401],\"notice_addr\":\"tcp://"
                 "10.0.0.1:8500\",\"kv_wait_ms\":35000,\"traceparent\":\"" TRACEPARENT "\"}}");
    check_params(BT_MODE_DECODE_FIRST, BT_ENGINES_BATON, &decode,
                 "{\"disagg_spec\":{\"req_id\":\"e.0.1.r\",\"receiver_host\":\"10.0.0.2\","
                 "\"receiver_init_port\":[7300,7301],\"receiver_alloc_port\":[7400,7401],"
                 "\"notice_addr\":\"tcp://"
                 "10.0.0.1:8500\",\"kv_wait_ms\":35000,\"traceparent\":\"" TRACEPARENT "\"}}");
    check_params(BT_MODE_DECODE_FIRST, BT_ENGINES_LMCACHE, &decode,
                 "{\"disagg_spec\":{\"req_id\":\"e.0.1.r\",\"receiver_host\":\"10.0.0.2\","
                 "\"receiver_init_port\":[7300,7301],\"receiver_alloc_port\":[7400,7401]}}");
}

static void engines_without_ports_get_no_hand_off(void **state)
{
    (void)state;
    check_params(BT_MODE_EARLY_FIRST_TOKEN, BT_ENGINES_LMCACHE, &no_ports,
                 "{\"ret_first_tok\":true}");
    check_params(BT_MODE_DECODE_FIRST, BT_ENGINES_BATON, &no_ports, "");
}

static void every_form_exists(void **state)
{
    (void)state;
    for (int mode = 0; mode < BT_N_MODES; mode++) {
        for (int engines = 0; engines < BT_N_ENGINES; engines++) {
            const bt_dialect *dialect =
                bt_dialect_find(BT_DIALECT_LMCACHE_PD, (bt_mode)mode, (bt_engines)engines);
            assert_int_equal(dialect->mode, mode);
            assert_int_equal(dialect->engines, engines);
            /* LMCache's receivers read nothing but ALLOC on that port. */
            assert_int_equal(dialect->answers_questions, engines == BT_ENGINES_BATON);
        }
    }
    for (int id = 0; id < BT_N_DIALECTS; id++) {
        bt_dialect_id parsed;
        const bt_dialect *dialect =
            bt_dialect_find((bt_dialect_id)id, BT_MODE_EARLY_FIRST_TOKEN, BT_ENGINES_BATON);
        assert_int_equal(dialect->id, id);
        assert_ok(bt_dialect_parse(dialect->name, &parsed));
        assert_int_equal(parsed, id);
    }
    bt_dialect_id parsed;
    assert_fails(bt_dialect_parse("nixl", &parsed), BATON_ERR_NOT_FOUND, "lmcache-pd, nixl-pull, ");
}

/* A request through a dialect: what the client sent, what each engine gets, and what the prefill
 * engine said in between. The body has what re-printing would spoil: a key twice, a number of 63
 * bits, 1.50e0, an escaped key, spaces. */
#define BODY_KEEPS "\"seed\":9223372036854775807, \"temp\\u0065rature\" : 1.50e0, \"\\u00e9\":[1.0]"
#define BODY                                                                                \
    "{\"model\":\"m\", \"prompt\":[1, 2],\"max_tokens\":100,\"stream\":true,"               \
    "\"kv_transfer_params\":{\"mine\":1},\"disaggregated_params\":{\"mine\":1}," BODY_KEEPS \
    ",\"max_tokens\":7 }"
/* The prefill leg of it, with the hand-off's key where the client's was, or at its end. */
#define PREFILL(there, behind)                                                  \
    "{\"model\":\"m\", \"prompt\":[1, 2],\"stream\":false" there "," BODY_KEEPS \
    ",\"max_tokens\":1 " behind "}"
#define DECODE(there)                                                                             \
    "{\"model\":\"m\", \"prompt\":[1, 2],\"max_tokens\":100,\"stream\":true" there "," BODY_KEEPS \
    ",\"max_tokens\":7 }"
#define DECODE_AND(behind)                                                               \
    "{\"model\":\"m\", \"prompt\":[1, 2],\"max_tokens\":100,\"stream\":true," BODY_KEEPS \
    ",\"max_tokens\":7 " behind "}"
#define ANSWER(members)                                                                     \
    "{\"id\":\"x\",\"choices\":[{\"index\":0,\"text\":\"A\",\"finish_reason\":\"length\"}]" \
    "," members "}"
#define ZMQ_ID "___prefill_addr_10.0.0.1:21001___decode_addr_10.0.0.2:22001_" HEX
#define SGLANG                                                 \
    "\"bootstrap_host\":\"10.0.0.1\",\"bootstrap_port\":8999," \
    "\"bootstrap_room\":9223372036854775807,\"rid\":\"e.0.1.r\""
#define NIXL_PARAMS                                                                             \
    "{ \"do_remote_prefill\":true,\"do_remote_decode\":false,\"remote_block_ids\":[[3,4],[5]]," \
    "\"remote_engine_id\":\"e-1\",\"remote_request_id\":\"cmpl-1-0-ab\","                       \
    "\"remote_host\":\"localhost\",\"remote_port\":5600,\"tp_size\":2,\"x\":1e3 }"

static const struct {
    bt_dialect_id id;
    const char *request_id; /* NULL: the client's */
    const char *prefill_body, *answer, *kv_host, *decode_body;
    bool is_missing;
    const char *learnt, *rank; /* NULL: nothing */
} legs[] = {
    {BT_DIALECT_NIXL_PULL, NULL,
     PREFILL(",\"kv_transfer_params\":{\"do_remote_decode\":true,\"do_remote_prefill\":false,"
             "\"remote_engine_id\":null,\"remote_block_ids\":null,\"remote_host\":null,"
             "\"remote_port\":null}",
             ""),
     ANSWER("\"kv_transfer_params\": " NIXL_PARAMS), NULL,
     DECODE(",\"kv_transfer_params\":" NIXL_PARAMS), false, NULL, NULL},
    /* The host that the prefill engine names is its own view of itself. */
    {BT_DIALECT_NIXL_PULL, NULL, NULL,
     ANSWER("\"kv_transfer_params\":{\"remote_host\":\"localhost\",\"remote_block_ids\":[1],"
            "\"remote_engine_id\":\"e\",\"remote_port\":1}"),
     "10.0.0.9",
     DECODE(",\"kv_transfer_params\":{\"remote_host\":\"10.0.0.9\",\"remote_block_ids\":[1],"
            "\"remote_engine_id\":\"e\",\"remote_port\":1}"),
     false, NULL, NULL},
    /* Parameters with which the decode engine would not fetch anything. */
    {BT_DIALECT_NIXL_PULL, NULL, NULL, ANSWER("\"kv_transfer_params\":null"), NULL, DECODE(""),
     true, NULL, NULL},
    {BT_DIALECT_NIXL_PULL, NULL, NULL, ANSWER("\"usage\":{}"), NULL, DECODE(""), true, NULL, NULL},
    {BT_DIALECT_NIXL_PULL, NULL, NULL, "no JSON", NULL, DECODE(""), true, NULL, NULL},
    {BT_DIALECT_NIXL_PULL, NULL, NULL,
     ANSWER("\"kv_transfer_params\":{\"remote_host\":\"h\",\"remote_block_ids\":[],"
            "\"remote_engine_id\":\"e\",\"remote_port\":1}"),
     NULL, DECODE(""), true, NULL, NULL},
    {BT_DIALECT_NIXL_PULL, NULL, NULL,
     ANSWER("\"kv_transfer_params\":{\"remote_host\":\"h\",\"remote_block_ids\":[1],"
            "\"remote_engine_id\":null,\"remote_port\":1}"),
     NULL, DECODE(""), true, NULL, NULL},
    /* The first token was the last: older engines then hand nothing over, newer ones do. */
    {BT_DIALECT_NIXL_PULL, NULL, NULL,
     "{\"choices\":[{\"finish_reason\":\"stop\"}],\"kv_transfer_params\":null}", NULL, DECODE(""),
     false, NULL, NULL},
    {BT_DIALECT_NIXL_PULL, NULL, NULL,
     "{\"choices\":[{\"finish_reason\":\"stop\"}],\"kv_transfer_params\":" NIXL_PARAMS "}", NULL,
     DECODE(",\"kv_transfer_params\":" NIXL_PARAMS), false, NULL, NULL},

    {BT_DIALECT_MOONCAKE_WHEEL, NULL,
     PREFILL(",\"kv_transfer_params\":{\"do_remote_decode\":true,\"do_remote_prefill\":false}", ""),
     ANSWER("\"kv_transfer_params\":{\"do_remote_prefill\":true,\"remote_host\":\"h\","
            "\"remote_port\":9}"),
     NULL,
     DECODE(",\"kv_transfer_params\":{\"do_remote_prefill\":true,\"remote_host\":\"h\","
            "\"remote_port\":9}"),
     false, NULL, NULL},

    {BT_DIALECT_MORIIO_READ, ZMQ_ID,
     PREFILL(",\"kv_transfer_params\":{\"do_remote_decode\":true,\"do_remote_prefill\":false,"
             "\"remote_engine_id\":null,\"remote_block_ids\":null,\"remote_dp_size\":8,"
             "\"remote_tp_size\":4,\"transfer_id\":\"xfer-" UUID "\"}",
             ""),
     ANSWER("\"kv_transfer_params\":{\"remote_engine_id\":\"e\",\"remote_block_ids\":[7, 8],"
            "\"transfer_id\":\"xfer-1\",\"more\":1}"),
     NULL,
     DECODE(",\"kv_transfer_params\":{\"do_remote_decode\":false,\"do_remote_prefill\":true,"
            "\"remote_engine_id\":\"e\",\"remote_block_ids\":[7, 8],\"remote_dp_size\":1,"
            "\"remote_tp_size\":2,\"transfer_id\":\"xfer-1\"}"),
     false, NULL, NULL},
    {BT_DIALECT_MORIIO_READ, ZMQ_ID, NULL,
     ANSWER("\"kv_transfer_params\":{\"remote_engine_id\":\"e\",\"remote_block_ids\":[7]}"), NULL,
     DECODE(""), true, NULL, NULL},
    {BT_DIALECT_MORIIO_PORTS_READ, NULL,
     PREFILL(",\"kv_transfer_params\":{\"do_remote_decode\":true,\"do_remote_prefill\":false,"
             "\"remote_handshake_port\":6302,\"remote_notify_port\":61006,"
             "\"remote_engine_id\":null,\"remote_block_ids\":null,\"remote_host\":\"10.0.0.2\","
             "\"remote_port\":\"8200\",\"remote_dp_size\":8,\"remote_tp_size\":4}",
             ""),
     ANSWER("\"kv_transfer_params\":{\"remote_engine_id\":\"e\",\"remote_block_ids\":[7, 8]}"),
     NULL,
     DECODE(",\"kv_transfer_params\":{\"do_remote_decode\":false,\"do_remote_prefill\":true,"
            "\"remote_handshake_port\":6301,\"remote_notify_port\":61005,"
            "\"remote_engine_id\":\"e\",\"remote_block_ids\":[7, 8],\"remote_host\":\"10.0.0.1\","
            "\"remote_port\":\"8100\",\"remote_dp_size\":1,\"remote_tp_size\":2}"),
     false, NULL, NULL},
    {BT_DIALECT_MORIIO_PORTS_WRITE, UUID, NULL, "", NULL,
     DECODE(",\"kv_transfer_params\":{\"do_remote_decode\":false,\"do_remote_prefill\":true,"
            "\"remote_handshake_port\":6301,\"remote_notify_port\":61005,"
            "\"remote_engine_id\":null,\"remote_block_ids\":null,\"remote_host\":\"10.0.0.1\","
            "\"remote_port\":\"8100\",\"remote_dp_size\":1,\"remote_tp_size\":2,"
            "\"remote_dp_rank\":3}"),
     false, NULL, "3"},
    {BT_DIALECT_MORIIO_WRITE, ZMQ_ID,
     PREFILL(",\"kv_transfer_params\":{\"do_remote_decode\":true,\"do_remote_prefill\":false,"
             "\"remote_engine_id\":null,\"remote_block_ids\":null,\"remote_dp_size\":8,"
             "\"remote_tp_size\":4,\"transfer_id\":\"xfer-" UUID "\"}",
             ""),
     "", NULL,
     DECODE(",\"kv_transfer_params\":{\"do_remote_decode\":false,\"do_remote_prefill\":true,"
            "\"remote_dp_size\":1,\"remote_tp_size\":2,\"remote_dp_rank\":1,"
            "\"transfer_id\":\"xfer-" UUID "\"}"),
     false, NULL, "1"},

    {BT_DIALECT_NIXL_PUSH, "e.0.1.r",
     PREFILL(",\"kv_transfer_params\":{\"do_remote_decode\":true,\"do_remote_prefill\":false,"
             "\"remote_engine_id\":null,\"remote_block_ids\":null,\"remote_host\":null,"
             "\"remote_port\":null,\"transfer_id\":\"xfer-" UUID "\"}",
             ""),
     NULL, NULL,
     DECODE(",\"kv_transfer_params\":{\"do_remote_decode\":false,\"do_remote_prefill\":true,"
            "\"remote_engine_id\":\"e\\u002d1\",\"remote_host\":\"h\",\"remote_port\":5600,"
            "\"tp_size\":2,\"pp_size\":1,\"remote_request_id\":\"e.0.1.r\","
            "\"transfer_id\":\"xfer-" UUID "\"}"),
     false,
     "{\"remote_engine_id\":\"e\\u002d1\",\"remote_host\":\"h\",\"remote_port\":5600,\"tp_size\":"
     "2}",
     NULL},
    /* Before anything is known, the decode engine is not told half of it. */
    {BT_DIALECT_NIXL_PUSH, "e.0.1.r", NULL, NULL, NULL, DECODE(""), false, NULL, NULL},

    {BT_DIALECT_MOONCAKE, NULL,
     PREFILL(",\"kv_transfer_params\":{\"do_remote_decode\":true,\"do_remote_prefill\":false,"
             "\"transfer_id\":\"xfer-" UUID "\"}",
             ""),
     NULL, NULL,
     DECODE(",\"kv_transfer_params\":{\"do_remote_decode\":false,\"do_remote_prefill\":true,"
            "\"remote_bootstrap_addr\":\"http://10.0.0.1:8999\",\"remote_engine_id\":\"e1\","
            "\"transfer_id\":\"xfer-" UUID "\"}"),
     false, "{\"0\":{\"engine_id\":\"e0\"},\"1\":{\"worker_addr\":{},\"engine_id\":\"e1\"}}", "1"},
    {BT_DIALECT_MOONCAKE_BOOTSTRAP, UUID,
     PREFILL(",\"kv_transfer_params\":{\"do_remote_decode\":true,\"do_remote_prefill\":false}", ""),
     NULL, NULL,
     DECODE(",\"kv_transfer_params\":{\"do_remote_decode\":false,\"do_remote_prefill\":true,"
            "\"bootstrap_server_host\":\"10.0.0.1\",\"bootstrap_server_port\":8999}"),
     false, NULL, NULL},

    /* The same bytes to both. */
    {BT_DIALECT_SGLANG, NULL, DECODE_AND("," SGLANG), NULL, NULL, DECODE_AND("," SGLANG), false,
     NULL, ""},
    {BT_DIALECT_SGLANG, NULL, DECODE_AND("," SGLANG ",\"routed_dp_rank\":5"), NULL, NULL,
     DECODE_AND("," SGLANG ",\"disagg_prefill_dp_rank\":5"), false, NULL, "5"},

    {BT_DIALECT_P2P_NCCL, ZMQ_ID, PREFILL("", ""), ANSWER("\"usage\":null"), NULL, DECODE(""),
     false, NULL, NULL},
    {BT_DIALECT_SHARED_STORE, NULL, PREFILL("", ""), ANSWER("\"usage\":null"), NULL, DECODE(""),
     false, NULL, NULL},

    {BT_DIALECT_TRTLLM, NULL,
     PREFILL(",\"disaggregated_params\":{\"request_type\":\"context_only\"}", ""),
     "{\"choices\":[{\"finish_reason\":\"length\",\"disaggregated_params\":{\"request_type\":"
     "\"context_only\",\"ctx_request_id\":12345678901234567,\"first_gen_tokens\":[5],"
     "\"opaque_state\":\"AA==\",\"draft_tokens\":null}}]}",
     NULL,
     DECODE(",\"disaggregated_params\":{\"request_type\":\"generation_only\","
            "\"ctx_request_id\":12345678901234567,\"first_gen_tokens\":[5],"
            "\"opaque_state\":\"AA==\",\"draft_tokens\":null}"),
     false, NULL, NULL},
    /* Finished with its first token: there is nothing to go on from. */
    {BT_DIALECT_TRTLLM, NULL, NULL,
     "{\"choices\":[{\"finish_reason\":\"stop\",\"disaggregated_params\":{\"ctx_request_id\":1}}]}",
     NULL, DECODE(""), false, NULL, NULL},
    {BT_DIALECT_TRTLLM, NULL, NULL, "{\"choices\":[{\"finish_reason\":\"length\"}]}", NULL,
     DECODE(""), true, NULL, NULL},
};

static void expect_leg(const bt_leg_body *leg, const char *wanted, size_t row)
{
    char text[4096] = "";
    size_t n = 0;
    for (size_t i = 0; i < leg->n_slices; i++) {
        memcpy(text + n, leg->slices[i].at, leg->slices[i].n);
        n += leg->slices[i].n;
    }
    text[n] = 0;
    if (strcmp(text, wanted) != 0)
        fail_msg("row %zu:\nwanted %s\nfound  %s", row, wanted, text);
}

static void legs_are_the_clients_bytes_and_the_hand_off(void **state)
{
    (void)state;
    static bt_body_plan plan;
    static bt_leg_body leg;
    const char *param;
    bt_leg_members members = {0};
    bt_strbuf copy = {0}, id = {0};
    assert_ok(bt_body_plan_make(BT_ROUTE_COMPLETIONS, BODY, strlen(BODY), &plan, &param));
    for (size_t i = 0; i < sizeof(legs) / sizeof(legs[0]); i++) {
        bt_dialect_values values = values_for(&decode);
        const bt_dialect *dialect =
            bt_dialect_find(legs[i].id, BT_MODE_DECODE_FIRST, BT_ENGINES_BATON);
        values.learnt = json_of(legs[i].learnt);
        values.rank = legs[i].rank;
        bt_strbuf_clear(&id);
        if (dialect->request_id != NULL)
            bt_dialect_put(dialect->request_id, &values, &id);
        assert_string_equal(bt_strbuf_text(&id),
                            legs[i].request_id == NULL ? "" : legs[i].request_id);
        assert_ok(bt_dialect_fill(dialect, BT_LEG_PREFILL, &values, &members));
        if (dialect->legs[BT_LEG_PREFILL].is_whole)
            assert_ok(bt_leg_plain(&plan, &members, &leg));
        else
            assert_ok(bt_leg_prefill_plain(&plan, &members, &leg));
        if (legs[i].prefill_body != NULL)
            expect_leg(&leg, legs[i].prefill_body, i);
        if (legs[i].answer != NULL) {
            size_t n = strlen(legs[i].answer);
            uint8_t *answer = bt_guarded_copy(legs[i].answer, n);
            bool is_good = bt_dialect_take_answer(dialect, (const char *)answer, n, legs[i].kv_host,
                                                  &copy, &values.answer);
            bt_guarded_free(answer, n); /* the value is a copy */
            if (is_good == legs[i].is_missing)
                fail_msg("row %zu: missing %d", i, !is_good);
        }
        assert_ok(bt_dialect_fill(dialect, BT_LEG_DECODE, &values, &members));
        assert_ok(bt_leg_plain(&plan, &members, &leg));
        expect_leg(&leg, legs[i].decode_body, i);
    }
    bt_strbuf_free(&members.text);
    bt_strbuf_free(&copy);
    bt_strbuf_free(&id);
}

static void a_threshold_for_stored_kv_is_taken_out_of_the_way(void **state)
{
    (void)state;
    static const char body[] = "{\"prompt\":\"a\",\"cache_hit_threshold\":0.8}";
    static bt_body_plan plan;
    static bt_leg_body leg;
    const char *param;
    bt_leg_members members = {0};
    bt_dialect_values values = values_for(&no_ports);
    const bt_dialect *dialect =
        bt_dialect_find(BT_DIALECT_SHARED_STORE, BT_MODE_DECODE_FIRST, BT_ENGINES_BATON);
    assert_ok(bt_body_plan_make(BT_ROUTE_COMPLETIONS, body, strlen(body), &plan, &param));
    assert_ok(bt_dialect_fill(dialect, BT_LEG_PREFILL, &values, &members));
    assert_ok(bt_leg_prefill_plain(&plan, &members, &leg));
    expect_leg(&leg,
               "{\"prompt\":\"a\",\"cache_hit_threshold\":0,\"max_tokens\":1,\"stream\":false}", 0);
    assert_ok(bt_dialect_fill(dialect, BT_LEG_DECODE, &values, &members));
    assert_ok(bt_leg_plain(&plan, &members, &leg));
    expect_leg(&leg, "{\"prompt\":\"a\",\"cache_hit_threshold\":0}", 0);
    bt_strbuf_free(&members.text);
}

static void each_of_several_sequences_has_its_own_room(void **state)
{
    (void)state;
    static const char *const bodies[] = {"{\"prompt\":[\"a\",\"b\"],\"rid\":\"mine\"}",
                                         "{\"prompt\":[\"a\"],\"rid\":[\"mine\"]}"};
    static const char *const wanted[] = {
        "{\"prompt\":[\"a\",\"b\"],\"rid\":[\"e.0.1.r-0\",\"e.0.1.r-1\"],\"bootstrap_host\":"
        "[\"10.0.0.1\",\"10.0.0.1\"],\"bootstrap_port\":[8999,8999],\"bootstrap_room\":[40,41]}",
        "{\"prompt\":[\"a\"],\"rid\":[\"e.0.1.r-0\"],\"bootstrap_host\":[\"10.0.0.1\"],"
        "\"bootstrap_port\":[8999],\"bootstrap_room\":[40]}"};
    static bt_body_plan plan;
    static bt_leg_body leg;
    const char *param;
    bt_leg_members members = {0};
    for (size_t i = 0; i < 2; i++) {
        bt_dialect_values values = values_for(&no_ports);
        const bt_dialect *dialect =
            bt_dialect_find(BT_DIALECT_SGLANG, BT_MODE_DECODE_FIRST, BT_ENGINES_BATON);
        assert_ok(
            bt_body_plan_make(BT_ROUTE_COMPLETIONS, bodies[i], strlen(bodies[i]), &plan, &param));
        values.n_sequences = plan.n_sequences;
        values.room = 40;
        assert_ok(bt_dialect_fill(dialect, BT_LEG_DECODE, &values, &members));
        assert_ok(bt_leg_plain(&plan, &members, &leg));
        expect_leg(&leg, wanted[i], i);
    }
    bt_strbuf_free(&members.text);
}

static void rooms_name_the_rank_and_have_63_bits(void **state)
{
    (void)state;
    uint64_t all = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        uint32_t n = 1 + i % 9, rank = i % n;
        uint64_t room = bt_room_make(rank, n);
        assert_true(room <= INT64_MAX - (uint64_t)BT_PLAN_MAX_SEQUENCES * 1024);
        assert_int_equal(room % n, rank);
        all |= room;
    }
    assert_true(all > INT64_MAX / 2);
    assert_true(bt_room_make(0, 0) != bt_room_make(0, 0));
}

static void what_a_bootstrap_server_says_is_checked(void **state)
{
    (void)state;
    bt_json_value ranks;
    static const char *const bad[] = {"",
                                      "[]",
                                      "{}",
                                      "{\"x\":{\"engine_id\":\"e\"}}",
                                      "{\"\":{\"engine_id\":\"e\"}}",
                                      "{\"123456\":{\"engine_id\":\"e\"}}",
                                      "{\"0\":{\"engine_id\":null}}",
                                      "{\"0\":{}}",
                                      "{\"0\":1}",
                                      "{\"0\":{\"engine_id\":\"e\"},\"1\":{}}"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_fails(bt_dialect_check_query(bad[i], strlen(bad[i]), &ranks), BATON_ERR_BAD_MESSAGE,
                     NULL);
    static const char good[] = " \n{\"12345\":{\"engine_id\":\"e\"}}\n ";
    assert_ok(bt_dialect_check_query(good, strlen(good), &ranks));
    assert_int_equal(ranks.text.n, strlen(good) - 4);
    assert_int_equal(bt_json_length(ranks), 1);
}

static void identifiers_are_uuids_and_differ(void **state)
{
    (void)state;
    char a[BT_UUID_CHARS + 1], b[BT_UUID_CHARS + 1];
    bt_uuid_make(a);
    bt_uuid_make(b);
    assert_int_equal(strlen(a), BT_UUID_CHARS);
    assert_int_equal(strspn(a, "0123456789abcdef-"), BT_UUID_CHARS);
    assert_true(a[8] == '-' && a[13] == '-' && a[14] == '4' && a[18] == '-' && a[23] == '-');
    assert_string_not_equal(a, b);
}

static void engines_must_say_what_their_dialect_needs(void **state)
{
    (void)state;
    bt_worker_address engine = {.dialect = BT_DIALECT_P2P_NCCL};
    assert_fails(bt_dialect_check(&engine, "http://a:1"), BATON_ERR_INVALID_ARG, "zmq=HOST:PORT");
    snprintf(engine.zmq, sizeof(engine.zmq), "a:2");
    assert_ok(bt_dialect_check(&engine, "http://a:1"));
    engine.dialect = BT_DIALECT_MORIIO_PORTS_READ;
    engine.handshake_port = 1;
    assert_fails(bt_dialect_check(&engine, "http://a:1"), BATON_ERR_INVALID_ARG, "notify=PORT");
    engine.notify_port = 2;
    assert_ok(bt_dialect_check(&engine, "http://a:1"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(parameters_are_what_the_engines_expect),
        bt_test(engines_without_ports_get_no_hand_off),
        bt_test(every_form_exists),
        bt_test(legs_are_the_clients_bytes_and_the_hand_off),
        bt_test(a_threshold_for_stored_kv_is_taken_out_of_the_way),
        bt_test(each_of_several_sequences_has_its_own_room),
        bt_test(rooms_name_the_rank_and_have_63_bits),
        bt_test(what_a_bootstrap_server_says_is_checked),
        bt_test(identifiers_are_uuids_and_differ),
        bt_test(engines_must_say_what_their_dialect_needs),
    };
    return bt_run_tests(tests);
}
