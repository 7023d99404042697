/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/answermerge.h"
#include "core/fail.h"

#include <stdio.h>
#include <string.h>

static const bt_json_value absent = {.type = BT_JSON_ABSENT};

static bt_json_value member(bt_json_value object, const char *name)
{
    bt_json_value value;
    return bt_json_get(object, name, &value) == BATON_OK ? value : absent;
}

static bool is_set(bt_json_value value)
{
    return value.type != BT_JSON_ABSENT && value.type != BT_JSON_NULL;
}

static void put(bt_strbuf *out, bt_slice slice)
{
    bt_strbuf_append(out, slice.at, slice.n);
}

static void put_or_null(bt_strbuf *out, bt_json_value value)
{
    if (value.type == BT_JSON_ABSENT)
        bt_strbuf_puts(out, "null");
    else
        put(out, value.text);
}

/* What is between a container's brackets, or a string's quotes. */
static bt_slice inside(bt_json_value value)
{
    if (!is_set(value) || value.text.n < 2)
        return (bt_slice){"", 0};
    return (bt_slice){value.text.at + 1, value.text.n - 2};
}

static bt_slice text_of(const bt_strbuf *buf)
{
    return (bt_slice){bt_strbuf_text(buf), buf->length};
}

/* Object text with the edits done. keys[n_keys] are what the edits' indices mean. */
static baton_status put_patched(bt_strbuf *out, bt_slice object, const char *const *keys,
                                size_t n_keys, const bt_json_edit *edits, size_t n_edits)
{
    bt_json_object scan;
    bt_slice slices[BT_PLAN_MAX_SLICES];
    size_t n_slices;
    BATON_TRY(bt_json_scan(object.at, object.n, keys, n_keys, &scan));
    BATON_TRY(bt_json_patch(&scan, edits, n_edits, slices, BT_PLAN_MAX_SLICES, &n_slices));
    for (size_t i = 0; i < n_slices; i++)
        put(out, slices[i]);
    return bt_strbuf_status(out);
}

void bt_merge_init(bt_merge *merge, const bt_body_plan *plan, const bt_prefill_answer *first)
{
    *merge = (bt_merge){.route = plan->route,
                        .include_usage = plan->include_usage,
                        .continuous_usage = plan->continuous_usage,
                        .first = first};
    bt_slice id = inside(first->id);
    bool is_text = first->id.type == BT_JSON_STRING && id.n > 0 && id.n < sizeof(merge->id) - 16;
    bool is_completion = is_text && id.n > 5 && memcmp(id.at, "cmpl-", 5) == 0;
    const char *prefix = plan->route == BT_ROUTE_CHAT && is_completion ? "chat" : "";
    if (!is_text)
        id = bt_slice_of("cmpl-0");
    size_t n_prefix = strlen(prefix);
    merge->id[0] = '"';
    memcpy(merge->id + 1, prefix, n_prefix);
    memcpy(merge->id + 1 + n_prefix, id.at, id.n);
    merge->id[1 + n_prefix + id.n] = '"';
}

static uint64_t count(bt_json_value usage, const char *name)
{
    uint64_t n = 0;
    bt_json_value value = member(usage, name);
    return bt_json_uint64(value, &n) == BATON_OK ? n : 0;
}

/* The decode engine's usage (ABSENT: there was no decode leg), made that of the whole answer. */
static baton_status put_usage(const bt_merge *merge, bt_json_value usage, bt_strbuf *out)
{
    enum { PROMPT, COMPLETION, TOTAL, DETAILS, N };
    static const char *const keys[N] = {"prompt_tokens", "completion_tokens", "total_tokens",
                                        "prompt_tokens_details"};
    bt_json_value first = merge->first->usage;
    if (usage.type != BT_JSON_OBJECT) {
        put_or_null(out, first);
        return BATON_OK;
    }
    uint64_t n_prompt = count(usage, keys[PROMPT]);
    n_prompt = first.type == BT_JSON_OBJECT ? count(first, keys[PROMPT])
               : n_prompt > 0               ? n_prompt - 1
                                            : 0;
    uint64_t n_completion = count(usage, keys[COMPLETION]) + 1;
    char texts[3][24];
    snprintf(texts[PROMPT], sizeof(texts[0]), "%llu", (unsigned long long)n_prompt);
    snprintf(texts[COMPLETION], sizeof(texts[0]), "%llu", (unsigned long long)n_completion);
    snprintf(texts[TOTAL], sizeof(texts[0]), "%llu", (unsigned long long)(n_prompt + n_completion));
    bt_json_value details = member(first, keys[DETAILS]);
    bool has_details = is_set(details) || is_set(member(usage, keys[DETAILS]));
    bt_json_edit edits[N] = {
        {BT_JSON_SET, PROMPT, bt_slice_of(texts[PROMPT])},
        {BT_JSON_SET, COMPLETION, bt_slice_of(texts[COMPLETION])},
        {BT_JSON_SET, TOTAL, bt_slice_of(texts[TOTAL])},
        {BT_JSON_SET, DETAILS, is_set(details) ? details.text : bt_slice_of("null")},
    };
    return put_patched(out, usage.text, keys, N, edits, has_details ? N : N - 1);
}

