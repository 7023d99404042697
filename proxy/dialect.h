/* SPDX-License-Identifier: Apache-2.0 */
/* How a family of engines wants to be told about a hand-off, as data: what the prefill leg's
 * kv_transfer_params hold, who makes the first token, what tells that the KV has landed, and
 * whether the decode engines' receivers understand Baton's own questions. Templates are JSON with
 * slots, which are replaced by JSON values:
 *
 *   ${req_id}  ${d.host}  ${d.init_ports}  ${d.alloc_ports}  ${notice_addr}  ${traceparent}
 *   ${kv_wait_ms}
 *
 * Thread rule: any thread (constant data). */
#ifndef BT_PROXY_DIALECT_H
#define BT_PROXY_DIALECT_H
#include "core/strbuf.h"
#include "proxy/worker.h"

#include <stdbool.h>

typedef enum { BT_MODE_EARLY_FIRST_TOKEN, BT_MODE_DECODE_FIRST, BT_N_MODES } bt_mode;
typedef enum { BT_ENGINES_BATON, BT_ENGINES_LMCACHE, BT_N_ENGINES } bt_engines;
typedef enum {
    BT_SIGNAL_NONE,   /* the decode leg follows the prefill leg's answer */
    BT_SIGNAL_NOTICES /* the decode leg waits for a notice of every rank */
} bt_signal;

typedef struct {
    const char *name;
    bt_mode mode;
    bt_engines engines;
    bt_signal signal;
    const char *prefill_params;          /* template; NULL: no kv_transfer_params */
    const char *prefill_params_no_ports; /* where the decode engine's ports are not known */
    bool answers_questions; /* receivers understand STATUS and RELEASE (docs/protocol.md) */
} bt_dialect;

/* The dialect `lmcache-pd` in one of its forms. Never NULL. */
const bt_dialect *bt_dialect_find(bt_mode mode, bt_engines engines);

typedef struct {
    const char *req_id;
    const bt_worker_address *decoder;
    const char *notice_addr;
    const char *traceparent; /* W3C Trace Context */
    uint32_t kv_wait_ms; /* from the end of the prompt's computing on; then nobody waits any more */
} bt_dialect_values;

/* Appends the prefill leg's kv_transfer_params; nothing when the dialect has none. */
void bt_dialect_put_params(const bt_dialect *dialect, const bt_dialect_values *values,
                           bt_strbuf *out);

#endif
