/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/load_workload.h"

#include "bench/load/load_prompts.h"
#include "bench/load/load_random.h"
#include "core/alloc.h"
#include "core/fail.h"
#include "http/jsonscan.h"

#include <inttypes.h>
#include <string.h>

struct bt_load_workload {
    const bt_load_options *options; /* borrowed */
    bt_load_prompts *prompts;       /* owned; NULL: made up */
};

static uint32_t draw_length(const bt_load_workload *w, bt_load_range range, bt_load_purpose purpose,
                            uint32_t i)
{
    uint64_t state = bt_load_stream(w->options->seed, purpose, i);
    return range.min + (uint32_t)(bt_load_next(&state) % ((uint64_t)range.max - range.min + 1));
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
        const char *word = words[bt_load_next(state) % N_WORDS];
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
        bt_strbuf_printf(body, "%s%" PRIu64, first ? "" : ",", bt_load_next(state) % vocab);
        first = false;
    }
}

/* The random state of what request i's conversation begins with. */
static uint64_t prefix_stream(const bt_load_options *o, uint32_t i)
{
    return bt_load_stream(o->seed, BT_LOAD_FOR_PREFIX, i / o->n_turns % o->n_prefixes);
}

static void put_made_up_ids(const bt_load_workload *w, uint32_t i, bt_strbuf *body)
{
    const bt_load_options *o = w->options;
    uint32_t n = draw_length(w, o->input_tokens, BT_LOAD_FOR_LENGTH, i);
    uint64_t prefix = prefix_stream(o, i);
    uint64_t rest = bt_load_stream(o->seed, BT_LOAD_FOR_PROMPT, i);
    bt_strbuf_putc(body, '[');
    put_ids(body, &prefix, o->prefix_tokens, o->vocab, true);
    put_ids(body, &rest, n, o->vocab, o->prefix_tokens == 0);
    bt_strbuf_putc(body, ']');
}

/* What the user says in request i, as it stands between the quotes of a JSON string. */
static void put_user_text(const bt_load_workload *w, uint32_t i, bt_strbuf *body)
{
    const bt_load_options *o = w->options;
    if (w->prompts != NULL) {
        const bt_load_prompt *given = bt_load_prompts_at(w->prompts, i);
        bt_strbuf_append(body, given->prompt.at + 1, given->prompt.n - 2);
        return;
    }
    uint32_t n = draw_length(w, o->input_tokens, BT_LOAD_FOR_LENGTH, i);
    uint64_t prefix = prefix_stream(o, i);
    uint64_t rest = bt_load_stream(o->seed, BT_LOAD_FOR_PROMPT, i);
    if (i % o->n_turns == 0)
        put_words(body, &prefix, (size_t)o->prefix_tokens * o->chars_per_token);
    put_words(body, &rest, (size_t)n * o->chars_per_token);
}

/* ---- bodies ---- */

/* An answer, as it stands between the quotes of a JSON string. */
static void put_answer(bt_strbuf *body, const bt_load_record *record)
{
    bt_strbuf quoted = {0};
    bt_json_append_string(&quoted, bt_strbuf_text(&record->text), record->text.length);
    if (bt_strbuf_status(&quoted) == BATON_OK)
        bt_strbuf_append(body, quoted.data + 1, quoted.length - 2);
    else
        body->failed = true;
    bt_strbuf_free(&quoted);
}

static void begin_part(bt_strbuf *body, bool chat, const char *role, bool is_first)
{
    if (chat)
        bt_strbuf_printf(body, "%s{\"role\":\"%s\",\"content\":\"", is_first ? "" : ",", role);
}

static void end_part(bt_strbuf *body, bool chat)
{
    if (chat)
        bt_strbuf_puts(body, "\"}");
}

/* All turns up to request i: messages of a chat, or one text. */
static void put_turns(const bt_load_workload *w, uint32_t i, const bt_load_record *earlier,
                      bt_strbuf *body)
{
    bool chat = w->options->backend == BT_LOAD_CHAT, is_first = true;
    uint32_t n = i % w->options->n_turns;
    bt_strbuf_puts(body, chat ? "\"messages\":[" : "\"prompt\":\"");
    for (uint32_t turn = 0; turn < n; turn++) {
        if (!earlier[turn].ok)
            continue;
        begin_part(body, chat, "user", is_first);
        put_user_text(w, i - n + turn, body);
        end_part(body, chat);
        begin_part(body, chat, "assistant", false);
        put_answer(body, &earlier[turn]);
        end_part(body, chat);
        is_first = false;
    }
    begin_part(body, chat, "user", is_first);
    put_user_text(w, i, body);
    end_part(body, chat);
    bt_strbuf_putc(body, chat ? ']' : '"');
}

static void put_question(const bt_load_workload *w, uint32_t i, const bt_load_record *earlier,
                         bt_strbuf *body)
{
    const bt_load_prompt *given = w->prompts != NULL ? bt_load_prompts_at(w->prompts, i) : NULL;
    if (given != NULL && given->messages.n > 0) {
        bt_strbuf_puts(body, "\"messages\":");
        bt_strbuf_append(body, given->messages.at, given->messages.n);
    } else if (given != NULL && given->prompt.at[0] == '[') {
        bt_strbuf_puts(body, "\"prompt\":");
        bt_strbuf_append(body, given->prompt.at, given->prompt.n);
    } else if (w->options->token_ids) {
        bt_strbuf_puts(body, "\"prompt\":");
        put_made_up_ids(w, i, body);
    } else {
        put_turns(w, i, earlier, body);
    }
}

baton_status bt_load_workload_body(const bt_load_workload *w, uint32_t i,
                                   const bt_load_record *earlier, const char *model,
                                   bt_strbuf *body)
{
    const bt_load_options *o = w->options;
    uint32_t max_tokens = draw_length(w, o->output_tokens, BT_LOAD_FOR_OUTPUT, i);
    if (w->prompts != NULL && bt_load_prompts_at(w->prompts, i)->max_tokens > 0)
        max_tokens = bt_load_prompts_at(w->prompts, i)->max_tokens;
    bt_strbuf_clear(body);
    bt_strbuf_puts(body, "{\"model\":");
    bt_json_append_string(body, model, strlen(model));
    bt_strbuf_putc(body, ',');
    put_question(w, i, earlier, body);
    bt_strbuf_printf(body, ",\"max_tokens\":%u,\"temperature\":%g", max_tokens, o->temperature);
    if (o->temperature > 0) /* an int64 to every server */
        bt_strbuf_printf(body, ",\"seed\":%" PRIu64,
                         bt_load_stream(o->seed, BT_LOAD_FOR_SAMPLING, i) >> 32);
    if (o->ignore_eos)
        bt_strbuf_puts(body, ",\"ignore_eos\":true");
    if (o->stream)
        bt_strbuf_puts(body, ",\"stream\":true,\"stream_options\":{\"include_usage\":true}");
    bt_strbuf_putc(body, '}');
    return bt_strbuf_status(body);
}

baton_status bt_load_workload_create(const bt_load_options *options, bt_load_workload **workload_p)
{
    bt_load_workload *w = bt_calloc(1, sizeof(*w));
    if (w == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "workload");
    w->options = options;
    if (options->dataset_path != NULL) {
        baton_status status = bt_load_prompts_read(options, &w->prompts);
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
    bt_load_prompts_destroy(w->prompts);
    bt_free(w);
}
