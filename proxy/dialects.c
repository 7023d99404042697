/* SPDX-License-Identifier: Apache-2.0 */
/* Every dialect that the proxy speaks. To add one, add its name to bt_dialect_id and a row here;
 * tests/unit/proxy/test_dialect.c holds the bytes that each row makes. What the engines do with
 * them is in docs/proxy.md, Dialects. */
#include "proxy/dialect.h"
#include "core/fail.h"

#include <string.h>

/* LMCache's prefill-decode backend, and Baton's own engines. */
#define RECEIVER                                                                               \
    "\"req_id\":${req_id},\"receiver_host\":${d.host},\"receiver_init_port\":${d.init_ports}," \
    "\"receiver_alloc_port\":${d.alloc_ports}"
#define NOTICE                                                      \
    ",\"notice_addr\":${notice_addr},\"kv_wait_ms\":${kv_wait_ms}," \
    "\"traceparent\":${traceparent}"
#define LMCACHE_PD(form, who, params, without_ports)                                     \
    .id = BT_DIALECT_LMCACHE_PD, .name = "lmcache-pd", .mode = (form), .engines = (who), \
    .signal = BT_SIGNAL_NOTICES, .several = BT_SEVERAL_CHOICES,                          \
    .legs[BT_LEG_PREFILL].members = {{"kv_transfer_params", params, false}},             \
    .params_no_ports = (without_ports)

/* What all others have: the decode engine makes every token, and no notice comes. */
#define SERIAL                                                                           \
    .mode = BT_MODE_DECODE_FIRST, .signal = BT_SIGNAL_NONE, .several = BT_SEVERAL_NEVER, \
    .order = BT_ORDER_SERIAL
#define TOGETHER                                                                         \
    .mode = BT_MODE_DECODE_FIRST, .signal = BT_SIGNAL_NONE, .several = BT_SEVERAL_NEVER, \
    .order = BT_ORDER_TOGETHER
#define LEGS(prefill, decode)                                       \
    .legs = {{.members = {{"kv_transfer_params", prefill, false}}}, \
             {.members = {{"kv_transfer_params", decode, false}}}}
#define LEGS_BY_RANK(prefill, decode)                                                   \
    .legs = {{.members = {{"kv_transfer_params", prefill, false}}, .names_rank = true}, \
             {.members = {{"kv_transfer_params", decode, false}}}}

/* vLLM's connectors. */
#define KV_ASKED "\"do_remote_decode\":true,\"do_remote_prefill\":false"
#define KV_THERE "\"do_remote_decode\":false,\"do_remote_prefill\":true"
#define NO_BLOCKS ",\"remote_engine_id\":null,\"remote_block_ids\":null"
#define BLOCKS                                          \
    ",\"remote_engine_id\":${answer.remote_engine_id}," \
    "\"remote_block_ids\":${answer.remote_block_ids}"
#define TRANSFER ",\"transfer_id\":\"xfer-$(uuid)\""
#define BOTH_ZMQ "___prefill_addr_$(p.zmq)___decode_addr_$(d.zmq)_$(hex)"

#define NIXL_ASKED KV_ASKED NO_BLOCKS ",\"remote_host\":null,\"remote_port\":null"
#define NIXL_PUSHED                                                                       \
    KV_THERE ",\"remote_engine_id\":${learnt.remote_engine_id},\"remote_host\":"          \
             "${learnt.remote_host},\"remote_port\":${learnt.remote_port},\"tp_size\":"   \
             "${learnt.tp_size|1},\"pp_size\":${learnt.pp_size|1},\"remote_request_id\":" \
             "${req_id}" TRANSFER
#define MOONCAKE_PUSHED                                                                 \
    KV_THERE ",\"remote_bootstrap_addr\":\"http://$(p.url_host):${p.bootstrap|8998}\"," \
             "\"remote_engine_id\":${rank.engine_id}" TRANSFER
#define MOONCAKE_BY_ID                                   \
    KV_THERE ",\"bootstrap_server_host\":${p.url_host}," \
             "\"bootstrap_server_port\":${p.bootstrap|8998}"

/* MoRI-IO: what one engine is told of the other one. */
#define SIZES(of) ",\"remote_dp_size\":${" of ".dp},\"remote_tp_size\":${" of ".tp}"
#define PORTS(of) \
    ",\"remote_handshake_port\":${" of ".handshake},\"remote_notify_port\":${" of ".notify}"
#define PLACE(of) ",\"remote_host\":${" of ".host},\"remote_port\":\"$(" of ".port)\""
#define RANK "$(dp_rank_member)"

