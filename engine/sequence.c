/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/sequence.h"

#include <string.h>

#include "core/alloc.h"
#include "core/fail.h"

bt_gen_event *bt_gen_event_create(void *user_data)
{
    bt_gen_event *event = bt_calloc(1, sizeof(*event));
    if (event != NULL)
        event->user_data = user_data;
    return event;
}

void bt_gen_event_destroy(bt_gen_event *event)
{
    if (event == NULL)
        return;
    bt_strbuf_free(&event->text);
    bt_free(event);
}

static baton_status allocate(bt_sequence *sequence, const bt_generate *request,
                             uint32_t block_tokens)
{
    sequence->n_blocks = sequence->n_total / block_tokens + (sequence->n_total % block_tokens != 0);
    sequence->tokens = bt_calloc(sequence->n_total, sizeof(*sequence->tokens));
    sequence->blocks = bt_calloc(sequence->n_blocks, sizeof(*sequence->blocks));
    sequence->last_event = bt_gen_event_create(request->user_data);
    if (request->target != NULL)
        sequence->target = bt_calloc(1, sizeof(*sequence->target));
    if (sequence->tokens == NULL || sequence->blocks == NULL || sequence->last_event == NULL ||
        (request->target != NULL && sequence->target == NULL))
        return bt_fail(BATON_ERR_NO_MEMORY, "request: %u tokens", sequence->n_total);
    if (request->target != NULL)
        *sequence->target = *request->target;
    memcpy(sequence->tokens, request->prompt, request->n_prompt * sizeof(*sequence->tokens));
    return BATON_OK;
}

static void copy_parameters(bt_sequence *sequence, const bt_generate *request)
{
    sequence->user_data = request->user_data;
    sequence->n_prompt = sequence->n_tokens = request->n_prompt;
    sequence->sampling = request->sampling;
    sequence->min_tokens = request->min_tokens;
    sequence->ignore_eos = request->ignore_eos;
    sequence->with_specials = request->with_specials;
    sequence->goes_on = request->goes_on;
    sequence->n_stop_ids = request->n_stop_ids;
    memcpy(sequence->stop_ids, request->stop_ids, sizeof(sequence->stop_ids));
    sequence->link = BT_PREFIX_ROOT;
}

/* Leaves the beginning of a character that the prompt ends with in the decoder. It has at most
 * three bytes, hence as many tokens. */
static baton_status prime_decoder(bt_sequence *sequence, const bt_tokenizer *tokenizer)
{
    bt_strbuf dropped = {0};
    uint32_t n = sequence->n_prompt, first = n > 3 ? n - 3 : 0;
    for (uint32_t i = first; i < n; i++)
        bt_decoder_push(&sequence->decoder, tokenizer, sequence->tokens[i], sequence->with_specials,
                        &dropped);
    baton_status status = bt_strbuf_status(&dropped);
    bt_strbuf_free(&dropped);
    return status;
}

baton_status bt_sequence_create(const bt_generate *request, uint32_t block_tokens,
                                const bt_tokenizer *tokenizer, bt_sequence **sequence_p)
{
    bt_stops stops = {0};
    if (request->stops != NULL) {
        stops = *request->stops;
        *request->stops = (bt_stops){0};
    }
    baton_status status = BATON_OK;
    bt_sequence *sequence = bt_calloc(1, sizeof(*sequence));
    if (sequence == NULL) {
        bt_stops_clear(&stops);
        return bt_fail(BATON_ERR_NO_MEMORY, "request: %zu bytes", sizeof(*sequence));
    }
    sequence->stops = stops;
    if (request->n_prompt == 0 || request->max_tokens == 0 || request->n_stop_ids > BT_MAX_STOP_IDS)
        status = bt_fail(BATON_ERR_INVALID_ARG, "request: prompt or max_tokens is 0");
    else if (__builtin_add_overflow(request->n_prompt, request->max_tokens, &sequence->n_total))
        status = bt_fail(BATON_ERR_TOO_LARGE, "request: prompt and max_tokens overflow");
    if (status == BATON_OK) {
        copy_parameters(sequence, request);
        status = allocate(sequence, request, block_tokens);
    }
    if (status == BATON_OK)
        status = prime_decoder(sequence, tokenizer);
    if (status < 0) {
        bt_sequence_destroy(sequence);
        return status;
    }
    *sequence_p = sequence;
    return BATON_OK;
}

void bt_sequence_destroy(bt_sequence *sequence)
{
    if (sequence == NULL)
        return;
    bt_stops_clear(&sequence->stops);
    bt_strbuf_free(&sequence->held);
    bt_gen_event_destroy(sequence->last_event);
    bt_free(sequence->tokens);
    bt_free(sequence->blocks);
    bt_free(sequence->target);
    bt_free(sequence);
}

static bool has_id(const uint32_t *ids, uint32_t n, uint32_t id)
{
    for (uint32_t i = 0; i < n; i++)
        if (ids[i] == id)
            return true;
    return false;
}

static uint32_t n_output(const bt_sequence *sequence)
{
    return sequence->n_tokens - sequence->n_prompt;
}

uint32_t bt_sequence_banned(const bt_sequence *sequence, const bt_sequence_ends *ends,
                            uint32_t *banned)
{
    uint32_t n = 0;
    if (n_output(sequence) >= sequence->min_tokens)
        return 0;
    for (uint32_t i = 0; i < ends->n_eos_ids && !sequence->ignore_eos; i++)
        banned[n++] = ends->eos_ids[i];
    for (uint32_t i = 0; i < sequence->n_stop_ids; i++)
        banned[n++] = sequence->stop_ids[i];
    return n;
}

/* Moves the text that is safe from held to event->text; true when a stop string ends it. */
static bool give_out(bt_sequence *sequence, bool is_last, bt_strbuf *text)
{
    bool hit = false;
    size_t safe = sequence->held.length;
    if (safe == 0)
        return false;
    if (n_output(sequence) >= sequence->min_tokens) {
        size_t found = bt_stops_scan(&sequence->stops, sequence->held.data, safe, &hit);
        if (hit || !is_last)
            safe = found;
    }
    bt_strbuf_append(text, sequence->held.data, safe);
    size_t rest = hit ? 0 : sequence->held.length - safe;
    memmove(sequence->held.data, sequence->held.data + safe, rest);
    sequence->held.length = rest;
    sequence->held.data[rest] = 0;
    return hit;
}

baton_status bt_sequence_accept(bt_sequence *sequence, const bt_sequence_ends *ends,
                                const bt_sampled *sampled, bt_gen_event *event)
{
    uint32_t id = sampled->id;
    bool is_end = has_id(sequence->stop_ids, sequence->n_stop_ids, id) ||
                  (!sequence->ignore_eos && has_id(ends->eos_ids, ends->n_eos_ids, id));
    sequence->tokens[sequence->n_tokens++] = id;
    bool is_full = sequence->n_tokens == sequence->n_total;
    event->has_token = true;
    event->token = *sampled;
    event->n_output = n_output(sequence);
    event->n_cached = sequence->n_cached;
    if (!is_end)
        bt_decoder_push(&sequence->decoder, ends->tokenizer, id, sequence->with_specials,
                        &sequence->held);
    if (is_end || (is_full && !sequence->goes_on))
        bt_decoder_finish(&sequence->decoder, &sequence->held);
    bool hit = give_out(sequence, is_end || is_full, &event->text);
    event->finish = is_end || hit ? BT_FINISH_STOP : is_full ? BT_FINISH_LENGTH : BT_FINISH_NONE;
    BATON_TRY(bt_strbuf_status(&sequence->held));
    return bt_strbuf_status(&event->text);
}
