/* SPDX-License-Identifier: Apache-2.0 */
/* A sender and a receiver state machine in one thread, joined by a bus of frames and the loop
 * transport, on a clock that only the test moves. Frames can be dropped, repeated and held. */
#ifndef BT_TESTS_PAIRKIT_H
#define BT_TESTS_PAIRKIT_H
#include "support/test.h"

#include "receiver/rx.h"
#include "sender/tx.h"
#include "transport/loop.h"

#ifndef PAIR_SENDERS
#define PAIR_SENDERS 4 /* a test of more is compiled with its own number, and the kit with it */
#endif
#ifndef PAIR_TOKEN
#define PAIR_TOKEN 32 /* bytes; so is a test of larger pages */
#endif

enum {
    PAIR_CHUNK = 8, /* tokens */
    PAIR_TOKEN_BYTES = PAIR_TOKEN,
    PAIR_PAGE_BYTES = PAIR_CHUNK * PAIR_TOKEN_BYTES,
    PAIR_LAYERS = 4, /* of a layered pair; its tokens have as many bytes */
    PAIR_MAX_CHUNKS = 8,
    PAIR_MAX_SENDERS = PAIR_SENDERS,
    PAIR_MAX_FRAMES = 256, /* on the bus */
};

typedef struct pair pair;

typedef struct {
    pair *kit;
    bt_tx *tx;
    bt_transport *transport;
    uint32_t index;
    bt_rx_route routes[BT_RX_N_PORTS];
    uint32_t n_notices;
    baton_status last_notice;
    uint32_t notice_retry_ms; /* of the last one */
    baton_sender_event events[256];
    uint32_t n_events;
    uint32_t n_source_free, n_done, n_failed;
    baton_sender_event end; /* the last DONE or FAILED */
} pair_sender;

typedef struct {
    bool to_receiver;
    uint32_t sender;
    int port;
    size_t bytes;
    uint8_t data[16384];
} pair_frame;

struct pair {
    bt_manual_clock manual;
    bt_clock clock;
    bt_loop_net *net;
    bt_loop_net *second_lane; /* NULL: none */
    bt_transport *rx_transport;
    bt_rx *rx;
    pair_sender senders[PAIR_MAX_SENDERS];
    uint32_t n_senders;
    pair_frame frames[PAIR_MAX_FRAMES];
    uint32_t n_frames;
    /* Returns false to lose the frame; NULL: all pass. */
    bool (*filter)(pair *kit, const pair_frame *frame, const bt_message *message);
    uint32_t filter_count;
    uint32_t n_duplicates; /* how often each frame is repeated */
    uint32_t n_receiver_notices;
    baton_status receiver_notice;
    uint32_t n_ready, n_failed, n_expired;
    baton_receiver_event last_event;
    bool receiver_is_cut;                    /* no frame passes */
    bool receiver_has_hung_up;               /* no connection to it stands; frames pass */
    bool receiver_is_deaf, senders_are_deaf; /* their doorbells are out of reach */
    uint32_t n_rung[2];                      /* doorbells: of the receiver, of senders */
    bool is_closing;                         /* nobody is there to take frames */
    const char *traceparent;                 /* of transfers from now on */
};

typedef struct {
    uint32_t n_senders, n_pages, n_regions;
    baton_digests digests;
    baton_path_choice path;
    baton_commit_choice commit;
    bool mapped;
    uint32_t copy_threads;
    bool is_layered;
    bool two_lanes;
    bool reaches_device;      /* the transport of both sides */
    baton_memory_kind memory; /* of the receiver's pool */
    bool measure;             /* the path, when connecting */
    bool probe;               /* senders are probes, of another layout than the receiver's */
    baton_data_path sender_floor, receiver_floor;
    bool rings; /* and mapped: control messages go by rings, past the bus and its filter */
} pair_options;

void pair_create(pair *kit, const pair_options *options);
void pair_destroy(pair *kit);
/* The receiver's process dies with all its memory, and a new one takes its address. */
void pair_restart_receiver(pair *kit, const pair_options *options);
/* One turn of both sides and what lies between them. */
void pair_turn(pair *kit);
/* Runs both sides until nothing moves at this time. */
void pair_run(pair *kit);
/* As run, with the clock moved on by ms in steps. */
void pair_advance(pair *kit, uint64_t ms);

/* Tokens of prompt id: the first `shared` are the same for all. */
void pair_tokens(uint32_t id, uint32_t shared, uint32_t n, uint32_t *tokens);
/* Starts a transfer of tokens[n] from a sender. */
baton_transfer pair_begin(pair *kit, uint32_t sender, const char *request, const uint32_t *tokens,
                          uint32_t n, uint32_t deadline_ms);
/* Bytes of chunk i, as pushed for these tokens: they depend on the tokens alone. data must live
 * until SOURCE_FREE. Returns how many bytes. */
size_t pair_chunk(const uint32_t *tokens, uint32_t n, uint32_t i, uint8_t *data);
/* Pushes every chunk from `data` ([chunks * PAIR_PAGE_BYTES], filled here) and finishes. */
void pair_push_all(pair *kit, uint32_t sender, baton_transfer transfer, const uint32_t *tokens,
                   uint32_t n, uint8_t *data);
/* Looks tokens[n] up, compares every page with pair_chunk, unpins; returns the tokens matched. */
uint32_t pair_check(pair *kit, const uint32_t *tokens, uint32_t n);
/* Nothing is reserved, held, pinned or in quarantine, and the counts add up. */
void pair_check_clean(pair *kit);

#endif
