/* SPDX-License-Identifier: Apache-2.0 */
/* Notices: how a proxy hears that a request's KV has landed, or has not. One ZMQ frame is one map
 * (docs/protocol.md, "Notices"):
 *
 *   {type: "BatonNotice", v, epoch, id, rank, world, status, text, retry_ms}  ours
 *   {type: "NixlProxyNotif" | "ProxyNotif", req_id}   of existing senders: ready, rank unknown
 *
 * Decoding allocates nothing and borrows from the frame.
 * Thread rule: any thread. */
#ifndef BT_WIRE_NOTICE_H
#define BT_WIRE_NOTICE_H
#include "wire/blob.h"
#include "wire/packwriter.h"

/* A whole frame: the longest id and text, and the rest. */
enum { BT_NOTICE_BYTES_MAX = 1024 };

typedef enum {
    BT_NOTICE_READY,   /* status 0 */
    BT_NOTICE_FAILED,  /* another negative status */
    BT_NOTICE_EXPIRED, /* LEASE_EXPIRED: the hold ran out before decode came */
} bt_notice_kind;

typedef struct {
    bt_blob id; /* the request, 1 to 256 bytes, no control characters */
    uint64_t epoch;
    uint32_t rank, world;
    int32_t status;
    uint32_t retry_ms;   /* failed: when it is worth trying again, 0: not said; may be missing */
    bt_blob text;        /* for people, at most 512 bytes */
    bool legacy;         /* decoding: an existing sender's frame; epoch and world are 0 */
    bt_notice_kind kind; /* decoding: from status */
} bt_notice;

/* Appends the frame to the writer. legacy, kind: not looked at. Errors: INVALID_ARG (id or text too
 * long, rank not below world, status above 0), TOO_LARGE, NO_MEMORY. */
baton_status bt_notice_encode(const bt_notice *notice, bt_packwriter *writer);
/* As existing senders do, `type` "ProxyNotif": for proxies that know no other. */
baton_status bt_notice_encode_legacy(bt_blob id, bt_packwriter *writer);
/* Errors: BAD_MESSAGE, VERSION_MISMATCH (a newer BatonNotice). */
baton_status bt_notice_decode(const void *frame, size_t bytes, bt_notice *notice);

/* May this process be made to connect to `address`, which a request or a peer named? It may be
 * `own` (from the config; NULL: none), one of allow[n_allow] ("*" allows any), or, without such a
 * list, a port of this host's loopback. */
bool bt_notice_allowed(bt_blob address, const char *own, const char *const *allow,
                       uint32_t n_allow);

#endif
