/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/prefillanswer.h"
#include "core/fail.h"
#include "proxy/bodyplan.h"

#include <string.h>

enum { KEY_id, KEY_created, KEY_model, KEY_usage, KEY_choices, KEY_kv_transfer_params, N_KEYS };
static const char *const key_names[N_KEYS] = {"id",    "created", "model",
                                              "usage", "choices", "kv_transfer_params"};

/* Absent stays absent; bt_json_get sets nothing on failure. */
static bt_json_value member(bt_json_value object, const char *name)
{
    bt_json_value value = {.type = BT_JSON_ABSENT};
    if (bt_json_get(object, name, &value) != BATON_OK)
        value.type = BT_JSON_ABSENT;
    return value;
}

static bt_json_value first_of(bt_json_value array)
{
    bt_json_value value = {.type = BT_JSON_ABSENT};
    bt_json_iter it = bt_json_begin(array);
    if (array.type != BT_JSON_ARRAY || !bt_json_next(&it, &value))
        value.type = BT_JSON_ABSENT;
    return value;
}

/* The engine says U+FFFD where a token is only a part of a character, or nothing at all. */
static void look_at_text(bt_prefill_answer *answer)
{
    bt_slice text = answer->text.text; /* with quotes */
    if (answer->text.type != BT_JSON_STRING)
        return;
    answer->is_text_whole = text.n > 2;
    for (size_t i = 1; i + 1 < text.n; i++) {
        unsigned char c = (unsigned char)text.at[i];
        if (text.n - i > 3 && memcmp(text.at + i, "\xef\xbf\xbd", 3) == 0)
            answer->is_text_whole = false;
        if (c == '\\' && text.at[i + 1] == 'u') {
            bool is_replacement = text.n - i > 6 && strncasecmp(text.at + i, "\\ufffd", 6) == 0;
            bool is_low_half = strncasecmp(text.at + i + 2, "dc", 2) >= 0 &&
                               strncasecmp(text.at + i + 2, "e0", 2) < 0;
            answer->is_text_whole &= !is_replacement;
            answer->n_text_chars += is_low_half ? 0 : 1;
            i += 5;
        } else if (c == '\\') {
            answer->n_text_chars++;
            i++;
        } else if ((c & 0xc0) != 0x80) {
            answer->n_text_chars++;
        }
    }
}

baton_status bt_prefill_answer_read(const char *json, size_t n, bt_prefill_answer *answer)
{
    bt_json_object scan;
    memset(answer, 0, sizeof(*answer));
    BATON_TRY(bt_json_scan(json, n, key_names, N_KEYS, &scan));
    bt_json_value choices = bt_json_at(&scan, KEY_choices);
    answer->json = scan.text;
    answer->id = bt_json_at(&scan, KEY_id);
    answer->created = bt_json_at(&scan, KEY_created);
    answer->model = bt_json_at(&scan, KEY_model);
    answer->usage = bt_json_at(&scan, KEY_usage);
    answer->choice = first_of(choices);
    if (answer->choice.type != BT_JSON_OBJECT || bt_json_length(choices) != 1)
        return bt_fail(BATON_ERR_BAD_MESSAGE, "prefill answer: wanted one choice, found %zu",
                       bt_json_length(choices));
    answer->text = member(answer->choice, "text");
    answer->logprobs = member(answer->choice, "logprobs");
    answer->token_ids = member(answer->choice, "token_ids");
    answer->prompt_token_ids = member(answer->choice, "prompt_token_ids");
    answer->finish_reason = member(answer->choice, "finish_reason");
    answer->stop_reason = member(answer->choice, "stop_reason");
    answer->has_ended = answer->finish_reason.type == BT_JSON_STRING &&
                        !bt_json_string_equals(answer->finish_reason, "length");
    bt_json_value token = member(bt_json_at(&scan, KEY_kv_transfer_params), "first_tok");
    if (token.type == BT_JSON_ABSENT || token.type == BT_JSON_NULL)
        token = first_of(answer->token_ids);
    answer->has_first_token = bt_json_uint64(token, &answer->first_token) == BATON_OK;
    look_at_text(answer);
    return BATON_OK;
}

baton_status bt_tokenize_answer_read(const char *json, size_t n, bt_tokenize_answer *answer)
{
    static const char *const names[] = {"tokens", "max_model_len"};
    bt_json_object scan;
    memset(answer, 0, sizeof(*answer));
    BATON_TRY(bt_json_scan(json, n, names, 2, &scan));
    bt_json_value tokens = bt_json_at(&scan, 0);
    answer->n_ids = bt_token_ids_count(tokens);
    if (answer->n_ids == 0)
        return bt_fail(BATON_ERR_BAD_MESSAGE, "tokenize answer: wanted a list \"tokens\" of ids");
    answer->ids = tokens.text;
    if (bt_json_uint64(bt_json_at(&scan, 1), &answer->max_model_tokens) != BATON_OK)
        answer->max_model_tokens = 0;
    return BATON_OK;
}
