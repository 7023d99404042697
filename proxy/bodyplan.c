/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/bodyplan.h"
#include "core/fail.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* When a value allows the prefill engine's token to come first. null always does, as engines read
 * it as absent. */
typedef enum {
    SAFE_ANY,
    SAFE_NULL,   /* only null */
    SAFE_FALSE,  /* false */
    SAFE_ZERO,   /* 0 */
    SAFE_ONE,    /* 1 */
    SAFE_GREEDY, /* when temperature is 0: a seeded draw must know how many were before it */
    SAFE_TEXT_FORMAT,
} safety;

enum {
    PREFILL_DROP = 1, /* not for the prefill leg */
    CHAT_DROP = 2,    /* chat only: no such key in /v1/completions */
    TOKENIZE = 4,     /* decides how the prompt becomes tokens: goes to /tokenize too */
    CHAT_UNSAFE = 8,  /* in chat, anything but null or false is unsafe */
    HAND_OFF = 16,    /* between proxy and engines: the client's own never passes */
};

/* X(name, safety, flags) */
#define KEYS(X)                                                   \
    X(model, SAFE_ANY, TOKENIZE)                                  \
    X(prompt, SAFE_ANY, TOKENIZE)                                 \
    X(messages, SAFE_ANY, TOKENIZE | CHAT_DROP)                   \
    X(kv_transfer_params, SAFE_ANY, HAND_OFF)                     \
    X(disaggregated_params, SAFE_ANY, HAND_OFF)                   \
    X(bootstrap_host, SAFE_ANY, HAND_OFF)                         \
    X(bootstrap_port, SAFE_ANY, HAND_OFF)                         \
    X(bootstrap_room, SAFE_ANY, HAND_OFF)                         \
    X(routed_dp_rank, SAFE_ANY, HAND_OFF)                         \
    X(disagg_prefill_dp_rank, SAFE_ANY, HAND_OFF)                 \
    X(data_parallel_rank, SAFE_ANY, HAND_OFF)                     \
    X(rid, SAFE_NULL, 0)                                          \
    X(cache_hit_threshold, SAFE_NULL, 0)                          \
    X(max_tokens, SAFE_ANY, 0)                                    \
    X(max_completion_tokens, SAFE_ANY, CHAT_DROP)                 \
    X(min_tokens, SAFE_ZERO, PREFILL_DROP)                        \
    X(min_completion_tokens, SAFE_ZERO, PREFILL_DROP | CHAT_DROP) \
    X(stream, SAFE_ANY, 0)                                        \
    X(stream_options, SAFE_ANY, PREFILL_DROP)                     \
    X(n, SAFE_ONE, PREFILL_DROP)                                  \
    X(best_of, SAFE_ONE, PREFILL_DROP)                            \
    X(use_beam_search, SAFE_FALSE, PREFILL_DROP)                  \
    X(temperature, SAFE_ANY, 0)                                   \
    X(top_p, SAFE_ANY, 0)                                         \
    X(top_k, SAFE_ANY, 0)                                         \
    X(min_p, SAFE_ANY, 0)                                         \
    X(repetition_penalty, SAFE_ANY, 0)                            \
    X(presence_penalty, SAFE_ZERO, 0)                             \
    X(frequency_penalty, SAFE_ZERO, 0)                            \
    X(logit_bias, SAFE_ANY, 0)                                    \
    X(allowed_token_ids, SAFE_ANY, 0)                             \
    X(seed, SAFE_GREEDY, 0)                                       \
    X(stop, SAFE_ANY, 0)                                          \
    X(stop_token_ids, SAFE_ANY, 0)                                \
    X(include_stop_str_in_output, SAFE_ANY, 0)                    \
    X(ignore_eos, SAFE_ANY, 0)                                    \
    X(skip_special_tokens, SAFE_ANY, 0)                           \
    X(spaces_between_special_tokens, SAFE_ANY, 0)                 \
    X(logprobs, SAFE_ANY, CHAT_UNSAFE | CHAT_DROP)                \
    X(top_logprobs, SAFE_ZERO, CHAT_DROP)                         \
    X(prompt_logprobs, SAFE_NULL, PREFILL_DROP)                   \
    X(echo, SAFE_FALSE, 0)                                        \
    X(suffix, SAFE_NULL, 0)                                       \
    X(user, SAFE_ANY, 0)                                          \
    X(metadata, SAFE_ANY, 0)                                      \
    X(priority, SAFE_ANY, 0)                                      \
    X(request_id, SAFE_ANY, 0)                                    \
    X(cache_salt, SAFE_ANY, 0)                                    \
    X(response_format, SAFE_TEXT_FORMAT, CHAT_DROP)               \
    X(tools, SAFE_NULL, TOKENIZE | CHAT_DROP)                     \
    X(tool_choice, SAFE_NULL, CHAT_DROP)                          \
    X(functions, SAFE_NULL, CHAT_DROP)                            \
    X(function_call, SAFE_NULL, CHAT_DROP)                        \
    X(return_token_ids, SAFE_ANY, CHAT_UNSAFE | CHAT_DROP)        \
    X(return_tokens_as_token_ids, SAFE_ANY, 0)                    \
    X(add_special_tokens, SAFE_ANY, TOKENIZE | CHAT_DROP)         \
    X(add_generation_prompt, SAFE_ANY, TOKENIZE | CHAT_DROP)      \
    X(continue_final_message, SAFE_ANY, TOKENIZE | CHAT_DROP)     \
    X(chat_template, SAFE_ANY, TOKENIZE | CHAT_DROP)              \
    X(chat_template_kwargs, SAFE_ANY, TOKENIZE | CHAT_DROP)

