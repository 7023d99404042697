/* SPDX-License-Identifier: Apache-2.0 */
/* baton-ctl: what goes on inside senders, receivers and proxies. */
#include "ctl/ctl_tables.h"
#include "ctl/ctl_trace.h"

#include "core/alloc.h"
#include "core/fail.h"
#include "core/log.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_PART = 1, EXIT_USAGE = 2, SLOW_OF_ALL = 5 };

static int fail(void)
{
    fprintf(stderr, "baton-ctl: %s\n", baton_last_error());
    return EXIT_USAGE;
}

static void drop_line(void *ctx, baton_log_level level, const char *line)
{
    (void)ctx, (void)level, (void)line;
}

/* One command's answers, which out gets as a table, or report as JSON under the command's name. */
typedef struct {
    const bt_ctl_options *options;
    const bt_ctl_endpoints *endpoints;
    json_t *report; /* NULL: tables */
    bt_strbuf out, failed;
    bool some_failed;
} run;

static void keep(run *r, const char *command, const bt_ctl_answers *answers)
{
    if (r->report != NULL) {
        json_object_set(r->report, command, answers->answers);
        json_object_set(r->report, "failed", answers->failed);
    }
    if (json_array_size(answers->failed) > 0 && !r->some_failed)
        bt_ctl_put_failed(answers, &r->failed);
    r->some_failed |= json_array_size(answers->failed) > 0;
}

static baton_status do_list(run *r, const char *command, bool only_counts)
{
    bt_ctl_answers answers;
    bool is_list = strcmp(command, "counters") != 0 && strcmp(command, "endpoints") != 0;
    const bt_ctl_question question = {.name = strcmp(command, "endpoints") == 0 ? "" : command,
                                      .list = is_list ? command : NULL,
                                      .state = r->options->state,
                                      .limit = only_counts ? 1 : r->options->limit};
    BATON_TRY(bt_ctl_ask(r->options, r->endpoints, &question, &answers));
    keep(r, command, &answers);
    bt_ctl_put_table(command, &answers, only_counts, &r->out);
    bt_ctl_answers_free(&answers);
    return BATON_OK;
}

static baton_status do_slow(run *r, size_t n)
{
    bt_ctl_answers answers;
    const bt_ctl_question question = {.name = "slow", .list = "traces", .limit = r->options->limit};
    BATON_TRY(bt_ctl_ask(r->options, r->endpoints, &question, &answers));
    keep(r, "slow", &answers);
    bt_ctl_put_slow(&answers, n, &r->out);
    bt_ctl_answers_free(&answers);
    return BATON_OK;
}

static baton_status do_trace(run *r)
{
    bt_ctl_answers answers;
    BATON_TRY(bt_ctl_trace_ask(r->options, r->endpoints, &answers));
    json_t *timeline = bt_ctl_timeline(&answers);
    keep(r, "trace", &answers);
    if (r->report != NULL)
        json_object_set(r->report, "timeline", timeline);
    if (json_array_size(timeline) > 0) {
        bt_ctl_put_trace(&answers, timeline, &r->out);
    } else {
        bt_strbuf_printf(&r->failed,
                         "baton-ctl: wanted a request %.256s, found none at %u endpoints: it has "
                         "not come there, or so many came later that it was forgotten\n",
                         r->options->id, r->endpoints->n);
        r->some_failed = true;
    }
    json_decref(timeline);
    bt_ctl_answers_free(&answers);
    return BATON_OK;
}

static baton_status do_all(run *r)
{
    static const char *const parts[] = {"transfers", "leases", "peers"};
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        bt_strbuf_printf(&r->out, "%s:\n", parts[i]);
        BATON_TRY(do_list(r, parts[i], false));
        bt_strbuf_putc(&r->out, '\n');
    }
    bt_strbuf_puts(&r->out, "pages:\n");
    BATON_TRY(do_list(r, "pages", true));
    bt_strbuf_puts(&r->out, "\nslow:\n");
    return do_slow(r, SLOW_OF_ALL);
}

static baton_status do_command(run *r)
{
    const char *command = r->options->command;
    if (strcmp(command, "trace") == 0)
        return do_trace(r);
    if (strcmp(command, "slow") == 0)
        return do_slow(r, r->options->limit);
    return strcmp(command, "all") == 0 ? do_all(r) : do_list(r, command, false);
}

static int print(run *r)
{
    if (r->report != NULL) {
        char *text = json_dumps(r->report, JSON_INDENT(1));
        puts(text != NULL ? text : "{}");
        free(text);
    } else {
        fputs(bt_strbuf_text(&r->out), stdout);
    }
    fputs(bt_strbuf_text(&r->failed), stderr);
    if (fflush(stdout) != 0 || bt_strbuf_status(&r->out) != BATON_OK) {
        bt_fail(BATON_ERR_IO, "answer: wanted to write it, could not");
        return fail();
    }
    return r->some_failed ? EXIT_PART : 0;
}

static int once(const bt_ctl_options *options)
{
    bt_ctl_endpoints *endpoints = bt_calloc(1, sizeof(*endpoints));
    run r = {
        .options = options, .endpoints = endpoints, .report = options->json ? json_object() : NULL};
    baton_status status = endpoints != NULL ? bt_ctl_endpoints_find(options, endpoints)
                                            : bt_fail(BATON_ERR_NO_MEMORY, "endpoints");
    if (status == BATON_OK)
        status = do_command(&r);
    int exit_status = status == BATON_OK ? print(&r) : fail();
    json_decref(r.report);
    bt_strbuf_free(&r.out);
    bt_strbuf_free(&r.failed);
    bt_free(endpoints);
    return exit_status;
}

static int watch(const bt_ctl_options *options)
{
    const struct timespec pause = {.tv_sec = options->watch_ms / 1000,
                                   .tv_nsec = options->watch_ms % 1000 * 1000000L};
    bool is_terminal = isatty(STDOUT_FILENO) != 0;
    for (;;) { /* Ctrl-C ends the program */
        if (is_terminal && !options->json)
            fputs("\033[H\033[2J", stdout);
        int exit_status = once(options);
        if (exit_status == EXIT_USAGE || ferror(stdout) != 0)
            return exit_status;
        if (!is_terminal && !options->json)
            putchar('\n');
        fflush(stdout);
        nanosleep(&pause, NULL);
    }
}

int main(int argc, char **argv)
{
    bt_ctl_options options;
    bt_strbuf info = {0};
    int exit_status = 0;
    signal(SIGPIPE, SIG_IGN);
    baton_log_set_sink(drop_line, NULL);
    if (bt_ctl_options_parse(argc, argv, &options, &info) != BATON_OK)
        exit_status = fail();
    else if (info.length > 0)
        fputs(bt_strbuf_text(&info), stdout);
    else
        exit_status = options.watch_ms > 0 ? watch(&options) : once(&options);
    bt_strbuf_free(&info);
    bt_ctl_options_free(&options);
    return exit_status;
}
