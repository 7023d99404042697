/* SPDX-License-Identifier: Apache-2.0 */
#include "doctor/doctor_options.h"

#include "core/fail.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char *const color_names[] = {"auto", "always", "never", NULL};

#define AT(key_text, field)                                          \
    .key = (key_text), .offset = offsetof(bt_doctor_options, field), \
    .size = sizeof(((bt_doctor_options *)0)->field)

static const bt_config_entry entries[] = {
    {AT("peer", peer), .type = BT_CONFIG_STRING,
     .help = "HOST:PORT of a receiver's init port (of a decode engine, say): connects as a sender "
             "would and tells which path the bytes take and how fast it is. Nothing is written "
             "but the memory that receivers keep for measuring."},
    {AT("timeout", timeout_ms), .type = BT_CONFIG_DURATION, .min = 100, .max = 600000,
     .fallback = "5s", .help = "How long each step of that may take."},
    {AT("json", json), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help = "Everything as one JSON object, for scripts."},
    {AT("color", color), .type = BT_CONFIG_ENUM, .names = color_names, .fallback = "auto",
     .help = "auto: on a terminal, unless NO_COLOR is set."},
    {AT("root", root), .type = BT_CONFIG_STRING, .fallback = "",
     .help = "Read sys/, proc/ and dev/ below this folder, a copy of another machine's, instead "
             "of this machine's. What UCX offers is always this machine's."},
    {AT("verbose", verbose), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help = "Log to stderr what the libraries do."},
};

static const bt_args_option file_options[] = {
    {.section = "Hand-off",
     .name = "config",
     .value_name = "FILE",
     .help = "The sender's or receiver's YAML file, as the engine gets it: devices, pool, keys. "
             "BATON_* variables count too."},
    {.name = "set",
     .value_name = "KEY=VALUE",
     .repeat = true,
     .help = "Sets one of its keys, over the file."},
    {.section = "Findings",
     .name = "accept",
     .value_name = "ID",
     .repeat = true,
     .help = "Warnings of this id (--json has them) are known and meant: they become notes, and do "
             "not count for the exit status. What is broken stays broken."},
};

static const char summary[] =
    "Says what this machine can do for a KV hand-off: UCX and its transports, RDMA devices, GPUs "
    "and how far they are from each other, limits, and what will bite. With --peer also how the "
    "bytes will go to a receiver, measured.\n"
    "Exit status: 0 all is well; 1 there are warnings, it works but slower or less safely than it "
    "could; 2 something is broken, a peer cannot be used, or the command line is wrong.";

/* "host:port", "[::1]:port"; the last colon counts. */
static baton_status parse_peer(bt_doctor_options *o)
{
    const char *colon = strrchr(o->peer, ':'), *from = o->peer;
    size_t n = colon != NULL ? (size_t)(colon - o->peer) : 0;
    if (n >= 2 && from[0] == '[' && from[n - 1] == ']') {
        from++;
        n -= 2;
    }
    char *end = NULL;
    errno = 0;
    unsigned long port = colon != NULL ? strtoul(colon + 1, &end, 10) : 0;
    bool is_number = colon != NULL && colon[1] >= '0' && colon[1] <= '9' && *end == '\0';
    if (n == 0 || n >= sizeof(o->host) || !is_number || errno != 0 || port == 0 ||
        port > UINT16_MAX)
        return bt_fail(BATON_ERR_INVALID_ARG, "--peer: wanted HOST:PORT, found %.300s", o->peer);
    memcpy(o->host, from, n);
    o->host[n] = '\0';
    o->init_port = (uint16_t)port;
    return BATON_OK;
}

static baton_status load_hand_off(bt_doctor_options *o)
{
    size_t n = bt_args_count(o->args, "set");
    if (n > BT_DOCTOR_OVERRIDES_MAX)
        return bt_fail(BATON_ERR_INVALID_ARG, "--set: wanted at most %d, found %zu",
                       BT_DOCTOR_OVERRIDES_MAX, n);
    for (size_t i = 0; i < n; i++)
        o->overrides[i] = bt_args_nth(o->args, "set", i);
    o->n_overrides = (uint32_t)n;
    o->config_path = bt_args_value(o->args, "config");
    return bt_file_options_load(o->config_path, BT_FILE_ROLE_ANY, o->overrides, o->n_overrides,
                                &o->file, &o->hand_off);
}

static baton_status configure(bt_doctor_options *o)
{
    BATON_TRY(bt_config_create(&(bt_config_options){.tables = &o->table, .n_tables = 1}, &o->own));
    BATON_TRY(bt_args_configure(o->args, o->own));
    struct stat facts;
    if (o->root[0] != '\0' && (stat(o->root, &facts) != 0 || !S_ISDIR(facts.st_mode)))
        return bt_fail(BATON_ERR_INVALID_ARG, "--root: wanted a folder, found %.300s", o->root);
    if (o->peer != NULL)
        BATON_TRY(parse_peer(o));
    return load_hand_off(o);
}

baton_status bt_doctor_options_parse(int argc, char *const *argv, bt_doctor_options *options,
                                     bt_strbuf *info)
{
    *options = (bt_doctor_options){0};
    options->table = (bt_config_table){.title = "Doctor",
                                       .entries = entries,
                                       .n_entries = sizeof(entries) / sizeof(entries[0]),
                                       .target = options};
    options->spec = (bt_args_spec){.program = "baton-doctor",
                                   .summary = summary,
                                   .options = file_options,
                                   .n_options = sizeof(file_options) / sizeof(file_options[0]),
                                   .tables = &options->table,
                                   .n_tables = 1};
    BATON_TRY(bt_args_parse(&options->spec, argc, argv, &options->args));
    if (bt_args_info(options->args, info))
        return bt_strbuf_status(info);
    return configure(options);
}

void bt_doctor_options_free(bt_doctor_options *options)
{
    bt_config_destroy(options->hand_off);
    bt_config_destroy(options->own);
    bt_args_destroy(options->args);
    *options = (bt_doctor_options){0};
}