enum {
#define KEY_ENUM(name, safe, flags) KEY_##name,
    KEYS(KEY_ENUM)
#undef KEY_ENUM
        N_KEYS
};
_Static_assert((int)N_KEYS <= (int)BT_JSON_MAX_KEYS, "the scanner takes no more keys");

static const char *const key_names[N_KEYS] = {
#define KEY_NAME(name, safe, flags) #name,
    KEYS(KEY_NAME)
#undef KEY_NAME
};
static const struct {
    safety safe;
    unsigned flags;
} rules[N_KEYS] = {
#define KEY_RULE(name, safe, flags) {(safe), (flags)},
    KEYS(KEY_RULE)
#undef KEY_RULE
};

static bt_json_value at(const bt_body_plan *plan, size_t key)
{
    return bt_json_at(&plan->scan, key);
}

static bool is_null(bt_json_value value)
{
    return value.type == BT_JSON_ABSENT || value.type == BT_JSON_NULL;
}

static bool is_number(bt_json_value value, double wanted)
{
    double number;
    return bt_json_double(value, &number) == BATON_OK && number == wanted;
}

static bool is_safe(const bt_body_plan *plan, size_t key)
{
    bt_json_value value = at(plan, key);
    bt_json_value type;
    if (is_null(value))
        return true;
    if ((rules[key].flags & CHAT_UNSAFE) && plan->route == BT_ROUTE_CHAT)
        return value.type == BT_JSON_FALSE;
    switch (rules[key].safe) {
    case SAFE_ANY:
        return true;
    case SAFE_NULL:
        return false;
    case SAFE_FALSE:
        return value.type == BT_JSON_FALSE;
    case SAFE_ZERO:
        return is_number(value, 0.0);
    case SAFE_ONE:
        return is_number(value, 1.0);
    case SAFE_GREEDY:
        return is_number(at(plan, KEY_temperature), 0.0);
    case SAFE_TEXT_FORMAT:
        return bt_json_get(value, "type", &type) == BATON_OK && bt_json_string_equals(type, "text");
    }
    return false;
}

/* In completions engines differ on max_tokens null (no limit, or the default) and on chat's key. */
static bool is_limit_unclear(const bt_body_plan *plan, size_t key)
{
    if (plan->route == BT_ROUTE_CHAT)
        return false;
    return (key == KEY_max_tokens && at(plan, key).type == BT_JSON_NULL) ||
           (key == KEY_max_completion_tokens && !is_null(at(plan, key)));
}

