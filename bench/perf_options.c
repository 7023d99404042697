/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/perf_options.h"

#include "core/fail.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *const order_names[] = {"scattered", "contiguous", "descending", NULL};
static const char *const huge_names[] = {"auto", "off", "on", NULL};
static const char *const transport_names[] = {"auto",   "mapped", "put", "tcp",
                                              "staged", "loop",   "all", NULL};
static const char *const memory_names[] = {"host", "cuda", "cuda_host", NULL};
static const char *const progress_names[] = {"thread", "manual", NULL};
static const char *const role_names[] = {"pair", "sender", "receiver", "worker", NULL};

#define OPTION(name, field)                                  \
    .key = name, .offset = offsetof(bt_perf_options, field), \
    .size = sizeof(((bt_perf_options *)0)->field)

static const bt_config_entry work_entries[] = {
    {OPTION("pages", n_pages), .type = BT_CONFIG_UINT32, .min = 1, .max = BT_PERF_MAX_PAGES,
     .fallback = "256", .help = "Pages of a transfer; each is one chunk."},
    {OPTION("page_bytes", page_bytes), .type = BT_CONFIG_BYTES, .min = 1,
     .max = (double)BT_PERF_MAX_PAGE_BYTES, .fallback = "256KiB", .help = "Bytes of a page."},
    {OPTION("order", order), .type = BT_CONFIG_ENUM, .names = order_names, .fallback = "scattered",
     .help = "How source pages lie: scattered: shuffled. contiguous: one behind the other. "
             "descending: in reverse, as engines hand out freed blocks."},
    {OPTION("scatter", scatter), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help = "Short for --order scattered."},
    {OPTION("contiguous", contiguous), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help = "Short for --order contiguous."},
    {OPTION("descending", descending), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help = "Short for --order descending."},
    {OPTION("memory", memory), .type = BT_CONFIG_ENUM, .names = memory_names, .fallback = "host",
     .help = "Where the source pages and the pool are: host memory, a GPU's memory, or pinned "
             "host memory."},
    {OPTION("huge_pages", huge_pages), .type = BT_CONFIG_ENUM, .names = huge_names,
     .fallback = "auto",
     .help = "auto: the pool asks for them, as every pool, the source does not. off: neither has "
             "any. on: both ask, and transfers of 4 MiB and more fail where they do not get them: "
             "shared memory has huge pages only where transparent_hugepage/shmem_enabled is "
             "advise or more, or some are reserved."},
    {OPTION("paged", paged), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help = "The source is an engine's paged KV (flash-attention layout, bf16, blocks in the "
             "order asked for) and every page is gathered. Needs pages of whole tokens, each "
             "layers x heads x head_dim x 4 bytes."},
    {OPTION("layers", shape.n_layers), .type = BT_CONFIG_UINT32, .min = 1,
     .max = BT_PERF_MAX_LAYERS, .fallback = "4", .help = "--paged: layers."},
    {OPTION("heads", shape.n_heads), .type = BT_CONFIG_UINT32, .min = 1, .max = 1024,
     .fallback = "4", .help = "--paged: KV heads."},
    {OPTION("head_dim", shape.head_dim), .type = BT_CONFIG_UINT32, .min = 1, .max = 1024,
     .fallback = "64", .help = "--paged: elements of a head."},
    {OPTION("block_tokens", shape.block_tokens), .type = BT_CONFIG_UINT32, .min = 1, .max = 4096,
     .fallback = "16",
     .help = "--paged: tokens of a block. A piece in one place is block_tokens x heads x head_dim "
             "x 2 bytes."},
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

static const char *const digests_names[] = {"off", "sampled", "full", NULL};

static const bt_config_entry path_entries[] = {
    {OPTION("transport", transport), .type = BT_CONFIG_ENUM, .names = transport_names,
     .fallback = "auto",
     .help = "auto: what a sender chooses. mapped: stores into the receiver's mapped pages, or "
             "fail. put: UCX puts. tcp: UCX puts over tcp (UCX_TLS=tcp, unless it is set). "
             "staged: as put, but each page is copied to a staging page first. loop: see --loop. "
             "all: auto, mapped, put and tcp side by side."},
    {OPTION("loop", loop), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help = "Both ends in one process, over the transport that tests use."},
    {OPTION("digests", digests), .type = BT_CONFIG_ENUM, .names = digests_names, .fallback = "off",
     .help = "Of every page, on both sides. sampled: of some of its lines. full: of all bytes."},
    {OPTION("progress", progress), .type = BT_CONFIG_ENUM, .names = progress_names,
     .fallback = "thread",
     .help = "thread: the libraries' own. manual: the caller's, which waits for the transfer."},
    {OPTION("copy_threads", copy_threads), .type = BT_CONFIG_UINT32, .min = 1, .max = 64,
     .fallback = "1",
     .help = "Threads of a sender that copy pages, the one that progresses included."},
    {OPTION("data_lanes", data_lanes), .type = BT_CONFIG_UINT32, .min = 1, .max = 8,
     .fallback = "1", .help = "Connections between the two, which share what is put."},
    {OPTION("devices", devices), .count_offset = offsetof(bt_perf_options, n_devices),
     .type = BT_CONFIG_STRINGS, .help = "Network devices of the data path. Default: lo."},
};

static const bt_config_entry mode_entries[] = {
    {OPTION("curve", curve), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help = "Pages of 1 KiB to 1 MiB, 1 to 2,048 of them (in place of --pages and --page-bytes; "
             "points above --curve-bytes are left out)."},
    {OPTION("curve_bytes", curve_bytes), .type = BT_CONFIG_BYTES, .min = 1024,
     .max = (double)(UINT64_C(1) << 31), .fallback = "256MiB",
     .help = "--curve: most bytes of a transfer."},
    {OPTION("seconds", seconds), .type = BT_CONFIG_UINT32, .min = 1, .max = 86400, .fallback = "60",
     .help = "--curve: measures points about this long in all."},
    {OPTION("latency", latency), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help =
         "One page, pushed when its place has been granted already: from the push until the "
         "receiving process sees it committed. --progress manual: both ends poll, on a core each. "
         "thread: both sleep."},
    {OPTION("alloc", alloc), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help = "From begin until the receiver has granted all --pages: of new keys, and of keys that "
             "are all there."},
    {OPTION("produce", produce_ms), .type = BT_CONFIG_DURATION, .max = 10000, .fallback = "0",
     .help = "A page is pushed every so many ms, as prefill computes them: how long after the last "
             "push the proxy may let decode go, beside one page's transfer. 0: off."},
    {OPTION("senders", n_senders), .type = BT_CONFIG_UINT32, .max = BT_PERF_MAX_ENDS,
     .fallback = "0",
     .help = "Traffic matrix: so many sending processes to --receivers others. Each pair alone "
             "first, then all senders at once, each to another receiver in every round."},
    {OPTION("receivers", n_receivers), .type = BT_CONFIG_UINT32, .max = BT_PERF_MAX_ENDS,
     .fallback = "0", .help = "Receiving processes of the matrix."},
    {OPTION("soak", soak), .type = BT_CONFIG_UINT32, .max = 100000000, .fallback = "0",
     .help = "So many transfers of random shape, order and end, eight at a time; then RSS, "
             "descriptors, mappings, UCX registrations and pages must be what they were. Has its "
             "own pages."},
    {OPTION("samples", n_samples), .type = BT_CONFIG_UINT32, .max = 1000000, .fallback = "0",
     .help = "--latency, --alloc, --produce: how many. 0: 1,000, 50, 15."},
};

static const bt_config_entry role_entries[] = {
    {OPTION("role", role), .type = BT_CONFIG_ENUM, .names = role_names, .fallback = "pair",
     .help = "pair: starts a receiver of its own as a second process. receiver: waits for "
             "senders, one after the other, until it is stopped. sender: uses the receiver at "
             "--peer. worker: a matrix starts those."},
    {OPTION("peer", peer), .type = BT_CONFIG_STRING,
     .help = "sender: host:port as the receiver prints it."},
    {OPTION("listen", listen), .type = BT_CONFIG_STRING, .fallback = "127.0.0.1:0",
     .help = "receiver: host:port to bind; port 0: any free one. Anybody who can reach it may "
             "write the benchmark's memory. Its first line says where, and at which init= port "
             "baton-doctor --peer may ask."},
    {OPTION("control_fd", control_fd), .type = BT_CONFIG_INT32, .min = -1, .max = 1 << 20,
     .fallback = "-1", .help = "receiver: an inherited socket instead of --listen."},
    {OPTION("json", json), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help = "Print the report as JSON."},
    {OPTION("plot", plot), .type = BT_CONFIG_STRING,
     .help = "--curve, --latency: also draw it, to this SVG file."},
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
    options->tables[2] = TABLE("Other measurements, one of", mode_entries);
    options->tables[3] = TABLE("Processes and report", role_entries);
}

const char *bt_perf_order_name(bt_perf_order order)
{
    return order_names[order];
}

const char *bt_perf_huge_name(bt_perf_huge huge)
{
    return huge_names[huge];
}

const char *bt_perf_digests_name(baton_digests digests)
{
    return digests_names[digests];
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
    if (o->role == BT_PERF_WORKER)
        return o->control_fd >= 0
                   ? BATON_OK
                   : bt_fail(BATON_ERR_INVALID_ARG, "--role worker: wanted with --control-fd");
    if (o->role == BT_PERF_RECEIVER)
        return o->control_fd < 0 ? parse_address(o, "listen", o->listen) : BATON_OK;
    if (o->control_fd >= 0)
        return bt_fail(BATON_ERR_INVALID_ARG, "--control-fd: wanted with --role receiver only");
    if ((o->role == BT_PERF_SENDER) != (o->peer != NULL))
        return bt_fail(BATON_ERR_INVALID_ARG, "--peer: wanted with --role sender, and only there");
    return o->peer != NULL ? parse_address(o, "peer", o->peer) : BATON_OK;
}

static baton_status choose_order(bt_perf_options *o)
{
    if (o->scatter + o->contiguous + o->descending > 1)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "wanted one of --scatter, --contiguous and --descending, found several");
    if (o->scatter)
        o->order = BT_PERF_SCATTER;
    if (o->contiguous)
        o->order = BT_PERF_CONTIGUOUS;
    if (o->descending)
        o->order = BT_PERF_DESCENDING;
    return BATON_OK;
}

