/* SPDX-License-Identifier: Apache-2.0 */
#include "enginebrains.h"

#include "http/jsonscan.h"

#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The KV between the two. */

static void hold(brain_kv *kv, const char *name)
{
    for (int i = 0; i < BRAIN_MAX_HELD; i++) {
        if (kv->held[i][0] == 0) {
            snprintf(kv->held[i], sizeof(kv->held[i]), "%s", name);
            atomic_fetch_add(&kv->n_made, 1);
            return;
        }
    }
    abort(); /* a test with more hand-offs than this has lost count itself */
}

static bool take(brain_kv *kv, const char *name)
{
    for (int i = 0; i < BRAIN_MAX_HELD; i++) {
        if (name[0] != 0 && strcmp(kv->held[i], name) == 0) {
            kv->held[i][0] = 0;
            atomic_fetch_add(&kv->n_taken, 1);
            return true;
        }
    }
    return false;
}

unsigned brain_stranded(const brain_kv *kv)
{
    unsigned n = 0;
    for (int i = 0; i < BRAIN_MAX_HELD; i++)
        n += kv->held[i][0] != 0;
    return n;
}

/* Reading. */

static bt_json_value body_of(const fake_request *request)
{
    bt_json_value body = {.type = BT_JSON_ABSENT};
    if (bt_json_check(request->body, strlen(request->body), &body) != BATON_OK)
        body.type = BT_JSON_ABSENT;
    return body;
}

static bt_json_value member(bt_json_value object, const char *name)
{
    bt_json_value value;
    bt_json_value absent = {.type = BT_JSON_ABSENT};
    return bt_json_get(object, name, &value) == BATON_OK ? value : absent;
}

static bool is(bt_json_value object, const char *name, const char *json)
{
    bt_json_value value = member(object, name);
    return value.type != BT_JSON_ABSENT && bt_slice_equals(value.text, json);
}

static void text_of(bt_json_value object, const char *name, char *out, size_t cap)
{
    if (bt_json_string(member(object, name), out, cap, NULL) != BATON_OK)
        out[0] = 0;
}

static bool refuse(fake_answer *answer, const char *why)
{
    answer->status = 400;
    snprintf(answer->body, sizeof(answer->body), "{\"error\":{\"message\":\"%s\"}}", why);
    return true;
}

static bool fail(fake_answer *answer, const char *why)
{
    refuse(answer, why);
    answer->status = 500;
    return true;
}

/* What every prefill leg must be, so that it ends after one token; NULL: it is. */
static const char *wrong_with_prefill(bt_json_value body)
{
    if (!is(body, "max_tokens", "1"))
        return "max_tokens is not 1";
    if (member(body, "max_completion_tokens").type != BT_JSON_ABSENT &&
        !is(body, "max_completion_tokens", "1"))
        return "max_completion_tokens is not 1";
    if (!is(body, "stream", "false"))
        return "a stream";
    if (member(body, "stream_options").type != BT_JSON_ABSENT)
        return "stream_options without a stream";
    if (member(body, "min_tokens").type != BT_JSON_ABSENT)
        return "min_tokens above max_tokens";
    return NULL;
}

/* Answering. */

static bool say(fake_answer *answer, const char *before, const char *params, const char *after)
{
    snprintf(answer->body, sizeof(answer->body),
             "{\"id\":\"cmpl-P\",\"object\":\"text_completion\",\"created\":5,\"model\":\"m\","
             "\"choices\":[{\"index\":0,\"text\":\"A\",\"finish_reason\":\"length\"%s%s%s}",
             before, params, after);
    return true;
}

static bool decode(const fake_request *request, fake_answer *answer)
{
    bool is_stream = is(body_of(request), "stream", "true");
    snprintf(answer->body, sizeof(answer->body), "%s",
             is_stream ? "data: {\"choices\":[{\"index\":0,\"text\":\"A\"}]}\n\n"
                         "data: {\"choices\":[{\"index\":0,\"text\":\"B\"}]}\n\ndata: [DONE]\n\n"
                       : "{\"id\":\"cmpl-D\",\"choices\":[{\"index\":0,\"text\":\"AB\","
                         "\"finish_reason\":\"stop\"}]}");
    return true;
}

static bool recompute(brain_kv *kv, const fake_request *request, fake_answer *answer)
{
    atomic_fetch_add(&kv->n_recomputed, 1);
    return decode(request, answer);
}

/* vLLM's NixlConnector. */