/* The sequences that the body names in a list: prompts, or choices of a chat. 0: it is none. */
static uint32_t count_sequences(const bt_body_plan *plan)
{
    bt_json_value prompt = at(plan, KEY_prompt), first;
    uint64_t n = 0;
    if (plan->route == BT_ROUTE_CHAT) {
        bool is_several = bt_json_uint64(at(plan, KEY_n), &n) == BATON_OK && n > 1;
        return !is_several                 ? 0
               : n > BT_PLAN_MAX_SEQUENCES ? BT_PLAN_MAX_SEQUENCES + 1
                                           : (uint32_t)n;
    }
    bt_json_iter it = bt_json_begin(prompt);
    if (prompt.type != BT_JSON_ARRAY || !bt_json_next(&it, &first) ||
        (first.type != BT_JSON_STRING && first.type != BT_JSON_ARRAY))
        return 0;
    n = bt_json_length(prompt);
    return n > BT_PLAN_MAX_SEQUENCES ? BT_PLAN_MAX_SEQUENCES + 1 : (uint32_t)n;
}

/* More than one choice of a prompt. */
static bool has_choices(const bt_body_plan *plan)
{
    return !is_safe(plan, KEY_n) || !is_safe(plan, KEY_best_of) ||
           !is_safe(plan, KEY_use_beam_search);
}

static void decide_early(bt_body_plan *plan)
{
    plan->is_early_safe = false;
    plan->unsafe_key = "";
    if (plan->scan.n_members != plan->scan.n_recorded)
        return; /* a key not in the table: nobody knows what it does */
    for (size_t key = 0; key < N_KEYS; key++) {
        if (!is_safe(plan, key) || is_limit_unclear(plan, key)) {
            plan->unsafe_key = key_names[key];
            return;
        }
    }
    plan->is_early_safe = plan->form != BT_PROMPT_BATCH;
    plan->unsafe_key = plan->is_early_safe ? NULL : key_names[KEY_prompt];
}

/* Looks at bytes, not at values: a prompt may have a million of them. */
uint64_t bt_token_ids_count(bt_json_value value)
{
    uint64_t n = 0, id = 0;
    bool is_inside = false; /* of a number */
    if (value.type != BT_JSON_ARRAY)
        return 0;
    for (size_t i = 1; i + 1 < value.text.n; i++) {
        unsigned char c = (unsigned char)value.text.at[i];
        bool is_digit = c >= '0' && c <= '9';
        if (is_digit) {
            id = (is_inside ? id * 10 : 0) + (uint64_t)(c - '0');
            n += !is_inside;
        }
        is_inside = is_digit;
        bool is_between = c == ',' || c == ' ' || c == '\n' || c == '\r' || c == '\t';
        if (id > INT32_MAX || (!is_digit && !is_between))
            return 0;
    }
    return n;
}

/* A token is at least a byte of text and on average about four. */
static uint64_t guess_tokens(bt_json_value text)
{
    return text.text.n / 4 + 1;
}

static baton_status read_completion_prompt(bt_body_plan *plan)
{
    bt_json_value prompt = at(plan, KEY_prompt);
    bt_json_value first, second;
    uint64_t n_ids;
    /* ["text"] and [[1, 2]] are one prompt in a list. */
    bt_json_iter it = bt_json_begin(prompt);
    bool is_nested = prompt.type == BT_JSON_ARRAY && bt_json_next(&it, &first) &&
                     (first.type == BT_JSON_STRING || first.type == BT_JSON_ARRAY);
    if (is_nested && !bt_json_next(&it, &second))
        prompt = first;
    plan->prompt = prompt;
    plan->n_prompt_tokens = guess_tokens(prompt);
    if (prompt.type == BT_JSON_STRING) {
        plan->form = BT_PROMPT_TEXT;
    } else if ((n_ids = bt_token_ids_count(prompt)) > 0) {
        plan->form = BT_PROMPT_IDS;
        plan->n_prompt_tokens = n_ids;
    } else if (prompt.type == BT_JSON_ARRAY && bt_json_length(prompt) > 1) {
        plan->form = BT_PROMPT_BATCH;
    } else {
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "prompt: wanted a text or a list of token ids, found %s",
                       prompt.type == BT_JSON_ABSENT ? "nothing" : "something else");
    }
    return BATON_OK;
}

