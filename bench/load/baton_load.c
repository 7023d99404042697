/* SPDX-License-Identifier: Apache-2.0 */
/* baton-load: serving benchmark for OpenAI-compatible servers. */
#include "bench/load/load_chart.h"
#include "bench/load/load_compare.h"
#include "bench/load/load_report.h"
#include "bench/load/load_result.h"
#include "core/fail.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* Exit statuses. */
enum { ALL_OK = 0, SOME_FAILED = 1, NOTHING_RAN = 2 };

static int complain(void)
{
    fprintf(stderr, "baton-load: %s\n", baton_last_error());
    return NOTHING_RAN;
}

/* ---- a run ---- */

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

static baton_status write_files(const bt_load_options *o, const bt_load_result *result,
                                const bt_load_search *search, time_t date, const bt_strbuf *json)
{
    if (o->save_result)
        BATON_TRY(save_result(o, result, date, json));
    if (o->chart_path != NULL)
        BATON_TRY(bt_load_chart_run(result, search, o->chart_path));
    if (o->answers_path != NULL)
        BATON_TRY(bt_load_report_answers(o->answers_path, result));
    return BATON_OK;
}

static baton_status report(const bt_load_options *o, const bt_load_result *result,
                           const bt_load_search *search, const bt_load_summary *summary)
{
    bt_strbuf json = {0}, table = {0}, steps = {0};
    time_t date = time(NULL);
    if (o->find_rate) {
        bt_load_search_json(search, &steps);
        bt_load_search_table(search, o, &table);
    }
    bt_load_result_json(o, result, summary, date, bt_strbuf_text(&steps), &json);
    bt_load_report_table(o, result, summary, &table);
    fputs(bt_strbuf_text(o->json ? &json : &table), stdout);
    baton_status status = bt_strbuf_status(o->json ? &json : &table);
    if (status == BATON_OK)
        status = bt_strbuf_status(&json);
    if (status == BATON_OK)
        status = write_files(o, result, search, date, &json);
    bt_strbuf_free(&json);
    bt_strbuf_free(&table);
    bt_strbuf_free(&steps);
    return status;
}

static int measure(const bt_load_options *o, bt_load_runner *runner)
{
    const bt_load_phase phase = {.title = "", .n_requests = o->n_requests, .rate = o->rate};
    bt_load_result result = {0};
    bt_load_search search = {0};
    bt_load_summary summary;
    baton_status status = bt_load_warm_up(runner);
    if (status == BATON_OK && o->find_rate)
        status = bt_load_search_run(o, runner, &search, &result);
    else if (status == BATON_OK)
        status = bt_load_run(runner, &phase, &result);
    if (status == BATON_OK)
        status = bt_load_summarize(o, &result, &summary);
    if (status == BATON_OK)
        status = report(o, &result, &search, &summary);
    int exit_code = NOTHING_RAN;
    if (status == BATON_OK && fflush(stdout) == 0) {
        bool is_found = !o->find_rate || bt_load_search_best(&search) != NULL;
        exit_code = is_found && summary.n_ok == summary.n_requests ? ALL_OK : SOME_FAILED;
    } else {
        complain();
    }
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

static int run_benchmark(int argc, char **argv)
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

/* ---- a comparison ---- */

static const bt_args_option compare_options[] = {
    {.section = "Options",
     .name = "chart",
     .value_name = "FILE",
     .help = "Draw distributions of both into this SVG file; needs results of --save-detailed."},
    {.name = "max-regression",
     .value_name = "PERCENT",
     .help = "Exit status 1 when a figure is worse by more than this."},
};

/* Errors: INVALID_ARG. */
static baton_status read_limit(const bt_args *args, double *limit)
{
    const char *text = bt_args_value(args, "max-regression");
    char *end = NULL;
    *limit = text != NULL ? strtod(text, &end) : INFINITY;
    if (text == NULL || (end != text && *end == '\0' && *limit >= 0))
        return BATON_OK;
    return bt_fail(BATON_ERR_INVALID_ARG, "--max-regression: wanted a percentage, found %.80s",
                   text);
}

static baton_status compare(const bt_args *args, int *exit_code)
{
    bt_load_saved before = {0}, after = {0};
    bt_strbuf table = {0};
    double worst = 0, limit;
    const char *chart = bt_args_value(args, "chart");
    baton_status status = read_limit(args, &limit);
    if (status == BATON_OK)
        status = bt_load_saved_read(bt_args_positional(args, 0), &before);
    if (status == BATON_OK)
        status = bt_load_saved_read(bt_args_positional(args, 1), &after);
    if (status == BATON_OK) {
        bt_load_compare(&before, &after, &table, &worst);
        status = bt_strbuf_status(&table);
        fputs(bt_strbuf_text(&table), stdout);
    }
    if (status == BATON_OK && chart != NULL)
        status = bt_load_compare_chart(&before, &after, chart);
    *exit_code = worst > limit ? SOME_FAILED : ALL_OK;
    bt_strbuf_free(&table);
    bt_load_saved_free(&before);
    bt_load_saved_free(&after);
    return status;
}

static int run_compare(int argc, char **argv)
{
    const bt_args_spec spec = {
        .program = "baton-load compare",
        .summary = "Puts two saved results side by side, of baton-load or of `vllm bench serve`: "
                   "what was asked for where it differs, and every figure with its change.",
        .options = compare_options,
        .n_options = sizeof(compare_options) / sizeof(compare_options[0]),
        .positional = "BEFORE AFTER",
        .max_positional = 2,
    };
    bt_args *args = NULL;
    bt_strbuf info = {0};
    int exit_code = ALL_OK;
    if (bt_args_parse(&spec, argc, argv, &args) != BATON_OK)
        return complain();
    if (bt_args_info(args, &info)) {
        fputs(bt_strbuf_text(&info), stdout);
    } else if (bt_args_n_positional(args) != 2) {
        fprintf(stderr, "baton-load: compare: wanted two results, found %zu; see --help\n",
                bt_args_n_positional(args));
        exit_code = NOTHING_RAN;
    } else if (compare(args, &exit_code) != BATON_OK) {
        exit_code = complain();
    }
    bt_strbuf_free(&info);
    bt_args_destroy(args);
    return exit_code;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "compare") == 0)
        return run_compare(argc - 1, argv + 1);
    return run_benchmark(argc, argv);
}