bool brain_nixl_prefill(void *ctx, const fake_request *request, fake_answer *answer)
{
    brain_kv *kv = ctx;
    if (strncmp(request->path, "/v1/", 4) != 0)
        return false;
    bt_json_value body = body_of(request), params = member(body, "kv_transfer_params");
    const char *wrong = wrong_with_prefill(body);
    char text[1024], name[64];
    if (wrong != NULL)
        return refuse(answer, wrong);
    if (!is(params, "do_remote_decode", "true") || !is(params, "do_remote_prefill", "false") ||
        !is(params, "remote_block_ids", "null"))
        return refuse(answer, "not asked for a hand-off");
    unsigned block = ++kv->room;
    snprintf(name, sizeof(name), "cmpl-%u-0-%08x", block, block * 2654435761u);
    hold(kv, name);
    snprintf(text, sizeof(text),
             "{\"do_remote_prefill\":true,\"do_remote_decode\":false,\"remote_block_ids\":[[%u]],"
             "\"remote_engine_id\":\"engine-P\",\"remote_request_id\":\"%s\","
             "\"remote_host\":\"localhost\",\"remote_port\":5600,\"tp_size\":1,"
             "\"remote_num_tokens\":9007199254740993}",
             block, name);
    return say(answer, "}],\"kv_transfer_params\":", text, "");
}

bool brain_nixl_decode(void *ctx, const fake_request *request, fake_answer *answer)
{
    brain_kv *kv = ctx;
    if (strncmp(request->path, "/v1/", 4) != 0)
        return false;
    bt_json_value params = member(body_of(request), "kv_transfer_params");
    char name[64], engine[64];
    text_of(params, "remote_request_id", name, sizeof(name));
    text_of(params, "remote_engine_id", engine, sizeof(engine));
    bool is_told = is(params, "do_remote_prefill", "true") && strcmp(engine, "engine-P") == 0 &&
                   is(params, "remote_num_tokens", "9007199254740993");
    if (!is_told || !take(kv, name))
        return recompute(kv, request, answer);
    return decode(request, answer);
}

/* TensorRT-LLM. */

bool brain_trtllm_prefill(void *ctx, const fake_request *request, fake_answer *answer)
{
    brain_kv *kv = ctx;
    if (strncmp(request->path, "/v1/", 4) != 0)
        return false;
    bt_json_value body = body_of(request);
    char name[32], text[512];
    if (is(body, "stream", "true"))
        return refuse(answer, "a stream of context only");
    if (!is(member(body, "disaggregated_params"), "request_type", "\"context_only\""))
        return refuse(answer, "not context_only");
    snprintf(name, sizeof(name), "12345678901234%03u", ++kv->room);
    hold(kv, name);
    snprintf(text, sizeof(text),
             "{\"request_type\":\"context_only\",\"first_gen_tokens\":[42],\"ctx_request_id\":%s,"
             "\"opaque_state\":\"b3BhcXVl\",\"draft_tokens\":null}",
             name);
    return say(answer, ",\"disaggregated_params\":", text, "}]");
}

bool brain_trtllm_decode(void *ctx, const fake_request *request, fake_answer *answer)
{
    brain_kv *kv = ctx;
    if (strncmp(request->path, "/v1/", 4) != 0)
        return false;
    bt_json_value params = member(body_of(request), "disaggregated_params");
    if (params.type == BT_JSON_ABSENT)
        return recompute(kv, request, answer);
    bt_slice id = member(params, "ctx_request_id").text;
    char name[32];
    snprintf(name, sizeof(name), "%.*s", (int)id.n, id.at == NULL ? "" : id.at);
    if (!is(params, "request_type", "\"generation_only\"") ||
        !is(params, "opaque_state", "\"b3BhcXVl\"") || !is(params, "first_gen_tokens", "[42]"))
        return refuse(answer, "not what the context server said");
    return take(kv, name) ? decode(request, answer) : refuse(answer, "no such context");
}

/* Addresses in the request's id. */

/* The engines' own pattern finds host:port in the id; out gets it. */
static bool find_address(const fake_request *request, const char *pattern, char *out)
{
    regex_t regex;
    regmatch_t match[2];
    const char *at = strcasestr(request->headers, "x-request-id: ");
    char id[512] = "";
    if (at == NULL || regcomp(&regex, pattern, REG_EXTENDED) != 0)
        return false;
    sscanf(at + strlen("x-request-id: "), "%511[^\n]", id);
    bool is_found = regexec(&regex, id, 2, match, 0) == 0;
    if (is_found)
        snprintf(out, 512, "%.*s", (int)(match[1].rm_eo - match[1].rm_so), id + match[1].rm_so);
    regfree(&regex);
    return is_found;
}

static void name_of(const fake_request *request, char *out)
{
    const char *at = strcasestr(request->headers, "x-request-id: ");
    out[0] = 0;
    if (at != NULL)
        sscanf(at + strlen("x-request-id: "), "%127[^\n]", out);
}

