/* SPDX-License-Identifier: Apache-2.0 */
/* baton-engine: command line, signals and life cycle around bt_engine_server. */
#include "engine/engineserver.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "core/args.h"
#include "core/fail.h"
#include "core/fileoptions.h"
#include "core/log.h"

enum { EXIT_FAILED = 1, EXIT_USAGE = 2 };

typedef struct {
    bt_engine_options engine;
    uint64_t random_weights;
    const char *log_level;
    uint32_t drain_ms;
} program_options;

static const char *const role_names[] = {"both", "prefill", "decode", NULL};
static const char *const dtype_names[] = {"default", "f32", "f16", "bf16", NULL};

#define AT(key_text, field)                                      \
    .key = key_text, .offset = offsetof(program_options, field), \
    .size = sizeof(((program_options *)0)->field)

static const bt_config_entry entries[] = {
    {AT("role", engine.role), .type = BT_CONFIG_ENUM, .names = role_names, .fallback = "both",
     .help = "both: answers alone. prefill: sends the KV of prompts to decode engines, as each "
             "request says. decode: looks prompts up in what prefill engines have sent."},
    {AT("model", engine.model), .type = BT_CONFIG_STRING,
     .help = "Folder with config.json, safetensors and, if there is one, tokenizer.json."},
    {AT("random_weights", random_weights), .type = BT_CONFIG_UINT64,
     .help = "Seed of a small built-in model with random weights, instead of a folder."},
    {AT("host", engine.host), .type = BT_CONFIG_STRING, .fallback = "127.0.0.1",
     .help = "Numeric address to listen on."},
    {AT("port", engine.port), .type = BT_CONFIG_UINT16, .fallback = "0",
     .help = "Port to listen on; 0: any free one, which the ready line names."},
    {AT("tp", engine.tp), .type = BT_CONFIG_UINT32, .min = 1, .max = BT_HANDOFF_MAX_RANKS,
     .fallback = "1", .help = "Ranks that share the KV heads: so many senders or receivers."},
    {AT("threads", engine.threads), .type = BT_CONFIG_UINT32, .max = 256, .fallback = "0",
     .help = "Threads that compute; 0: as many as the process may use, at most 16."},
    {AT("chunk_tokens", engine.chunk_tokens), .type = BT_CONFIG_UINT32, .min = 1, .max = 65536,
     .fallback = "256",
     .help = "Prompt tokens computed per step, and tokens of a hand-off chunk: equal on both "
             "sides."},
    {AT("step_tokens", engine.step_tokens), .type = BT_CONFIG_UINT32, .max = 1 << 20,
     .fallback = "0", .help = "Tokens of one forward pass; 0: chunk_tokens + max_running."},
    {AT("max_running", engine.max_running), .type = BT_CONFIG_UINT32, .min = 1, .max = 1024,
     .fallback = "32", .help = "Sequences computed together."},
    {AT("max_queue", engine.max_queued), .type = BT_CONFIG_UINT32, .min = 1, .max = 1 << 20,
     .fallback = "256", .help = "Requests that wait; more are refused with 429 and Retry-After."},
    {AT("max_model_len", engine.max_model_len), .type = BT_CONFIG_UINT32, .max = 1 << 24,
     .fallback = "0", .help = "Tokens of prompt and output; 0: what model and KV cache allow."},
    {AT("kv_blocks", engine.kv_blocks), .type = BT_CONFIG_UINT32, .max = 1 << 24, .fallback = "0",
     .help = "Blocks of the KV cache; 0: as many as fit into kv_bytes."},
    {AT("kv_bytes", engine.kv_bytes), .type = BT_CONFIG_BYTES, .min = 4096, .max = 1e15,
     .fallback = "256MiB", .help = "Memory of the KV cache."},
    {AT("kv_dtype", engine.kv_dtype), .type = BT_CONFIG_ENUM, .names = dtype_names,
     .fallback = "default", .help = "Elements of the KV cache; default: bf16."},
    {AT("block_tokens", engine.block_tokens), .type = BT_CONFIG_UINT32, .min = 1, .max = 1024,
     .fallback = "16", .help = "Tokens of a KV block."},
    {AT("served_model_name", engine.names),
     .count_offset = offsetof(program_options, engine.n_names), .type = BT_CONFIG_STRINGS,
     .help = "Names of the model in the API, the first in answers; default: the folder's name."},
    {AT("chat_template", engine.chat_template), .type = BT_CONFIG_STRING,
     .help = "chatml, llama3 or plain; default: the one whose special tokens the tokenizer has. "
             "Equal on prefill and decode engines."},
    {AT("hash_seed", engine.hash_seed), .type = BT_CONFIG_STRING,
     .help = "Mixed into the names of KV chunks; equal on prefill and decode engines."},
    {AT("spoil_layer", engine.spoil_layer), .type = BT_CONFIG_UINT32, .max = 65536, .fallback = "0",
     .help =
         "For proofs that moved KV is used: a decode engine overwrites this layer, counted from "
         "1, of every prompt that was handed over. 0: none."},
    {AT("spoil_byte", engine.spoil_byte), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help = "For proofs that digests are checked: a prefill engine changes one byte of every "
             "hand-off on its way."},
    {AT("drain_ms", drain_ms), .type = BT_CONFIG_DURATION, .fallback = "30s",
     .help = "How long SIGINT and SIGTERM let running requests and transfers go on. A second "
             "signal ends them at once."},
    {AT("log_level", log_level), .type = BT_CONFIG_STRING, .fallback = "info",
     .help = "error, warn, info, debug or trace; lines go to stderr."},
};

