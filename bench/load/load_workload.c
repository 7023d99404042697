/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/load_workload.h"

#include "core/alloc.h"
#include "core/fail.h"
#include "http/jsonscan.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* One line of the prompt file. JSON texts, offsets into `file`. */
typedef struct {
    bt_slice prompt;     /* a string or an array of ids; n 0: messages instead */
    bt_slice messages;   /* an array; n 0: made from prompt */
    uint32_t max_tokens; /* 0: as the options say */
} file_prompt;

struct bt_load_workload {
    const bt_load_options *options; /* borrowed */
    bt_strbuf quoted;               /* plain lines as JSON strings; prompts point into it */
    char *file;                     /* owned; JSONL prompts point into it */
    file_prompt *prompts;           /* [n_prompts], owned; none: made up */
    size_t n_prompts, capacity;
};

/* ---- numbers: splitmix64, one stream per request and purpose ---- */

enum { PURPOSE_PROMPT = 1, PURPOSE_OUTPUT, PURPOSE_GAP, PURPOSE_PREFIX, PURPOSE_LENGTH };

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static uint64_t next_number(uint64_t *state)
{
    return mix(*state += UINT64_C(0x9e3779b97f4a7c15));
}

static uint64_t stream_of(uint64_t seed, uint64_t purpose, uint32_t i)
{
    return mix(mix(seed + purpose) + i);
}

static uint32_t draw_length(const bt_load_workload *w, bt_load_range range, uint64_t purpose,
                            uint32_t i)
{
    uint64_t state = stream_of(w->options->seed, purpose, i);
    return range.min + (uint32_t)(next_number(&state) % ((uint64_t)range.max - range.min + 1));
}

uint64_t bt_load_workload_gap_ns(const bt_load_workload *w, uint32_t i)
{
    uint64_t state = stream_of(w->options->seed, PURPOSE_GAP, i);
    double uniform = (double)((next_number(&state) >> 11) + 1) * 0x1p-53; /* in (0, 1] */
    return (uint64_t)(-log(uniform) / w->options->rate * 1e9);
}

/* ---- made-up prompts ---- */

static const char *const words[] = {
    "the",   "river",  "under", "a",     "quiet", "bridge",  "carries", "light", "and",   "small",
    "boats", "toward", "sea",   "where", "every", "harbour", "keeps",   "its",   "own",   "time",
    "of",    "wind",   "salt",  "stone", "in",    "winter",  "people",  "speak", "about", "ships",
};
enum { N_WORDS = sizeof(words) / sizeof(words[0]) };

static void put_words(bt_strbuf *body, uint64_t *state, size_t n_chars)
{
    while (n_chars > 0) {
        const char *word = words[next_number(state) % N_WORDS];
        size_t n = strlen(word);
        n = n < n_chars ? n : n_chars;
        bt_strbuf_append(body, word, n);
        n_chars -= n;
        if (n_chars > 0) {
            bt_strbuf_putc(body, ' ');
            n_chars--;
        }
    }
}

static void put_ids(bt_strbuf *body, uint64_t *state, uint32_t n, uint32_t vocab, bool first)
{
    for (uint32_t i = 0; i < n; i++) {
        bt_strbuf_printf(body, "%s%" PRIu64, first ? "" : ",", next_number(state) % vocab);
        first = false;
    }
}

static void put_made_up(const bt_load_workload *w, uint32_t i, bt_strbuf *body)
{
    const bt_load_options *o = w->options;
    uint32_t n = draw_length(w, o->prompt_tokens, PURPOSE_LENGTH, i);
    uint32_t n_prefix = o->prefix_tokens < n ? o->prefix_tokens : n;
    uint64_t prefix = stream_of(o->seed, PURPOSE_PREFIX, 0);
    uint64_t rest = stream_of(o->seed, PURPOSE_PROMPT, i);
    if (o->token_ids) {
        bt_strbuf_putc(body, '[');
        put_ids(body, &prefix, n_prefix, o->vocab, true);
        put_ids(body, &rest, n - n_prefix, o->vocab, n_prefix == 0);
        bt_strbuf_putc(body, ']');
        return;
    }
    bt_strbuf_putc(body, '"');
    put_words(body, &prefix, (size_t)n_prefix * o->chars_per_token);
    put_words(body, &rest, (size_t)(n - n_prefix) * o->chars_per_token);
    bt_strbuf_putc(body, '"');
}