static const bt_dialect dialects[] = {
    {LMCACHE_PD(BT_MODE_EARLY_FIRST_TOKEN, BT_ENGINES_BATON,
                "{\"ret_first_tok\":true,\"disagg_spec\":{" RECEIVER NOTICE "}}",
                "{\"ret_first_tok\":true}"),
     .answers_questions = true},
    {LMCACHE_PD(BT_MODE_DECODE_FIRST, BT_ENGINES_BATON, "{\"disagg_spec\":{" RECEIVER NOTICE "}}",
                ""),
     .answers_questions = true},
    /* LMCache's own workers: no key that they do not know, and nothing but ALLOC on their ports. */
    {LMCACHE_PD(BT_MODE_EARLY_FIRST_TOKEN, BT_ENGINES_LMCACHE,
                "{\"ret_first_tok\":true,\"disagg_spec\":{" RECEIVER "}}",
                "{\"ret_first_tok\":true}")},
    {LMCACHE_PD(BT_MODE_DECODE_FIRST, BT_ENGINES_LMCACHE, "{\"disagg_spec\":{" RECEIVER "}}", "")},

    {.id = BT_DIALECT_NIXL_PULL,
     .name = "nixl-pull",
     SERIAL,
     LEGS("{" NIXL_ASKED "}", "${answer}"),
     .answer_key = "kv_transfer_params",
     .needed = {"remote_engine_id", "remote_block_ids", "remote_host", "remote_port"},
     .host_key = "remote_host"},
    /* The decode engine is told constants of the prefill engine, which each of its answers has. */
    {.id = BT_DIALECT_NIXL_PUSH,
     .name = "nixl-push",
     TOGETHER,
     LEGS("{" NIXL_ASKED TRANSFER "}", "{" NIXL_PUSHED "}"),
     .learn = BT_LEARN_ANSWER,
     .request_id = "$(req_id)",
     .answer_key = "kv_transfer_params",
     .needed = {"remote_engine_id", "remote_host", "remote_port"},
     .host_key = "remote_host"},

    {.id = BT_DIALECT_MOONCAKE,
     .name = "mooncake",
     TOGETHER,
     LEGS_BY_RANK("{" KV_ASKED TRANSFER "}", "{" MOONCAKE_PUSHED "}"),
     .learn = BT_LEARN_QUERY},
    /* Older vLLM: the engines find each other by the request's id. */
    {.id = BT_DIALECT_MOONCAKE_BOOTSTRAP,
     .name = "mooncake-bootstrap",
     TOGETHER,
     LEGS("{" KV_ASKED "}", "{" MOONCAKE_BY_ID "}"),
     .request_id = "$(uuid)"},
    /* The Mooncake wheel's own connector: as nixl-pull, with fewer words. */
    {.id = BT_DIALECT_MOONCAKE_WHEEL,
     .name = "mooncake-wheel",
     SERIAL,
     LEGS("{" KV_ASKED "}", "${answer}"),
     .answer_key = "kv_transfer_params",
     .needed = {"remote_host", "remote_port"},
     .host_key = "remote_host"},

    /* The engines find each other by the addresses in the request's id. */
    {.id = BT_DIALECT_MORIIO_READ,
     .name = "moriio-read",
     SERIAL,
     LEGS_BY_RANK("{" KV_ASKED NO_BLOCKS SIZES("d") TRANSFER "}",
                  "{" KV_THERE BLOCKS SIZES("p") RANK ",\"transfer_id\":${answer.transfer_id}}"),
     .request_id = BOTH_ZMQ,
     .answer_key = "kv_transfer_params",
     .needed = {"remote_engine_id", "remote_block_ids", "transfer_id"},
     .needs_zmq = true},
    {.id = BT_DIALECT_MORIIO_WRITE,
     .name = "moriio-write",
     TOGETHER,
     LEGS_BY_RANK("{" KV_ASKED NO_BLOCKS SIZES("d") TRANSFER "}",
                  "{" KV_THERE SIZES("p") RANK TRANSFER "}"),
     .request_id = BOTH_ZMQ,
     .needs_zmq = true},
    /* The older form, with ports in the parameters. */
    {.id = BT_DIALECT_MORIIO_PORTS_READ,
     .name = "moriio-ports-read",
     SERIAL,
     LEGS_BY_RANK("{" KV_ASKED PORTS("d") NO_BLOCKS PLACE("d") SIZES("d") "}",
                  "{" KV_THERE PORTS("p") BLOCKS PLACE("p") SIZES("p") RANK "}"),
     .answer_key = "kv_transfer_params",
     .needed = {"remote_engine_id", "remote_block_ids"},
     .needs_side_ports = true},
    {.id = BT_DIALECT_MORIIO_PORTS_WRITE,
     .name = "moriio-ports-write",
     TOGETHER,
     LEGS_BY_RANK("{" KV_ASKED PORTS("d") NO_BLOCKS PLACE("d") SIZES("d") "}",
                  "{" KV_THERE PORTS("p") NO_BLOCKS PLACE("p") SIZES("p") RANK "}"),
     .request_id = "$(uuid)",
     .needs_side_ports = true},

    /* Each of several prompts gets -0, -1, ... behind the id at both engines alike, but several
     * choices of one get ids that only the decode engine has; and it does not outlive an id without
     * addresses, so that nothing may go to it alone. */
    {.id = BT_DIALECT_P2P_NCCL,
     .name = "p2p-nccl",
     .mode = BT_MODE_DECODE_FIRST,
     .order = BT_ORDER_SERIAL,
     .signal = BT_SIGNAL_NONE,
     .several = BT_SEVERAL_PROMPTS,
     .request_id = BOTH_ZMQ,
     .decode_needs_prefill = true,
     .needs_zmq = true},

/* Both engines get the same body, and the prefill engine ends by itself. What a connection that
 * is closed does not end, its rid does. */
#define SGLANG_MEETS                                                                         \
    {"bootstrap_host", "${p.host[]}", false}, {"bootstrap_port", "${p.bootstrap[]}", false}, \
        {"bootstrap_room", "${room[]}", false},                                              \
    {                                                                                        \
        "rid", "${req_id[]}", false                                                          \
    }
    {.id = BT_DIALECT_SGLANG,
     .name = "sglang",
     .mode = BT_MODE_DECODE_FIRST,
     .order = BT_ORDER_TOGETHER,
     .signal = BT_SIGNAL_NONE,
     .several = BT_SEVERAL_ALWAYS,
     .legs = {{.members = {SGLANG_MEETS, {"routed_dp_rank", "${rank}", false}}, .is_whole = true},
              {.members = {SGLANG_MEETS, {"disagg_prefill_dp_rank", "${rank}", false}}}},
     .decode_needs_prefill = true,
     .abort_path = "/abort_request",
     .abort_body = "{\"rid\":${req_id}}"},

    /* The decode engine finds the KV in a store that both share. */
    {.id = BT_DIALECT_SHARED_STORE,
     .name = "shared-store",
     .mode = BT_MODE_DECODE_FIRST,
     .order = BT_ORDER_SERIAL,
     .signal = BT_SIGNAL_NONE,
     .several = BT_SEVERAL_ALWAYS,
     .legs = {{.members = {{"cache_hit_threshold", "0", true}}},
              {.members = {{"cache_hit_threshold", "0", true}}}}},

    {.id = BT_DIALECT_TRTLLM,
     .name = "trtllm",
     SERIAL,
     .legs = {{.members = {{"disaggregated_params", "{\"request_type\":\"context_only\"}", false}}},
              {.members = {{"disaggregated_params", "${answer}", false}}}},
     .answer_key = "disaggregated_params",
     .is_in_choice = true,
     .needed = {"ctx_request_id"},
     .set_key = "request_type",
     .set_value = "\"generation_only\"",
     .is_over_at_stop = true},
};
enum { N_ROWS = sizeof(dialects) / sizeof(dialects[0]) };

