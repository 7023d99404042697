/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/engineserver.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/fail.h"
#include "core/log.h"
#include "engine/handoffrole.h"

enum {
    DEFAULT_CHUNK_TOKENS = 256,
    DEFAULT_MAX_RUNNING = 32,
    DEFAULT_BLOCK_TOKENS = 16,
    DEFAULT_KV_BYTES = 256 << 20,
    MAX_DEFAULT_THREADS = 16,
    MAX_EOS_IDS = BT_MAX_EOS_IDS + 2,
};

struct bt_engine_server {
    bt_engine_options options; /* with the defaults filled */
    bt_model *model;
    bt_compute *compute;
    bt_kv_cache *cache;
    bt_tokenizer *tokenizer;
    bt_chat_template chat_template;
    bt_handoff_sender *sender;
    bt_handoff_receiver *receiver;
    bt_handoff_ops handoff;
    bt_api *api;
    uint32_t eos_ids[MAX_EOS_IDS], n_eos_ids;
    char name_text[128];
    const char *name;
};

const char *bt_engine_role_name(bt_engine_role role)
{
    static const char *const names[] = {"both", "prefill", "decode"};
    return names[role];
}

static uint32_t usable_cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) != 0)
        return 1;
    int n = CPU_COUNT(&set);
    return n < MAX_DEFAULT_THREADS ? (uint32_t)n : MAX_DEFAULT_THREADS;
}

static void default_to(uint32_t *field, uint32_t value)
{
    if (*field == 0)
        *field = value;
}

static void fill_defaults(bt_engine_options *o)
{
    default_to(&o->tp, 1);
    default_to(&o->threads, usable_cores());
    default_to(&o->chunk_tokens, DEFAULT_CHUNK_TOKENS);
    default_to(&o->max_running, DEFAULT_MAX_RUNNING);
    default_to(&o->step_tokens, o->chunk_tokens + o->max_running);
    default_to(&o->block_tokens, DEFAULT_BLOCK_TOKENS);
    if (o->host == NULL)
        o->host = "127.0.0.1";
    if (o->kv_bytes == 0)
        o->kv_bytes = DEFAULT_KV_BYTES;
    if (o->kv_dtype == 0)
        o->kv_dtype = BATON_DTYPE_BF16;
}

static baton_status load_model(bt_engine_server *s)
{
    if (s->options.model != NULL)
        return bt_model_load(s->options.model, &s->model);
    bt_model_config config;
    bt_model_config_small(&config);
    return bt_model_create_random(&config, s->options.seed, &s->model);
}

/* The model's own ends, the byte tokenizer's, and the end of an assistant's turn: the same for
 * completions and chat, because a chat's decode leg is a completion. */
static void collect_eos(bt_engine_server *s)
{
    const bt_model_config *config = bt_model_get_config(s->model);
    uint32_t more[] = {bt_tokenizer_find(s->tokenizer, "<|eos|>"),
                       bt_chat_end_token(s->chat_template, s->tokenizer)};
    for (uint32_t i = 0; i < config->n_eos_ids; i++)
        s->eos_ids[s->n_eos_ids++] = config->eos_ids[i];
    for (size_t i = 0; i < sizeof(more) / sizeof(more[0]); i++)
        if (more[i] < config->vocab_size)
            s->eos_ids[s->n_eos_ids++] = more[i];
}

static baton_status load_tokenizer(bt_engine_server *s)
{
    uint32_t n_vocab = bt_model_get_config(s->model)->vocab_size;
    BATON_TRY(bt_tokenizer_load(s->options.model, &s->tokenizer));
    if (bt_tokenizer_n_ids(s->tokenizer) > n_vocab)
        bt_warn("engine: tokenizer has %u ids, the model %u: prompts with the others are refused",
                bt_tokenizer_n_ids(s->tokenizer), n_vocab);
    s->chat_template = bt_chat_template_of(s->tokenizer, n_vocab);
    if (s->options.chat_template != NULL)
        BATON_TRY(bt_chat_template_parse(s->options.chat_template, &s->chat_template));
    collect_eos(s);
    return BATON_OK;
}

