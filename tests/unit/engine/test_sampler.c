/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include <math.h>

#include "core/alloc.h"
#include "engine/sampler.h"

enum { N = 8 };
static const float logits[N] = {0.5f, 2.0f, -1.0f, 2.0f, NAN, 0.0f, 1.0f, -3.0f};

static bt_sampler *make(uint32_t n_vocab)
{
    bt_sampler *sampler = NULL;
    assert_ok(bt_sampler_create(n_vocab, &sampler));
    return sampler;
}

static uint32_t pick(bt_sampler *sampler, bt_sampling sampling, uint64_t position)
{
    bt_sampled out;
    bt_sampler_pick(sampler, logits, &sampling, position, &out);
    return out.id;
}

static void greedy_takes_the_lowest_of_equal_ids(void **state)
{
    (void)state;
    bt_sampler *sampler = make(N);
    assert_int_equal(pick(sampler, (bt_sampling){.top_p = 1}, 0), 1);
    uint32_t banned[] = {1, 99};
    assert_int_equal(pick(sampler, (bt_sampling){.banned = banned, .n_banned = 2}, 0), 3);
    bt_sampler_destroy(sampler);
}

static void the_choice_depends_on_seed_and_position_only(void **state)
{
    (void)state;
    bt_sampler *one = make(N), *other = make(N);
    uint32_t differ = 0;
    for (uint64_t position = 0; position < 200; position++) {
        bt_sampling sampling = {.temperature = 1, .top_p = 0.95f, .seed = 42};
        uint32_t id = pick(one, sampling, position);
        if (position % 3 == 0) /* other skips some, and comes to the same */
            assert_int_equal(pick(other, sampling, position), id);
        sampling.seed = 43;
        differ += pick(one, sampling, position) != id;
    }
    assert_true(differ > 50);
    bt_sampler_destroy(one);
    bt_sampler_destroy(other);
}

/* Counts 20,000 draws and compares them with the exact probabilities. */
static void check_frequencies(bt_sampling sampling, const double wanted[N])
{
    enum { DRAWS = 20000 };
    uint32_t counts[N] = {0};
    bt_sampler *sampler = make(N);
    for (uint64_t position = 0; position < DRAWS; position++)
        counts[pick(sampler, sampling, position)]++;
    for (int id = 0; id < N; id++) {
        double share = (double)counts[id] / DRAWS;
        if (fabs(share - wanted[id]) > 0.02 || (wanted[id] == 0 && counts[id] != 0))
            fail_msg("id %d: share %f, wanted %f", id, share, wanted[id]);
    }
    bt_sampler_destroy(sampler);
}

static void draws_follow_the_distribution(void **state)
{
    (void)state;
    double all[N], temperature = 0.7, sum = 0;
    for (int id = 0; id < N; id++) {
        all[id] = isnan(logits[id]) ? 0 : exp(logits[id] / temperature);
        sum += all[id];
    }
    for (int id = 0; id < N; id++)
        all[id] /= sum;
    check_frequencies((bt_sampling){.temperature = 0.7f, .top_p = 1, .seed = 1}, all);
}

static void top_k_and_top_p_leave_the_most_likely(void **state)
{
    (void)state;
    double e2 = exp(2), e1 = exp(1), e05 = exp(0.5);
    double two[N] = {0, 0.5, 0, 0.5}, three[N] = {0}, four[N] = {0};
    three[1] = three[3] = e2 / (2 * e2 + e1);
    three[6] = e1 / (2 * e2 + e1);
    four[1] = four[3] = e2 / (2 * e2 + e1 + e05);
    four[6] = e1 / (2 * e2 + e1 + e05);
    four[0] = e05 / (2 * e2 + e1 + e05);
    check_frequencies((bt_sampling){.temperature = 1, .top_p = 1, .top_k = 3}, three);
    check_frequencies((bt_sampling){.temperature = 1, .top_p = 0.7f}, two);
    check_frequencies((bt_sampling){.temperature = 1, .top_p = 0.9f}, four);
    /* top_p counts among what top_k has left */
    check_frequencies((bt_sampling){.temperature = 1, .top_p = 0.8f, .top_k = 3}, two);
}

static void logprobs_are_of_the_unscaled_distribution(void **state)
{
    (void)state;
    bt_sampler *sampler = make(N);
    double sum = 0;
    for (int id = 0; id < N; id++)
        sum += isnan(logits[id]) ? 0 : exp(logits[id]);
    bt_sampled out;
    bt_sampling sampling = {.temperature = 0, .logprobs = true, .n_top = 3};
    bt_sampler_pick(sampler, logits, &sampling, 0, &out);
    assert_true(fabs(out.logprob - (2.0 - log(sum))) < 1e-5);
    assert_int_equal(out.n_top, 3);
    assert_int_equal(out.top[0].id, 1);
    assert_int_equal(out.top[1].id, 3);
    assert_int_equal(out.top[2].id, 6);
    assert_true(fabs(out.top[2].logprob - (1.0 - log(sum))) < 1e-5);
    sampling.n_top = BT_MAX_TOP_LOGPROBS;
    bt_sampler_pick(sampler, logits, &sampling, 0, &out);
    assert_int_equal(out.n_top, N);
    sampling.n_top = 0;
    bt_sampler_pick(sampler, logits, &sampling, 0, &out);
    assert_int_equal(out.n_top, 0);
    bt_sampler_destroy(sampler);
}

static void every_failed_allocation_is_reported(void **state)
{
    (void)state;
    bt_sampler *sampler;
    for (uint64_t nth = 1; nth <= 4; nth++) {
        bt_alloc_fail_at(nth);
        assert_fails(bt_sampler_create(N, &sampler), BATON_ERR_NO_MEMORY, "sampler");
    }
    bt_alloc_fail_at(0);
    assert_fails(bt_sampler_create(0, &sampler), BATON_ERR_INVALID_ARG, "n_vocab");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(greedy_takes_the_lowest_of_equal_ids),
        bt_test(the_choice_depends_on_seed_and_position_only),
        bt_test(draws_follow_the_distribution),
        bt_test(top_k_and_top_p_leave_the_most_likely),
        bt_test(logprobs_are_of_the_unscaled_distribution),
        bt_test(every_failed_allocation_is_reported),
    };
    return bt_run_tests(tests);
}
