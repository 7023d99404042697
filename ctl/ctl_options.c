/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/ctl_options.h"

#include "core/fail.h"

#include <string.h>

#define AT(key_text, field)                                       \
    .key = (key_text), .offset = offsetof(bt_ctl_options, field), \
    .size = sizeof(((bt_ctl_options *)0)->field)

static const bt_config_entry entries[] = {
    {AT("json", json), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help = "Everything that was answered as one JSON object, for scripts."},
    {AT("state", state), .type = BT_CONFIG_STRING, .fallback = "",
     .help = "transfers, pages, peers, leases: only rows in this state (or of this kind), "
             "MOVING say."},
    {AT("limit", limit), .type = BT_CONFIG_UINT32, .min = 1, .max = 1 << 20, .fallback = "200",
     .help = "Rows of each endpoint, at most."},
    {AT("watch", watch_ms), .type = BT_CONFIG_DURATION, .max = 3600000, .fallback = "0",
     .help = "Ask again after so long, until Ctrl-C: 1s, 500ms. 0: once."},
    {AT("timeout", timeout_ms), .type = BT_CONFIG_DURATION, .min = 10, .max = 600000,
     .fallback = "5s", .help = "How long an endpoint may take to answer."},
};

static const bt_args_option options_table[] = {
    {.section = "Endpoints",
     .name = "at",
     .value_name = "ADDRESS",
     .repeat = true,
     .help = "unix:PATH, a PATH, or 127.0.0.1:PORT, as `admin` of a sender, receiver or proxy has "
             "it; without, every one of this user's that is in $XDG_RUNTIME_DIR/baton (else "
             "/tmp/baton-UID)."},
};

static const char summary[] =
    "Asks senders, receivers and proxies what goes on inside them. Nothing is changed.\n"
    "Exit status: 0 all answered; 1 an endpoint did not, or nobody knows the ID; 2 there is no "
    "endpoint, or the command line is wrong.";

static const char command_lines[] =
    "Commands:\n"
    "  transfers   hand-offs under way: stage, age, deadline, and what they wait for\n"
    "  pages       pages of receivers: who holds them, and why\n"
    "  peers       connections: state, path, measured GB/s\n"
    "  leases      what keeps pages: tickets, holds, pins, quarantine with the proof it awaits\n"
    "  counters    what has been counted\n"
    "  trace ID    the whole way of one request, over all endpoints. ID: its trace id or\n"
    "              traceparent, the client's X-Request-Id, or the name of an attempt\n"
    "  slow        the slowest requests of the last hour, and where they lost their time\n"
    "  endpoints   who can be asked\n"
    "  all         transfers, leases, peers, page counts and slow, one after the other\n";

static const char *const commands[] = {"transfers", "pages", "peers", "leases",    "counters",
                                       "trace",     "slow",  "all",   "endpoints", NULL};

/* A traceparent names its trace. */
static const char *id_of(const char *text)
{
    enum { TRACE_AT = 3, TRACE_CHARS = 32, TRACEPARENT_CHARS = 55 };
    static char trace[TRACE_CHARS + 1];
    if (strlen(text) < TRACEPARENT_CHARS || text[2] != '-' || text[TRACE_AT + TRACE_CHARS] != '-')
        return text;
    memcpy(trace, text + TRACE_AT, TRACE_CHARS);
    return trace;
}

static baton_status take_command(bt_ctl_options *o)
{
    size_t n = bt_args_n_positional(o->args);
    if (n == 0)
        return bt_fail(BATON_ERR_INVALID_ARG, "command: wanted transfers, pages, peers, leases, "
                                              "counters, trace ID, slow, all or endpoints, found "
                                              "none; see --help");
    o->command = bt_args_positional(o->args, 0);
    const char *const *known = commands;
    while (*known != NULL && strcmp(*known, o->command) != 0)
        known++;
    if (*known == NULL)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "command: wanted transfers, pages, peers, leases, "
                       "counters, trace, slow, all or endpoints, found "
                       "%.100s",
                       o->command);
    bool is_trace = strcmp(o->command, "trace") == 0;
    if (is_trace && n < 2)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "trace: wanted an ID, found none; `baton-ctl slow` names some");
    if (!is_trace && n > 1)
        return bt_fail(BATON_ERR_INVALID_ARG, "%s: wanted nothing behind it, found %.100s",
                       o->command, bt_args_positional(o->args, 1));
    o->id = is_trace ? id_of(bt_args_positional(o->args, 1)) : NULL;
    return BATON_OK;
}

static baton_status configure(bt_ctl_options *o)
{
    BATON_TRY(
        bt_config_create(&(bt_config_options){.tables = &o->table, .n_tables = 1}, &o->config));
    BATON_TRY(bt_args_configure(o->args, o->config));
    size_t n = bt_args_count(o->args, "at");
    if (n > BT_CTL_ENDPOINTS_MAX)
        return bt_fail(BATON_ERR_INVALID_ARG, "--at: wanted at most %d, found %zu",
                       BT_CTL_ENDPOINTS_MAX, n);
    for (size_t i = 0; i < n; i++)
        o->at[o->n_at++] = bt_args_nth(o->args, "at", i);
    return take_command(o);
}

baton_status bt_ctl_options_parse(int argc, char *const *argv, bt_ctl_options *options,
                                  bt_strbuf *info)
{
    *options = (bt_ctl_options){0};
    options->table = (bt_config_table){.title = "Answers",
                                       .entries = entries,
                                       .n_entries = sizeof(entries) / sizeof(entries[0]),
                                       .target = options};
    options->spec = (bt_args_spec){.program = "baton-ctl",
                                   .summary = summary,
                                   .lines = command_lines,
                                   .options = options_table,
                                   .n_options = sizeof(options_table) / sizeof(options_table[0]),
                                   .positional = "COMMAND [ID]",
                                   .max_positional = 2,
                                   .tables = &options->table,
                                   .n_tables = 1};
    BATON_TRY(bt_args_parse(&options->spec, argc, argv, &options->args));
    if (bt_args_info(options->args, info))
        return bt_strbuf_status(info);
    return configure(options);
}

void bt_ctl_options_free(bt_ctl_options *options)
{
    bt_config_destroy(options->config);
    bt_args_destroy(options->args);
    *options = (bt_ctl_options){0};
}