static baton_status create_cache(bt_engine_server *s)
{
    const bt_model_config *config = bt_model_get_config(s->model);
    bt_engine_options *o = &s->options;
    uint64_t block_bytes = (uint64_t)config->n_layers * 2 * o->block_tokens * config->n_kv_heads *
                           config->head_dim * baton_dtype_bytes((baton_dtype)o->kv_dtype);
    uint64_t fitting = block_bytes != 0 ? o->kv_bytes / block_bytes : 0;
    default_to(&o->kv_blocks, fitting < UINT32_MAX ? (uint32_t)fitting : UINT32_MAX - 1);
    if (o->kv_blocks == 0)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "engine: kv_bytes: wanted at least one block of %llu bytes, found %llu",
                       (unsigned long long)block_bytes, (unsigned long long)o->kv_bytes);
    uint64_t room = (uint64_t)o->kv_blocks * o->block_tokens;
    uint32_t most = room < config->max_positions ? (uint32_t)room : config->max_positions;
    if (o->max_model_len > most)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "engine: max_model_len: wanted at most %u (model %u, KV cache %llu tokens), "
                       "found %u",
                       most, config->max_positions, (unsigned long long)room, o->max_model_len);
    default_to(&o->max_model_len, most);
    bt_kv_options kv = {o->kv_blocks, o->block_tokens, (baton_dtype)o->kv_dtype};
    return bt_kv_cache_create(config, &kv, &s->cache);
}

static baton_status create_compute(bt_engine_server *s)
{
    bt_compute_options compute = {
        .n_threads = s->options.threads,
        .max_batch_tokens = s->options.step_tokens,
        .max_batch_items = s->options.max_running,
    };
    return bt_compute_create(s->model, &compute, &s->compute);
}

static baton_status create_handoff(bt_engine_server *s)
{
    if (s->options.role == BT_ROLE_BOTH)
        return BATON_OK;
    bt_handoff_options handoff = {
        .cache = s->cache,
        .fingerprint = bt_model_fingerprint(s->model),
        .tp = s->options.tp,
        .chunk_tokens = s->options.chunk_tokens,
        .max_model_len = s->options.max_model_len,
        .key_seed = s->options.hash_seed,
        .spoil_layer = s->options.spoil_layer,
        .spoil_byte = s->options.spoil_byte,
        .config = s->options.config,
        .overrides = s->options.overrides,
        .n_overrides = s->options.n_overrides,
    };
    if (s->options.role == BT_ROLE_PREFILL) {
        BATON_TRY(bt_handoff_sender_create(&handoff, &s->sender));
        bt_handoff_sender_ops(s->sender, &s->handoff);
    } else {
        BATON_TRY(bt_handoff_receiver_create(&handoff, &s->receiver));
        bt_handoff_receiver_ops(s->receiver, &s->handoff);
    }
    return BATON_OK;
}

static baton_status forward(void *ctx, const bt_batch_item *items, uint32_t n_items, float *logits)
{
    bt_engine_server *s = ctx;
    return bt_compute_forward(s->compute, s->cache, items, n_items, logits);
}

static void watch(void *ctx, void (*layer_done)(void *sink, uint32_t layer), void *sink)
{
    bt_engine_server *s = ctx;
    bt_compute_watch(s->compute, layer_done, sink);
}

/* The name by which clients ask for the model, unless they were given others. */
static void fill_name(bt_engine_server *s)
{
    const char *model = s->options.model;
    if (model == NULL) {
        snprintf(s->name_text, sizeof(s->name_text), "random-%llu",
                 (unsigned long long)s->options.seed);
    } else {
        size_t n = strlen(model);
        while (n > 1 && model[n - 1] == '/')
            n--;
        size_t begin = n;
        while (begin > 0 && model[begin - 1] != '/')
            begin--;
        snprintf(s->name_text, sizeof(s->name_text), "%.*s", (int)(n - begin), model + begin);
    }
    s->name = s->name_text;
    if (s->options.n_names == 0) {
        s->options.names = &s->name;
        s->options.n_names = 1;
    }
}