static baton_status read_prompt(bt_body_plan *plan, const char **param)
{
    if (plan->route == BT_ROUTE_COMPLETIONS) {
        *param = key_names[KEY_prompt];
        return read_completion_prompt(plan);
    }
    *param = key_names[KEY_messages];
    plan->prompt = at(plan, KEY_messages);
    plan->form = BT_PROMPT_MESSAGES;
    plan->n_prompt_tokens = guess_tokens(plan->prompt);
    if (plan->prompt.type != BT_JSON_ARRAY || bt_json_length(plan->prompt) == 0)
        return bt_fail(BATON_ERR_INVALID_ARG, "messages: wanted a list of at least one message");
    return BATON_OK;
}

static baton_status read_limit(bt_body_plan *plan, const char **param)
{
    bool is_chat = plan->route == BT_ROUTE_CHAT;
    size_t key = is_chat && !is_null(at(plan, KEY_max_completion_tokens))
                     ? KEY_max_completion_tokens
                     : KEY_max_tokens;
    bt_json_value value = at(plan, key);
    *param = key_names[key];
    plan->has_limit = true;
    if (value.type == BT_JSON_ABSENT && !is_chat) {
        plan->limit = 16; /* OpenAI's default for completions */
        return BATON_OK;
    }
    if (is_null(value)) {
        plan->has_limit = false;
        return BATON_OK;
    }
    if (bt_json_uint64(value, &plan->limit) != BATON_OK || plan->limit == 0)
        return bt_fail(BATON_ERR_INVALID_ARG, "%s: wanted an integer of at least 1, found %.*s",
                       *param, (int)(value.text.n < 32 ? value.text.n : 32), value.text.at);
    return BATON_OK;
}

static bool is_true(bt_json_value object, const char *name)
{
    bt_json_value value;
    return bt_json_get(object, name, &value) == BATON_OK && value.type == BT_JSON_TRUE;
}

static baton_status read_stream(bt_body_plan *plan, const char **param)
{
    bt_json_value stream = at(plan, KEY_stream);
    *param = key_names[KEY_stream];
    if (!is_null(stream) && stream.type != BT_JSON_TRUE && stream.type != BT_JSON_FALSE)
        return bt_fail(BATON_ERR_INVALID_ARG, "stream: wanted true or false");
    plan->stream = stream.type == BT_JSON_TRUE;
    bt_json_value options = at(plan, KEY_stream_options);
    *param = key_names[KEY_stream_options];
    if (!is_null(options) && options.type != BT_JSON_OBJECT)
        return bt_fail(BATON_ERR_INVALID_ARG, "stream_options: wanted an object");
    if (options.type == BT_JSON_OBJECT) {
        plan->include_usage = is_true(options, "include_usage");
        plan->continuous_usage = is_true(options, "continuous_usage_stats");
    }
    return BATON_OK;
}

static baton_status read_stop(bt_body_plan *plan, const char **param)
{
    bt_json_value stop = at(plan, KEY_stop);
    *param = key_names[KEY_stop];
    plan->stop = (bt_json_value){.type = BT_JSON_ABSENT};
    if (is_null(stop))
        return BATON_OK;
    if (stop.type != BT_JSON_STRING && stop.type != BT_JSON_ARRAY)
        return bt_fail(BATON_ERR_INVALID_ARG, "stop: wanted a string or a list of strings");
    bt_json_iter it = bt_json_begin(stop);
    bt_json_value element;
    while (bt_json_next(&it, &element)) {
        if (element.type != BT_JSON_STRING)
            return bt_fail(BATON_ERR_INVALID_ARG, "stop: wanted a string or a list of strings");
    }
    plan->stop = stop;
    return BATON_OK;
}

