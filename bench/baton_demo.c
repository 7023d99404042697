/* SPDX-License-Identifier: Apache-2.0 */
/* baton-demo: the client of scripts/demo.sh. Streams real prompts through the proxy and to one
 * engine alone, and says whether every answer is the same. */
#include "bench/demo_handoffs.h"
#include "bench/demo_prompts.h"
#include "core/alloc.h"
#include "core/args.h"
#include "core/fail.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

enum { ALL_SAME = 0, SOME_DIFFER = 1, NOTHING_RAN = 2 };

typedef struct {
    const char *proxy, *alone, *logs, *name;
    uint32_t n, concurrency, max_tokens, n_prefillers, n_decoders;
    bool table;
    const char *const *texts;
    size_t n_texts;
} demo_options;

typedef struct {
    const demo_options *options;
    bt_strbuf *prompts;
    bt_demo_request *requests;
    bt_demo_answer *proxy, *alone;
    bt_demo_handoff *handoffs;
} demo;

#define AT(key_text, field)                                   \
    .key = key_text, .offset = offsetof(demo_options, field), \
    .size = sizeof(((demo_options *)0)->field)

static const bt_config_entry entries[] = {
    {AT("proxy", proxy), .type = BT_CONFIG_STRING, .help = "The proxy: http://host:port."},
    {AT("alone", alone), .type = BT_CONFIG_STRING,
     .help = "The engine alone that has the right answers: http://host:port."},
    {AT("logs", logs), .type = BT_CONFIG_STRING,
     .help = "Folder with proxy.log and decode-1.log ..., at level debug."},
    {AT("name", name), .type = BT_CONFIG_STRING, .fallback = "demo",
     .help = "Begins the last line."},
    {AT("prompts", n), .type = BT_CONFIG_UINT32, .min = 1, .max = 10000, .fallback = "32",
     .help = "How many."},
    {AT("concurrency", concurrency), .type = BT_CONFIG_UINT32, .min = 1, .max = 1000,
     .fallback = "6", .help = "Requests at the same time."},
    {AT("max_tokens", max_tokens), .type = BT_CONFIG_UINT32, .min = 1, .max = BT_DEMO_MAX_TOKENS,
     .fallback = "32", .help = "Tokens of an answer."},
    {AT("prefillers", n_prefillers), .type = BT_CONFIG_UINT32, .fallback = "1",
     .help = "For the last line."},
    {AT("decoders", n_decoders), .type = BT_CONFIG_UINT32, .fallback = "1",
     .help = "For the last line, and how many logs there are."},
    {AT("table", table), .type = BT_CONFIG_BOOL, .fallback = "true",
     .help = "Print a line for every request."},
};

static baton_status make_requests(demo *d)
{
    const demo_options *o = d->options;
    d->prompts = bt_calloc(o->n, sizeof(*d->prompts));
    d->requests = bt_calloc(o->n, sizeof(*d->requests));
    d->proxy = bt_calloc(o->n, sizeof(*d->proxy));
    d->alone = bt_calloc(o->n, sizeof(*d->alone));
    d->handoffs = bt_calloc(o->n, sizeof(*d->handoffs));
    if (d->prompts == NULL || d->requests == NULL || d->proxy == NULL || d->alone == NULL ||
        d->handoffs == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "demo: %u requests", o->n);
    BATON_TRY(bt_demo_prompts_make(o->texts, o->n_texts, d->prompts, o->n));
    for (uint32_t i = 0; i < o->n; i++) {
        bt_demo_request *request = &d->requests[i];
        snprintf(request->id, sizeof(request->id), "demo-%u", i + 1);
        request->prompt = d->prompts[i];
        request->seed = i % 2 == 0 ? 0 : i + 1; /* every other one is sampled, not greedy */
        request->max_tokens = o->max_tokens;
    }
    return BATON_OK;
}

static void free_demo(demo *d)
{
    for (uint32_t i = 0; d->prompts != NULL && i < d->options->n; i++)
        bt_strbuf_free(&d->prompts[i]);
    bt_free(d->prompts);
    bt_free(d->requests);
    bt_free(d->proxy);
    bt_free(d->alone);
    bt_free(d->handoffs);
}

static void print_row(const demo *d, uint32_t i)
{
    const bt_demo_answer *answer = &d->proxy[i];
    const bt_demo_handoff *handoff = &d->handoffs[i];
    bool same = bt_demo_same(answer, &d->alone[i]);
    printf("%7u  %-7s %6u %6u %6u %10" PRIu64 " %9.2f %8.1f %7u  %s\n", i + 1,
           d->requests[i].seed == 0 ? "greedy" : "sampled", answer->prompt_tokens,
           handoff->sent_chunks, handoff->n_chunks - handoff->sent_chunks, handoff->sent_bytes,
           (double)handoff->move_us / 1e3,
           answer->first_ns == 0 ? 0.0 : (double)(answer->first_ns - answer->start_ns) / 1e6,
           answer->n_tokens, same ? "identical" : "DIFFERENT");
}

