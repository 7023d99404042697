/* SPDX-License-Identifier: Apache-2.0 */
/* The public receiver: its life, and calls from any thread. */
#include "receiver/rxshell.h"

#include "core/alloc.h"
#include "core/log.h"
#include "core/textcopy.h"

#include <inttypes.h>

/* The copies that live as long as the receiver; what only create needs is not kept. */
static baton_status copy_options(const baton_receiver_options *from, baton_receiver_options *to)
{
    *to = *from;
    to->name = to->key_seed = to->host = to->notice = to->admin = NULL;
    to->notice_allow = NULL;
    to->security = (baton_security){.allow_unauthenticated = from->security.allow_unauthenticated};
    to->data = (baton_data_path){.clock = from->data.clock,
                                 .require_rdma = from->data.require_rdma,
                                 .min_gbps = from->data.min_gbps};
    if (from->n_notice_allow > BT_RX_NOTICE_ALLOW_MAX)
        return bt_fail(BATON_ERR_INVALID_ARG, "receiver: notice_allow: wanted at most %d, found %u",
                       BT_RX_NOTICE_ALLOW_MAX, from->n_notice_allow);
    BATON_TRY(bt_text_copy(from->name, &to->name));
    BATON_TRY(bt_text_copy(from->key_seed, &to->key_seed));
    BATON_TRY(bt_text_copy(from->host, &to->host));
    BATON_TRY(bt_text_copy(from->notice, &to->notice));
    return bt_texts_copy(from->notice_allow, from->n_notice_allow, &to->notice_allow);
}

static void free_options(baton_receiver_options *options)
{
    bt_texts_free(options->notice_allow, options->n_notice_allow);
    bt_text_free(options->name);
    bt_text_free(options->key_seed);
    bt_text_free(options->host);
    bt_text_free(options->notice);
}

/* A machine that has no such sockets does without rings. */
static baton_status make_doorbell(baton_receiver *receiver)
{
    baton_status status = bt_wakesocket_create(&receiver->wake);
    if (status == BATON_OK || status == BATON_ERR_NO_MEMORY)
        return status;
    bt_info("receiver: no control rings: %s", baton_last_error());
    return BATON_OK;
}

/* Requests are only remembered where somebody can ask for them. */
static baton_status open_admin(baton_receiver *receiver, const baton_receiver_options *options)
{
    const bt_admin_options admin = {.where = options->admin,
                                    .role = "receiver",
                                    .name = options->name,
                                    .rank = options->rank,
                                    .ring = bt_rxshell_ring,
                                    .ctx = receiver};
    BATON_TRY(bt_admin_open(&admin, &receiver->admin));
    return receiver->admin != NULL ? bt_tracelog_create(&receiver->rx->traces) : BATON_OK;
}

/* Everything but the thread. options have their defaults. */
static baton_status open_parts(baton_receiver *receiver, const baton_receiver_options *options)
{
    BATON_TRY(copy_options(options, &receiver->options));
    BATON_TRY(bt_eventqueue_create(sizeof(baton_receiver_event), &receiver->events));
    BATON_TRY(bt_pollset_create(&receiver->polls));
    BATON_TRY(bt_doorbell_create(&receiver->bell));
    if (!options->data.no_control_ring)
        BATON_TRY(make_doorbell(receiver));
    const bt_backlog_limits limits = {BT_RX_SEND_ALL_BYTES, BT_RX_SEND_BYTES,
                                      BT_RX_PATIENCE_MS * BT_NS_PER_MS};
    BATON_TRY(bt_backlog_create(&limits, &receiver->backlog));
    BATON_TRY(bt_control_open_server(&options->security, options->host, &receiver->control));
    BATON_TRY(bt_rxshell_open(receiver));
    BATON_TRY(bt_noticepush_create(receiver->control.context, &receiver->control.security,
                                   &receiver->notices));
    BATON_TRY(bt_transport_open(&options->data, options->memory, &receiver->transport));
    bt_rx_out out = bt_rxshell_out(receiver);
    out.bell = receiver->bell;
    BATON_TRY(bt_rx_create(&receiver->options, receiver->transport, &out, &receiver->rx));
    return open_admin(receiver, options);
}

baton_status baton_receiver_create(const baton_receiver_options *options,
                                   baton_receiver **receiver_p)
{
    if (options == NULL)
        return bt_fail(BATON_ERR_INVALID_ARG, "receiver: wanted options, found none");
    baton_receiver_options filled = *options;
    bt_rx_defaults(&filled);
    baton_receiver *receiver = bt_calloc(1, sizeof(*receiver));
    if (receiver == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "receiver");
    baton_status status = open_parts(receiver, &filled);
    if (status == BATON_OK && filled.progress == BATON_PROGRESS_THREAD)
        status = bt_rxshell_start_thread(receiver);
    else if (status == BATON_OK)
        bt_rxshell_turn(receiver); /* from here on progress_fd says when to progress */
    if (status != BATON_OK) {
        baton_receiver_destroy(receiver);
        return status;
    }
    bt_info("receiver: waits for senders name=%s host=%s init_port=%u alloc_port=%u rank=%u "
            "pages=%" PRIu64 " page_bytes=%" PRIu64 " transport=%s",
            filled.name, filled.host, receiver->ports[BT_RX_INIT_PORT],
            receiver->ports[BT_RX_ALLOC_PORT], filled.rank,
            filled.pool_bytes / receiver->rx->page_bytes, receiver->rx->page_bytes,
            receiver->transport->ops->name);
    *receiver_p = receiver;
    return BATON_OK;
}

