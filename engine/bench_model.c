/* SPDX-License-Identifier: Apache-2.0 */
/* Prefill and decode speed of the decoder, beside a floor that the machine sets: weights and KV
 * that one decoded token reads, at the bandwidth that one thread gets.
 *
 *   bench_model [--model DIR | --layers N --hidden N --ffn N --heads N --kv-heads N --head-dim N
 *                --vocab N] [--prompt N] [--chunk N] [--output N] [--batch N] [--threads N]
 *               [--simd generic|avx2|avx512] */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/clock.h"
#include "engine/model.h"

typedef struct {
    const char *model_dir, *simd;
    bt_model_config config;
    uint32_t prompt, chunk, output, batch, threads, seed;
} options;

typedef struct {
    options options;
    bt_model *model;
    bt_kv_cache *cache;
    bt_compute *compute;
    uint32_t *tokens, *blocks; /* [batch][prompt + output], [batch][blocks_each] */
    uint32_t blocks_each;
    float *logits; /* [batch][vocab] */
} bench;

static void die(const char *what)
{
    fprintf(stderr, "bench_model: %s: %s\n", what, baton_last_error());
    exit(1);
}

static double seconds(void)
{
    return (double)bt_now_ns(&bt_clock_monotonic) * 1e-9;
}

/* Bytes per second that one thread reads from memory that fits no cache. */
static double read_bandwidth(void)
{
    enum { WORDS = 32 << 20 };
    uint64_t *words = bt_calloc(WORDS, sizeof(*words));
    if (words == NULL)
        return 0;
    memset(words, 1, WORDS * sizeof(*words));
    double best = 0;
    for (int round = 0; round < 5; round++) {
        uint64_t sums[8] = {0};
        double start = seconds();
        for (size_t i = 0; i < WORDS; i += 8)
            for (size_t lane = 0; lane < 8; lane++)
                sums[lane] += words[i + lane];
        double rate = WORDS * sizeof(*words) / (seconds() - start);
        volatile uint64_t sink = sums[0] ^ sums[1] ^ sums[2] ^ sums[3] ^ sums[4];
        (void)sink;
        best = rate > best ? rate : best;
    }
    bt_free(words);
    return best;
}

static void make_model(bench *b)
{
    options *o = &b->options;
    baton_status status = o->model_dir != NULL
                              ? bt_model_load(o->model_dir, &b->model)
                              : bt_model_create_random(&o->config, o->seed, &b->model);
    if (status < 0)
        die("model");
    o->config = *bt_model_get_config(b->model);
    uint32_t each = o->prompt + o->output;
    b->blocks_each = (each + 15) / 16;
    bt_kv_options kv = {.n_blocks = o->batch * b->blocks_each, .block_tokens = 16};
    uint32_t largest = o->chunk > o->batch ? o->chunk : o->batch;
    bt_compute_options compute = {.n_threads = o->threads,
                                  .max_batch_tokens = largest,
                                  .max_batch_items = o->batch,
                                  .simd = o->simd};
    if (bt_kv_cache_create(&o->config, &kv, &b->cache) < 0 ||
        bt_compute_create(b->model, &compute, &b->compute) < 0)
        die("compute");
    b->tokens = bt_calloc((size_t)o->batch * each, sizeof(*b->tokens));
    b->blocks = bt_calloc(kv.n_blocks, sizeof(*b->blocks));
    b->logits = bt_calloc((size_t)o->batch * o->config.vocab_size, sizeof(*b->logits));
    if (b->tokens == NULL || b->blocks == NULL || b->logits == NULL)
        die("buffers");
    for (uint32_t i = 0; i < o->batch * each; i++)
        b->tokens[i] = (uint32_t)((i * UINT64_C(2654435761) >> 7) % 90 + 32) % o->config.vocab_size;
    for (uint32_t i = 0; i < kv.n_blocks; i++)
        b->blocks[i] = kv.n_blocks - 1 - i;
}

