/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/perf_options.h"

#include "core/fail.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *const order_names[] = {"scatter", "contiguous", "descending", NULL};
static const char *const transport_names[] = {"auto", "mapped", "put", "tcp", "loop", NULL};
static const char *const progress_names[] = {"thread", "manual", NULL};
static const char *const role_names[] = {"pair", "sender", "receiver", NULL};

#define OPTION(name, field)                                  \
    .key = name, .offset = offsetof(bt_perf_options, field), \
    .size = sizeof(((bt_perf_options *)0)->field)

static const bt_config_entry work_entries[] = {
    {OPTION("pages", n_pages), .type = BT_CONFIG_UINT32, .min = 1, .max = BT_PERF_MAX_PAGES,
     .fallback = "256", .help = "Pages of a transfer; each is one chunk."},
    {OPTION("page_bytes", page_bytes), .type = BT_CONFIG_BYTES, .min = 1,
     .max = (double)BT_PERF_MAX_PAGE_BYTES, .fallback = "256KiB", .help = "Bytes of a page."},
    {OPTION("scatter", scatter), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help = "Source pages lie in shuffled order (the default)."},
    {OPTION("contiguous", contiguous), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help = "Source pages lie in order, one behind the other."},
    {OPTION("descending", descending), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help = "Source pages lie in reverse order, as engines hand out freed blocks."},
    {OPTION("paged", paged), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help = "The source is an engine's paged KV (flash-attention layout, bf16, 4 layers, 4 heads "
             "of 64, blocks of 16 tokens in the order asked for) and every page is gathered. "
             "Needs a page of whole tokens, 4 KiB each."},
    {OPTION("pool_pages", pool_pages), .type = BT_CONFIG_UINT32,
     .max = (double)BT_PERF_MAX_POOL_PAGES, .fallback = "0",
     .help = "Pages of the receiver's pool. 0: as many as a transfer has, so that each one evicts "
             "the last."},
    {OPTION("iterations", n_iterations), .type = BT_CONFIG_UINT32, .min = 1, .max = 1000000,
     .fallback = "21", .help = "Transfers that are measured, one after the other."},
    {OPTION("warmup", n_warmup), .type = BT_CONFIG_UINT32, .max = 1000000, .fallback = "3",
     .help = "Transfers before them that are not; they are verified all the same."},
    {OPTION("seed", seed), .type = BT_CONFIG_UINT64, .fallback = "0",
     .help = "Contents and order are the same for the same seed."},
    {OPTION("flip_byte", flip_byte), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help = "Send one wrong byte in every transfer: shows that the check finds it."},
};

static const bt_config_entry path_entries[] = {
    {OPTION("transport", transport), .type = BT_CONFIG_ENUM, .names = transport_names,
     .fallback = "auto",
     .help = "auto: what a sender chooses. mapped: stores into the receiver's mapped pages, or "
             "fail. put: UCX puts. tcp: UCX puts over tcp (UCX_TLS=tcp, unless it is set). loop: "
             "see --loop."},
    {OPTION("loop", loop), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help = "Both ends in one process, over the transport that tests use."},
    {OPTION("digests", digests), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help = "Hash every page on both sides."},
    {OPTION("progress", progress), .type = BT_CONFIG_ENUM, .names = progress_names,
     .fallback = "thread",
     .help = "thread: the libraries' own. manual: the caller's, which waits for the transfer."},
    {OPTION("devices", devices), .count_offset = offsetof(bt_perf_options, n_devices),
     .type = BT_CONFIG_STRINGS, .help = "Network devices of the data path. Default: lo."},
};

static const bt_config_entry role_entries[] = {
    {OPTION("role", role), .type = BT_CONFIG_ENUM, .names = role_names, .fallback = "pair",
     .help = "pair: starts a receiver of its own as a second process. receiver: waits for "
             "senders, one after the other, until it is stopped. sender: uses the receiver at "
             "--peer."},
    {OPTION("peer", peer), .type = BT_CONFIG_STRING,
     .help = "sender: host:port as the receiver prints it."},
    {OPTION("listen", listen), .type = BT_CONFIG_STRING, .fallback = "127.0.0.1:0",
     .help = "receiver: host:port to bind; port 0: any free one. Anybody who can reach it may "
             "write the benchmark's memory."},
    {OPTION("control_fd", control_fd), .type = BT_CONFIG_INT32, .min = -1, .max = 1 << 20,
     .fallback = "-1", .help = "receiver: an inherited socket instead of --listen."},
    {OPTION("json", json), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help = "Print the report as JSON."},
    {OPTION("verbose", verbose), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help = "Log to stderr what the libraries do."},
};

