/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/ctl_ask.h"

#include "core/adminquery.h"
#include "core/fail.h"
#include "ctl/ctl_client.h"

#include <stdio.h>
#include <string.h>

/* Everything but letters, digits and a few others as %XX. */
static void put_escaped(bt_strbuf *out, const char *text)
{
    for (; *text != 0; text++) {
        unsigned char c = (unsigned char)*text;
        bool is_plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                        (c >= 'A' && c <= 'Z') || c == '-' || c == '_' || c == '.';
        bt_strbuf_printf(out, is_plain ? "%c" : "%%%02x", c);
    }
}

static void put_target(bt_strbuf *out, const bt_ctl_question *question, uint64_t from,
                       uint64_t limit)
{
    bt_strbuf_clear(out);
    bt_strbuf_printf(out, "/%s?from=%llu&limit=%llu", question->name, (unsigned long long)from,
                     (unsigned long long)(limit < BT_ADMIN_ROWS_MAX ? limit : BT_ADMIN_ROWS_MAX));
    if (question->state != NULL && question->state[0] != 0) {
        bt_strbuf_puts(out, "&state=");
        put_escaped(out, question->state);
    }
    if (question->id != NULL) {
        bt_strbuf_puts(out, "&id=");
        put_escaped(out, question->id);
    }
}

/* Asks for further windows until there are enough rows, and hangs them onto the first answer. */
static baton_status gather(const bt_ctl_options *options, const char *at,
                           const bt_ctl_question *question, bt_strbuf *target, json_t *first)
{
    json_t *rows = json_object_get(first, question->list != NULL ? question->list : "");
    json_t *next = json_object_get(first, "next");
    while (json_is_array(rows) && json_is_integer(next) &&
           json_array_size(rows) < question->limit) {
        json_t *more;
        uint64_t from = (uint64_t)json_integer_value(next);
        put_target(target, question, from, question->limit - json_array_size(rows));
        BATON_TRY(bt_ctl_get(at, bt_strbuf_text(target), options->timeout_ms, &more));
        json_array_extend(rows, json_object_get(more, question->list));
        json_object_set(first, "next", json_object_get(more, "next"));
        json_decref(more);
        next = json_object_get(first, "next");
        if (json_is_integer(next) && (uint64_t)json_integer_value(next) <= from)
            return bt_fail(BATON_ERR_BAD_MESSAGE, "%s: wanted a later row than %llu", at,
                           (unsigned long long)from);
    }
    return BATON_OK;
}

static void note_failure(bt_ctl_answers *answers, const char *at)
{
    json_t *failure = json_pack("{s:s, s:s}", "at", at, "error", baton_last_error());
    json_array_append_new(answers->failed, failure != NULL ? failure : json_null());
}

baton_status bt_ctl_ask(const bt_ctl_options *options, const bt_ctl_endpoints *endpoints,
                        const bt_ctl_question *question, bt_ctl_answers *answers)
{
    bt_strbuf target = {0};
    *answers = (bt_ctl_answers){.answers = json_array(), .failed = json_array()};
    for (uint32_t i = 0; i < endpoints->n; i++) {
        const char *at = endpoints->at[i];
        json_t *answer = NULL;
        put_target(&target, question, 0, question->limit);
        baton_status status = bt_ctl_get(at, bt_strbuf_text(&target), options->timeout_ms, &answer);
        if (status == BATON_OK)
            status = gather(options, at, question, &target, answer);
        if (status == BATON_OK) {
            json_object_set_new(answer, "at", json_string(at));
            json_array_append(answers->answers, answer);
        } else {
            note_failure(answers, at);
        }
        json_decref(answer);
    }
    bt_strbuf_free(&target);
    if (answers->answers == NULL || answers->failed == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "answers");
    return BATON_OK;
}

void bt_ctl_answers_free(bt_ctl_answers *answers)
{
    json_decref(answers->answers);
    json_decref(answers->failed);
    *answers = (bt_ctl_answers){0};
}