baton_status bt_body_plan_make(bt_route route, const char *body, size_t n, bt_body_plan *plan,
                               const char **param)
{
    *param = NULL;
    memset(plan, 0, sizeof(*plan));
    plan->route = route;
    BATON_TRY(bt_json_scan(body, n, key_names, N_KEYS, &plan->scan));
    BATON_TRY(read_prompt(plan, param));
    BATON_TRY(read_limit(plan, param));
    BATON_TRY(read_stream(plan, param));
    BATON_TRY(read_stop(plan, param));
    *param = NULL;
    plan->has_choices = has_choices(plan);
    plan->n_sequences = count_sequences(plan);
    decide_early(plan);
    return BATON_OK;
}

/* Edits being collected for one leg. */
typedef struct {
    bt_json_edit items[N_KEYS];
    size_t n;
} edit_list;

static void set(edit_list *edits, size_t key, bt_slice value)
{
    edits->items[edits->n++] = (bt_json_edit){BT_JSON_SET, key, value};
}

static void set_text(edit_list *edits, size_t key, const char *value)
{
    set(edits, key, bt_slice_of(value));
}

static void drop(edit_list *edits, size_t key)
{
    edits->items[edits->n++] = (bt_json_edit){.kind = BT_JSON_REMOVE, .key = key};
}

static bool is_edited(const edit_list *edits, size_t key)
{
    for (size_t i = 0; i < edits->n; i++) {
        if (edits->items[i].key == key)
            return true;
    }
    return false;
}

static void drop_flagged(const bt_body_plan *plan, edit_list *edits, unsigned flags)
{
    for (size_t key = 0; key < N_KEYS; key++) {
        bool is_there = at(plan, key).type != BT_JSON_ABSENT;
        if ((rules[key].flags & flags) && is_there && !is_edited(edits, key))
            drop(edits, key);
    }
}

static baton_status finish(const bt_body_plan *plan, const edit_list *edits, bt_leg_body *leg)
{
    return bt_json_patch(&plan->scan, edits->items, edits->n, leg->slices, BT_PLAN_MAX_SLICES,
                         &leg->n_slices);
}

static unsigned chat_drops(const bt_body_plan *plan)
{
    return plan->route == BT_ROUTE_CHAT ? CHAT_DROP : 0;
}

static void add(bt_leg_body *leg, bt_slice slice)
{
    leg->slices[leg->n_slices++] = slice;
}

baton_status bt_leg_tokenize(const bt_body_plan *plan, bt_leg_body *leg)
{
    leg->n_slices = 0;
    for (size_t key = 0; key < N_KEYS; key++) {
        bt_json_value value = key == KEY_prompt ? plan->prompt : at(plan, key);
        bool is_other_prompt = key == (plan->route == BT_ROUTE_CHAT ? KEY_prompt : KEY_messages);
        if (!(rules[key].flags & TOKENIZE) || is_null(value) || is_other_prompt)
            continue;
        add(leg, bt_slice_of(leg->n_slices == 0 ? "{\"" : ",\""));
        add(leg, bt_slice_of(key_names[key]));
        add(leg, bt_slice_of("\":"));
        add(leg, value.text);
    }
    add(leg, bt_slice_of("}"));
    return BATON_OK;
}

static size_t key_of(const char *name)
{
    size_t key = 0;
    while (strcmp(key_names[key], name) != 0) {
        key++;
        assert(key < N_KEYS && "bodyplan: a dialect's key is not in the table");
    }
    return key;
}

/* The dialect's members in, the client's own words to engines out. */
static void set_members(const bt_body_plan *plan, const bt_leg_members *members, edit_list *edits)
{
    for (size_t i = 0; members != NULL && i < members->n; i++) {
        size_t key = key_of(members->values[i].key);
        bool is_wanted = !members->values[i].only_if_there || at(plan, key).type != BT_JSON_ABSENT;
        bt_slice value = {bt_strbuf_text(&members->text) + members->values[i].at,
                          members->values[i].n};
        if (is_wanted)
            set(edits, key, value);
    }
    drop_flagged(plan, edits, HAND_OFF);
}