/* ---- bodies ---- */

static void put_quoted(bt_strbuf *out, const char *text, size_t n)
{
    char small[256];
    size_t needed = bt_json_quote(small, sizeof(small), text, n);
    if (needed < sizeof(small)) {
        bt_strbuf_append(out, small, needed);
        return;
    }
    char *large = bt_calloc(needed + 1, 1);
    if (large == NULL) {
        out->failed = true;
        return;
    }
    bt_json_quote(large, needed + 1, text, n);
    bt_strbuf_append(out, large, needed);
    bt_free(large);
}

static void put_prompt(const bt_load_workload *w, uint32_t i, const file_prompt *given,
                       bt_strbuf *body)
{
    if (given != NULL)
        bt_strbuf_append(body, given->prompt.at, given->prompt.n);
    else
        put_made_up(w, i, body);
}

static void put_question(const bt_load_workload *w, uint32_t i, const file_prompt *given,
                         bt_strbuf *body)
{
    if (!w->options->chat) {
        bt_strbuf_puts(body, "\"prompt\":");
        put_prompt(w, i, given, body);
    } else if (given != NULL && given->messages.n > 0) {
        bt_strbuf_puts(body, "\"messages\":");
        bt_strbuf_append(body, given->messages.at, given->messages.n);
    } else {
        bt_strbuf_puts(body, "\"messages\":[{\"role\":\"user\",\"content\":");
        put_prompt(w, i, given, body);
        bt_strbuf_puts(body, "}]");
    }
}

baton_status bt_load_workload_body(const bt_load_workload *w, uint32_t i, const char *model,
                                   bt_strbuf *body)
{
    const bt_load_options *o = w->options;
    const file_prompt *given = w->n_prompts > 0 ? &w->prompts[i % w->n_prompts] : NULL;
    uint32_t max_tokens = draw_length(w, o->output_tokens, PURPOSE_OUTPUT, i);
    if (given != NULL && given->max_tokens > 0)
        max_tokens = given->max_tokens;
    bt_strbuf_clear(body);
    bt_strbuf_puts(body, "{\"model\":");
    put_quoted(body, model, strlen(model));
    bt_strbuf_putc(body, ',');
    put_question(w, i, given, body);
    bt_strbuf_printf(body, ",\"max_tokens\":%u,\"temperature\":%g", max_tokens, o->temperature);
    if (o->temperature > 0) /* an int64 to every server */
        bt_strbuf_printf(body, ",\"seed\":%" PRIu64, stream_of(o->seed, 0, i) >> 32);
    if (o->ignore_eos)
        bt_strbuf_puts(body, ",\"ignore_eos\":true");
    if (o->stream)
        bt_strbuf_puts(body, ",\"stream\":true,\"stream_options\":{\"include_usage\":true}");
    bt_strbuf_putc(body, '}');
    return bt_strbuf_status(body);
}

/* ---- prompt file ---- */

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

static baton_status parse_object(const bt_load_workload *w, const char *where, bt_json_value value,
                                 file_prompt *prompt)
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
    if (w->options->chat && bt_json_get(value, "messages", &member) == BATON_OK &&
        member.type == BT_JSON_ARRAY) {
        prompt->messages = member.text;
        return BATON_OK;
    }
    if (bt_json_get(value, "prompt", &member) == BATON_OK &&
        (member.type == BT_JSON_STRING || (member.type == BT_JSON_ARRAY && !w->options->chat))) {
        prompt->prompt = member.text;
        return BATON_OK;
    }
    return bt_fail(BATON_ERR_BAD_MESSAGE, "%s: wanted %s", where,
                   w->options->chat ? "\"messages\" (an array) or \"prompt\" (a string)"
                                    : "\"prompt\", a string or an array of token ids");
}

static baton_status parse_json_line(const bt_load_workload *w, const char *where, bt_slice line,
                                    file_prompt *prompt)
{
    bt_json_value value;
    if (bt_json_check(line.at, line.n, &value) != BATON_OK) {
        char why[256];
        snprintf(why, sizeof(why), "%s", baton_last_error());
        return bt_fail(BATON_ERR_BAD_MESSAGE, "%s: %s", where, why);
    }
    if (value.type == BT_JSON_OBJECT)
        return parse_object(w, where, value, prompt);
    if (value.type != BT_JSON_STRING)
        return bt_fail(BATON_ERR_BAD_MESSAGE, "%s: wanted a JSON string or object", where);
    prompt->prompt = value.text;
    return BATON_OK;
}

