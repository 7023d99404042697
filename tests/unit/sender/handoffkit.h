/* SPDX-License-Identifier: Apache-2.0 */
/* What the hand-off tests share: one pair, its prompt's tokens, and the plain way through.
 * Thread rule: one thread. */
#ifndef BT_TESTS_HANDOFFKIT_H
#define BT_TESTS_HANDOFFKIT_H
#include "pairkit.h"

static pair kit;
static uint8_t data[PAIR_MAX_SENDERS][PAIR_MAX_CHUNKS * PAIR_PAGE_BYTES];
static uint32_t tokens[PAIR_MAX_CHUNKS * PAIR_CHUNK];

/* Starts a transfer of tokens[n], pushes all of it, and runs until nothing moves. */
static inline void hand_off(uint32_t sender, const char *request, uint32_t n)
{
    baton_transfer transfer = pair_begin(&kit, sender, request, tokens, n, 0);
    pair_push_all(&kit, sender, transfer, tokens, n, data[sender]);
    pair_run(&kit);
}

static pair_frame late_grant;
static inline bool hold_the_grant(pair *k, const pair_frame *frame, const bt_message *message)
{
    if (message->type == BT_MSG_ALLOC_ANSWER && k->filter_count == 0) {
        late_grant = *frame;
        return false;
    }
    return !frame->to_receiver || message->type != BT_MSG_ALLOC || late_grant.bytes == 0;
}

#endif