/* What every prefill leg has: one token, and no stream. */
static void limit_to_prefill(const bt_body_plan *plan, const bt_leg_members *members,
                             edit_list *edits)
{
    set_text(edits, KEY_max_tokens, "1");
    set_text(edits, KEY_stream, "false");
    set_members(plan, members, edits);
    drop_flagged(plan, edits, PREFILL_DROP);
}

baton_status bt_leg_prefill_early(const bt_body_plan *plan, bt_slice ids,
                                  const bt_leg_members *members, bt_leg_body *leg)
{
    edit_list edits = {.n = 0};
    limit_to_prefill(plan, members, &edits);
    set(&edits, KEY_prompt, ids);
    drop_flagged(plan, &edits, chat_drops(plan));
    return finish(plan, &edits, leg);
}

baton_status bt_leg_prefill_plain(const bt_body_plan *plan, const bt_leg_members *members,
                                  bt_leg_body *leg)
{
    edit_list edits = {.n = 0};
    limit_to_prefill(plan, members, &edits);
    /* It wins over max_tokens where both are there. */
    if (at(plan, KEY_max_completion_tokens).type != BT_JSON_ABSENT)
        set_text(&edits, KEY_max_completion_tokens, "1");
    return finish(plan, &edits, leg);
}

baton_status bt_leg_decode_early(const bt_body_plan *plan, bt_slice ids, uint64_t limit,
                                 const bt_leg_members *members, bt_leg_body *leg)
{
    edit_list edits = {.n = 0};
    set(&edits, KEY_prompt, ids);
    if (limit > 0) {
        snprintf(leg->limit, sizeof(leg->limit), "%llu", (unsigned long long)limit);
        set_text(&edits, KEY_max_tokens, leg->limit);
    }
    set_members(plan, members, &edits);
    drop_flagged(plan, &edits, chat_drops(plan));
    return finish(plan, &edits, leg);
}

baton_status bt_leg_plain(const bt_body_plan *plan, const bt_leg_members *members, bt_leg_body *leg)
{
    edit_list edits = {.n = 0};
    set_members(plan, members, &edits);
    if (edits.n > 0)
        return finish(plan, &edits, leg);
    leg->n_slices = 0;
    add(leg, plan->scan.text);
    return BATON_OK;
}

void bt_plan_prompt_scope(const bt_body_plan *plan, bt_slice scope[BT_PLAN_SCOPES])
{
    static const size_t keys[BT_PLAN_SCOPES] = {KEY_model, KEY_tools};
    for (int i = 0; i < BT_PLAN_SCOPES; i++) {
        bt_json_value value = at(plan, keys[i]);
        scope[i] = is_null(value) ? (bt_slice){"", 0} : value.text;
    }
}

/* Some end of text[n] is a proper beginning of the stop string. */
static bool ends_in_beginning_of(const char *text, size_t n, bt_json_value stop)
{
    char decoded[512];
    size_t n_stop;
    if (bt_json_string(stop, decoded, sizeof(decoded), &n_stop) != BATON_OK)
        return true; /* too long to look at: assume the worst */
    for (size_t k = 1; k < n_stop && k <= n; k++) {
        if (memcmp(text + n - k, decoded, k) == 0)
            return true;
    }
    return false;
}

bool bt_plan_may_begin_stop(const bt_body_plan *plan, const char *text, size_t n)
{
    if (plan->stop.type == BT_JSON_STRING)
        return ends_in_beginning_of(text, n, plan->stop);
    bt_json_iter it = bt_json_begin(plan->stop);
    bt_json_value stop;
    for (int i = 0; bt_json_next(&it, &stop); i++) {
        if (i == BT_PLAN_MAX_STOPS || ends_in_beginning_of(text, n, stop))
            return true;
    }
    return false;
}
