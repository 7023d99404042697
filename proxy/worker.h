/* SPDX-License-Identifier: Apache-2.0 */
/* The engines behind the proxy: where they are, how busy they are, whether they answered lately.
 * Which one gets a leg is its pool's policy (proxy/policy.h).
 *
 * Thread rule: add before threads start; everything else from any thread. */
#ifndef BT_PROXY_WORKER_H
#define BT_PROXY_WORKER_H
#include "http/httptls.h"
#include "proxy/policy.h"

#include <baton/status.h>
#include <stdatomic.h>
#include <stdbool.h>

enum { BT_MAX_WORKERS = 64, BT_MAX_RANKS = 64, BT_HOST_BYTES = 256, BT_MAX_DIALECTS = 32 };

typedef enum { BT_ROLE_PREFILL, BT_ROLE_DECODE } bt_role;

/* Where an engine listens, and what its dialect (proxy/dialect.h) must know of it. Port lists have
 * one entry per tensor-parallel rank. */
typedef struct {
    char host[BT_HOST_BYTES];
    uint16_t port;
    uint16_t init_ports[BT_MAX_RANKS];  /* [n_ranks], decode engines' receivers */
    uint16_t alloc_ports[BT_MAX_RANKS]; /* [n_ranks] */
    uint32_t n_ranks;                   /* 0: no receiver ports known, hence no notices */
    unsigned dialect;                   /* a bt_dialect_id */
    char zmq[BT_HOST_BYTES];            /* as other engines reach its connector; "": not said */
    char kv_host[BT_HOST_BYTES];        /* replaces the host that its answers name; "": as it is */
    uint16_t handshake_port, notify_port; /* of its connector; 0: not said */
    uint16_t bootstrap_port;              /* where decode engines find it; 0: not said */
    uint32_t tp, dp;                      /* ranks; 0: one */
    bool is_tls;                          /* https:// */
} bt_worker_address;

typedef struct {
    bt_worker_address at;
    char name[BT_HOST_BYTES + 8]; /* host:port, for logs and metrics */
    bt_role role;
    bt_load *load;             /* its place in the pool */
    bt_tls_context *tls;       /* how it is spoken to; NULL: plain HTTP */
    _Atomic uint64_t requests; /* legs sent, ever */
    _Atomic uint64_t failures; /* legs that ended by the engine's fault */
    _Atomic bool is_probed;    /* some loop asks for its health (proxy/probe.h) */
} bt_worker;

typedef struct {
    bt_worker workers[BT_MAX_WORKERS];
    bt_load loads[BT_MAX_WORKERS]; /* of the workers, side by side: a pick looks at all */
    uint32_t n_workers;
    bt_policy_state policy;
    uint64_t of_dialect[BT_MAX_DIALECTS]; /* bit per engine that speaks it */
    _Atomic uint64_t dialect_turn;        /* dialects picked */
} bt_worker_pool;

/* Adds one engine; pool stays where it is from now on. tls: for an engine with https. Errors:
 * INVALID_ARG (empty host, port 0, unequal ports), TOO_LARGE. */
baton_status bt_worker_add(bt_worker_pool *pool, bt_role role, const bt_worker_address *at,
                           bt_tls_context *tls);

/* The engine that the pool's policy names; index -1: every one is in `tried` (bit i = engine i).
 * request: what bt_policy_needs says, NULL: not known. */
bt_choice bt_worker_pick(bt_worker_pool *pool, uint64_t tried, const bt_policy_request *request);

/* The dialect of the next request, in turn over all engines, so that each dialect has its engines'
 * share; engines that are down count only when there is no other. The pool must not be empty. */
unsigned bt_worker_pick_dialect(bt_worker_pool *pool);

/* Begins and ends a leg on the engine. */
void bt_worker_begin(bt_worker *worker, bt_burden burden);
void bt_worker_end(bt_worker *worker, bt_burden burden);
/* Counts a failure; is_down: from now on it is picked only when there is no other. */
void bt_worker_failed(bt_worker *worker, bool is_down);
/* The engine answered: it is picked as any other. */
void bt_worker_answered(bt_worker *worker);

#endif