const bt_dialect *bt_dialect_find(bt_dialect_id id, bt_mode mode, bt_engines engines)
{
    const bt_dialect *found = &dialects[0];
    for (size_t i = 0; i < N_ROWS; i++) {
        const bt_dialect *row = &dialects[i];
        if (row->id != id)
            continue;
        bool has_forms = id == BT_DIALECT_LMCACHE_PD;
        if (!has_forms || (row->mode == mode && row->engines == engines))
            found = row;
    }
    return found;
}

baton_status bt_dialect_parse(const char *name, bt_dialect_id *id)
{
    bt_strbuf names = {0};
    for (size_t i = 0; i < N_ROWS; i++) {
        if (strcmp(dialects[i].name, name) == 0) {
            bt_strbuf_free(&names);
            *id = dialects[i].id;
            return BATON_OK;
        }
        if (i == 0 || dialects[i].id != dialects[i - 1].id)
            bt_strbuf_printf(&names, i == 0 ? "%s" : ", %s", dialects[i].name);
    }
    baton_status status = bt_fail(BATON_ERR_NOT_FOUND, "dialect: wanted one of %s, found \"%.60s\"",
                                  bt_strbuf_text(&names), name);
    bt_strbuf_free(&names);
    return status;
}

baton_status bt_dialect_check(const bt_worker_address *engine, const char *text)
{
    const bt_dialect *dialect =
        bt_dialect_find((bt_dialect_id)engine->dialect, BT_MODE_DECODE_FIRST, BT_ENGINES_BATON);
    if (dialect->needs_zmq && engine->zmq[0] == 0)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "engine: %s needs zmq=HOST:PORT, where other engines reach its connector, "
                       "found none in \"%s\"",
                       dialect->name, text);
    if (dialect->needs_side_ports && (engine->handshake_port == 0 || engine->notify_port == 0))
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "engine: %s needs handshake=PORT and notify=PORT, found not both in \"%s\"",
                       dialect->name, text);
    return BATON_OK;
}