/* [a..., b...]; the numbers of b are raised by shift. */
static void put_joined(bt_strbuf *out, bt_json_value a, bt_json_value b, uint64_t shift)
{
    bt_slice in_a = inside(a);
    bool has_a = bt_json_length(a) > 0;
    bt_strbuf_putc(out, '[');
    if (has_a)
        put(out, in_a);
    bt_json_iter it = bt_json_begin(b);
    bt_json_value element;
    bool needs_comma = has_a;
    while (b.type == BT_JSON_ARRAY && bt_json_next(&it, &element)) {
        uint64_t number;
        if (needs_comma)
            bt_strbuf_putc(out, ',');
        if (shift > 0 && bt_json_uint64(element, &number) == BATON_OK)
            bt_strbuf_printf(out, "%llu", (unsigned long long)(number + shift));
        else
            put(out, element.text);
        needs_comma = true;
    }
    bt_strbuf_putc(out, ']');
}

/* Log probabilities of the decode engine, the prefill engine's before them unless a is ABSENT; text
 * offsets count from the beginning of the whole answer. */
static baton_status put_logprobs(const bt_merge *merge, bt_json_value a, bt_json_value b,
                                 bt_strbuf *out)
{
    enum { TOKENS, LOGPROBS, TOP, OFFSETS, N };
    static const char *const keys[N] = {"tokens", "token_logprobs", "top_logprobs", "text_offset"};
    if (b.type != BT_JSON_OBJECT) {
        put_or_null(out, is_set(a) ? a : b);
        return BATON_OK;
    }
    bt_strbuf lists[N] = {{0}};
    bt_json_edit edits[N];
    size_t n_edits = 0;
    for (size_t i = 0; i < N; i++) {
        bt_json_value list = member(b, keys[i]);
        if (list.type != BT_JSON_ARRAY)
            continue;
        put_joined(&lists[i], member(a, keys[i]), list,
                   i == OFFSETS ? merge->first->n_text_chars : 0);
        edits[n_edits++] = (bt_json_edit){BT_JSON_SET, i, text_of(&lists[i])};
    }
    baton_status status = put_patched(out, b.text, keys, N, edits, n_edits);
    for (size_t i = 0; i < N; i++)
        bt_strbuf_free(&lists[i]);
    return status;
}

/* choices[0] of an answer; ABSENT when there is none. */
static bt_json_value only_choice(bt_json_value choices)
{
    bt_json_value choice = absent;
    bt_json_iter it = bt_json_begin(choices);
    if (choices.type == BT_JSON_ARRAY)
        bt_json_next(&it, &choice);
    return choice;
}

enum { ANSWER_ID, ANSWER_CREATED, ANSWER_CHOICES, ANSWER_USAGE, ANSWER_KV, ANSWER_ERROR, N_ANSWER };
static const char *const answer_keys[N_ANSWER] = {
    "id", "created", "choices", "usage", "kv_transfer_params", "error"};

enum { CHOICE_TEXT, CHOICE_LOGPROBS, CHOICE_IDS, CHOICE_PROMPT_IDS, N_CHOICE };
static const char *const choice_keys[N_CHOICE] = {"text", "logprobs", "token_ids",
                                                  "prompt_token_ids"};

/* [choice], the decode engine's: in a stream its own text, else the first token's text before it.
 */