bool brain_p2p_prefill(void *ctx, const fake_request *request, fake_answer *answer)
{
    brain_kv *kv = ctx;
    char address[512], name[128];
    if (strncmp(request->path, "/v1/", 4) != 0)
        return false;
    const char *wrong = wrong_with_prefill(body_of(request));
    if (wrong != NULL)
        return refuse(answer, wrong);
    if (!find_address(request, "___decode_addr_(.*:[0-9]+)", address) ||
        strcmp(address, "10.9.0.2:22001") != 0)
        return refuse(answer, "no decode address in the id");
    name_of(request, name);
    hold(kv, name);
    return say(answer, "", "}]", "");
}

bool brain_p2p_decode(void *ctx, const fake_request *request, fake_answer *answer)
{
    brain_kv *kv = ctx;
    char address[512], name[128];
    if (strncmp(request->path, "/v1/", 4) != 0)
        return false;
    if (!find_address(request, "___prefill_addr_(.*:[0-9]+)___", address) ||
        strcmp(address, "10.9.0.1:21001") != 0)
        return refuse(answer, "no prefill address in the id");
    name_of(request, name);
    return take(kv, name) ? decode(request, answer) : refuse(answer, "waits for ever");
}

bool brain_moriio_prefill(void *ctx, const fake_request *request, fake_answer *answer)
{
    brain_kv *kv = ctx;
    if (strncmp(request->path, "/v1/", 4) != 0)
        return false;
    bt_json_value body = body_of(request), params = member(body, "kv_transfer_params");
    const char *wrong = wrong_with_prefill(body);
    char address[512], name[64], text[512];
    if (wrong != NULL)
        return refuse(answer, wrong);
    text_of(params, "transfer_id", name, sizeof(name));
    if (!find_address(request, "___decode_addr_(host:.*,handshake:[0-9]+,notify:[0-9]+)",
                      address) ||
        !is(params, "do_remote_decode", "true") || !is(params, "remote_tp_size", "2") ||
        strncmp(name, "xfer-", 5) != 0)
        return refuse(answer, "not what MoRI-IO needs");
    hold(kv, name);
    snprintf(
        text, sizeof(text),
        "{\"remote_engine_id\":\"engine-P\",\"remote_block_ids\":[1,2],\"transfer_id\":\"%s\"}",
        name);
    return say(answer, "}],\"kv_transfer_params\":", text, "");
}

bool brain_moriio_decode(void *ctx, const fake_request *request, fake_answer *answer)
{
    brain_kv *kv = ctx;
    if (strncmp(request->path, "/v1/", 4) != 0)
        return false;
    bt_json_value params = member(body_of(request), "kv_transfer_params");
    char address[512], name[64];
    text_of(params, "transfer_id", name, sizeof(name));
    if (!find_address(request, "___prefill_addr_(host:.*,handshake:[0-9]+,notify:[0-9]+)___",
                      address))
        return refuse(answer, "no prefill address in the id");
    bool is_told = is(params, "do_remote_prefill", "true") &&
                   is(params, "remote_block_ids", "[1,2]") && is(params, "remote_tp_size", "1");
    return is_told && take(kv, name) ? decode(request, answer) : recompute(kv, request, answer);
}

/* Engines that wait for each other. */

/* The decode engine waits until the other one has something for it. */
static bool fetch(brain_kv *kv, const char *name, const fake_request *request, fake_answer *answer)
{
    answer->waits = !take(kv, name);
    return decode(request, answer);
}

static void engine_id(const brain_kv *kv, const char *rank, char *out)
{
    snprintf(out, 64, "engine-%u-%s", kv->life, rank);
}

/* vLLM's NixlPushConnector. */

bool brain_push_prefill(void *ctx, const fake_request *request, fake_answer *answer)
{
    brain_kv *kv = ctx;
    if (strncmp(request->path, "/v1/", 4) != 0)
        return false;
    bt_json_value body = body_of(request), params = member(body, "kv_transfer_params");
    const char *wrong = wrong_with_prefill(body);
    char text[1024], name[64], id[64];
    text_of(params, "transfer_id", name, sizeof(name));
    if (wrong != NULL)
        return refuse(answer, wrong);
    if (!is(params, "do_remote_decode", "true") || strncmp(name, "xfer-", 5) != 0)
        return refuse(answer, "not asked for a transfer");
    hold(kv, name);
    engine_id(kv, "0", id);
    snprintf(text, sizeof(text),
             "{\"do_remote_prefill\":true,\"remote_block_ids\":[[1]],\"remote_engine_id\":\"%s\","
             "\"remote_request_id\":\"x\",\"remote_host\":\"10.9.0.1\",\"remote_port\":5600,"
             "\"tp_size\":4,\"transfer_mode\":\"push\"}",
             id);
    return say(answer, "}],\"kv_transfer_params\":", text, "");
}