static baton_status choose_mode(bt_perf_options *o)
{
    static const uint32_t samples[] = {
        [BT_PERF_LATENCY] = 1000, [BT_PERF_ALLOC] = 50, [BT_PERF_PRODUCE] = 15};
    if (o->n_senders != 0 || o->n_receivers != 0) {
        o->n_senders = o->n_senders != 0 ? o->n_senders : 1;
        o->n_receivers = o->n_receivers != 0 ? o->n_receivers : 1;
    }
    if (o->curve + o->latency + o->alloc + (o->produce_ms > 0) + (o->n_senders > 0) +
            (o->soak > 0) >
        1)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "wanted one of --curve, --latency, --alloc, --produce, --senders with "
                       "--receivers, and --soak, found several");
    o->mode = o->curve             ? BT_PERF_CURVE
              : o->n_senders > 0   ? BT_PERF_MATRIX
              : o->soak > 0        ? BT_PERF_SOAK
              : o->latency         ? BT_PERF_LATENCY
              : o->alloc           ? BT_PERF_ALLOC
              : o->produce_ms != 0 ? BT_PERF_PRODUCE
                                   : BT_PERF_ONE;
    if (o->mode == BT_PERF_ONE && o->transport == BT_PERF_ALL)
        o->mode = BT_PERF_BESIDE;
    if (o->transport == BT_PERF_ALL && o->mode != BT_PERF_BESIDE && o->mode != BT_PERF_CURVE)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "--transport all: wanted with --curve or transfers of one size");
    if (o->plot != NULL && o->mode != BT_PERF_CURVE && o->mode != BT_PERF_LATENCY)
        return bt_fail(BATON_ERR_INVALID_ARG, "--plot: wanted with --curve or --latency");
    if ((o->mode == BT_PERF_CURVE || o->mode == BT_PERF_BESIDE || o->mode == BT_PERF_MATRIX) &&
        o->role != BT_PERF_PAIR)
        return bt_fail(
            BATON_ERR_INVALID_ARG,
            "--curve, --senders and --transport all start processes of their own; wanted "
            "without --role");
    if (o->mode == BT_PERF_MATRIX && o->transport == BT_PERF_LOOP)
        return bt_fail(BATON_ERR_INVALID_ARG, "--senders: wanted without --transport loop");
    if (o->mode == BT_PERF_LATENCY)
        o->n_pages = 1;
    if (o->n_samples == 0 && o->mode < sizeof(samples) / sizeof(samples[0]))
        o->n_samples = samples[o->mode];
    return BATON_OK;
}

static baton_status check_together(bt_perf_options *o)
{
    BATON_TRY(choose_order(o));
    if (o->loop && o->transport != BT_PERF_AUTO && o->transport != BT_PERF_LOOP)
        return bt_fail(BATON_ERR_INVALID_ARG, "--loop: wanted without --transport %s",
                       transport_names[o->transport]);
    if (o->loop)
        o->transport = BT_PERF_LOOP;
    BATON_TRY(choose_mode(o));
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
