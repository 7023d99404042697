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

static baton_status parse_json_line(const bt_load_prompts *p, const char *where, bt_slice line,
                                    bt_load_prompt *prompt)
{
    bt_json_value value;
    if (bt_json_check(line.at, line.n, &value) != BATON_OK) {
        char why[256];
        snprintf(why, sizeof(why), "%s", baton_last_error());
        return bt_fail(BATON_ERR_BAD_MESSAGE, "%s: %s", where, why);
    }
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
    bt_strbuf_free(&text);
    BATON_TRY(status);
    size_t n = strlen(path);
    return parse_lines(p, n >= 6 && strcmp(path + n - 6, ".jsonl") == 0);
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