/* The state machine goes first, while it can still tell its peers. */
void baton_receiver_destroy(baton_receiver *receiver)
{
    if (receiver == NULL)
        return;
    if (receiver->has_thread) {
        atomic_store_explicit(&receiver->stopping, true, memory_order_release);
        bt_doorbell_ring(receiver->bell);
        pthread_join(receiver->thread, NULL);
    }
    bt_admin_close(receiver->admin);
    receiver->admin = NULL;
    bt_rx_destroy(receiver->rx);
    bt_rxshell_answer(receiver);
    bt_transport_destroy(receiver->transport);
    bt_noticepush_destroy(receiver->notices, BT_RX_FLUSH_MS);
    bt_zmq_guard_destroy(receiver->guard);
    for (int port = 0; port < BT_RX_N_PORTS; port++) {
        bt_zmq_gate_close(&receiver->gates[port]);
        bt_control_socket_close(receiver->sockets[port], BT_RX_FLUSH_MS);
    }
    bt_control_close(&receiver->control);
    bt_backlog_destroy(receiver->backlog);
    bt_eventqueue_destroy(receiver->events);
    bt_wakesocket_destroy(receiver->wake);
    bt_doorbell_destroy(receiver->bell);
    bt_pollset_destroy(receiver->polls);
    free_options(&receiver->options);
    bt_free(receiver);
}

void baton_receiver_ports(baton_receiver *receiver, uint16_t *init_port, uint16_t *alloc_port)
{
    *init_port = receiver->ports[BT_RX_INIT_PORT];
    *alloc_port = receiver->ports[BT_RX_ALLOC_PORT];
}

baton_status baton_receiver_lookup(baton_receiver *receiver, const uint32_t *tokens,
                                   uint32_t n_tokens, baton_pin **pin_p, uint32_t *n_matched)
{
    BATON_TRY(bt_rx_lookup(receiver->rx, tokens, n_tokens, pin_p, n_matched));
    if (*pin_p != NULL)
        bt_doorbell_ring(receiver->bell); /* a hold may have ended */
    return BATON_OK;
}

baton_status baton_receiver_peek(baton_receiver *receiver, const uint32_t *tokens,
                                 uint32_t n_tokens, uint32_t *n_matched)
{
    return bt_rx_peek(receiver->rx, tokens, n_tokens, n_matched);
}

baton_status baton_receiver_unpin(baton_receiver *receiver, baton_pin *pin)
{
    if (pin == NULL)
        return BATON_OK;
    baton_status status = bt_rx_unpin(receiver->rx, pin);
    bt_doorbell_ring(receiver->bell); /* a queued request may fit now */
    return status;
}

baton_status baton_receiver_unpin_after(baton_receiver *receiver, baton_pin *pin,
                                        struct CUstream_st *stream)
{
    if (pin == NULL)
        return BATON_OK;
    baton_status status = bt_rx_unpin_after(receiver->rx, pin, stream);
    bt_doorbell_ring(receiver->bell); /* to watch the event, or since the pin has gone */
    return status;
}

baton_status baton_receiver_release(baton_receiver *receiver, const char *request)
{
    BATON_TRY(bt_rx_post_release(receiver->rx, request));
    bt_doorbell_ring(receiver->bell);
    return BATON_OK;
}

uint32_t baton_receiver_poll(baton_receiver *receiver, baton_receiver_event *events, uint32_t max)
{
    uint32_t n = bt_eventqueue_pop(receiver->events, events, max);
    atomic_fetch_sub_explicit(&receiver->n_events, n, memory_order_relaxed);
    return n;
}

int baton_receiver_event_fd(baton_receiver *receiver)
{
    return bt_eventqueue_fd(receiver->events);
}

int baton_receiver_progress_fd(baton_receiver *receiver)
{
    return bt_pollset_fd(receiver->polls);
}

uint32_t baton_receiver_progress(baton_receiver *receiver)
{
    return receiver->has_thread ? UINT32_MAX : bt_rxshell_turn(receiver);
}

void baton_receiver_get_stats(baton_receiver *receiver, baton_receiver_stats *stats)
{
    bt_rx_get_stats(receiver->rx, stats);
    bt_noticepush_get_stats(receiver->notices, &stats->notices_sent_total,
                            &stats->notices_dropped_total);
    stats->events_dropped_total = atomic_load_explicit(&receiver->n_dropped, memory_order_relaxed);
    stats->connections_cut_total = bt_zmq_guard_cut_total(receiver->guard);
    stats->answers_dropped_total = atomic_load_explicit(&receiver->n_unsent, memory_order_relaxed);
}

const char *baton_receiver_admin(const baton_receiver *receiver)
{
    return bt_admin_address(receiver->admin);
}
