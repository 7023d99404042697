/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/sampler.h"

#include <math.h>
#include <string.h>

#include "core/alloc.h"
#include "core/fail.h"

struct bt_sampler {
    uint32_t n_vocab;
    float *logits;   /* [n_vocab], banned and NaN ones at minus infinity */
    double *weights; /* [n_vocab], exp((logit - largest) / temperature) */
    uint32_t *heap;  /* [n_vocab], ids, the heaviest on top */
    uint32_t n_heap;
};

baton_status bt_sampler_create(uint32_t n_vocab, bt_sampler **sampler_p)
{
    if (n_vocab == 0)
        return bt_fail(BATON_ERR_INVALID_ARG, "sampler: n_vocab is 0");
    bt_sampler *sampler = bt_calloc(1, sizeof(*sampler));
    if (sampler == NULL)
        goto no_memory;
    sampler->n_vocab = n_vocab;
    sampler->logits = bt_calloc(n_vocab, sizeof(*sampler->logits));
    sampler->weights = bt_calloc(n_vocab, sizeof(*sampler->weights));
    sampler->heap = bt_calloc(n_vocab, sizeof(*sampler->heap));
    if (sampler->logits == NULL || sampler->weights == NULL || sampler->heap == NULL)
        goto no_memory;
    *sampler_p = sampler;
    return BATON_OK;

no_memory:
    bt_sampler_destroy(sampler);
    return bt_fail(BATON_ERR_NO_MEMORY, "sampler: working memory for %u tokens", n_vocab);
}

void bt_sampler_destroy(bt_sampler *sampler)
{
    if (sampler == NULL)
        return;
    bt_free(sampler->logits);
    bt_free(sampler->weights);
    bt_free(sampler->heap);
    bt_free(sampler);
}

/* A number in [0, 1) for each (seed, position): splitmix64's output function, twice. */
static double random_at(uint64_t seed, uint64_t position)
{
    uint64_t z = seed + (position + 1) * UINT64_C(0x9e3779b97f4a7c15);
    for (int i = 0; i < 2; i++) {
        z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
        z ^= z >> 31;
    }
    return (double)(z >> 11) * 0x1p-53;
}

static uint32_t largest(const float *logits, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t id = 1; id < n; id++)
        if (logits[id] > logits[best])
            best = id;
    return best;
}

/* Equal weights in the order of ids, so that the order is the same everywhere. */
static bool is_heavier(const bt_sampler *sampler, uint32_t a, uint32_t b)
{
    return sampler->weights[a] != sampler->weights[b] ? sampler->weights[a] > sampler->weights[b]
                                                      : a < b;
}

static void sift_down(bt_sampler *sampler, uint32_t at)
{
    uint32_t *heap = sampler->heap, id = heap[at];
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= sampler->n_heap)
            break;
        if (child + 1 < sampler->n_heap && is_heavier(sampler, heap[child + 1], heap[child]))
            child++;
        if (!is_heavier(sampler, heap[child], id))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = id;
}

/* Moves the heaviest `wanted` ids to the end of heap[], the heaviest last; stops early once they
 * weigh `enough`. Returns how many, and their weight. */
static uint32_t take_heaviest(bt_sampler *sampler, uint32_t wanted, double enough, double *weight)
{
    uint32_t n = 0;
    *weight = 0;
    while (n < wanted && (n == 0 || *weight < enough)) {
        uint32_t id = sampler->heap[0];
        sampler->heap[0] = sampler->heap[--sampler->n_heap];
        if (sampler->n_heap > 0)
            sift_down(sampler, 0);
        sampler->heap[sampler->n_heap] = id;
        *weight += sampler->weights[id];
        n++;
    }
    return n;
}

/* Among the ids where the running weight first exceeds the target. taken[-i] is the ith heaviest.
 */
static uint32_t pick_taken(const bt_sampler *sampler, uint32_t n, double target)
{
    const uint32_t *last = &sampler->heap[sampler->n_vocab - 1];
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        sum += sampler->weights[*(last - i)];
        if (sum > target)
            return *(last - i);
    }
    return *(last - (n - 1));
}

