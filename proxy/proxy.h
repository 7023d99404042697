/* SPDX-License-Identifier: Apache-2.0 */
/* The proxy: pairs prefill with decode engines and answers OpenAI requests from both.
 *
 *   loop thread 0..n-1   libuv: HTTP server (SO_REUSEPORT), HTTP client, requests, their ids
 *   control thread       ZMQ: notices in (PULL), questions to receivers (DEALER)
 *
 * A request lives and dies on its loop thread. The control thread posts notices to the loop whose
 * number is in the id; loops hand questions over through a ring. Nothing polls.
 *
 * Thread rule: the calls below from one thread, the owner's. */
#ifndef BT_PROXY_PROXY_H
#define BT_PROXY_PROXY_H
#include "proxy/dialect.h"
#include "proxy/proxydoors.h"

#include <baton/status.h>

enum { BT_PROXY_MAX_THREADS = 64, BT_NOTICES_AUTO = -1 };

/* Deadlines in ms, each with its own error code in the answer; 0 means the default in brackets. */
typedef struct {
    uint32_t connect;      /* connect_timeout [1 s] */
    uint32_t tokenize;     /* tokenize_timeout [2 s] */
    uint32_t room;         /* overloaded: until a decode engine has room [30 s] */
    uint32_t prefill;      /* prefill_timeout: queue and compute [300 s] */
    uint32_t kv_wait;      /* kv_timeout: from the prefill engine's answer to ready [30 s] */
    uint32_t first_byte;   /* first_byte_timeout: of the decode engine [60 s] */
    uint32_t gap;          /* gap_timeout: between two reads of its answer [60 s] */
    uint32_t total;        /* total_timeout [3600 s] */
    uint32_t status_after; /* a notice that is late by this is asked for, again and again [1 s] */
    uint32_t probe;        /* how often an engine that is down is asked for its health [1 s] */
    uint32_t silent;       /* prefill_silent, decode_silent: no answer even to /health [5 s] */
    uint32_t drain;        /* running requests may take this long after a stop [180 s] */
} bt_proxy_deadlines;

/* Zero means the default in brackets. Strings are borrowed for the proxy's life. */
typedef struct {
    const char *host;           /* numeric ["127.0.0.1"] */
    uint16_t port;              /* 0: any free one */
    const char *notice_host;    /* where notices are received ["127.0.0.1"] */
    uint16_t notice_port;       /* 0: any free one */
    const char *notice_address; /* as engines reach it [tcp://notice_host:notice_port] */
    const char *key_file;       /* CURVE key of the proxy, with the next two [none] */
    const char *receiver_key;   /* file with the receivers' public key, for questions to them */
    const char *clients_path;   /* folder with the public keys of those whose notices are heard */
    bt_door_files doors;        /* TLS and API keys [none] */
    bool allow_unauthenticated; /* without keys, notice_host may be other than loopback */
    const char *admin; /* where baton-ctl asks: auto, off, unix:PATH, 127.0.0.1:PORT [auto] */
    uint32_t threads;  /* [cores, at most 8] */
    bt_mode mode, chat_mode;
    bt_engines engines;
    bt_policy prefill_policy, decode_policy;
    const char *prefiller_header;     /* in which a front end names the prefill engine [none] */
    const char *session_header;       /* names the session for consistent_hash ["X-Session-Id"] */
    size_t prefix_bytes;              /* of what each role's prefix_aware remembers [16 MiB] */
    uint64_t decode_room;             /* tokens of KV that a decode engine can hold [0: unknown] */
    uint64_t cold_pair;               /* what a pair's first hand-off costs, in tokens [0] */
    uint64_t local_below;             /* tokens that decode computes itself, if fewer [0: none] */
    uint64_t local_queue;             /* ... while no more wait there, these included [8192] */
    uint64_t prefix_window;           /* tokens of load; see bt_policy_state [16384] */
    const bt_worker_address *prefill; /* [n_prefill], borrowed during start */
    const bt_worker_address *decode;  /* [n_decode] */
    uint32_t n_prefill, n_decode;
    int notices;           /* how many make an attempt ready; BT_NOTICES_AUTO: one of each rank */
    uint32_t max_inflight; /* requests at once; above, 503 [4096] */
    size_t max_body_bytes; /* [64 MiB] */
    bool explain;          /* clients may ask which engines they got, and why */
    uint32_t retries;      /* attempts more than the first, at most [as given, 0 is none] */
    bt_proxy_deadlines ms;
} bt_proxy_options;

typedef struct bt_proxy bt_proxy;

/* Binds and starts all threads. Errors: INVALID_ARG, ADDRESS_IN_USE, PERMISSION, NO_MEMORY, IO. */
baton_status bt_proxy_start(const bt_proxy_options *options, bt_proxy **proxy_p);
uint16_t bt_proxy_port(const bt_proxy *proxy);
uint16_t bt_proxy_notice_port(const bt_proxy *proxy);
uint32_t bt_proxy_threads(const bt_proxy *proxy);
/* Where baton-ctl asks, "unix:..." or "127.0.0.1:..."; "off". */
const char *bt_proxy_admin_at(const bt_proxy *proxy);
/* Certificates and API keys are read again, for what comes from now on. On failure the old ones
 * stay. Errors: CONFIG, PERMISSION, NOT_FOUND, NO_MEMORY, IO. */
baton_status bt_proxy_reload(bt_proxy *proxy);
/* Requests that are being worked on. Any thread. */
uint32_t bt_proxy_inflight(const bt_proxy *proxy);
/* /readyz says 503, no new connection is taken; running requests go on. */
void bt_proxy_drain(bt_proxy *proxy);
/* Drains until nothing runs or the drain deadline has passed; then ends everything and frees. NULL
 * is allowed. */
void bt_proxy_stop(bt_proxy *proxy);
/* As above without waiting for what runs. */
void bt_proxy_destroy(bt_proxy *proxy);

#endif
