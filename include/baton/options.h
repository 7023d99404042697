/* SPDX-License-Identifier: Apache-2.0 */
/* What senders and receivers have in common: how they are secured, which devices they use, how long
 * they wait. Zero means the default everywhere.
 *
 * Thread rule: any thread. */
#ifndef BATON_OPTIONS_H
#define BATON_OPTIONS_H
#include <baton/kv.h>
#include <baton/layout.h>
#include <baton/status.h>
#include <stdbool.h>
BATON_BEGIN_DECLS

typedef enum {
    BATON_DIGESTS_OFF,
    BATON_DIGESTS_SAMPLED, /* 64 bits over some lines of every chunk (docs/protocol.md, Digests),
                              checked before its key becomes visible */
    BATON_DIGESTS_FULL,    /* over all of it */
} baton_digests;

typedef enum {
    BATON_PROGRESS_THREAD, /* the library's own thread */
    BATON_PROGRESS_MANUAL, /* the caller's: baton_sender_progress, baton_receiver_progress */
} baton_progress_mode;

/* CURVE keys of the control sockets; all borrowed until create returns. */
typedef struct {
    const char *key_file; /* this side's key pair; NULL: no encryption, see allow_unauthenticated */
    const char *server_key;     /* sender: file with the receiver's public key */
    const char *clients_path;   /* receiver: folder with the public keys of allowed senders */
    const char *proxy_key;      /* file with the proxies' public key; with a key_file, notices leave
                                   only with this */
    bool allow_unauthenticated; /* without keys, bind to other addresses than loopback */
} baton_security;

/* The data path; strings borrowed until create returns. */
typedef struct {
    const char *transport;           /* "ucx" (default) or "loop" (tests) */
    const char *const *data_devices; /* [n_data_devices]; none: "lo" */
    uint32_t n_data_devices;
    bool no_tcp;
    uint32_t data_lanes; /* connections to a peer, 1 to 8; 0: 1 */
    /* Floors, either side's: a connection whose path is worse fails with BATON_ERR_PATH, and so do
     * its transfers. */
    bool require_rdma;    /* bytes go by RDMA (rc, dc, ud), device memory also by cuda_ipc */
    double min_gbps;      /* measured at connect, 10^9 bytes a second; 0: none */
    bool no_control_ring; /* control messages by ZeroMQ only, also on one host */
    struct bt_loop_net *loop_net; /* "loop" only */
    const struct bt_clock *clock; /* NULL: monotonic; tests inject one (core/clock.h) */
} baton_data_path;

/* Deadlines, milliseconds (docs/protocol.md, Time). */
typedef struct {
    uint32_t connect_ms;   /* 5,000 */
    uint32_t init_ms;      /* 5,000 */
    uint32_t alloc_ms;     /* 5,000 */
    uint32_t put_ms;       /* 10,000 without progress */
    uint32_t flush_ms;     /* 10,000 without progress; also for a connection to close */
    uint32_t commit_ms;    /* 10,000 */
    uint32_t request_ms;   /* 300,000: default deadline of a whole request */
    uint32_t silent_ms;    /* 5,000: a peer that says nothing for so long is gone */
    uint32_t heartbeat_ms; /* 500 */
    uint32_t lease_ms;     /* 30,000: a ready request waits so long for decode */
    uint32_t pin_ms;       /* 30,000: a pin lives so long */
} baton_timeouts;

BATON_END_DECLS
#endif