static const bt_args_option options[] = {
    {.section = "Hand-off",
     .name = "config",
     .value_name = "FILE",
     .help = "The sender's (role prefill) or receiver's (role decode) YAML file."},
    {.name = "set",
     .value_name = "KEY=VALUE",
     .repeat = true,
     .help = "Sets a key of the sender or receiver, over its file."},
    {.name = "print-config",
     .help = "Prints every option and key in force and where it is from, and starts nothing."},
};

/* The life of the process, for the callbacks of the loop. */
typedef struct {
    bt_loop *loop;
    bt_engine_server *server;
    bt_timer *timer;
    uint32_t drain_ms;
    bool draining;
} life;

static void stop_loop(void *arg)
{
    bt_loop_stop(((life *)arg)->loop);
}

static void on_signal(void *arg)
{
    life *l = arg;
    if (l->draining) {
        l->drain_ms = 0;
        bt_loop_stop(l->loop);
        return;
    }
    l->draining = true;
    bt_info("engine: draining");
    bt_timer_start(l->timer, l->drain_ms, 0);
    bt_api_drain(bt_engine_server_api(l->server), stop_loop, l);
}

static void print_ready(const bt_engine_server *server)
{
    bt_strbuf text = {0};
    bt_engine_server_describe(server, &text);
    printf("baton-engine ready %s\n", bt_strbuf_text(&text));
    fflush(stdout);
    bt_strbuf_free(&text);
}

static baton_status serve(const program_options *o)
{
    life l = {.drain_ms = o->drain_ms};
    BATON_TRY(bt_loop_create(&l.loop));
    baton_status status = bt_engine_server_create(l.loop, &o->engine, &l.server);
    if (status == BATON_OK)
        status = bt_timer_create(l.loop, stop_loop, &l, &l.timer);
    if (status == BATON_OK)
        status = bt_loop_on_signal(l.loop, SIGINT, on_signal, &l);
    if (status == BATON_OK)
        status = bt_loop_on_signal(l.loop, SIGTERM, on_signal, &l);
    if (status == BATON_OK) {
        print_ready(l.server);
        bt_loop_run(l.loop);
        bt_info("engine: stopping");
    }
    bt_timer_destroy(l.timer);
    bt_engine_server_destroy(l.server, l.drain_ms);
    bt_loop_destroy(l.loop);
    return status;
}

