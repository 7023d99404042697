/* SPDX-License-Identifier: Apache-2.0 */
/* The engines of a request's attempt: chosen by their pools' policies, counted in their load, and
 * explained to clients that ask. */
#include "core/fail.h"
#include "core/log.h"
#include "proxy/proxyrequest.h"

#include <string.h>
#include <xxhash.h>

bt_worker_pool *bt_req_pool(const bt_req *req, bt_leg leg)
{
    bt_proxy *proxy = req->pl->proxy;
    return leg == BT_LEG_PREFILL ? &proxy->prefill : &proxy->decode;
}

bt_worker *bt_req_worker(const bt_req *req, bt_leg leg)
{
    int idx = leg == BT_LEG_PREFILL ? req->prefill_idx : req->decode_idx;
    return idx < 0 ? NULL : &bt_req_pool(req, leg)->workers[idx];
}

/* What the leg brings to its engine. Room is reserved for what will be made, because nobody knows
 * how much that is; limits that are hardly ever reached do not count as a whole. */
bt_burden bt_req_burden(const bt_req *req, bt_leg leg, uint64_t matched_tokens)
{
    enum { RESERVED_TOKENS = 2048 };
    if (req->plan == NULL || req->state == BT_REQ_TOKENIZE)
        return (bt_burden){0};
    uint64_t n_prompt = req->plan->n_prompt_tokens;
    bool is_limited = req->limit > 0 && req->limit < RESERVED_TOKENS;
    uint64_t n_made = is_limited ? req->limit : RESERVED_TOKENS;
    uint64_t n_new = n_prompt - matched_tokens;
    if (leg == BT_LEG_PREFILL)
        return (bt_burden){.queued_tokens = n_new};
    return (bt_burden){.queued_tokens = req->dialect == NULL ? n_new : 0,
                       .held_tokens = n_prompt + n_made};
}

void bt_req_leave_worker(bt_req *req, bt_leg leg)
{
    bool *is_on = leg == BT_LEG_PREFILL ? &req->is_on_prefill : &req->is_on_decode;
    if (!*is_on)
        return;
    bt_worker_end(bt_req_worker(req, leg), req->burden[leg]);
    *is_on = false;
    if (leg == BT_LEG_DECODE)
        bt_req_free_room(req);
}

static uint8_t life_of(const bt_worker *worker)
{
    return atomic_load_explicit(&worker->load->life, memory_order_relaxed);
}

/* The attempt's engines as a pair; NULL: it has no two that hand over. */
static bt_pair *pair_of(const bt_req *req)
{
    bool is_pair = req->dialect != NULL && req->state != BT_REQ_TOKENIZE && req->decode_idx >= 0 &&
                   req->prefill_idx >= 0;
    return is_pair ? &req->pl->proxy->pairs[req->decode_idx][req->prefill_idx] : NULL;
}

static bool is_warm(const bt_req *req)
{
    const bt_pair *pair = pair_of(req);
    return pair != NULL && bt_pair_is_warm(pair, life_of(bt_req_worker(req, BT_LEG_PREFILL)),
                                           life_of(bt_req_worker(req, BT_LEG_DECODE)));
}

void bt_req_note_answers(bt_req *req, bt_leg leg)
{
    bt_pair *pair = pair_of(req);
    if (leg == BT_LEG_DECODE && pair != NULL)
        bt_pair_warm(pair, life_of(bt_req_worker(req, BT_LEG_PREFILL)),
                     life_of(bt_req_worker(req, BT_LEG_DECODE)));
    bt_burden *burden = &req->burden[leg];
    bool is_on = leg == BT_LEG_PREFILL ? req->is_on_prefill : req->is_on_decode;
    if (!is_on || burden->queued_tokens == 0)
        return;
    bt_load_computed(bt_req_worker(req, leg)->load, *burden);
    burden->queued_tokens = 0;
}

/* What the policy must know of the request. Blocks are counted again for each leg and attempt: that
 * costs less than keeping 8 KiB for each request. */
