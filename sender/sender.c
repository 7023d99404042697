/* SPDX-License-Identifier: Apache-2.0 */
/* The public sender: its life, and calls from any thread. */
#include "sender/txshell.h"

#include "core/alloc.h"
#include "core/log.h"
#include "core/textcopy.h"

/* The copies that live as long as the sender; what only create needs is not kept. */
static baton_status copy_options(const baton_sender_options *from, baton_sender_options *to)
{
    *to = *from;
    to->name = to->key_seed = to->notice = to->admin = NULL;
    to->notice_allow = NULL;
    to->security = (baton_security){0};
    to->data = (baton_data_path){.clock = from->data.clock,
                                 .require_rdma = from->data.require_rdma,
                                 .min_gbps = from->data.min_gbps};
    if (from->n_notice_allow > BT_TX_NOTICE_ALLOW_MAX)
        return bt_fail(BATON_ERR_INVALID_ARG, "sender: notice_allow: wanted at most %d, found %u",
                       BT_TX_NOTICE_ALLOW_MAX, from->n_notice_allow);
    BATON_TRY(bt_text_copy(from->name, &to->name));
    BATON_TRY(bt_text_copy(from->key_seed, &to->key_seed));
    BATON_TRY(bt_text_copy(from->notice, &to->notice));
    return bt_texts_copy(from->notice_allow, from->n_notice_allow, &to->notice_allow);
}

static void free_options(baton_sender_options *options)
{
    bt_texts_free(options->notice_allow, options->n_notice_allow);
    bt_text_free(options->name);
    bt_text_free(options->key_seed);
    bt_text_free(options->notice);
}

/* A machine that has no such sockets does without rings. */
static baton_status make_doorbell(baton_sender *sender)
{
    baton_status status = bt_wakesocket_create(&sender->wake);
    if (status == BATON_OK || status == BATON_ERR_NO_MEMORY)
        return status;
    bt_info("sender: no control rings: %s", baton_last_error());
    return BATON_OK;
}

static void ring_bell(void *ctx)
{
    const baton_sender *sender = ctx;
    bt_doorbell_ring(sender->bell);
}

/* Transfers are only remembered where somebody can ask for them. */
static baton_status open_admin(baton_sender *sender, const baton_sender_options *options)
{
    const bt_admin_options admin = {.where = options->admin,
                                    .role = "sender",
                                    .name = options->name,
                                    .rank = options->rank,
                                    .ring = ring_bell,
                                    .ctx = sender};
    if (options->probe)
        return BATON_OK;
    BATON_TRY(bt_admin_open(&admin, &sender->admin));
    return sender->admin != NULL ? bt_tracelog_create(&sender->tx->traces) : BATON_OK;
}

/* Everything but the thread. options have their defaults. */
static baton_status open_parts(baton_sender *sender, const baton_sender_options *options)
{
    BATON_TRY(copy_options(options, &sender->options));
    BATON_TRY(bt_pollset_create(&sender->polls));
    BATON_TRY(bt_doorbell_create(&sender->bell));
    if (!options->data.no_control_ring)
        BATON_TRY(make_doorbell(sender));
    BATON_TRY(bt_control_open_client(&options->security, &sender->control));
    BATON_TRY(
        bt_noticepush_create(sender->control.context, &sender->control.security, &sender->notices));
    BATON_TRY(bt_transport_open(&options->data, options->memory, &sender->transport));
    const bt_tx_out out = bt_txshell_out(sender);
    BATON_TRY(bt_tx_create(&sender->options, sender->transport, &out, &sender->tx));
    sender->tx->bell = sender->bell;
    BATON_TRY(bt_txshell_open(sender));
    return open_admin(sender, options);
}

baton_status baton_sender_create(const baton_sender_options *options, baton_sender **sender_p)
{
    if (options == NULL)
        return bt_fail(BATON_ERR_INVALID_ARG, "sender: wanted options, found none");
    baton_sender_options filled = *options;
    bt_tx_defaults(&filled);
    baton_sender *sender = bt_calloc(1, sizeof(*sender));
    if (sender == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "sender");
    baton_status status = open_parts(sender, &filled);
    if (status == BATON_OK && filled.progress == BATON_PROGRESS_THREAD)
        status = bt_txshell_start_thread(sender);
    else if (status == BATON_OK)
        bt_txshell_turn(sender); /* from here on progress_fd says when to progress */
    if (status != BATON_OK) {
        baton_sender_destroy(sender);
        return status;
    }
    *sender_p = sender;
    return BATON_OK;
}

void baton_sender_destroy(baton_sender *sender)
{
    if (sender == NULL)
        return;
    if (sender->has_thread) {
        atomic_store_explicit(&sender->stopping, true, memory_order_release);
        bt_doorbell_ring(sender->bell);
        pthread_join(sender->thread, NULL);
    }
    bt_admin_close(sender->admin);
    sender->admin = NULL;
    if (sender->tx != NULL)
        bt_txshell_drain(sender);
    bt_tx_destroy(sender->tx);
    bt_transport_destroy(sender->transport);
    bt_noticepush_destroy(sender->notices, BT_TX_FLUSH_MS);
    bt_control_close(&sender->control);
    bt_wakesocket_destroy(sender->wake);
    bt_doorbell_destroy(sender->bell);
    bt_pollset_destroy(sender->polls);
    free_options(&sender->options);
    bt_free(sender);
}

static baton_status rung(baton_sender *sender, baton_status status)
{
    if (status == BATON_OK)
        bt_doorbell_ring(sender->bell);
    return status;
}