bool brain_push_decode(void *ctx, const fake_request *request, fake_answer *answer)
{
    brain_kv *kv = ctx;
    if (strncmp(request->path, "/v1/", 4) != 0)
        return false;
    bt_json_value params = member(body_of(request), "kv_transfer_params");
    char name[64], engine[64], id[64], asked[128], own[128];
    if (params.type == BT_JSON_ABSENT)
        return recompute(kv, request, answer);
    text_of(params, "transfer_id", name, sizeof(name));
    text_of(params, "remote_engine_id", engine, sizeof(engine));
    text_of(params, "remote_request_id", asked, sizeof(asked));
    name_of(request, own);
    engine_id(kv, "0", id);
    if (!is(params, "do_remote_prefill", "true") || !is(params, "remote_port", "5600") ||
        !is(params, "tp_size", "4") || !is(params, "pp_size", "1") ||
        member(params, "remote_block_ids").type != BT_JSON_ABSENT || strcmp(asked, own) != 0)
        return refuse(answer, "not a registration for a push");
    if (strcmp(engine, id) != 0)
        return fail(answer, "registers with an engine that is gone");
    return fetch(kv, name, request, answer);
}

/* vLLM's MooncakeConnector. */

bool brain_mooncake_prefill(void *ctx, const fake_request *request, fake_answer *answer)
{
    brain_kv *kv = ctx;
    char id[2][64], text[256], name[64];
    if (strcmp(request->path, "/query") == 0) {
        engine_id(kv, "0", id[0]);
        engine_id(kv, "1", id[1]);
        snprintf(text, sizeof(text), "{\"0\":{\"engine_id\":\"%s\"},\"1\":{\"engine_id\":\"%s\"}}",
                 id[0], id[1]);
        snprintf(answer->body, sizeof(answer->body), "%s", text);
        return true;
    }
    if (strncmp(request->path, "/v1/", 4) != 0)
        return false;
    bt_json_value body = body_of(request), params = member(body, "kv_transfer_params");
    const char *rank = strcasestr(request->headers, "x-data-parallel-rank: ");
    const char *wrong = wrong_with_prefill(body);
    text_of(params, "transfer_id", name, sizeof(name));
    if (wrong != NULL || rank == NULL || !is(params, "do_remote_decode", "true"))
        return refuse(answer, wrong != NULL ? wrong : "no rank, or no transfer");
    snprintf(text, sizeof(text), "%s@%c", name, rank[strlen("x-data-parallel-rank: ")]);
    hold(kv, text);
    return say(answer, "", "}]", "");
}

bool brain_mooncake_decode(void *ctx, const fake_request *request, fake_answer *answer)
{
    brain_kv *kv = ctx;
    if (strncmp(request->path, "/v1/", 4) != 0)
        return false;
    bt_json_value params = member(body_of(request), "kv_transfer_params");
    char name[64], engine[64], address[128], text[128], wanted[64];
    text_of(params, "transfer_id", name, sizeof(name));
    text_of(params, "remote_engine_id", engine, sizeof(engine));
    text_of(params, "remote_bootstrap_addr", address, sizeof(address));
    const char *rank = strrchr(engine, '-');
    engine_id(kv, rank == NULL ? "" : rank + 1, wanted);
    if (strncmp(address, "http://127.0.0.1:", 17) != 0 || strcmp(engine, wanted) != 0)
        return fail(answer, "no such engine");
    snprintf(text, sizeof(text), "%s@%s", name, rank + 1);
    return fetch(kv, text, request, answer);
}

/* SGLang. */

/* Why the body is no good; else name is its room. */
static const char *wrong_with_room(const fake_request *request, char *name, size_t cap)
{
    bt_json_value body = body_of(request);
    bt_slice room = member(body, "bootstrap_room").text;
    if (!is(body, "bootstrap_host", "\"127.0.0.1\"") || !is(body, "bootstrap_port", "8998") ||
        room.n < 2 || room.n > 19 || member(body, "rid").type != BT_JSON_STRING)
        return "no bootstrap room";
    snprintf(name, cap, "%.*s", (int)room.n, room.at);
    /* The whole body: each knows itself when to end. */
    return is(body, "max_tokens", "1") ? "limited by the proxy" : NULL;
}

bool brain_sglang_prefill(void *ctx, const fake_request *request, fake_answer *answer)
{
    brain_kv *kv = ctx;
    char name[64];
    if (strncmp(request->path, "/v1/", 4) != 0)
        return false;
    const char *wrong = wrong_with_room(request, name, sizeof(name));
    if (wrong != NULL)
        return refuse(answer, wrong);
    hold(kv, name);
    return decode(request, answer);
}

bool brain_sglang_decode(void *ctx, const fake_request *request, fake_answer *answer)
{
    brain_kv *kv = ctx;
    char name[64];
    if (strncmp(request->path, "/v1/", 4) != 0)
        return false;
    const char *wrong = wrong_with_room(request, name, sizeof(name));
    return wrong != NULL ? refuse(answer, wrong) : fetch(kv, name, request, answer);
}