static uint32_t pick_filtered(bt_sampler *sampler, const bt_sampling *sampling, double total,
                              double random)
{
    uint32_t n_vocab = sampler->n_vocab;
    for (uint32_t id = 0; id < n_vocab; id++)
        sampler->heap[id] = id;
    sampler->n_heap = n_vocab;
    for (uint32_t at = n_vocab / 2; at-- > 0;)
        sift_down(sampler, at);
    double weight, top_p = sampling->top_p;
    if (sampling->top_k == 0 || sampling->top_k >= n_vocab) {
        uint32_t n = take_heaviest(sampler, n_vocab, top_p * total, &weight);
        return pick_taken(sampler, n, random * weight);
    }
    uint32_t n = take_heaviest(sampler, sampling->top_k, INFINITY, &weight);
    double enough = top_p * weight, kept = 0;
    uint32_t n_kept = 0;
    while (n_kept < n && (n_kept == 0 || kept < enough))
        kept += sampler->weights[sampler->heap[n_vocab - 1 - n_kept++]];
    return pick_taken(sampler, n_kept, random * kept);
}

static uint32_t pick_random(bt_sampler *sampler, const bt_sampling *sampling, uint64_t position)
{
    double largest_logit = sampler->logits[largest(sampler->logits, sampler->n_vocab)];
    if (isinf(largest_logit))
        return largest(sampler->logits, sampler->n_vocab);
    double total = 0, random = random_at(sampling->seed, position);
    for (uint32_t id = 0; id < sampler->n_vocab; id++) {
        sampler->weights[id] =
            exp(((double)sampler->logits[id] - largest_logit) / (double)sampling->temperature);
        total += sampler->weights[id];
    }
    if (sampling->top_k != 0 || sampling->top_p < 1)
        return pick_filtered(sampler, sampling, total, random);
    double sum = 0, target = random * total;
    uint32_t last = 0;
    for (uint32_t id = 0; id < sampler->n_vocab; id++) {
        sum += sampler->weights[id];
        if (sampler->weights[id] > 0)
            last = id;
        if (sum > target)
            return id;
    }
    return last; /* rounding left the target at the very end */
}

static float cleaned(float logit)
{
    return isnan(logit) ? -INFINITY : logit;
}

/* Keeps out->top sorted while ids come in ascending order. */
static void offer_top(bt_sampled *out, uint32_t n_wanted, uint32_t id, float logprob)
{
    uint32_t at = out->n_top;
    if (at == n_wanted) {
        if (at == 0 || !(logprob > out->top[at - 1].logprob))
            return;
        at--;
    } else {
        out->n_top++;
    }
    for (; at > 0 && logprob > out->top[at - 1].logprob; at--)
        out->top[at] = out->top[at - 1];
    out->top[at] = (bt_token_logprob){id, logprob};
}

static void fill_logprobs(const bt_sampler *sampler, const float *logits, uint32_t n_wanted,
                          bt_sampled *out)
{
    double most = -INFINITY, sum = 0;
    for (uint32_t id = 0; id < sampler->n_vocab; id++)
        most = fmax(most, (double)cleaned(logits[id]));
    for (uint32_t id = 0; id < sampler->n_vocab; id++)
        sum += exp((double)cleaned(logits[id]) - most);
    double log_sum = most + log(sum);
    out->logprob = (float)((double)cleaned(logits[out->id]) - log_sum);
    for (uint32_t id = 0; id < sampler->n_vocab; id++)
        offer_top(out, n_wanted, id, (float)((double)cleaned(logits[id]) - log_sum));
}

void bt_sampler_pick(bt_sampler *sampler, const float *logits, const bt_sampling *sampling,
                     uint64_t position, bt_sampled *out)
{
    for (uint32_t id = 0; id < sampler->n_vocab; id++)
        sampler->logits[id] = cleaned(logits[id]);
    for (uint32_t i = 0; i < sampling->n_banned; i++)
        if (sampling->banned[i] < sampler->n_vocab)
            sampler->logits[sampling->banned[i]] = -INFINITY;
    *out = (bt_sampled){0};
    out->id = sampling->temperature > 0 ? pick_random(sampler, sampling, position)
                                        : largest(sampler->logits, sampler->n_vocab);
    if (sampling->logprobs)
        fill_logprobs(sampler, logits, sampling->n_top, out);
}