static baton_status put_choices(const bt_merge *merge, bt_json_value choice, bool is_whole,
                                bt_strbuf *out)
{
    const bt_prefill_answer *first = merge->first;
    bt_strbuf text = {0}, ids = {0}, logprobs = {0};
    bt_json_edit edits[N_CHOICE];
    size_t n = 0;
    baton_status status = BATON_OK;
    if (is_whole) {
        bt_strbuf_putc(&text, '"');
        put(&text, inside(first->text));
        put(&text, inside(member(choice, "text")));
        bt_strbuf_putc(&text, '"');
        edits[n++] = (bt_json_edit){BT_JSON_SET, CHOICE_TEXT, text_of(&text)};
    }
    bt_json_value its_ids = member(choice, "token_ids");
    if (is_whole && its_ids.type == BT_JSON_ARRAY) {
        put_joined(&ids, first->token_ids, its_ids, 0);
        edits[n++] = (bt_json_edit){BT_JSON_SET, CHOICE_IDS, text_of(&ids)};
    }
    bt_json_value its_logprobs = member(choice, "logprobs");
    if (its_logprobs.type == BT_JSON_OBJECT) {
        status = put_logprobs(merge, is_whole ? first->logprobs : absent, its_logprobs, &logprobs);
        edits[n++] = (bt_json_edit){BT_JSON_SET, CHOICE_LOGPROBS, text_of(&logprobs)};
    }
    if (is_set(member(choice, "prompt_token_ids"))) {
        bool use_first = is_whole && is_set(first->prompt_token_ids);
        edits[n++] = (bt_json_edit){BT_JSON_SET, CHOICE_PROMPT_IDS,
                                    use_first ? first->prompt_token_ids.text : bt_slice_of("null")};
    }
    bt_strbuf_putc(out, '[');
    if (status == BATON_OK)
        status = put_patched(out, choice.text, choice_keys, N_CHOICE, edits, n);
    bt_strbuf_putc(out, ']');
    bt_strbuf_free(&text);
    bt_strbuf_free(&ids);
    bt_strbuf_free(&logprobs);
    return status;
}

/* The decode engine's answer or event, as a completion of the whole. */
static baton_status put_completion(const bt_merge *merge, const bt_json_object *answer,
                                   bool is_whole, bt_strbuf *out)
{
    bt_strbuf choices = {0}, usage = {0};
    bt_json_edit edits[N_ANSWER];
    size_t n = 0;
    baton_status status = BATON_OK;
    bt_json_value choice = only_choice(bt_json_at(answer, ANSWER_CHOICES));
    edits[n++] = (bt_json_edit){BT_JSON_SET, ANSWER_ID, bt_slice_of(merge->id)};
    if (is_set(merge->first->created))
        edits[n++] = (bt_json_edit){BT_JSON_SET, ANSWER_CREATED, merge->first->created.text};
    if (choice.type == BT_JSON_OBJECT) {
        status = put_choices(merge, choice, is_whole, &choices);
        edits[n++] = (bt_json_edit){BT_JSON_SET, ANSWER_CHOICES, text_of(&choices)};
    }
    if (status == BATON_OK && bt_json_at(answer, ANSWER_USAGE).type == BT_JSON_OBJECT) {
        status = put_usage(merge, bt_json_at(answer, ANSWER_USAGE), &usage);
        edits[n++] = (bt_json_edit){BT_JSON_SET, ANSWER_USAGE, text_of(&usage)};
    }
    edits[n++] = (bt_json_edit){.kind = BT_JSON_REMOVE, .key = ANSWER_KV};
    if (status == BATON_OK)
        status = put_patched(out, answer->text, answer_keys, N_ANSWER, edits, n);
    bt_strbuf_free(&choices);
    bt_strbuf_free(&usage);
    return status;
}

static void put_chat_head(const bt_merge *merge, const char *object, bt_strbuf *out)
{
    bt_strbuf_printf(out, "{\"id\":%s,\"object\":\"%s\",\"created\":", merge->id, object);
    if (is_set(merge->first->created))
        put(out, merge->first->created.text);
    else
        bt_strbuf_putc(out, '0');
    bt_strbuf_puts(out, ",\"model\":");
    put_or_null(out, merge->first->model);
}