static bt_policy_request about(const bt_req *req, bt_leg leg, bt_prefix_blocks *blocks)
{
    unsigned needs = bt_policy_needs(bt_req_pool(req, leg)->policy.policy);
    bt_policy_request request = {0};
    const char *header = req->pl->proxy->options.session_header;
    const char *session =
        needs & BT_NEEDS_SESSION ? bt_http_header_get(req->http->headers, header) : NULL;
    if (session != NULL && session[0] != 0)
        request.session = XXH3_64bits(session, strlen(session)) | 1;
    bool is_paired = leg == BT_LEG_PREFILL && req->dialect != NULL &&
                     req->state != BT_REQ_TOKENIZE && req->decode_idx >= 0;
    if (is_paired) {
        request.pairs = req->pl->proxy->pairs[req->decode_idx];
        request.decode_life = life_of(bt_req_worker(req, BT_LEG_DECODE));
        request.cold_tokens = req->pl->proxy->options.cold_pair;
    }
    if (!(needs & BT_NEEDS_PROMPT) || req->plan == NULL || req->state == BT_REQ_TOKENIZE)
        return request;
    bt_slice scope[BT_PLAN_SCOPES], text = req->plan->prompt.text;
    uint64_t salt = req->route;
    bt_plan_prompt_scope(req->plan, scope);
    for (int i = 0; i < BT_PLAN_SCOPES; i++)
        salt = XXH3_64bits_withSeed(scope[i].at, scope[i].n, salt);
    bt_prefix_blocks_of(text.at, text.n, salt, blocks);
    request.prompt = blocks;
    request.n_prompt_tokens = req->plan->n_prompt_tokens;
    request.n_prompt_bytes = text.n;
    return request;
}

bool bt_req_is_local(const bt_req *req, bt_bypass_reason *reason)
{
    const bt_proxy_options *options = &req->pl->proxy->options;
    bt_worker_pool *pool = bt_req_pool(req, BT_LEG_DECODE);
    uint64_t others = ~req->allowed[BT_LEG_DECODE];
    bool must_wait;
    if (options->local_below == 0)
        return false;
    others |= bt_req_full_engines(req, others, &must_wait);
    if (must_wait)
        return false;
    bt_prefix_blocks blocks;
    bt_policy_request request = about(req, BT_LEG_DECODE, &blocks);
    bt_policy_ask ask = {
        .loads = pool->loads, .n = pool->n_workers, .tried = &others, .request = &request};
    bt_choice choice = bt_policy_peek(&pool->policy, &ask);
    uint64_t n_prompt = req->plan->n_prompt_tokens, n_new = n_prompt - choice.matched_tokens;
    if (choice.index < 0 || n_new >= options->local_below)
        return false;
    uint64_t n_queued =
        atomic_load_explicit(&pool->loads[choice.index].queued_tokens, memory_order_relaxed);
    if (n_queued + n_new > options->local_queue) {
        bt_count(&req->pl->metrics.local_queue_full);
        return false;
    }
    *reason = n_prompt < options->local_below ? BT_BYPASS_SHORT : BT_BYPASS_PREFIX;
    return true;
}

/* A front end. Only engines that this proxy was given can be named: a header is no way to make it
 * connect to others. */

static uint64_t engine_called(const bt_worker_pool *pool, bt_slice name)
{
    while (name.n > 0 && (name.at[0] == ' ' || name.at[0] == '\t'))
        name = (bt_slice){name.at + 1, name.n - 1};
    while (name.n > 0 && (name.at[name.n - 1] == ' ' || name.at[name.n - 1] == '\t'))
        name.n--;
    for (uint32_t i = 0; i < pool->n_workers; i++) {
        if (bt_slice_equals(name, pool->workers[i].name))
            return UINT64_C(1) << i;
    }
    return 0;
}

bt_front bt_req_front(const bt_req *req, uint64_t *named)
{
    const char *header = req->pl->proxy->options.prefiller_header;
    const char *at = header == NULL ? NULL : bt_http_header_get(req->http->headers, header);
    *named = 0;
    if (header == NULL)
        return BT_FRONT_NONE;
    if (at == NULL || at[0] == 0)
        return BT_FRONT_DECODE_ALONE;
    for (;;) {
        size_t n = strcspn(at, ",");
        *named |= engine_called(bt_req_pool(req, BT_LEG_PREFILL), (bt_slice){at, n});
        if (at[n] == 0)
            return *named != 0 ? BT_FRONT_NAMED : BT_FRONT_UNKNOWN;
        at += n + 1;
    }
}

/* Explaining. */

bool bt_req_wants_explanation(const bt_req *req)
{
    const char *asked = bt_http_header_get(req->http->headers, "X-Baton-Explain");
    return req->pl->proxy->options.explain && asked != NULL && strcmp(asked, "1") == 0;
}