static uint32_t best_token(const float *logits, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

static bt_batch_item item_at(const bench *b, uint32_t sequence, uint32_t position, uint32_t n)
{
    uint32_t each = b->options.prompt + b->options.output;
    return (bt_batch_item){.tokens = b->tokens + (size_t)sequence * each + position,
                           .n_tokens = n,
                           .first_position = position,
                           .blocks = b->blocks + (size_t)sequence * b->blocks_each,
                           .n_blocks = b->blocks_each,
                           .want_logits = position + n >= b->options.prompt};
}

/* Logits of row i say what sequence i's token at position is. */
static void choose(bench *b, uint32_t row, uint32_t sequence, uint32_t position)
{
    uint32_t vocab = b->options.config.vocab_size;
    uint32_t each = b->options.prompt + b->options.output;
    if (position < each)
        b->tokens[(size_t)sequence * each + position] =
            best_token(b->logits + (size_t)row * vocab, vocab);
}

static double prefill(bench *b)
{
    const options *o = &b->options;
    double start = seconds();
    for (uint32_t s = 0; s < o->batch; s++) {
        for (uint32_t at = 0; at < o->prompt; at += o->chunk) {
            uint32_t n = o->prompt - at < o->chunk ? o->prompt - at : o->chunk;
            bt_batch_item item = item_at(b, s, at, n);
            if (bt_compute_forward(b->compute, b->cache, &item, 1, b->logits) < 0)
                die("prefill");
        }
        choose(b, 0, s, o->prompt);
    }
    return seconds() - start;
}

static double decode(bench *b)
{
    const options *o = &b->options;
    bt_batch_item *items = bt_calloc(o->batch, sizeof(*items));
    if (items == NULL)
        die("items");
    double start = seconds();
    for (uint32_t i = 0; i + 1 < o->output; i++) {
        for (uint32_t s = 0; s < o->batch; s++)
            items[s] = item_at(b, s, o->prompt + i, 1);
        if (bt_compute_forward(b->compute, b->cache, items, o->batch, b->logits) < 0)
            die("decode");
        for (uint32_t s = 0; s < o->batch; s++)
            choose(b, s, s, o->prompt + i + 1);
    }
    double took = seconds() - start;
    bt_free(items);
    return took;
}

static void report(const bench *b, double prefill_s, double decode_s)
{
    const options *o = &b->options;
    const bt_model_config *c = &o->config;
    double bandwidth = read_bandwidth();
    double weights = (double)bt_model_weight_bytes(b->model);
    double kv =
        2.0 * 2.0 * c->n_layers * c->n_kv_heads * c->head_dim * (o->prompt + o->output / 2.0);
    double steps = o->output - 1;
    double floor_s = (weights + kv * o->batch) / bandwidth;
    printf("model: %u layers, hidden %u, ffn %u, heads %u/%u x %u, vocab %u: %.1f MB of weights\n",
           c->n_layers, c->hidden_size, c->ffn_size, c->n_heads, c->n_kv_heads, c->head_dim,
           c->vocab_size, weights * 1e-6);
    printf("prefill: %u x %u tokens, chunks of %u, %u threads: %.0f tokens/s\n", o->batch,
           o->prompt, o->chunk, o->threads, o->batch * o->prompt / prefill_s);
    printf("decode: batch %u: %.0f tokens/s, %.3f ms a step\n", o->batch,
           o->batch * steps / decode_s, 1e3 * decode_s / steps);
    printf("floor: one thread reads %.1f GB/s: %.3f ms a step, we take %.2f times that\n",
           bandwidth * 1e-9, 1e3 * floor_s, decode_s / steps / floor_s);
    uint32_t seen[128] = {0}, n = 0;
    printf("first 64 tokens of sequence 0:");
    for (uint32_t i = 0; i < o->output && i < 64; i++) {
        uint32_t token = b->tokens[o->prompt + i];
        n += token < 128 && seen[token]++ == 0;
        printf(" %u", token);
    }
    printf("\n(%u distinct)\n", n);
}

static void parse(int argc, char **argv, options *o)
{
    bt_model_config_small(&o->config);
    struct {
        const char *name;
        uint32_t *value;
    } numbers[] = {{"layers", &o->config.n_layers},
                   {"hidden", &o->config.hidden_size},
                   {"ffn", &o->config.ffn_size},
                   {"heads", &o->config.n_heads},
                   {"kv-heads", &o->config.n_kv_heads},
                   {"head-dim", &o->config.head_dim},
                   {"vocab", &o->config.vocab_size},
                   {"prompt", &o->prompt},
                   {"chunk", &o->chunk},
                   {"output", &o->output},
                   {"batch", &o->batch},
                   {"threads", &o->threads},
                   {"seed", &o->seed}};
    enum { N = sizeof(numbers) / sizeof(numbers[0]) };
    struct option longs[N + 3] = {0};
    for (int i = 0; i < N; i++)
        longs[i] = (struct option){numbers[i].name, required_argument, NULL, i};
    longs[N] = (struct option){"model", required_argument, NULL, N};
    longs[N + 1] = (struct option){"simd", required_argument, NULL, N + 1};
    for (int c; (c = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
        if (c >= 0 && c < N)
            *numbers[c].value = (uint32_t)strtoul(optarg, NULL, 10);
        else if (c == N)
            o->model_dir = optarg;
        else if (c == N + 1)
            o->simd = optarg;
        else
            exit(2);
    }
}

int main(int argc, char **argv)
{
    bench b = {.options = {.prompt = 4000, .chunk = 256, .output = 65, .batch = 1, .threads = 1}};
    parse(argc, argv, &b.options);
    make_model(&b);
    double prefill_s = prefill(&b), decode_s = decode(&b);
    report(&b, prefill_s, decode_s);
    bt_compute_destroy(b.compute);
    bt_kv_cache_destroy(b.cache);
    bt_model_destroy(b.model);
    bt_free(b.tokens);
    bt_free(b.blocks);
    bt_free(b.logits);
    return 0;
}
