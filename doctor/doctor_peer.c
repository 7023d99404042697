/* SPDX-License-Identifier: Apache-2.0 */
#include "doctor/doctor_peer.h"

#include "core/clock.h"
#include "core/fail.h"
#include "core/pollset.h"
#include "sender/txpath.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

/* A probe's layout is never compared. */
static const baton_layout any_layout = {.model = "baton-doctor",
                                        .dtype = BATON_DTYPE_U8,
                                        .n_layers = 1,
                                        .n_planes = 1,
                                        .n_kv_heads = 1,
                                        .head_dim = 1,
                                        .chunk_tokens = 1,
                                        .block_tokens = 1,
                                        .tp_size = 1,
                                        .pp_size = 1};

static void set_status(bt_doctor_peer *peer, baton_status status, const char *text)
{
    peer->status = status;
    snprintf(peer->text, sizeof(peer->text), "%s", text);
}

static baton_status open_sender(const bt_doctor_question *q, baton_sender **sender_p)
{
    const bt_file_options *file = q->file;
    const baton_sender_options options = {
        .name = "baton-doctor",
        .layout = any_layout,
        .path = (baton_path_choice)file->path,
        .probe = true,
        .progress = BATON_PROGRESS_MANUAL,
        .security = file->security,
        .data = file->data,
        .timeouts = {.connect_ms = q->timeout_ms,
                     .init_ms = q->timeout_ms,
                     .put_ms = q->timeout_ms,
                     .flush_ms = q->timeout_ms},
    };
    return baton_sender_create(&options, sender_p);
}

/* Until the peer is connected or has failed once. The sender's own deadlines come first; the limit
 * here is for the measurement and for what nobody thought of. */
static baton_status wait_connected(const bt_doctor_question *q, baton_sender *sender,
                                   baton_sender_peer *found)
{
    uint64_t limit_ns = (uint64_t)q->timeout_ms * 4 * BT_NS_PER_MS;
    uint64_t deadline_ns = bt_deadline_ns(bt_now_ns(&bt_clock_monotonic), limit_ns);
    for (;;) {
        uint32_t ms = baton_sender_progress(sender);
        uint64_t now_ns = bt_now_ns(&bt_clock_monotonic);
        if (baton_sender_peers(sender, found, 1) == 1 && (found->connected || found->status != 0))
            return found->connected ? BATON_OK : bt_fail(found->status, "%s", found->text);
        if (now_ns >= deadline_ns)
            return bt_fail(BATON_ERR_CONNECT_TIMEOUT,
                           "peer: no connection, and no reason why, within %u ms",
                           4 * q->timeout_ms);
        int left_ms = bt_wait_ms(now_ns, deadline_ns);
        struct pollfd fd = {.fd = baton_sender_progress_fd(sender), .events = POLLIN};
        poll(&fd, 1, ms < (uint32_t)left_ms ? (int)ms : left_ms);
    }
}

static baton_status connect_sender(const bt_doctor_question *q, bt_doctor_peer *peer)
{
    baton_sender *sender;
    BATON_TRY(open_sender(q, &sender));
    const char *host = peer->greeting.host[0] != '\0' ? peer->greeting.host : q->host;
    baton_status status = baton_sender_connect(sender, host, q->init_port, q->init_port);
    if (status == BATON_OK)
        status = wait_connected(q, sender, &peer->found);
    if (status != BATON_OK)
        set_status(peer, status, baton_last_error()); /* destroy may fail otherwise */
    baton_sender_destroy(sender);
    return status;
}

/* Silence behind a good greeting: ZeroMQ says no more when keys do not match. */
static void explain_silence(const bt_doctor_question *q, bt_doctor_peer *peer)
{
    bool is_silent = peer->status == BATON_ERR_CONNECT_TIMEOUT;
    if (!is_silent)
        return;
    if (q->file->security.key_file != NULL)
        set_status(peer, BATON_ERR_AUTH,
                   "peer: it wants keys and does not take ours: server_key must be its public key, "
                   "and ours must be in its clients_path");
    else
        set_status(peer, BATON_ERR_CONNECT_TIMEOUT,
                   "peer: it speaks ZeroMQ, but does not answer INIT: wanted a receiver's init "
                   "port, not its alloc port nor a proxy's");
}

static baton_status check_keys(const bt_doctor_question *q, const bt_greeting *greeting)
{
    bool has_keys = q->file->security.key_file != NULL;
    bool wants_keys = strcmp(greeting->mechanism, "CURVE") == 0;
    if (wants_keys && !has_keys)
        return bt_fail(BATON_ERR_AUTH, "peer: it wants keys, found no key_file here");
    if (!wants_keys && has_keys)
        return bt_fail(BATON_ERR_AUTH,
                       "peer: it has no keys (%s), but key_file is set here: such a sender talks "
                       "to nobody without",
                       greeting->mechanism);
    return BATON_OK;
}

void bt_doctor_ask_peer(const bt_doctor_question *q, bt_doctor_peer *peer)
{
    *peer = (bt_doctor_peer){.was_asked = true};
    bool is_ipv6 = strchr(q->host, ':') != NULL;
    snprintf(peer->address, sizeof(peer->address), "%s%.255s%s:%u", is_ipv6 ? "[" : "", q->host,
             is_ipv6 ? "]" : "", q->init_port);
    baton_status status = bt_greeting_ask(q->host, q->init_port, q->timeout_ms, &peer->greeting);
    if (status == BATON_OK)
        status = check_keys(q, &peer->greeting);
    if (status != BATON_OK) {
        set_status(peer, status, baton_last_error());
        return;
    }
    status = connect_sender(q, peer);
    if (status != BATON_OK && peer->status == BATON_OK) /* before there was a sender */
        set_status(peer, status, baton_last_error());
    explain_silence(q, peer);
}

double bt_doctor_peer_gbps(const bt_doctor_peer *peer)
{
    const baton_sender_peer *found = &peer->found;
    return bt_tx_path_gbps(found->path, found->copy_gbps, found->stage_gbps, found->wire_gbps);
}

const char *bt_doctor_peer_path(const bt_doctor_peer *peer)
{
    return peer->found.connected ? bt_tx_path_name(peer->found.path) : "";
}