static void put_reasons(bt_json_value finish, bt_json_value stop, bt_strbuf *out)
{
    bt_strbuf_puts(out, ",\"logprobs\":null,\"finish_reason\":");
    put_or_null(out, finish);
    if (stop.type != BT_JSON_ABSENT) {
        bt_strbuf_puts(out, ",\"stop_reason\":");
        put(out, stop.text);
    }
}

/* One chat chunk. delta: the text's JSON string, or NULL for the one that names the role. */
static void put_chat_choice(const bt_slice *delta, bt_json_value finish, bt_json_value stop,
                            bt_strbuf *out)
{
    bt_strbuf_puts(out, ",\"choices\":[{\"index\":0,\"delta\":{");
    if (delta == NULL)
        bt_strbuf_puts(out, "\"role\":\"assistant\",\"content\":\"\"");
    else
        bt_strbuf_puts(out, "\"content\":");
    if (delta != NULL)
        put(out, *delta);
    bt_strbuf_putc(out, '}');
    put_reasons(finish, stop, out);
    bt_strbuf_puts(out, "}]");
}

static baton_status put_chat_event(const bt_merge *merge, const bt_json_object *event,
                                   bt_strbuf *out)
{
    bt_json_value choice = only_choice(bt_json_at(event, ANSWER_CHOICES));
    bt_json_value usage = bt_json_at(event, ANSWER_USAGE);
    baton_status status = BATON_OK;
    put_chat_head(merge, "chat.completion.chunk", out);
    if (choice.type == BT_JSON_OBJECT) {
        bt_json_value text = member(choice, "text");
        bt_slice delta = text.type == BT_JSON_STRING ? text.text : bt_slice_of("\"\"");
        put_chat_choice(&delta, member(choice, "finish_reason"), member(choice, "stop_reason"),
                        out);
    } else {
        bt_strbuf_puts(out, ",\"choices\":[]");
    }
    if (usage.type == BT_JSON_OBJECT) {
        bt_strbuf_puts(out, ",\"usage\":");
        status = put_usage(merge, usage, out);
    }
    bt_strbuf_putc(out, '}');
    return status;
}

baton_status bt_merge_event(const bt_merge *merge, const bt_sse_event *event, bt_strbuf *out,
                            bool *is_done, bool *is_error)
{
    bt_json_object scan;
    *is_done = event->data.at != NULL && bt_slice_equals(event->data, "[DONE]");
    *is_error = false;
    bool is_json =
        event->data.at != NULL && !*is_done &&
        bt_json_scan(event->data.at, event->data.n, answer_keys, N_ANSWER, &scan) == BATON_OK;
    *is_error = is_json && is_set(bt_json_at(&scan, ANSWER_ERROR));
    if (!is_json || *is_error) {
        put(out, event->raw);
        return bt_strbuf_status(out);
    }
    bt_strbuf_puts(out, "data: ");
    if (merge->route == BT_ROUTE_CHAT)
        BATON_TRY(put_chat_event(merge, &scan, out));
    else
        BATON_TRY(put_completion(merge, &scan, false, out));
    bt_strbuf_puts(out, "\n\n");
    return bt_strbuf_status(out);
}

/* The first token as a completion event: the prefill engine's own choice, not ended yet unless it
 * is the last. */
static baton_status put_first_completion(const bt_merge *merge, bool is_last, bt_strbuf *out)
{
    static const char *const keys[] = {"finish_reason", "stop_reason"};
    const bt_prefill_answer *first = merge->first;
    bt_json_edit edits[] = {{BT_JSON_SET, 0, bt_slice_of("null")},
                            {BT_JSON_SET, 1, bt_slice_of("null")}};
    bt_strbuf_printf(out,
                     "data: {\"id\":%s,\"object\":\"text_completion\",\"created\":", merge->id);
    if (is_set(first->created))
        put(out, first->created.text);
    else
        bt_strbuf_putc(out, '0');
    bt_strbuf_puts(out, ",\"model\":");
    put_or_null(out, first->model);
    bt_strbuf_puts(out, ",\"choices\":[");
    BATON_TRY(put_patched(out, first->choice.text, keys, 2, edits, is_last ? 0 : 2));
    bt_strbuf_putc(out, ']');
    return BATON_OK;
}

