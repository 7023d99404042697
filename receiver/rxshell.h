/* SPDX-License-Identifier: Apache-2.0 */
/* A receiver: the state machine (rx.h) on two ROUTER sockets and a poll set, driven by a thread of
 * its own or by its user.
 *
 *   sender ◀──zmq──▶ sockets[init, alloc] ─┐                    ┌─▶ events ──▶ user
 *   peers' worker fds, pidfds ─────────────┼─ step ──▶ bt_rx ───┤
 *   user: lookup, unpin, release ── bell ──┘                    └─▶ notices ──▶ proxies
 *
 * Thread rule: the progress thread (or whoever drives it), but for what rx.h and receiver.h allow
 * from any thread. */
#ifndef BT_RECEIVER_RXSHELL_H
#define BT_RECEIVER_RXSHELL_H
#include "core/adminserver.h"
#include "core/doorbell.h"
#include "core/eventqueue.h"
#include "core/pollset.h"
#include "core/wakesocket.h"
#include "receiver/rx.h"
#include "wire/control.h"
#include "wire/noticepush.h"

#include <stdatomic.h>

enum {
    BT_RX_EVENTS_MAX = 4096,     /* wait for the user; older ones are dropped and counted */
    BT_RX_SEND_MESSAGES = 8192,  /* wait for one peer; more are dropped, the peer asks again */
    BT_RX_FRAMES_PER_STEP = 256, /* of one port, before the other gets its turn */
    BT_RX_SPIN_NS = 20 * 1000,   /* look again for so long after activity, before sleeping */
    BT_RX_LOOK_NS = 100 * 1000 * 1000, /* and into the poll set so often while there is some */
    BT_RX_FLUSH_MS = 200,              /* on destroy, for last messages and notices */
    BT_RX_NOTICE_ALLOW_MAX = 1024,
};

struct baton_receiver {
    baton_receiver_options options; /* defaults filled in; strings owned, see receiver.c */
    bt_control control;
    void *sockets[BT_RX_N_PORTS];
    uint16_t ports[BT_RX_N_PORTS];
    bt_pollset *polls;
    bt_doorbell *bell;
    bt_wakesocket *wake; /* rung by peers that wrote into a ring; NULL: no rings */
    bt_noticepush *notices;
    bt_eventqueue *events;
    bt_transport *transport;
    bt_rx *rx;
    bt_admin *admin; /* NULL: off */
    bool is_asleep;   /* prepared to, and nobody has looked since */
    bool was_called;  /* turn: by a ring, and did nothing but what lay there */
    uint64_t wake_ns; /* turn: when to step at the latest */
    pthread_t thread;
    bool has_thread;
    _Atomic bool stopping;      /* release by destroy, acquire by the thread */
    _Atomic uint32_t n_events;  /* waiting; relaxed: only a bound */
    _Atomic uint64_t n_dropped; /* events; relaxed counter */
    _Atomic uint64_t n_steps;   /* relaxed counter: how often it was awake, for tests */
};

/* Makes the sockets, binds them, and puts their descriptors into the poll set. Errors:
 * ADDRESS_IN_USE, PERMISSION and others of wire/zmqsocket.h. */
baton_status bt_rxshell_open(baton_receiver *receiver);
/* What bt_rx calls. */
bt_rx_out bt_rxshell_out(baton_receiver *receiver);
/* Handles what has come and progresses; true when frames had come. *deadline_ns: run again then. */
bool bt_rxshell_step(baton_receiver *receiver, uint64_t *deadline_ns);
/* Nothing is left to do: the poll set wakes up at the next thing. False: step again. */
bool bt_rxshell_prepare_sleep(baton_receiver *receiver);
/* Waits in the poll set until the deadline and handles exited peers; true when something came. */
bool bt_rxshell_wait(baton_receiver *receiver, uint64_t deadline_ns);
/* One call of a user's progress; returns the milliseconds until the next at the latest. */
uint32_t bt_rxshell_turn(baton_receiver *receiver);
/* Answers the admin question that is pending, rxadmin.c. */
void bt_rxshell_answer_admin(baton_receiver *receiver);
baton_status bt_rxshell_start_thread(baton_receiver *receiver);

#endif
