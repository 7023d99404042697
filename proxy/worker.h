/* SPDX-License-Identifier: Apache-2.0 */
/* The engines behind the proxy: where they are, how busy they are, whether they answered lately.
 * The load figures are global atomics, so that every loop thread sees the true load and not its
 * own share of it.
 *
 * Thread rule: add before threads start; everything else from any thread. */
#ifndef BT_PROXY_WORKER_H
#define BT_PROXY_WORKER_H
#include <baton/status.h>
#include <stdatomic.h>
#include <stdbool.h>

enum { BT_MAX_WORKERS = 64, BT_MAX_RANKS = 64, BT_HOST_BYTES = 256 };

typedef enum { BT_ROLE_PREFILL, BT_ROLE_DECODE } bt_role;
typedef enum { BT_POLICY_ROUND_ROBIN, BT_POLICY_LEAST_LOADED } bt_policy;

/* Where an engine listens. Port lists have one entry per tensor-parallel rank. */
typedef struct {
    char host[BT_HOST_BYTES];
    uint16_t port;
    uint16_t init_ports[BT_MAX_RANKS];  /* [n_ranks], decode engines' receivers */
    uint16_t alloc_ports[BT_MAX_RANKS]; /* [n_ranks] */
    uint32_t n_ranks;                   /* 0: no receiver ports known, hence no notices */
} bt_worker_address;

typedef struct {
    bt_worker_address at;
    char name[BT_HOST_BYTES + 8]; /* host:port, for logs and metrics */
    bt_role role;
    _Atomic uint32_t inflight;        /* legs that this engine is working on */
    _Atomic uint64_t inflight_tokens; /* estimated prompt tokens of those legs */
    _Atomic uint64_t requests;        /* legs sent, ever */
    _Atomic uint64_t failures;        /* legs that ended by the engine's fault */
    _Atomic bool is_down;             /* could not be reached: others are preferred */
    _Atomic bool is_probed;           /* some loop asks for its health (proxy/probe.h) */
} bt_worker;

typedef struct {
    bt_worker workers[BT_MAX_WORKERS];
    uint32_t n_workers;
    bt_policy policy;
    _Atomic uint64_t turn; /* picks made by round robin */
} bt_worker_pool;

/* Adds one engine. Errors: INVALID_ARG (empty host, port 0, unequal ports), TOO_LARGE. */
baton_status bt_worker_add(bt_worker_pool *pool, bt_role role, const bt_worker_address *at);

/* Index of the engine that the pool's policy names, or -1 when every one is in `tried` (bit i =
 * engine i). Engines that are down are named only when nothing else is left.
 * Among prefill engines round robin starts one further after each full round, so that pools of
 * equal size do not marry their members to each other. */
int bt_worker_pick(bt_worker_pool *pool, uint64_t tried);

/* Begins and ends a leg of about n_tokens on the engine. */
void bt_worker_begin(bt_worker *worker, uint64_t n_tokens);
void bt_worker_end(bt_worker *worker, uint64_t n_tokens);
/* Counts a failure; is_down: from now on it is picked only when there is no other. */
void bt_worker_failed(bt_worker *worker, bool is_down);
/* The engine answered: it is picked as any other. */
void bt_worker_answered(bt_worker *worker);

#endif
