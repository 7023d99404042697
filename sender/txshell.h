/* SPDX-License-Identifier: Apache-2.0 */
/* A sender: the state machine (tx.h) on a pair of DEALER sockets per receiver and a poll set,
 * driven by a thread of its own or by its user.
 *
 *   receivers ◀──zmq──▶ links[peer].sockets[init, alloc] ─┐               ┌─▶ events ──▶ user
 *   worker fd, receivers' pidfds ─────────────────────────┼─ step ▶ bt_tx ┤
 *   user: begin, push, finish, cancel ── inbox ── bell ───┘               └─▶ notices ──▶ proxies
 *
 * Thread rule: the progress thread (or whoever drives it), but for what tx.h and sender.h allow
 * from any thread. */
#ifndef BT_SENDER_TXSHELL_H
#define BT_SENDER_TXSHELL_H
#include "core/adminserver.h"
#include "core/doorbell.h"
#include "core/pollhabit.h"
#include "core/pollset.h"
#include "core/wakesocket.h"
#include "sender/tx.h"
#include "wire/control.h"
#include "wire/noticepush.h"

#include <stdatomic.h>

enum {
    BT_TX_SEND_MESSAGES = 8192,  /* wait for one receiver; more are dropped and sent again later */
    BT_TX_FRAMES_PER_STEP = 256, /* of one socket, before the others get their turn */
    BT_TX_SPIN_NS = 50 * 1000,   /* look again for so long after activity, before sleeping */
    BT_TX_LOOK_NS = 10 * 1000,   /* into the poll set so often meanwhile, and when a user polls */
    BT_TX_DOUBT_NS = 100 * 1000 * 1000, /* into the sockets so often, whatever the poll set says */
    BT_TX_CLOSE_MS = 1000,              /* on destroy, for the connections to be flushed */
    BT_TX_FLUSH_MS = 200,               /* on destroy, for last messages and notices */
    BT_TX_NOTICE_ALLOW_MAX = 1024,
};

/* What a user who drives us himself was told at the end of a turn. */
typedef enum {
    BT_TX_BUSY,   /* come again at once: there is more to do */
    BT_TX_ASLEEP, /* sleep: everything that comes wakes him */
    BT_TX_POLLED, /* come again at once: nothing is to do, and he would not sleep anyway */
} bt_tx_rest;

/* A peer's sockets. */
typedef struct bt_tx_link {
    struct bt_tx_link *next;
    bt_tx_peer *peer;
    void *sockets[BT_TX_N_PORTS];
    bool is_due[BT_TX_N_PORTS]; /* flag in the poll set; false: the socket was found empty, and its
                                   descriptor says when it no longer is */
    int pidfd;                  /* in the poll set; -1: none */
    bool has_exited;            /* its flag */
    void *monitor;              /* of the init port's socket; NULL: none */
    bool is_connected;          /* as far as the monitor has been asked */
} bt_tx_link;

struct baton_sender {
    baton_sender_options options; /* defaults filled in; strings owned, see sender.c */
    bt_control control;
    bt_tx_link *links;
    bt_pollset *polls;
    bt_doorbell *bell;
    bt_wakesocket *wake; /* rung by peers that wrote into a ring; NULL: no rings */
    bool bell_is_due, wake_is_due, worker_is_due; /* flags in the poll set */
    bt_noticepush *notices;
    bt_transport *transport;
    bt_tx *tx;
    bt_admin *admin;     /* NULL: off */
    uint64_t looked_ns;  /* into the poll set */
    uint64_t doubted_ns; /* it */
    struct {             /* of a user who drives */
        bt_tx_rest rest;
        uint64_t wake_ns; /* when to step at the latest */
        bt_pollhabit habit;
    } user;
    pthread_t thread;
    bool has_thread;
    _Atomic bool stopping;    /* release by destroy, acquire by the thread */
    _Atomic uint64_t n_steps; /* relaxed counter: how often it was awake, for tests */
};

/* What bt_tx calls. */
bt_tx_out bt_txshell_out(baton_sender *sender);
/* Puts the worker's and the bell's descriptors into the poll set. */
baton_status bt_txshell_open(baton_sender *sender);
/* Progresses and handles what has come; true when frames had come: run again at once, else at
 * *deadline_ns. */
bool bt_txshell_step(baton_sender *sender, uint64_t *deadline_ns);
/* Nothing is left to do: the poll set wakes up at the next thing. False: step again. */
bool bt_txshell_prepare_sleep(baton_sender *sender);
/* One call of a user's progress; returns the milliseconds until the next at the latest. */
uint32_t bt_txshell_turn(baton_sender *sender);
baton_status bt_txshell_start_thread(baton_sender *sender);
/* Answers the admin question that is pending, txadmin.c. */
void bt_txshell_answer_admin(baton_sender *sender);
/* Cancels what is live and runs until it has drained, or the flush deadline has passed. */
void bt_txshell_drain(baton_sender *sender);

#endif