/* Fills what the table cannot: weights from a folder or a seed, and the hand-off's overrides. */
static baton_status finish_options(const bt_args *args, const bt_config *config, program_options *o,
                                   const char **overrides)
{
    bool has_seed = strcmp(bt_config_origin(config, "random_weights"), "default") != 0;
    if (has_seed == (o->engine.model != NULL))
        return bt_fail(BATON_ERR_INVALID_ARG, "wanted either --model or --random-weights");
    o->engine.seed = o->random_weights;
    o->engine.config = bt_args_value(args, "config");
    for (size_t i = 0; i < bt_args_count(args, "set"); i++)
        overrides[i] = bt_args_nth(args, "set", i);
    o->engine.overrides = overrides;
    o->engine.n_overrides = (uint32_t)bt_args_count(args, "set");
    if (o->engine.role == BT_ROLE_BOTH && (o->engine.config != NULL || o->engine.n_overrides != 0))
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "--config and --set are for --role prefill or decode");
    baton_log_level level;
    BATON_TRY(baton_log_level_parse(o->log_level, &level));
    baton_log_set_level(level);
    return BATON_OK;
}

static int fail(int code)
{
    fprintf(stderr, "baton-engine: %s\n", baton_last_error());
    return code;
}

static int print_config(const bt_config *config, const program_options *o)
{
    const bt_engine_options *engine = &o->engine;
    bt_strbuf text = {0};
    baton_status status = BATON_OK;
    bt_config_print(config, &text);
    if (engine->role != BT_ROLE_BOTH) {
        bt_strbuf_putc(&text, '\n');
        status =
            bt_file_options_print(engine->config, engine->overrides, engine->n_overrides, &text);
    }
    if (status == BATON_OK)
        status = bt_strbuf_status(&text);
    if (status == BATON_OK)
        fputs(bt_strbuf_text(&text), stdout);
    bt_strbuf_free(&text);
    return status < 0 ? fail(EXIT_USAGE) : 0;
}

static int run(const bt_args *args, const bt_config *config, program_options *o)
{
    enum { MAX_OVERRIDES = 256 };
    const char *overrides[MAX_OVERRIDES];
    if (bt_args_count(args, "set") > MAX_OVERRIDES) {
        bt_fail(BATON_ERR_INVALID_ARG, "--set: wanted at most %d", MAX_OVERRIDES);
        return fail(EXIT_USAGE);
    }
    if (finish_options(args, config, o, overrides) < 0)
        return fail(EXIT_USAGE);
    if (bt_args_count(args, "print-config") > 0)
        return print_config(config, o);
    return serve(o) < 0 ? fail(EXIT_FAILED) : 0;
}

static int configure(const bt_args *args, const bt_config_table *table, program_options *o)
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
    int code = status < 0 ? fail(EXIT_USAGE) : run(args, config, o);
    bt_config_destroy(config);
    return code;
}

int main(int argc, char **argv)
{
    program_options o = {0};
    bt_config_table table = {
        .title = "Engine",
        .entries = entries,
        .n_entries = sizeof(entries) / sizeof(entries[0]),
        .target = &o,
    };
    const bt_args_spec spec = {
        .program = "baton-engine",
        .summary =
            "A small inference server for Llama-family models on CPUs, with OpenAI's HTTP API, as "
            "prefill or decode end of a KV hand-off, or alone. Prints one line on stdout when it "
            "is ready: \"baton-engine ready role=.. host=.. port=.. ...\".",
        .options = options,
        .n_options = sizeof(options) / sizeof(options[0]),
        .tables = &table,
        .n_tables = 1,
    };
    signal(SIGPIPE, SIG_IGN);
    baton_log_set_sink(bt_log_stderr, NULL);
    bt_args *args = NULL;
    int code = bt_args_parse(&spec, argc, argv, &args) < 0 ? fail(EXIT_USAGE)
                                                           : configure(args, &table, &o);
    bt_args_destroy(args);
    return code;
}