static baton_status put_first_chat(const bt_merge *merge, bool is_last, bt_strbuf *out)
{
    const bt_prefill_answer *first = merge->first;
    bt_slice text = first->text.type == BT_JSON_STRING ? first->text.text : bt_slice_of("\"\"");
    bt_strbuf_puts(out, "data: ");
    put_chat_head(merge, "chat.completion.chunk", out);
    put_chat_choice(NULL, absent, absent, out);
    bt_strbuf_puts(out, "}\n\ndata: ");
    put_chat_head(merge, "chat.completion.chunk", out);
    put_chat_choice(&text, is_last ? first->finish_reason : absent,
                    is_last ? first->stop_reason : absent, out);
    return BATON_OK;
}

/* The event without choices that tells the usage, when the client asked for it. */
static void put_usage_event(const bt_merge *merge, bt_strbuf *out)
{
    bool is_chat = merge->route == BT_ROUTE_CHAT;
    bt_strbuf_puts(out, "data: ");
    put_chat_head(merge, is_chat ? "chat.completion.chunk" : "text_completion", out);
    bt_strbuf_puts(out, ",\"choices\":[],\"usage\":");
    put_or_null(out, merge->first->usage);
    bt_strbuf_puts(out, "}\n\n");
}

baton_status bt_merge_first_events(const bt_merge *merge, bool is_last, bt_strbuf *out)
{
    bool is_chat = merge->route == BT_ROUTE_CHAT;
    BATON_TRY(is_chat ? put_first_chat(merge, is_last, out)
                      : put_first_completion(merge, is_last, out));
    if (merge->continuous_usage && is_set(merge->first->usage)) {
        bt_strbuf_puts(out, ",\"usage\":");
        put(out, merge->first->usage.text);
    }
    bt_strbuf_puts(out, "}\n\n");
    if (is_last) {
        if (merge->include_usage)
            put_usage_event(merge, out);
        bt_strbuf_puts(out, "data: [DONE]\n\n");
    }
    return bt_strbuf_status(out);
}

/* A chat answer in one piece. choice: the decode engine's, or ABSENT. */
static baton_status put_chat_whole(const bt_merge *merge, bt_json_value choice, bt_json_value usage,
                                   bt_strbuf *out)
{
    const bt_prefill_answer *first = merge->first;
    bool has_decode = choice.type == BT_JSON_OBJECT;
    put_chat_head(merge, "chat.completion", out);
    bt_strbuf_puts(out, ",\"choices\":[{\"index\":0,\"message\":"
                        "{\"role\":\"assistant\",\"content\":\"");
    put(out, inside(first->text));
    put(out, inside(member(choice, "text")));
    bt_strbuf_puts(out, "\"}");
    put_reasons(has_decode ? member(choice, "finish_reason") : first->finish_reason,
                has_decode ? member(choice, "stop_reason") : first->stop_reason, out);
    bt_strbuf_puts(out, "}],\"usage\":");
    BATON_TRY(put_usage(merge, usage, out));
    bt_strbuf_putc(out, '}');
    return bt_strbuf_status(out);
}

static baton_status put_first_whole(const bt_merge *merge, bt_strbuf *out)
{
    bt_json_edit edit = {.kind = BT_JSON_REMOVE, .key = ANSWER_KV};
    if (merge->route == BT_ROUTE_CHAT)
        return put_chat_whole(merge, absent, absent, out);
    return put_patched(out, merge->first->json, answer_keys, N_ANSWER, &edit, 1);
}

baton_status bt_merge_whole(const bt_merge *merge, const char *decode_json, size_t n,
                            bt_strbuf *out)
{
    bt_json_object scan;
    if (decode_json == NULL)
        return put_first_whole(merge, out);
    BATON_TRY(bt_json_scan(decode_json, n, answer_keys, N_ANSWER, &scan));
    bt_json_value choices = bt_json_at(&scan, ANSWER_CHOICES);
    bt_json_value choice = only_choice(choices);
    if (choice.type != BT_JSON_OBJECT || bt_json_length(choices) != 1)
        return bt_fail(BATON_ERR_BAD_MESSAGE, "decode answer: wanted one choice, found %zu",
                       bt_json_length(choices));
    if (merge->route == BT_ROUTE_CHAT)
        return put_chat_whole(merge, choice, bt_json_at(&scan, ANSWER_USAGE), out);
    return put_completion(merge, &scan, true, out);
}
