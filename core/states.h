/* SPDX-License-Identifier: Apache-2.0 */
/* The state machines of the protocol as tables, made of core/states.def, which says what they are.
 *
 *   machine                 state                event                    guard, action
 *   peer, at the sender     BT_TX_PEER_READY     BT_TX_PEER_ON_LOST       BT_TX_PEER_IF_, _DO_
 *   transfer, at the sender BT_TX_MOVING         BT_TX_ON_FAIL            BT_TX_IF_, BT_TX_DO_
 *   ticket, at the receiver BT_TICKET_GRANTED    BT_TICKET_ON_FINAL       BT_TICKET_IF_, _DO_
 *   page                    BT_PAGE_LANDED       BT_PAGE_ON_EVICT         BT_PAGE_IF_, BT_PAGE_DO_
 *
 * Whoever owns a machine has one function that takes an event, looks the move up, checks its guard,
 * carries its action out and sets the state: nothing else does.
 *
 * Thread rule: any thread; the tables are constant. */
#ifndef BT_CORE_STATES_H
#define BT_CORE_STATES_H
#include <stdint.h>

typedef enum {
#define BT_OF_PEER
#define BT_STATE(name, text) BT_TX_PEER_##name,
#include "core/states.def"
    BT_TX_N_PEER_STATES
} bt_tx_peer_state;
typedef enum {
#define BT_OF_PEER
#define BT_EVENT(name, text) BT_TX_PEER_ON_##name,
#include "core/states.def"
    BT_TX_N_PEER_EVENTS
} bt_tx_peer_change; /* bt_tx_peer_event would read as something for the user */
typedef enum {
#define BT_OF_PEER
#define BT_GUARD(name, text) BT_TX_PEER_IF_##name,
#include "core/states.def"
    BT_TX_N_PEER_GUARDS
} bt_tx_peer_guard;
typedef enum {
#define BT_OF_PEER
#define BT_ACTION(name, text) BT_TX_PEER_DO_##name,
#include "core/states.def"
    BT_TX_N_PEER_ACTIONS
} bt_tx_peer_action;

typedef enum {
#define BT_OF_TRANSFER
#define BT_STATE(name, text) BT_TX_##name,
#include "core/states.def"
    BT_TX_N_STATES
} bt_tx_state;
typedef enum {
#define BT_OF_TRANSFER
#define BT_EVENT(name, text) BT_TX_ON_##name,
#include "core/states.def"
    BT_TX_N_CHANGES
} bt_tx_change;
typedef enum {
#define BT_OF_TRANSFER
#define BT_GUARD(name, text) BT_TX_IF_##name,
#include "core/states.def"
    BT_TX_N_GUARDS
} bt_tx_guard;
typedef enum {
#define BT_OF_TRANSFER
#define BT_ACTION(name, text) BT_TX_DO_##name,
#include "core/states.def"
    BT_TX_N_ACTIONS
} bt_tx_action;

typedef enum {
#define BT_OF_TICKET
#define BT_STATE(name, text) BT_TICKET_##name,
#include "core/states.def"
    BT_N_TICKET_STATES
} bt_rx_ticket_state;
typedef enum {
#define BT_OF_TICKET
#define BT_EVENT(name, text) BT_TICKET_ON_##name,
#include "core/states.def"
    BT_N_TICKET_CHANGES
} bt_rx_ticket_change;
typedef enum {
#define BT_OF_TICKET
#define BT_GUARD(name, text) BT_TICKET_IF_##name,
#include "core/states.def"
    BT_N_TICKET_GUARDS
} bt_rx_ticket_guard;
typedef enum {
#define BT_OF_TICKET
#define BT_ACTION(name, text) BT_TICKET_DO_##name,
#include "core/states.def"
    BT_N_TICKET_ACTIONS
} bt_rx_ticket_action;

typedef enum {
#define BT_OF_PAGE
#define BT_STATE(name, text) BT_PAGE_##name,
#include "core/states.def"
    BT_N_PAGE_STATES
} bt_page_state;
typedef enum {
#define BT_OF_PAGE
#define BT_EVENT(name, text) BT_PAGE_ON_##name,
#include "core/states.def"
    BT_N_PAGE_CHANGES
} bt_page_change;
typedef enum {
#define BT_OF_PAGE
#define BT_GUARD(name, text) BT_PAGE_IF_##name,
#include "core/states.def"
    BT_N_PAGE_GUARDS
} bt_page_guard;
typedef enum {
#define BT_OF_PAGE
#define BT_ACTION(name, text) BT_PAGE_DO_##name,
#include "core/states.def"
    BT_N_PAGE_ACTIONS
} bt_page_action;

typedef struct {
    uint8_t is_legal, to, guard, action;
} bt_move;

typedef struct {
    const char *name, *text;
} bt_state_word;

typedef struct {
    const char *name;
    uint32_t n_states, n_events, n_guards, n_actions;
    const bt_state_word *states, *events, *guards, *actions; /* [n_...] */
    const bt_move *moves;                                    /* [n_states][n_events] */
} bt_state_table;

extern const bt_state_table bt_peer_states, bt_transfer_states, bt_ticket_states, bt_page_states;

/* What the event does in the state; NULL: it is not legal there (nor are numbers that the table
 * does not have). */
const bt_move *bt_state_next(const bt_state_table *table, uint32_t state, uint32_t event);
/* "?" for what the table does not have. */
const char *bt_state_name(const bt_state_table *table, uint32_t state);
const char *bt_state_event_name(const bt_state_table *table, uint32_t event);

#endif