static void put_choice(const bt_req *req, bt_leg leg, bt_strbuf *out)
{
    const bt_worker *worker = bt_req_worker(req, leg);
    const bt_explained *explained = &req->explained[leg];
    if (worker == NULL || explained->why == NULL)
        return;
    bt_strbuf_printf(out, "%s%s;engine=\"%s\";policy=%s;why=%s;candidates=%u;of=%u",
                     out->length > 0 ? ", " : "", leg == BT_LEG_PREFILL ? "prefill" : "decode",
                     worker->name, bt_policy_name(bt_req_pool(req, leg)->policy.policy),
                     explained->why, explained->n_candidates, bt_req_pool(req, leg)->n_workers);
    bt_strbuf_printf(out, ";legs=%u;queued=%llu;held=%llu;matched=%llu", explained->legs,
                     (unsigned long long)explained->load.queued_tokens,
                     (unsigned long long)explained->load.held_tokens,
                     (unsigned long long)explained->matched_tokens);
    if (leg == BT_LEG_PREFILL && pair_of(req) != NULL)
        bt_strbuf_printf(out, ";pair=%s", explained->is_warm ? "warm" : "cold");
}

/* Tells the client, in a header of its answer, which engines the attempt has and why; the figures
 * are those of before it came. A structured field (RFC 8941). */
static void tell_choices(bt_req *req)
{
    bt_strbuf text = {0};
    put_choice(req, BT_LEG_DECODE, &text);
    put_choice(req, BT_LEG_PREFILL, &text);
    bt_http_header header = {"X-Baton-Route", bt_strbuf_text(&text)};
    if (bt_strbuf_status(&text) != BATON_OK || bt_http_set_extra(req->http, &header) != BATON_OK)
        bt_debug("not explained request=%s: %s", req->request_id, baton_last_error());
    bt_strbuf_free(&text);
}

static void note_choice(bt_req *req, bt_leg leg, bt_choice choice, uint64_t tried)
{
    if (!req->is_explained)
        return;
    const bt_worker_pool *pool = bt_req_pool(req, leg);
    const bt_load *load = bt_req_worker(req, leg)->load;
    bt_policy_ask ask = {.loads = pool->loads, .n = pool->n_workers, .tried = &tried};
    req->explained[leg] = (bt_explained){
        .why = choice.why,
        .matched_tokens = choice.matched_tokens,
        .is_warm = is_warm(req),
        .n_candidates = bt_policy_candidates(&ask),
        .legs = atomic_load_explicit(&load->legs, memory_order_relaxed),
        .load = {.queued_tokens = atomic_load_explicit(&load->queued_tokens, memory_order_relaxed),
                 .held_tokens = atomic_load_explicit(&load->held_tokens, memory_order_relaxed)}};
    tell_choices(req);
}

/* Choosing. */

bool bt_req_choose_worker(bt_req *req, bt_leg leg)
{
    bt_worker_pool *pool = bt_req_pool(req, leg);
    uint64_t tried = leg == BT_LEG_PREFILL ? req->tried_prefill : req->tried_decode;
    bt_req_leave_worker(req, leg);
    uint64_t others = ~req->allowed[leg]; /* engines of other dialects */
    bool must_wait;
    if (leg == BT_LEG_DECODE && req->dialect != NULL)
        tried |= bt_req_full_engines(req, tried | others, &must_wait);
    bt_prefix_blocks blocks;
    bt_policy_request request = about(req, leg, &blocks);
    bt_choice choice = bt_worker_pick(pool, tried | others, &request);
    if (choice.index < 0 && req->is_retry_of_kv)
        choice = bt_worker_pick(pool, others, &request);
    int idx = choice.index;
    *(leg == BT_LEG_PREFILL ? &req->prefill_idx : &req->decode_idx) = idx;
    if (idx < 0)
        return false;
    bt_count_n(&req->pl->metrics.prefix_asked[leg], request.n_prompt_tokens);
    bt_count_n(&req->pl->metrics.prefix_matched[leg], choice.matched_tokens);
    if (leg == BT_LEG_PREFILL && pair_of(req) != NULL && !is_warm(req))
        bt_count(&req->pl->metrics.cold_pairs);
    note_choice(req, leg, choice, tried | others);
    req->burden[leg] = bt_req_burden(req, leg, choice.matched_tokens);
    bt_worker_begin(&pool->workers[idx], req->burden[leg]);
    *(leg == BT_LEG_PREFILL ? &req->is_on_prefill : &req->is_on_decode) = true;
    return true;
}
