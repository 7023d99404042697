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
#include "core/pollhabit.h"
#include "core/pollset.h"
#include "core/wakesocket.h"
#include "receiver/rx.h"
#include "wire/control.h"
#include "wire/noticepush.h"
#include "wire/zmqbacklog.h"
#include "wire/zmqgate.h"
#include "wire/zmqguard.h"

#include <stdatomic.h>

enum {
    BT_RX_EVENTS_MAX = 4096, /* wait for the user; older ones are dropped and counted */
    /* Answers that wait for one connection, and for all; more are dropped, the peer asks again. An
     * answer has 1 MiB at most. */
    BT_RX_SEND_MESSAGES = 4096,
    BT_RX_SEND_BYTES = 2 << 20,
    BT_RX_SEND_ALL_BYTES = 64 << 20,
    BT_RX_PATIENCE_MS = 1000,    /* with a connection that is full and takes nothing */
    BT_RX_FRAMES_PER_STEP = 256, /* of one port, before the other gets its turn */
    BT_RX_SPIN_NS = 20 * 1000,   /* look again for so long after activity, before sleeping */
    BT_RX_LOOK_NS = 10 * 1000,   /* into the poll set so often meanwhile, and when a user polls */
    BT_RX_DOUBT_NS = 100 * 1000 * 1000, /* into the sockets so often, whatever the poll set says */
    BT_RX_GATE_MS = 100,                /* until a gate that could do nothing is looked at again */
    BT_RX_GATE_LOG_MS = 1000,           /* between two lines about connections that were refused */
    BT_RX_FLUSH_MS = 200,               /* on destroy, for last messages and notices */
    BT_RX_NOTICE_ALLOW_MAX = 1024,
    BT_RX_LATER_MAX = 8, /* answers that are kept until the user has seen what they answer */
    BT_RX_LATER_BYTES = 512,
};

/* What a user who drives us himself was told at the end of a turn. */
typedef enum {
    BT_RX_BUSY,   /* come again at once: there is more to do */
    BT_RX_ASLEEP, /* sleep: everything that comes wakes him */
    BT_RX_POLLED, /* come again at once: nothing is to do, and he would not sleep anyway */
} bt_rx_rest;

typedef struct {
    bt_rx_port port;
    bt_rx_route route;
    size_t bytes;
    uint8_t frame[BT_RX_LATER_BYTES];
} bt_rx_later;

struct baton_receiver {
    baton_receiver_options options; /* defaults filled in; strings owned, see receiver.c */
    bt_control control;
    void *sockets[BT_RX_N_PORTS];
    bool is_due[BT_RX_N_PORTS]; /* flag in the poll set; false: the socket was found empty, and its
                                   descriptor says when it no longer is */
    bt_zmq_guard *guard;        /* of the sockets */
    bt_zmq_gate gates[BT_RX_N_PORTS];
    bool gate_is_due[BT_RX_N_PORTS];        /* flag in the poll set: somebody connects */
    uint64_t gate_closed_ns[BT_RX_N_PORTS]; /* not looked at until then; 0: it is */
    uint64_t gate_logged_ns;
    uint16_t ports[BT_RX_N_PORTS];
    bt_backlog *backlog;
    bt_rx_port deaf_port; /* of the connection that does not read, to be said to rx */
    bt_rx_route deaf_route;
    bt_pollset *polls;
    bt_doorbell *bell;
    bt_wakesocket *wake;           /* rung by peers that wrote into a ring; NULL: no rings */
    bool bell_is_due, wake_is_due; /* flags in the poll set */
    bt_noticepush *notices;
    bt_eventqueue *events;
    bt_transport *transport;
    bt_rx *rx;
    bt_admin *admin;     /* NULL: off */
    uint64_t looked_ns;  /* into the poll set */
    uint64_t doubted_ns; /* it */
    struct {             /* of a user who drives */
        bt_rx_rest rest;
        bool has_looked;  /* the last turn did no more than what bt_rx_look found */
        uint64_t wake_ns; /* when to step at the latest */
        bt_pollhabit habit;
        bool answers_later;
        bt_rx_later later[BT_RX_LATER_MAX]; /* [n_later] */
        uint32_t n_later;
    } user;
    pthread_t thread;
    bool has_thread;
    _Atomic bool stopping;      /* release by destroy, acquire by the thread */
    _Atomic uint32_t n_events;  /* waiting; relaxed: only a bound */
    _Atomic uint64_t n_dropped; /* events; relaxed counter */
    _Atomic uint64_t n_unsent;  /* answers; relaxed counter */
    _Atomic uint64_t n_steps;   /* relaxed counter: how often it was awake, for tests */
};

/* Makes the sockets, binds them, and puts their descriptors into the poll set. Errors:
 * ADDRESS_IN_USE, PERMISSION and others of wire/zmqsocket.h. */
baton_status bt_rxshell_open(baton_receiver *receiver);
/* Wakes whoever drives the receiver, ctx. Any thread. */
void bt_rxshell_ring(void *ctx);
/* What bt_rx calls. */
bt_rx_out bt_rxshell_out(baton_receiver *receiver);
/* Handles what has come and progresses; true when frames had come. *deadline_ns: run again then. */
bool bt_rxshell_step(baton_receiver *receiver, uint64_t *deadline_ns);
/* Nothing is left to do: the poll set wakes up at the next thing. False: step again. */
bool bt_rxshell_prepare_sleep(baton_receiver *receiver);
/* One call of a user's progress; returns the milliseconds until the next at the latest. */
uint32_t bt_rxshell_turn(baton_receiver *receiver);
/* Answers the admin question that is pending, rxadmin.c. */
void bt_rxshell_answer_admin(baton_receiver *receiver);
/* Sends the answers that are kept. */
void bt_rxshell_answer(baton_receiver *receiver);
baton_status bt_rxshell_start_thread(baton_receiver *receiver);

#endif
