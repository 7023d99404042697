/* SPDX-License-Identifier: Apache-2.0 */
/* baton-load: serving benchmark for OpenAI-compatible servers. */
#include "bench/load/load_report.h"
#include "bench/load/load_result.h"

#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>

/* Exit statuses. */
enum { ALL_OK = 0, SOME_FAILED = 1, NOTHING_RAN = 2 };

static int complain(void)
{
    fprintf(stderr, "baton-load: %s\n", baton_last_error());
    return NOTHING_RAN;
}

/* A socket per concurrent request may be more than the usual soft limit of 1024. */
static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit); /* refused: the old limit does, or requests say so */
    }
}

static baton_status save_result(const bt_load_options *o, const bt_load_result *result, time_t date,
                                const bt_strbuf *json)
{
    bt_strbuf path = {0};
    baton_status status = bt_load_result_path(o, result, date, &path);
    if (status == BATON_OK)
        status = bt_load_result_save(o, bt_strbuf_text(&path), json);
    if (status == BATON_OK)
        fprintf(stderr, "baton-load: saved %s\n", bt_strbuf_text(&path));
    bt_strbuf_free(&path);
    return status;
}

static baton_status report(const bt_load_options *o, const bt_load_result *result,
                           const bt_load_summary *summary)
{
    bt_strbuf json = {0}, table = {0};
    time_t date = time(NULL);
    bt_load_result_json(o, result, summary, date, "", &json);
    bt_load_report_table(o, result, summary, &table);
    fputs(bt_strbuf_text(o->json ? &json : &table), stdout);
    baton_status status = bt_strbuf_status(o->json ? &json : &table);
    if (status == BATON_OK && o->save_result)
        status = save_result(o, result, date, &json);
    if (status == BATON_OK && o->answers_path != NULL)
        status = bt_load_report_answers(o->answers_path, result);
    bt_strbuf_free(&json);
    bt_strbuf_free(&table);
    return status;
}

static int measure(const bt_load_options *o, bt_load_runner *runner)
{
    const bt_load_phase phase = {.title = "", .n_requests = o->n_requests, .rate = o->rate};
    bt_load_result result = {0};
    bt_load_summary summary;
    baton_status status = bt_load_warm_up(runner);
    if (status == BATON_OK)
        status = bt_load_run(runner, &phase, &result);
    if (status == BATON_OK)
        status = bt_load_summarize(o, &result, &summary);
    if (status == BATON_OK)
        status = report(o, &result, &summary);
    int exit_code = NOTHING_RAN;
    if (status == BATON_OK && fflush(stdout) == 0)
        exit_code = summary.n_ok == summary.n_requests ? ALL_OK : SOME_FAILED;
    else
        complain();
    bt_load_result_free(&result);
    return exit_code;
}

static int run(const bt_load_options *options)
{
    bt_load_runner *runner = NULL;
    raise_file_limit();
    signal(SIGPIPE, SIG_IGN); /* a server that closes early is an error of one request */
    if (bt_load_runner_create(options, &runner) != BATON_OK)
        return complain();
    int exit_code = measure(options, runner);
    bt_load_runner_destroy(runner);
    return exit_code;
}

int main(int argc, char **argv)
{
    bt_load_options options;
    bt_strbuf info = {0};
    int exit_code = ALL_OK;
    if (bt_load_options_parse(argc, argv, &options, &info) != BATON_OK)
        exit_code = complain();
    else if (info.length > 0)
        fputs(bt_strbuf_text(&info), stdout);
    else
        exit_code = run(&options);
    bt_strbuf_free(&info);
    bt_load_options_free(&options);
    return exit_code;
}
