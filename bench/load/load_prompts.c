/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/load_prompts.h"

#include "core/alloc.h"
#include "core/fail.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct bt_load_prompts {
    const bt_load_options *options; /* borrowed */
    bt_strbuf quoted;               /* plain lines as JSON strings; prompts point into it */
    char *file;                     /* owned; JSONL prompts point into it */
    bt_load_prompt *prompts;        /* [n_prompts], owned */
    size_t n_prompts, capacity;
};

static bool is_chat(const bt_load_prompts *p)
{
    return p->options->backend == BT_LOAD_CHAT;
}

static baton_status read_file(const char *path, bt_strbuf *out)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return bt_fail_errno(bt_status_from_errno(errno), errno, "prompt file: %s", path);
    char block[65536];
    size_t n;
    while ((n = fread(block, 1, sizeof(block), file)) > 0)
        bt_strbuf_append(out, block, n);
    bool is_broken = ferror(file) != 0;
    fclose(file);
    if (is_broken)
        return bt_fail(BATON_ERR_IO, "prompt file: %s: cannot be read", path);
    return bt_strbuf_status(out);
}

/* Answers are text, and so is what comes in front of the next turn. */
static bool takes_ids(const bt_load_prompts *p)
{
    return !is_chat(p) && p->options->n_turns == 1;
}

static baton_status parse_object(const bt_load_prompts *p, const char *where, bt_json_value value,
                                 bt_load_prompt *prompt)
{
    bt_json_value member;
    uint64_t max_tokens;
    if (bt_json_get(value, "max_tokens", &member) == BATON_OK) {
        if (bt_json_uint64(member, &max_tokens) != BATON_OK || max_tokens == 0 ||
            max_tokens > BT_LOAD_MAX_TOKENS)
            return bt_fail(BATON_ERR_BAD_MESSAGE, "%s: max_tokens: wanted 1 to %d", where,
                           BT_LOAD_MAX_TOKENS);
        prompt->max_tokens = (uint32_t)max_tokens;
    }
    if (is_chat(p) && p->options->n_turns == 1 &&
        bt_json_get(value, "messages", &member) == BATON_OK && member.type == BT_JSON_ARRAY) {
        prompt->messages = member.text;
        return BATON_OK;
    }
    if (bt_json_get(value, "prompt", &member) == BATON_OK &&
        (member.type == BT_JSON_STRING || (member.type == BT_JSON_ARRAY && takes_ids(p)))) {
        prompt->prompt = member.text;
        return BATON_OK;
    }
    return bt_fail(BATON_ERR_BAD_MESSAGE, "%s: wanted %s", where,
                   p->options->n_turns > 1 ? "\"prompt\", a string, as there are several turns"
                   : is_chat(p)            ? "\"messages\" (an array) or \"prompt\" (a string)"
                                           : "\"prompt\", a string or an array of token ids");
}

static baton_status check_json(const char *where, bt_slice text, bt_json_value *value)
{
    if (bt_json_check(text.at, text.n, value) == BATON_OK)
        return BATON_OK;
    char why[256];
    snprintf(why, sizeof(why), "%s", baton_last_error());
    return bt_fail(BATON_ERR_BAD_MESSAGE, "%s: %s", where, why);
}

static baton_status parse_json_line(const bt_load_prompts *p, const char *where, bt_slice line,
                                    bt_load_prompt *prompt)
{
    bt_json_value value;
    BATON_TRY(check_json(where, line, &value));
    if (value.type == BT_JSON_OBJECT)
        return parse_object(p, where, value, prompt);
    if (value.type != BT_JSON_STRING)
        return bt_fail(BATON_ERR_BAD_MESSAGE, "%s: wanted a JSON string or object", where);
    prompt->prompt = value.text;
    return BATON_OK;
}

