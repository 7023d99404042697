/* SPDX-License-Identifier: Apache-2.0 */
/* baton-load: load generator for OpenAI-compatible servers. */
#include "bench/load/load_report.h"

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

static int report(const bt_load_options *options, bt_load_result *result)
{
    bt_load_summary summary;
    bt_strbuf text = {0};
    if (bt_load_summarize(result, &summary) != BATON_OK)
        return complain();
    if (options->json)
        bt_load_report_json(options, result, &summary, &text);
    else
        bt_load_report_table(options, result, &summary, &text);
    fputs(bt_strbuf_text(&text), stdout);
    baton_status status = bt_strbuf_status(&text);
    bt_strbuf_free(&text);
    if (status == BATON_OK && options->save_path != NULL)
        status = bt_load_report_save(options->save_path, result);
    if (status != BATON_OK || fflush(stdout) != 0)
        return complain();
    return summary.n_ok == summary.n_requests ? ALL_OK : SOME_FAILED;
}

static int run(const bt_load_options *options)
{
    bt_load_result result;
    int exit_code = NOTHING_RAN;
    raise_file_limit();
    signal(SIGPIPE, SIG_IGN); /* a server that closes early is an error of one request */
    if (bt_load_run(options, &result) == BATON_OK)
        exit_code = report(options, &result);
    else
        complain();
    bt_load_result_free(&result);
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
