/* SPDX-License-Identifier: Apache-2.0 */
/* baton-doctor: what this machine can do for a hand-off, and what will bite. */
#include "core/alloc.h"
#include "core/fail.h"
#include "core/log.h"
#include "doctor/doctor_checks.h"
#include "doctor/doctor_json.h"
#include "doctor/doctor_options.h"
#include "doctor/doctor_text.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { EXIT_USAGE = BT_DOCTOR_BROKEN };

static int fail(void)
{
    fprintf(stderr, "baton-doctor: %s\n", baton_last_error());
    return EXIT_USAGE;
}

static void drop_line(void *ctx, baton_log_level level, const char *line)
{
    (void)ctx, (void)level, (void)line;
}

/* UCX writes its warnings to stdout, where the report belongs: from here on stdout is stderr, and
 * the report has a stream of its own. NULL when there is no memory or descriptor. */
static FILE *take_stdout(void)
{
    int fd = dup(STDOUT_FILENO);
    if (fd < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
        return NULL;
    return fdopen(fd, "w");
}

static bool wants_color(const bt_doctor_options *o, FILE *report)
{
    const char *no_color = getenv("NO_COLOR"); /* no-color.org */
    if (o->color != BT_DOCTOR_COLOR_AUTO)
        return o->color == BT_DOCTOR_COLOR_ALWAYS;
    return isatty(fileno(report)) && (no_color == NULL || no_color[0] == '\0');
}

static int print_report(const bt_doctor_options *o, const bt_doctor_facts *facts, FILE *report)
{
    bt_doctor_findings *findings = bt_calloc(1, sizeof(*findings));
    bt_strbuf text = {0};
    if (findings == NULL) {
        bt_fail(BATON_ERR_NO_MEMORY, "findings");
        return fail();
    }
    bt_doctor_check(facts, findings);
    for (size_t i = 0; i < bt_args_count(o->args, "accept"); i++)
        bt_doctor_accept(findings, bt_args_nth(o->args, "accept", i));
    baton_status status = o->json ? bt_doctor_json(facts, findings, &text)
                                  : bt_doctor_text(facts, findings, wants_color(o, report), &text);
    int exit_status = (int)bt_doctor_worst(findings);
    bool is_written = fputs(bt_strbuf_text(&text), report) >= 0 && fflush(report) == 0;
    if (status == BATON_OK && !is_written)
        status = bt_fail(BATON_ERR_IO, "report: cannot be written");
    bt_strbuf_free(&text);
    bt_free(findings);
    return status == BATON_OK ? exit_status : fail();
}

static void ask_peer(const bt_doctor_options *o, bt_doctor_facts *facts)
{
    const bt_doctor_question question = {
        .host = o->host, .init_port = o->init_port, .timeout_ms = o->timeout_ms, .file = &o->file};
    bt_doctor_ask_peer(&question, &facts->peer);
}

static int examine(const bt_doctor_options *o)
{
    FILE *report = take_stdout();
    bt_doctor_facts *facts = bt_calloc(1, sizeof(*facts));
    int exit_status;
    if (report == NULL || facts == NULL) {
        bt_fail(BATON_ERR_NO_MEMORY, "report");
        exit_status = fail();
    } else if (bt_doctor_facts_read(o->root, environ, &o->file, facts) != BATON_OK) {
        exit_status = fail();
    } else {
        if (o->peer != NULL)
            ask_peer(o, facts);
        exit_status = print_report(o, facts, report);
        bt_doctor_facts_free(facts);
    }
    bt_free(facts);
    if (report != NULL)
        fclose(report);
    return exit_status;
}

int main(int argc, char **argv)
{
    bt_doctor_options options;
    bt_strbuf info = {0};
    int exit_status = 0;
    signal(SIGPIPE, SIG_IGN);
    baton_status status = bt_doctor_options_parse(argc, argv, &options, &info);
    if (status != BATON_OK) {
        exit_status = fail();
    } else if (info.length > 0) {
        fputs(bt_strbuf_text(&info), stdout);
    } else {
        baton_log_set_sink(options.verbose ? bt_log_stderr : drop_line, NULL);
        baton_log_set_level(options.verbose ? BATON_LOG_DEBUG : BATON_LOG_WARN);
        exit_status = examine(&options);
    }
    bt_strbuf_free(&info);
    bt_doctor_options_free(&options);
    return exit_status;
}