static baton_status add_prompt(bt_load_prompts *p, const bt_load_prompt *prompt)
{
    if (p->n_prompts == p->capacity) {
        size_t capacity = p->capacity > 0 ? 2 * p->capacity : 64;
        bt_load_prompt *grown = bt_realloc(p->prompts, capacity, sizeof(*grown));
        if (grown == NULL)
            return bt_fail(BATON_ERR_NO_MEMORY, "prompt file: %zu prompts", capacity);
        p->prompts = grown;
        p->capacity = capacity;
    }
    p->prompts[p->n_prompts++] = *prompt;
    return BATON_OK;
}

/* A plain line becomes a JSON string in p->quoted, which moves as it grows: prompt.n is set, and
 * prompt.at in the end (point_at_quoted). */
static baton_status quote_line(bt_load_prompts *p, bt_slice line, bt_load_prompt *prompt)
{
    size_t before = p->quoted.length;
    bt_json_append_string(&p->quoted, line.at, line.n);
    prompt->prompt.n = p->quoted.length - before;
    return bt_strbuf_status(&p->quoted);
}

static void point_at_quoted(bt_load_prompts *p)
{
    const char *at = bt_strbuf_text(&p->quoted);
    for (size_t i = 0; i < p->n_prompts; i++) {
        p->prompts[i].prompt.at = at;
        at += p->prompts[i].prompt.n;
    }
}

static bool is_blank(bt_slice line)
{
    for (size_t i = 0; i < line.n; i++) {
        if (strchr(" \t\r", line.at[i]) == NULL)
            return false;
    }
    return true;
}

static baton_status parse_lines(bt_load_prompts *p, bool is_json)
{
    const char *path = p->options->dataset_path;
    const char *at = p->file;
    for (unsigned number = 1; *at != '\0'; number++) {
        size_t n = strcspn(at, "\n");
        bt_slice line = {at, n > 0 && at[n - 1] == '\r' ? n - 1 : n};
        at += at[n] == '\n' ? n + 1 : n;
        if (is_blank(line))
            continue;
        char where[300];
        snprintf(where, sizeof(where), "%.256s:%u", path, number);
        bt_load_prompt prompt = {.max_tokens = 0};
        BATON_TRY(is_json ? parse_json_line(p, where, line, &prompt)
                          : quote_line(p, line, &prompt));
        BATON_TRY(add_prompt(p, &prompt));
    }
    if (!is_json)
        point_at_quoted(p);
    if (p->n_prompts == 0)
        return bt_fail(BATON_ERR_INVALID_ARG, "prompt file: %s: no prompt in it", path);
    return BATON_OK;
}

/* ---- conversations ---- */

typedef enum { USER, ASSISTANT, SOMEBODY_ELSE } speaker;

/* Who says a message of ShareGPT ({"from": "human", "value": ..}) or of a chat ({"role": "user",
 * "content": ..}), and what; text that is no string is somebody else's. */
static speaker read_message(bt_json_value message, bt_json_value *text)
{
    bt_json_value from;
    if ((bt_json_get(message, "from", &from) != BATON_OK &&
         bt_json_get(message, "role", &from) != BATON_OK) ||
        (bt_json_get(message, "value", text) != BATON_OK &&
         bt_json_get(message, "content", text) != BATON_OK) ||
        text->type != BT_JSON_STRING || text->text.n <= 2)
        return SOMEBODY_ELSE;
    if (bt_json_string_equals(from, "human") || bt_json_string_equals(from, "user"))
        return USER;
    if (bt_json_string_equals(from, "gpt") || bt_json_string_equals(from, "assistant"))
        return ASSISTANT;
    return SOMEBODY_ELSE;
}

/* As many tokens as the answer has by the option's letters a token. */
static uint32_t tokens_of(const bt_load_prompts *p, bt_json_value answer)
{
    size_t n = (answer.text.n - 2) / p->options->chars_per_token;
    if (n == 0)
        return 1;
    return n < BT_LOAD_MAX_TOKENS ? (uint32_t)n : BT_LOAD_MAX_TOKENS;
}