static baton_status add_prompt(bt_load_workload *w, const file_prompt *prompt)
{
    if (w->n_prompts == w->capacity) {
        size_t capacity = w->capacity > 0 ? 2 * w->capacity : 64;
        file_prompt *grown = bt_realloc(w->prompts, capacity, sizeof(*grown));
        if (grown == NULL)
            return bt_fail(BATON_ERR_NO_MEMORY, "prompt file: %zu prompts", capacity);
        w->prompts = grown;
        w->capacity = capacity;
    }
    w->prompts[w->n_prompts++] = *prompt;
    return BATON_OK;
}

/* A plain line becomes a JSON string in w->quoted, which moves as it grows: prompt.n is set, and
 * prompt.at in the end (point_at_quoted). */
static baton_status quote_line(bt_load_workload *w, bt_slice line, file_prompt *prompt)
{
    size_t before = w->quoted.length;
    put_quoted(&w->quoted, line.at, line.n);
    prompt->prompt.n = w->quoted.length - before;
    return bt_strbuf_status(&w->quoted);
}

static void point_at_quoted(bt_load_workload *w)
{
    const char *at = bt_strbuf_text(&w->quoted);
    for (size_t i = 0; i < w->n_prompts; i++) {
        w->prompts[i].prompt.at = at;
        at += w->prompts[i].prompt.n;
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

static baton_status parse_lines(bt_load_workload *w, bool is_json)
{
    const char *path = w->options->prompt_file;
    const char *at = w->file;
    for (unsigned number = 1; *at != '\0'; number++) {
        size_t n = strcspn(at, "\n");
        bt_slice line = {at, n > 0 && at[n - 1] == '\r' ? n - 1 : n};
        at += at[n] == '\n' ? n + 1 : n;
        if (is_blank(line))
            continue;
        char where[300];
        snprintf(where, sizeof(where), "%.256s:%u", path, number);
        file_prompt prompt = {.max_tokens = 0};
        BATON_TRY(is_json ? parse_json_line(w, where, line, &prompt)
                          : quote_line(w, line, &prompt));
        BATON_TRY(add_prompt(w, &prompt));
    }
    if (!is_json)
        point_at_quoted(w);
    if (w->n_prompts == 0)
        return bt_fail(BATON_ERR_INVALID_ARG, "prompt file: %s: no prompt in it", path);
    return BATON_OK;
}

static baton_status load_prompts(bt_load_workload *w)
{
    const char *path = w->options->prompt_file;
    bt_strbuf text = {0};
    baton_status status = read_file(path, &text);
    if (status == BATON_OK) {
        w->file = bt_strdup(bt_strbuf_text(&text));
        if (w->file == NULL)
            status = bt_fail(BATON_ERR_NO_MEMORY, "prompt file: %zu bytes", text.length);
        else if (strlen(w->file) != text.length)
            status = bt_fail(BATON_ERR_BAD_MESSAGE, "prompt file: %s: wanted text, found a 0 byte",
                             path);
    }
    bt_strbuf_free(&text);
    BATON_TRY(status);
    size_t n = strlen(path);
    return parse_lines(w, n >= 6 && strcmp(path + n - 6, ".jsonl") == 0);
}

baton_status bt_load_workload_create(const bt_load_options *options, bt_load_workload **workload_p)
{
    bt_load_workload *w = bt_calloc(1, sizeof(*w));
    if (w == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "workload");
    w->options = options;
    if (options->prompt_file != NULL) {
        baton_status status = load_prompts(w);
        if (status != BATON_OK) {
            bt_load_workload_destroy(w);
            return status;
        }
    }
    *workload_p = w;
    return BATON_OK;
}

void bt_load_workload_destroy(bt_load_workload *w)
{
    if (w == NULL)
        return;
    bt_strbuf_free(&w->quoted);
    bt_free(w->prompts);
    bt_free(w->file);
    bt_free(w);
}
