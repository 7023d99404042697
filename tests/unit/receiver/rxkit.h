/* SPDX-License-Identifier: Apache-2.0 */
/* What the receiver's tests share: a bt_rx on the loop transport under a manual clock, senders made
 * of hand-written messages, and everything that comes out, captured. The accounts are checked after
 * every step.
 *
 * Thread rule: the test's thread. */
#ifndef BT_TESTS_RXKIT_H
#define BT_TESTS_RXKIT_H
#include "receiver/rx.h"
#include "transport/loop.h"

enum {
    KIT_CHUNK_TOKENS = 8,
    KIT_TOKENS_MAX = 512,
    KIT_CHUNKS_MAX = KIT_TOKENS_MAX / KIT_CHUNK_TOKENS + 1,
    KIT_FRAMES_MAX = 512,
};

typedef struct {
    bt_rx_port port;
    uint8_t route;
    uint8_t *bytes;
    size_t n;
} rx_kit_frame;

typedef struct {
    char address[256], request[BT_REQUEST_ID_BYTES_MAX + 1];
    baton_status status;
} rx_kit_notice;

typedef struct {
    bt_manual_clock time;
    bt_clock clock;
    bt_loop_net *net;
    bt_transport *transport;
    bt_rx *rx;
    rx_kit_frame frames[KIT_FRAMES_MAX]; /* not taken yet */
    uint32_t n_frames;
    rx_kit_frame taken; /* what the last taken message points into */
    uint32_t n_notices, n_events;
    rx_kit_notice notice;       /* the last one */
    baton_receiver_event event; /* the last one */
    int n_watched;              /* peers added and not removed */
    bool has_hung_up;           /* nobody is connected any more */
} rx_kit;

/* A sender rank, by its messages. */
typedef struct {
    uint64_t epoch, peer_epoch, next_id;
    uint8_t route;
    uint32_t connection;
    const char *boot; /* "other": another host */
    const char *user; /* key that its connections are let in with; NULL: no keys */
    uint32_t digests;
} rx_kit_sender;

/* A request of a sender. */
typedef struct {
    uint32_t tokens[KIT_TOKENS_MAX];
    uint32_t n_tokens, n_keys, last_tokens;
    baton_key keys[KIT_CHUNKS_MAX];
    char request[64];
    uint32_t deadline_ms;
    bool may_not_queue;
    uint64_t alloc_id;
    /* From the answer. */
    baton_status status;
    uint32_t outcome, place, n_runs, n_to_send, pages_wanted, pages_total;
    bt_ticket_name name;
    uint8_t nonce[BT_NONCE_BYTES];
    bt_page_run runs[KIT_CHUNKS_MAX];
} rx_kit_request;

baton_layout rx_kit_layout(void);
/* Defaults of the kit: n_pages pages in 2 regions, no queue limit to speak of. */
baton_receiver_options rx_kit_options(uint32_t n_pages);
void rx_kit_open(rx_kit *kit, const baton_receiver_options *options);
void rx_kit_close(rx_kit *kit);
/* The store agrees with itself, the pages and tickets add up. */
void rx_kit_check(rx_kit *kit);
/* Time passes, then the receiver progresses. */
void rx_kit_advance_ms(rx_kit *kit, uint64_t ms);
void rx_kit_stats(rx_kit *kit, baton_receiver_stats *stats);

void rx_kit_send(rx_kit *kit, const rx_kit_sender *sender, bt_rx_port port, bt_message *message);
void rx_kit_send_bytes(rx_kit *kit, bt_rx_port port, uint8_t route, const void *bytes, size_t n);
/* The oldest captured frame, decoded; false when there is none. */
bool rx_kit_take(rx_kit *kit, bt_message *message);
/* As take; fails the test unless it is of this type. */
void rx_kit_expect(rx_kit *kit, bt_message_type type, bt_message *message);
void rx_kit_expect_nothing(rx_kit *kit);

rx_kit_sender rx_kit_sender_make(uint8_t route);
/* INIT, answered with `wanted`. */
void rx_kit_init(rx_kit *kit, rx_kit_sender *sender, baton_status wanted);
/* A message for the receiver, with the next id. */
bt_message rx_kit_message(rx_kit_sender *sender, bt_message_type type);

/* Prompt `id`; prompts agree in their first `shared` tokens. */
void rx_kit_prompt(rx_kit_request *request, uint32_t id, uint32_t shared, uint32_t n_tokens);
/* Sends ALLOC and reads the answer into request. */
void rx_kit_alloc(rx_kit *kit, rx_kit_sender *sender, rx_kit_request *request);
/* The same without the answer. */
void rx_kit_send_alloc(rx_kit *kit, rx_kit_sender *sender, rx_kit_request *request);
void rx_kit_read_alloc_answer(rx_kit_request *request, const bt_message *message);
/* Writes what a sender would into the chunk's page; false: it is not to be sent. */
bool rx_kit_write(rx_kit *kit, const rx_kit_request *request, uint32_t chunk);
uint8_t rx_kit_byte(const rx_kit_request *request, uint32_t chunk);
/* COMMIT of chunks [first, first + count), 0: none. Returns the answer's status. */
baton_status rx_kit_commit(rx_kit *kit, rx_kit_sender *sender, const rx_kit_request *request,
                           uint32_t first, uint32_t count, bool final, bt_message *answer);
/* alloc, write all, commit final: the request is held. */
void rx_kit_land(rx_kit *kit, rx_kit_sender *sender, rx_kit_request *request);
baton_status rx_kit_cancel(rx_kit *kit, rx_kit_sender *sender, const rx_kit_request *request,
                           bool drained);
void rx_kit_drained(rx_kit *kit, rx_kit_sender *sender, const rx_kit_request *request);
uint32_t rx_kit_release(rx_kit *kit, rx_kit_sender *sender, const char *request);
bt_msg_status_answer rx_kit_status(rx_kit *kit, rx_kit_sender *sender, const char *request);

#endif
