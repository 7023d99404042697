/* SPDX-License-Identifier: Apache-2.0 */
/* The control channel by hand: a sender that says whatever the test wants to a live receiver, and
 * a receiver that answers a live sender as the test wants. Thread rule: the test's thread. */
#ifndef BT_TESTS_RAWPEER_H
#define BT_TESTS_RAWPEER_H
#include "support/cluster.h"
#include "wire/messages.h"
#include "wire/notice.h"
#include "wire/zmqsocket.h"

enum { RAW_INIT, RAW_ALLOC, RAW_N_PORTS };

typedef struct {
    void *context;
    void *dealers[RAW_N_PORTS];
    uint64_t epoch, peer_epoch, next_id;
    bt_zmq_message frame; /* of the last answer */
    bool has_frame;
} raw_sender;

void raw_sender_open(raw_sender *s, const bt_node *decode, uint64_t epoch);
void raw_sender_close(raw_sender *s);
void raw_send(raw_sender *s, int port, const void *bytes, size_t n);
/* Says a message, filling in what every one has; false: too many wait, it is dropped. */
bool raw_say(raw_sender *s, int port, bt_message *message);
/* The next answer at a port. */
bt_message raw_hear(raw_sender *s, int port);
/* The frame says version v, up to 127, instead of ours. */
void raw_set_version(bt_packwriter *frame, uint8_t v);
/* Fills in what every message has; in version message->v unless that is 0. Keeps the frame's bytes
 * in *sent if it is not NULL (freed with bt_pack_release). */
bt_message raw_ask(raw_sender *s, int port, bt_message *message, bt_packwriter *sent);

/* An INIT as a prefill engine says it, to be said by others. */
typedef struct {
    bt_zmq_message frame;
    bt_message init; /* borrows from frame */
} raw_hello;

/* From an engine that was started with a short connect_ms; its transfer fails. */
void raw_hello_hear(raw_hello *hello, const bt_node *prefill);
void raw_hello_close(raw_hello *hello);
/* Says it as s, which is accepted. sent: as raw_ask. */
void raw_hello_say(const raw_hello *hello, raw_sender *s, bt_packwriter *sent);

typedef struct {
    void *context;
    void *routers[RAW_N_PORTS];
    bt_node node; /* its ports, to be named as a decode engine of one rank */
} raw_receiver;

void raw_receiver_open(raw_receiver *r);
void raw_receiver_close(raw_receiver *r);
/* The next message at the init port, which must be readable; parts 0 and 1: who, and the frame. */
void raw_receiver_hear(raw_receiver *r, bt_zmq_message *message);

/* A PULL socket where notices come. */
typedef struct {
    void *context, *pull;
    char url[64];
    bt_zmq_message frame;
    bool has_frame;
} raw_notices;
void raw_notices_open(raw_notices *n);
void raw_notices_close(raw_notices *n);
/* The next notice; waits for it. */
bt_notice raw_notices_next(raw_notices *n);
/* One that is there already; false when there is none. */
bool raw_notices_poll(raw_notices *n, bt_notice *notice);

#endif
