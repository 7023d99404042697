/* SPDX-License-Identifier: Apache-2.0 */
/* Many prefillers, one small decoder: all make progress, in the order in which they came, and
 * nobody polls. */
#include "pairkit.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    N_SENDERS = 64,
    N_REQUESTS = N_SENDERS + 16, /* some come twice */
    N_PAGES = 8,
    ROUNDS_MAX = 4000, /* far more than it takes: a guard against hanging */
};

typedef struct {
    baton_transfer id;
    uint32_t n_tokens, tokens[PAIR_MAX_CHUNKS * PAIR_CHUNK];
    uint8_t data[PAIR_MAX_CHUNKS * PAIR_PAGE_BYTES];
    bool is_read;
} request;

static pair kit;
static request requests[N_REQUESTS];
static uint32_t arrived[N_REQUESTS], granted[N_REQUESTS], n_arrived, n_granted, n_allocs;
static bool loses_frames;

static void note_once(uint32_t *list, uint32_t *n, uint32_t value)
{
    for (uint32_t i = 0; i < *n; i++) {
        if (list[i] == value)
            return;
    }
    assert_true(*n < N_REQUESTS);
    list[(*n)++] = value;
}

static bool watch(pair *k, const pair_frame *frame, const bt_message *message)
{
    bt_rng rng = {.state = 77 + k->filter_count++};
    if (loses_frames && bt_rng_below(&rng, 10) == 0)
        return false;
    if (frame->to_receiver && message->type == BT_MSG_ALLOC) {
        char name[16];
        bt_blob_to_text(message->u.alloc.request, name, sizeof(name));
        note_once(arrived, &n_arrived, (uint32_t)atoi(name));
        n_allocs++;
    }
    return true;
}

/* Whose grant it was: the tickets' own order, as the receiver carried it out. */
static void note_grants(void)
{
    for (const bt_rx_ticket *ticket = kit.rx->first_ticket; ticket != NULL; ticket = ticket->next) {
        if (ticket->state != BT_TICKET_QUEUED)
            note_once(granted, &n_granted, (uint32_t)atoi(ticket->request));
    }
}

static void begin(uint32_t i)
{
    char name[16];
    request *r = &requests[i];
    bt_rng rng = {.state = i};
    r->n_tokens = 1 + (uint32_t)bt_rng_below(&rng, PAIR_MAX_CHUNKS * PAIR_CHUNK);
    r->is_read = false;
    snprintf(name, sizeof(name), "%u", i);
    pair_tokens(i, 0, r->n_tokens, r->tokens);
    r->id = pair_begin(&kit, i % N_SENDERS, name, r->tokens, r->n_tokens, 0);
    pair_push_all(&kit, i % N_SENDERS, r->id, r->tokens, r->n_tokens, r->data);
}

/* Decode: takes what is ready. Returns how many requests are over. */
static uint32_t decode(void)
{
    uint32_t n_read = 0;
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        request *r = &requests[i];
        const pair_sender *sender = &kit.senders[i % N_SENDERS];
        assert_int_equal(sender->n_failed, 0);
        if (!r->is_read && r->id != 0 && sender->n_done > i / N_SENDERS) {
            assert_int_equal(pair_check(&kit, r->tokens, r->n_tokens), r->n_tokens);
            r->is_read = true;
            if (i + N_SENDERS < N_REQUESTS)
                begin(i + N_SENDERS);
        }
        n_read += r->is_read;
    }
    return n_read;
}

static void check_all_finish(bool loses)
{
    pair_create(
        &kit, &(pair_options){.n_senders = N_SENDERS, .n_pages = N_PAGES, .path = BATON_PATH_PUT});
    memset(requests, 0, sizeof(requests));
    n_arrived = n_granted = n_allocs = 0;
    loses_frames = loses;
    kit.filter = watch;
    for (uint32_t i = 0; i < N_SENDERS; i++)
        begin(i);
    uint32_t rounds = 0;
    while (decode() < N_REQUESTS) {
        assert_true(rounds++ < ROUNDS_MAX);
        pair_turn(&kit); /* one at a time, so that no grant is missed */
        note_grants();
        kit.manual.now_ns += (loses ? 40 : 1) * BT_NS_PER_MS;
    }
    assert_int_equal(n_arrived, N_REQUESTS);
    assert_int_equal(n_granted, N_REQUESTS);
    assert_memory_equal(arrived, granted, sizeof(arrived)); /* nobody overtakes, of any size */
    assert_true(kit.rx->stats.tickets_queued_total > N_SENDERS / 2); /* it was crowded */
    assert_int_equal(kit.rx->stats.tickets_refused_total, 0);
    if (!loses) /* who waits does not ask all the time: again after 0.2, 0.6, 1.4 s ... */
        assert_true(n_allocs < 8 * N_REQUESTS);
    kit.filter = NULL;
    pair_advance(&kit, 1000);
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

static void all_finish_in_the_order_in_which_they_came(void **state)
{
    (void)state;
    check_all_finish(false);
}

static void all_finish_although_frames_are_lost(void **state)
{
    (void)state;
    check_all_finish(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(all_finish_in_the_order_in_which_they_came),
        bt_test(all_finish_although_frames_are_lost),
    };
    return bt_run_tests(tests);
}
