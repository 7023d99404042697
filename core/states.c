/* SPDX-License-Identifier: Apache-2.0 */
#include "core/states.h"

#include <stddef.h>

#define WORD(name, text) {#name, text},

static const bt_state_word peer_states[] = {
#define BT_OF_PEER
#define BT_STATE WORD
#include "core/states.def"
};
static const bt_state_word peer_events[] = {
#define BT_OF_PEER
#define BT_EVENT WORD
#include "core/states.def"
};
static const bt_state_word peer_guards[] = {
#define BT_OF_PEER
#define BT_GUARD WORD
#include "core/states.def"
};
static const bt_state_word peer_actions[] = {
#define BT_OF_PEER
#define BT_ACTION WORD
#include "core/states.def"
};
static const bt_move peer_moves[BT_TX_N_PEER_STATES][BT_TX_N_PEER_EVENTS] = {
#define BT_OF_PEER
#define BT_MOVE(from, event, guard, to, action)                                              \
    [BT_TX_PEER_##from][BT_TX_PEER_ON_##event] = {1, BT_TX_PEER_##to, BT_TX_PEER_IF_##guard, \
                                                  BT_TX_PEER_DO_##action},
#include "core/states.def"
};

static const bt_state_word transfer_states[] = {
#define BT_OF_TRANSFER
#define BT_STATE WORD
#include "core/states.def"
};
static const bt_state_word transfer_events[] = {
#define BT_OF_TRANSFER
#define BT_EVENT WORD
#include "core/states.def"
};
static const bt_state_word transfer_guards[] = {
#define BT_OF_TRANSFER
#define BT_GUARD WORD
#include "core/states.def"
};
static const bt_state_word transfer_actions[] = {
#define BT_OF_TRANSFER
#define BT_ACTION WORD
#include "core/states.def"
};
static const bt_move transfer_moves[BT_TX_N_STATES][BT_TX_N_CHANGES] = {
#define BT_OF_TRANSFER
#define BT_MOVE(from, event, guard, to, action) \
    [BT_TX_##from][BT_TX_ON_##event] = {1, BT_TX_##to, BT_TX_IF_##guard, BT_TX_DO_##action},
#include "core/states.def"
};

static const bt_state_word ticket_states[] = {
#define BT_OF_TICKET
#define BT_STATE WORD
#include "core/states.def"
};
static const bt_state_word ticket_events[] = {
#define BT_OF_TICKET
#define BT_EVENT WORD
#include "core/states.def"
};
static const bt_state_word ticket_guards[] = {
#define BT_OF_TICKET
#define BT_GUARD WORD
#include "core/states.def"
};
static const bt_state_word ticket_actions[] = {
#define BT_OF_TICKET
#define BT_ACTION WORD
#include "core/states.def"
};
static const bt_move ticket_moves[BT_N_TICKET_STATES][BT_N_TICKET_CHANGES] = {
#define BT_OF_TICKET
#define BT_MOVE(from, event, guard, to, action)                                          \
    [BT_TICKET_##from][BT_TICKET_ON_##event] = {1, BT_TICKET_##to, BT_TICKET_IF_##guard, \
                                                BT_TICKET_DO_##action},
#include "core/states.def"
};

static const bt_state_word page_states[] = {
#define BT_OF_PAGE
#define BT_STATE WORD
#include "core/states.def"
};
static const bt_state_word page_events[] = {
#define BT_OF_PAGE
#define BT_EVENT WORD
#include "core/states.def"
};
static const bt_state_word page_guards[] = {
#define BT_OF_PAGE
#define BT_GUARD WORD
#include "core/states.def"
};
static const bt_state_word page_actions[] = {
#define BT_OF_PAGE
#define BT_ACTION WORD
#include "core/states.def"
};
static const bt_move page_moves[BT_N_PAGE_STATES][BT_N_PAGE_CHANGES] = {
#define BT_OF_PAGE
#define BT_MOVE(from, event, guard, to, action) \
    [BT_PAGE_##                                 \
        from][BT_PAGE_ON_##event] = {1, BT_PAGE_##to, BT_PAGE_IF_##guard, BT_PAGE_DO_##action},
#include "core/states.def"
};

#define COUNT(array) (uint32_t)(sizeof(array) / sizeof((array)[0]))
#define TABLE(machine)                                                                        \
    {                                                                                         \
        .name = #machine, .n_states = COUNT(machine##_states),                                \
        .n_events = COUNT(machine##_events), .n_guards = COUNT(machine##_guards),             \
        .n_actions = COUNT(machine##_actions), .states = machine##_states,                    \
        .events = machine##_events, .guards = machine##_guards, .actions = machine##_actions, \
        .moves = machine##_moves[0]                                                           \
    }

const bt_state_table bt_peer_states = TABLE(peer);
const bt_state_table bt_transfer_states = TABLE(transfer);
const bt_state_table bt_ticket_states = TABLE(ticket);
const bt_state_table bt_page_states = TABLE(page);

const bt_move *bt_state_next(const bt_state_table *table, uint32_t state, uint32_t event)
{
    if (state >= table->n_states || event >= table->n_events)
        return NULL;
    const bt_move *move = &table->moves[(size_t)state * table->n_events + event];
    return move->is_legal ? move : NULL;
}

const char *bt_state_name(const bt_state_table *table, uint32_t state)
{
    return state < table->n_states ? table->states[state].name : "?";
}

const char *bt_state_event_name(const bt_state_table *table, uint32_t event)
{
    return event < table->n_events ? table->events[event].name : "?";
}