baton_status baton_sender_connect(baton_sender *sender, const char *host, uint16_t init_port,
                                  uint16_t alloc_port)
{
    return rung(sender, bt_tx_connect(sender->tx, host, init_port, alloc_port));
}

baton_status baton_sender_register(baton_sender *sender, void *base, size_t bytes,
                                   baton_memory_kind kind)
{
    return bt_tx_register(sender->tx, base, bytes, kind);
}

baton_status baton_transfer_begin(baton_sender *sender, const baton_transfer_options *options,
                                  baton_transfer *transfer)
{
    return rung(sender, bt_tx_begin(sender->tx, options, transfer));
}

baton_status baton_transfer_push_source(baton_sender *sender, baton_transfer transfer,
                                        uint32_t chunk, const baton_source *from)
{
    if (from == NULL || (from->view == NULL && from->data == NULL))
        return bt_fail(BATON_ERR_INVALID_ARG, "push: wanted a view or data, found NULL");
    if (from->view != NULL && from->tokens == NULL)
        return bt_fail(BATON_ERR_INVALID_ARG, "push: wanted tokens with the view, found NULL");
    bt_tx_source source = {.view = from->view,
                           .data = from->data,
                           .bytes = from->bytes,
                           .memory = from->view != NULL ? from->view->memory : from->memory};
    if (from->tokens != NULL)
        source.tokens = *from->tokens;
    BATON_TRY(bt_tx_source_order(sender->tx, from, &source));
    return rung(sender, bt_tx_push(sender->tx, transfer, chunk, &source));
}

baton_status baton_transfer_push_layers(baton_sender *sender, baton_transfer transfer,
                                        uint32_t chunk, uint32_t first_layer, uint32_t n_layers,
                                        const baton_source *from)
{
    if (from == NULL || (from->view == NULL && from->data == NULL) || n_layers == 0)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "push: wanted a view or data, and layers, found none");
    if (from->view != NULL && from->tokens == NULL)
        return bt_fail(BATON_ERR_INVALID_ARG, "push: wanted tokens with the view, found NULL");
    bt_tx_source source = {.view = from->view,
                           .data = from->data,
                           .bytes = from->bytes,
                           .first_layer = first_layer,
                           .n_layers = n_layers,
                           .memory = from->view != NULL ? from->view->memory : from->memory};
    if (from->tokens != NULL)
        source.tokens = *from->tokens;
    BATON_TRY(bt_tx_source_order(sender->tx, from, &source));
    return rung(sender, bt_tx_push(sender->tx, transfer, chunk, &source));
}

uint32_t baton_sender_layer_group(const baton_sender *sender, uint32_t n_tokens)
{
    const baton_sender_options *options = &sender->tx->options;
    uint32_t n_layers = options->layout.n_layers;
    bool is_wanted =
        options->layerwise == BATON_LAYERWISE_ON ||
        (options->layerwise == BATON_LAYERWISE_AUTO && n_tokens >= options->layerwise_min_tokens);
    return is_wanted ? (n_layers + BT_TX_LAYER_GROUPS - 1) / BT_TX_LAYER_GROUPS : n_layers;
}

baton_status baton_transfer_push(baton_sender *sender, baton_transfer transfer, uint32_t chunk,
                                 const baton_kv_view *view, const baton_kv_tokens *tokens)
{
    if (view == NULL || tokens == NULL)
        return bt_fail(BATON_ERR_INVALID_ARG, "push: wanted a view and tokens, found NULL");
    return baton_transfer_push_source(sender, transfer, chunk,
                                      &(baton_source){.view = view, .tokens = tokens});
}

baton_status baton_transfer_push_bytes(baton_sender *sender, baton_transfer transfer,
                                       uint32_t chunk, const void *data, size_t bytes)
{
    return baton_transfer_push_source(sender, transfer, chunk,
                                      &(baton_source){.data = data, .bytes = bytes});
}

baton_status baton_transfer_ask(baton_sender *sender, baton_transfer transfer)
{
    return rung(sender, bt_tx_post(sender->tx, BT_TX_ASK, transfer));
}

baton_status baton_transfer_finish(baton_sender *sender, baton_transfer transfer)
{
    return rung(sender, bt_tx_post(sender->tx, BT_TX_FINISH, transfer));
}

baton_status baton_transfer_cancel(baton_sender *sender, baton_transfer transfer)
{
    return rung(sender, bt_tx_post(sender->tx, BT_TX_CANCEL, transfer));
}

uint32_t baton_sender_poll(baton_sender *sender, baton_sender_event *events, uint32_t max)
{
    return bt_tx_poll(sender->tx, events, max);
}

int baton_sender_event_fd(baton_sender *sender)
{
    return bt_eventqueue_fd(sender->tx->events);
}

int baton_sender_progress_fd(baton_sender *sender)
{
    return bt_pollset_fd(sender->polls);
}

uint32_t baton_sender_progress(baton_sender *sender)
{
    return sender->has_thread ? UINT32_MAX : bt_txshell_turn(sender);
}

void baton_sender_get_stats(baton_sender *sender, baton_sender_stats *stats)
{
    bt_tx_get_stats(sender->tx, stats);
    bt_noticepush_get_stats(sender->notices, &stats->notices_sent_total,
                            &stats->notices_dropped_total);
}

uint32_t baton_sender_peers(baton_sender *sender, baton_sender_peer *peers, uint32_t max)
{
    return bt_tx_peers_shown(sender->tx, peers, max);
}

const char *baton_sender_admin(const baton_sender *sender)
{
    return bt_admin_address(sender->admin);
}