/* The first n_turns questions that were answered become prompts; a conversation with fewer is left
 * out. */
static baton_status add_conversation(bt_load_prompts *p, bt_json_value messages)
{
    size_t before = p->n_prompts;
    bt_json_iter iter = bt_json_begin(messages);
    bt_json_value message, text;
    bt_load_prompt question = {.max_tokens = 0};
    while (p->n_prompts - before < p->options->n_turns && bt_json_next(&iter, &message)) {
        speaker who = read_message(message, &text);
        if (who == USER) {
            question.prompt = text.text;
        } else if (who == ASSISTANT && question.prompt.n > 0) {
            question.max_tokens = tokens_of(p, text);
            BATON_TRY(add_prompt(p, &question));
            question = (bt_load_prompt){.max_tokens = 0};
        }
    }
    if (p->n_prompts - before < p->options->n_turns)
        p->n_prompts = before;
    return BATON_OK;
}

static baton_status parse_conversations(bt_load_prompts *p, size_t n_bytes)
{
    const char *path = p->options->dataset_path;
    bt_json_value root, entry, messages;
    BATON_TRY(check_json(path, (bt_slice){p->file, n_bytes}, &root));
    if (root.type != BT_JSON_ARRAY)
        return bt_fail(BATON_ERR_BAD_MESSAGE,
                       "prompt file: %s: wanted an array of conversations; prompts a line belong "
                       "into a .jsonl",
                       path);
    bt_json_iter iter = bt_json_begin(root);
    while (bt_json_next(&iter, &entry)) {
        if (bt_json_get(entry, "conversations", &messages) == BATON_OK ||
            bt_json_get(entry, "messages", &messages) == BATON_OK)
            BATON_TRY(add_conversation(p, messages));
    }
    if (p->n_prompts == 0)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "prompt file: %s: wanted conversations of at least %u answered questions, "
                       "found none",
                       path, p->options->n_turns);
    return BATON_OK;
}

/* ---- the file ---- */

static bool is_called(const char *path, const char *end)
{
    size_t n = strlen(path), m = strlen(end);
    return n >= m && strcmp(path + n - m, end) == 0;
}

static baton_status load_prompts(bt_load_prompts *p)
{
    const char *path = p->options->dataset_path;
    bt_strbuf text = {0};
    baton_status status = read_file(path, &text);
    if (status == BATON_OK) {
        p->file = bt_strdup(bt_strbuf_text(&text));
        if (p->file == NULL)
            status = bt_fail(BATON_ERR_NO_MEMORY, "prompt file: %zu bytes", text.length);
        else if (strlen(p->file) != text.length)
            status = bt_fail(BATON_ERR_BAD_MESSAGE, "prompt file: %s: wanted text, found a 0 byte",
                             path);
    }
    size_t n_bytes = text.length;
    bt_strbuf_free(&text);
    BATON_TRY(status);
    if (is_called(path, ".json"))
        return parse_conversations(p, n_bytes);
    return parse_lines(p, is_called(path, ".jsonl"));
}

baton_status bt_load_prompts_read(const bt_load_options *options, bt_load_prompts **prompts_p)
{
    bt_load_prompts *p = bt_calloc(1, sizeof(*p));
    if (p == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "prompt file: %s", options->dataset_path);
    p->options = options;
    baton_status status = load_prompts(p);
    if (status != BATON_OK) {
        bt_load_prompts_destroy(p);
        return status;
    }
    *prompts_p = p;
    return BATON_OK;
}

const bt_load_prompt *bt_load_prompts_at(const bt_load_prompts *prompts, uint32_t i)
{
    return &prompts->prompts[i % prompts->n_prompts];
}

void bt_load_prompts_destroy(bt_load_prompts *p)
{
    if (p == NULL)
        return;
    bt_strbuf_free(&p->quoted);
    bt_free(p->prompts);
    bt_free(p->file);
    bt_free(p);
}