static baton_status create_api(bt_engine_server *s, bt_loop *loop)
{
    const bt_engine_options *o = &s->options;
    uint32_t n_vocab = bt_model_get_config(s->model)->vocab_size;
    bt_api_options api = {
        .loop = loop,
        .host = o->host,
        .port = o->port,
        .role = bt_engine_role_name(o->role),
        .limits = {.tokenizer = s->tokenizer,
                   .chat_template = s->chat_template,
                   .model_names = o->names,
                   .n_model_names = o->n_names,
                   .n_vocab = n_vocab,
                   .max_len = o->max_model_len,
                   .sends_kv = o->role == BT_ROLE_PREFILL},
        .engine = {.scheduler = {.forward = forward,
                                 .forward_ctx = s,
                                 .watch = o->role == BT_ROLE_PREFILL ? watch : NULL,
                                 .n_vocab = n_vocab,
                                 .n_blocks = o->kv_blocks,
                                 .block_tokens = o->block_tokens,
                                 .block_seed = o->seed + 1,
                                 .max_running = o->max_running,
                                 .step_tokens = o->step_tokens,
                                 .chunk_tokens = o->chunk_tokens,
                                 .ends = {s->tokenizer, s->eos_ids, s->n_eos_ids},
                                 .handoff = o->role != BT_ROLE_BOTH ? &s->handoff : NULL},
                   .max_queued = o->max_queued},
    };
    if (s->sender != NULL) {
        api.more_metrics = bt_handoff_sender_metrics;
        api.more_metrics_ctx = s->sender;
    } else if (s->receiver != NULL) {
        api.more_metrics = bt_handoff_receiver_metrics;
        api.more_metrics_ctx = s->receiver;
    }
    return bt_api_create(&api, &s->api);
}

static baton_status build(bt_engine_server *s, bt_loop *loop)
{
    BATON_TRY(load_model(s));
    BATON_TRY(load_tokenizer(s));
    BATON_TRY(create_cache(s));
    BATON_TRY(create_compute(s));
    fill_name(s);
    BATON_TRY(create_handoff(s));
    return create_api(s, loop);
}

baton_status bt_engine_server_create(bt_loop *loop, const bt_engine_options *options,
                                     bt_engine_server **server_p)
{
    bt_engine_server *s = bt_calloc(1, sizeof(*s));
    if (s == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "engine: %zu bytes", sizeof(*s));
    s->options = *options;
    fill_defaults(&s->options);
    baton_status status = build(s, loop);
    if (status < 0) {
        bt_engine_server_destroy(s, 0);
        return status;
    }
    *server_p = s;
    return BATON_OK;
}

bt_api *bt_engine_server_api(bt_engine_server *server)
{
    return server->api;
}

void bt_engine_server_describe(const bt_engine_server *s, bt_strbuf *out)
{
    const bt_engine_options *o = &s->options;
    bt_strbuf_printf(out,
                     "role=%s host=%s port=%u model=%s tp=%u threads=%u kv_blocks=%u "
                     "block_tokens=%u max_model_len=%u chat_template=%s",
                     bt_engine_role_name(o->role), o->host, bt_api_port(s->api), o->names[0], o->tp,
                     o->threads, o->kv_blocks, o->block_tokens, o->max_model_len,
                     bt_chat_template_name(s->chat_template));
    if (s->receiver != NULL)
        bt_handoff_receiver_describe(s->receiver, out);
}

void bt_engine_server_destroy(bt_engine_server *s, uint32_t drain_ms)
{
    if (s == NULL)
        return;
    if (s->api != NULL)
        bt_api_stop(s->api, drain_ms);
    bt_handoff_sender_destroy(s->sender);
    bt_handoff_receiver_destroy(s->receiver);
    bt_api_destroy(s->api);
    bt_compute_destroy(s->compute);
    bt_kv_cache_destroy(s->cache);
    bt_tokenizer_destroy(s->tokenizer);
    bt_model_destroy(s->model);
    bt_free(s);
}