static void print_table(const demo *d)
{
    printf("%7s  %-7s %6s %6s %6s %10s %9s %8s %7s  %s\n", "request", "tokens", "prompt", "chunks",
           "chunks", "bytes", "transfer", "TTFT", "answer", "one engine");
    printf("%7s  %-7s %6s %6s %6s %10s %9s %8s %7s  %s\n", "", "are", "tokens", "sent", "there",
           "received", "ms", "ms", "tokens", "alone says");
    for (uint32_t i = 0; i < d->options->n; i++)
        print_row(d, i);
}

static int judge(const demo *d)
{
    const demo_options *o = d->options;
    uint32_t n_same = 0, n_failed = 0;
    for (uint32_t i = 0; i < o->n; i++) {
        n_same += bt_demo_same(&d->proxy[i], &d->alone[i]) ? 1 : 0;
        if (d->alone[i].error[0] != '\0')
            fprintf(stderr, "%s: the engine alone failed: %s\n", o->name, d->alone[i].error);
        if (d->proxy[i].error[0] != '\0' && n_failed++ == 0)
            fprintf(stderr, "%s: %s failed: %s\n", o->name, d->requests[i].id, d->proxy[i].error);
    }
    if (n_failed > 0)
        fprintf(stderr, "%s: %u of %u requests failed\n", o->name, n_failed, o->n);
    printf("%s: %u prefillers, %u decoders, %u prompts: %u identical, %u different\n", o->name,
           o->n_prefillers, o->n_decoders, o->n, n_same, o->n - n_same);
    return n_same == o->n ? ALL_SAME : SOME_DIFFER;
}

static baton_status run(demo *d)
{
    const demo_options *o = d->options;
    if (o->proxy == NULL || o->alone == NULL)
        return bt_fail(BATON_ERR_INVALID_ARG, "wanted --proxy and --alone");
    BATON_TRY(make_requests(d));
    BATON_TRY(bt_demo_run(o->proxy, d->requests, o->n, o->concurrency, d->proxy));
    BATON_TRY(bt_demo_run(o->alone, d->requests, o->n, o->concurrency, d->alone));
    if (o->logs != NULL)
        return bt_demo_handoffs_read(o->logs, o->n_decoders, d->requests, o->n, d->handoffs);
    return BATON_OK;
}

static int fail(void)
{
    fprintf(stderr, "baton-demo: %s\n", baton_last_error());
    return NOTHING_RAN;
}

static int run_and_judge(const bt_args *args, demo_options *o)
{
    const char **texts = bt_calloc(bt_args_n_positional(args) + 1, sizeof(*texts));
    if (texts == NULL)
        return fail();
    for (; o->n_texts < bt_args_n_positional(args); o->n_texts++)
        texts[o->n_texts] = bt_args_positional(args, o->n_texts);
    o->texts = texts;
    demo d = {.options = o};
    int code = run(&d) < 0 ? fail() : ALL_SAME;
    if (code == ALL_SAME) {
        if (o->table)
            print_table(&d);
        code = judge(&d);
    }
    free_demo(&d);
    bt_free(texts);
    return code;
}

static int configure(const bt_args *args, const bt_config_table *table, demo_options *o)
{
    bt_strbuf text = {0};
    bool is_info = bt_args_info(args, &text);
    if (is_info)
        fputs(bt_strbuf_text(&text), stdout);
    bt_strbuf_free(&text);
    if (is_info)
        return 0;
    bt_config *config = NULL;
    baton_status status =
        bt_config_create(&(bt_config_options){.tables = table, .n_tables = 1}, &config);
    if (status == BATON_OK)
        status = bt_args_configure(args, config);
    int code = status < 0 ? fail() : run_and_judge(args, o);
    bt_config_destroy(config);
    return code;
}

int main(int argc, char **argv)
{
    demo_options o = {0};
    const bt_config_table table = {.title = "Demo",
                                   .entries = entries,
                                   .n_entries = sizeof(entries) / sizeof(entries[0]),
                                   .target = &o};
    const bt_args_spec spec = {
        .program = "baton-demo",
        .summary = "Streams prompts cut out of the given texts through the proxy and to one engine "
                   "alone, and compares the answers' tokens. Exit status: 0 all identical, 1 some "
                   "differ, 2 nothing ran.",
        .positional = "TEXT...",
        .max_positional = 100,
        .tables = &table,
        .n_tables = 1,
    };
    signal(SIGPIPE, SIG_IGN);
    bt_args *args = NULL;
    int code = bt_args_parse(&spec, argc, argv, &args) < 0 ? fail() : configure(args, &table, &o);
    bt_args_destroy(args);
    return code;
}