#define TABLE(title, entries)                                           \
    (bt_config_table)                                                   \
    {                                                                   \
        title, entries, sizeof(entries) / sizeof((entries)[0]), options \
    }

static void set_tables(bt_perf_options *options)
{
    *options = (bt_perf_options){0};
    options->tables[0] = TABLE("Work", work_entries);
    options->tables[1] = TABLE("Path", path_entries);
    options->tables[2] = TABLE("Processes and report", role_entries);
}

const char *bt_perf_order_name(bt_perf_order order)
{
    return order_names[order];
}

const char *bt_perf_transport_name(bt_perf_transport transport)
{
    return transport_names[transport];
}

/* "host:port", the last colon counts. */
static baton_status parse_address(bt_perf_options *o, const char *name, const char *text)
{
    const char *colon = strrchr(text, ':');
    char *end = NULL;
    errno = 0;
    unsigned long port = colon != NULL ? strtoul(colon + 1, &end, 10) : 0;
    size_t host_bytes = colon != NULL ? (size_t)(colon - text) : 0;
    if (host_bytes == 0 || host_bytes >= sizeof(o->host) || colon[1] < '0' || colon[1] > '9' ||
        *end != '\0' || errno != 0 || port > UINT16_MAX)
        return bt_fail(BATON_ERR_INVALID_ARG, "--%s: wanted host:port, found %s", name, text);
    memcpy(o->host, text, host_bytes);
    o->host[host_bytes] = '\0';
    o->port = (uint16_t)port;
    return BATON_OK;
}

static baton_status check_role(bt_perf_options *o)
{
    if (o->role == BT_PERF_RECEIVER)
        return o->control_fd < 0 ? parse_address(o, "listen", o->listen) : BATON_OK;
    if (o->control_fd >= 0)
        return bt_fail(BATON_ERR_INVALID_ARG, "--control-fd: wanted with --role receiver only");
    if ((o->role == BT_PERF_SENDER) != (o->peer != NULL))
        return bt_fail(BATON_ERR_INVALID_ARG, "--peer: wanted with --role sender, and only there");
    return o->peer != NULL ? parse_address(o, "peer", o->peer) : BATON_OK;
}

static baton_status check_together(bt_perf_options *o)
{
    if (o->scatter + o->contiguous + o->descending > 1)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "wanted one of --scatter, --contiguous and --descending, found several");
    o->order = o->contiguous   ? BT_PERF_CONTIGUOUS
               : o->descending ? BT_PERF_DESCENDING
                               : BT_PERF_SCATTER;
    if (o->loop && o->transport != BT_PERF_AUTO && o->transport != BT_PERF_LOOP)
        return bt_fail(BATON_ERR_INVALID_ARG, "--loop: wanted without --transport %s",
                       transport_names[o->transport]);
    if (o->loop)
        o->transport = BT_PERF_LOOP;
    if (o->transport == BT_PERF_LOOP && o->role != BT_PERF_PAIR)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "--loop: both ends are in one process; wanted without --role");
    if (o->pool_pages == 0)
        o->pool_pages = o->n_pages;
    if (o->pool_pages < o->n_pages)
        return bt_fail(BATON_ERR_INVALID_ARG, "--pool-pages: wanted at least %u, found %u",
                       o->n_pages, o->pool_pages);
    return check_role(o);
}

static baton_status configure(const bt_args *args, bt_perf_options *options)
{
    const bt_config_options config = {.tables = options->tables, .n_tables = BT_PERF_N_TABLES};
    BATON_TRY(bt_config_create(&config, &options->config));
    BATON_TRY(bt_args_configure(args, options->config));
    return check_together(options);
}

baton_status bt_perf_options_parse(int argc, char *const *argv, bt_perf_options *options,
                                   bt_strbuf *info)
{
    set_tables(options);
    const bt_args_spec spec = {
        .program = "baton-perf",
        .summary =
            "Moves pages from a sender to a receiver and measures it: one transfer at a time, "
            "from begin to done (the receiver has published every page), always of new contents. "
            "The receiver checks every byte, outside of the measured time. Exit status: 0, 1 when "
            "a byte was wrong, 2 when a transfer failed or nothing could run.",
        .tables = options->tables,
        .n_tables = BT_PERF_N_TABLES,
    };
    bt_args *args = NULL;
    BATON_TRY(bt_args_parse(&spec, argc, argv, &args));
    baton_status status =
        bt_args_info(args, info) ? bt_strbuf_status(info) : configure(args, options);
    bt_args_destroy(args);
    return status;
}

void bt_perf_options_free(bt_perf_options *options)
{
    bt_config_destroy(options->config);
    options->config = NULL;
}
