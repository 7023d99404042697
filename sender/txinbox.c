/* SPDX-License-Identifier: Apache-2.0 */
/* The user's side, any thread: checks at once what can be checked at once, and leaves the rest to
 * the owner as a command. */
#include "sender/txdevice.h"
#include "sender/txlayers.h"

#include "core/alloc.h"
#include "wire/notice.h"

#include <stdio.h>
#include <string.h>

void bt_tx_source_is_there(bt_tx_source *source)
{
    if (source->owns_ready && bt_cuda_enter(source->cuda) == BATON_OK) {
        source->cuda->driver->event_destroy(source->ready);
        bt_cuda_leave(source->cuda);
    }
    source->owns_ready = false;
    source->ready = NULL;
}

enum { PUSHED_WHOLE = 1, PUSHED_LAYERS = 2 }; /* transfer->pushed */

void bt_tx_source_release(bt_tx_source *source)
{
    bt_tx_source_is_there(source);
    bt_free(source->owned);
    source->owned = NULL;
}

void bt_tx_command_free(bt_tx_command *command)
{
    bt_tx_source_release(&command->source);
    bt_free(command->host);
    bt_free(command);
}

void bt_tx_transfer_free(bt_tx_transfer *transfer)
{
    if (transfer == NULL)
        return;
    for (uint32_t i = 0; transfer->chunks != NULL && i < transfer->n_chunks; i++)
        bt_tx_source_release(&transfer->chunks[i].source);
    bt_tx_layers_free(transfer);
    bt_samples_clear(&transfer->samples);
    bt_free(transfer->keys);
    bt_free(transfer->chunks);
    bt_free(transfer->pushed);
    bt_free(transfer->end);
    bt_free(transfer);
}

static baton_status check_peer(const char *host, uint16_t init_port, uint16_t alloc_port)
{
    if (host == NULL || host[0] == 0 || strlen(host) >= BT_TX_HOST_BYTES)
        return bt_fail(BATON_ERR_INVALID_ARG, "sender: host: wanted a name of 1 to %d bytes",
                       BT_TX_HOST_BYTES - 1);
    if (init_port == 0 || alloc_port == 0)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "sender: ports: wanted init and alloc, found %u and %u", init_port,
                       alloc_port);
    return BATON_OK;
}

static baton_status check_begin(const bt_tx *tx, const baton_transfer_options *options)
{
    if (tx->options.probe)
        return bt_fail(BATON_ERR_STATE, "transfer: wanted a sender, found one that is a probe");
    BATON_TRY(check_peer(options->host, options->init_port, options->alloc_port));
    size_t id_bytes = options->request != NULL ? strlen(options->request) : 0;
    if (id_bytes == 0 || id_bytes > BT_REQUEST_ID_BYTES_MAX)
        return bt_fail(BATON_ERR_INVALID_ARG, "transfer: request: wanted 1 to %d bytes, found %zu",
                       BT_REQUEST_ID_BYTES_MAX, id_bytes);
    if (options->keys == NULL || options->n_chunks == 0)
        return bt_fail(BATON_ERR_INVALID_ARG, "transfer: keys: wanted at least 1, found none");
    if (options->n_chunks > BT_CHUNKS_MAX)
        return bt_fail(BATON_ERR_TOO_LARGE, "transfer: n_chunks: wanted at most %d, found %u",
                       BT_CHUNKS_MAX, options->n_chunks);
    if (options->last_tokens == 0 || options->last_tokens > tx->options.layout.chunk_tokens)
        return bt_fail(BATON_ERR_INVALID_ARG, "transfer: last_tokens: wanted 1 to %u, found %u",
                       tx->options.layout.chunk_tokens, options->last_tokens);
    if (options->notice != NULL && strlen(options->notice) > BT_NOTICE_ADDRESS_BYTES_MAX)
        return bt_fail(BATON_ERR_INVALID_ARG, "transfer: notice: wanted at most %d bytes",
                       BT_NOTICE_ADDRESS_BYTES_MAX);
    if (options->notice != NULL && options->notice[0] != 0 &&
        !bt_notice_allowed(bt_blob_of_text(options->notice), tx->options.notice,
                           tx->options.notice_allow, tx->options.n_notice_allow))
        return bt_fail(BATON_ERR_PERMISSION,
                       "transfer: notice: '%s' is not allowed; add it to notice_allow",
                       options->notice);
    return BATON_OK;
}

static baton_status transfer_create(const bt_tx *tx, const baton_transfer_options *options,
                                    bt_tx_transfer **transfer_p)
{
    bt_tx_transfer *transfer = bt_calloc(1, sizeof(*transfer));
    if (transfer == NULL)
        goto no_memory;
    transfer->n_chunks = options->n_chunks;
    transfer->keys = bt_calloc(options->n_chunks, sizeof(*transfer->keys));
    transfer->chunks = bt_calloc(options->n_chunks, sizeof(*transfer->chunks));
    transfer->pushed = bt_calloc(options->n_chunks, sizeof(*transfer->pushed));
    transfer->end = bt_calloc(1, sizeof(*transfer->end));
    if (transfer->keys == NULL || transfer->chunks == NULL || transfer->pushed == NULL ||
        transfer->end == NULL)
        goto no_memory;
    memcpy(transfer->keys, options->keys, options->n_chunks * sizeof(*options->keys));
    for (uint32_t i = 0; i < options->n_chunks; i++)
        transfer->chunks[i].slot = -1;
    transfer->last_tokens = options->last_tokens;
    transfer->user_data = options->user_data;
    transfer->init_port = options->init_port;
    transfer->alloc_port = options->alloc_port;
    uint64_t deadline_ms =
        options->deadline_ms != 0 ? options->deadline_ms : tx->options.timeouts.request_ms;
    transfer->deadline_ns = bt_deadline_ns(bt_now_ns(tx->clock), deadline_ms * BT_NS_PER_MS);
    transfer->may_ask = !options->asks_later;
    transfer->granted = options->granted;
    transfer->granted_ctx = options->granted_ctx;
    transfer->wait_ns = options->wait_ms * BT_NS_PER_MS;
    transfer->at_ns[BT_TX_AT_OPENED] = bt_now_ns(tx->clock);
    if (options->traceparent != NULL)
        bt_traceparent_read(options->traceparent, strlen(options->traceparent), &transfer->trace);
    const char *notice = options->notice != NULL ? options->notice : tx->options.notice;
    snprintf(transfer->notice, sizeof(transfer->notice), "%s", notice != NULL ? notice : "");
    snprintf(transfer->request, sizeof(transfer->request), "%s", options->request);
    snprintf(transfer->host, sizeof(transfer->host), "%s", options->host);
    *transfer_p = transfer;
    return BATON_OK;

no_memory:
    bt_tx_transfer_free(transfer);
    return bt_fail(BATON_ERR_NO_MEMORY, "transfer: state of %u chunks", options->n_chunks);
}

/* Inbox lock held. */
static bt_tx_transfer *find(bt_tx *tx, baton_transfer id)
{
    bt_tx_transfer *transfer = tx->inbox.by_id[id % BT_TX_BUCKETS];
    while (transfer != NULL && transfer->id != id)
        transfer = transfer->hash_next;
    return transfer;
}

/* Inbox lock held. For a user's calls. */
static bt_tx_transfer *find_live(bt_tx *tx, baton_transfer id)
{
    bt_tx_transfer *transfer = find(tx, id);
    return transfer != NULL && !transfer->is_over ? transfer : NULL;
}

bt_tx_transfer *bt_tx_transfer_find(bt_tx *tx, baton_transfer id)
{
    pthread_mutex_lock(&tx->inbox.lock);
    bt_tx_transfer *transfer = find(tx, id);
    pthread_mutex_unlock(&tx->inbox.lock);
    return transfer;
}

/* Inbox lock held. */
static void append(bt_tx *tx, bt_tx_command *command)
{
    *tx->inbox.last = command;
    tx->inbox.last = &command->next;
}

baton_status bt_tx_begin(bt_tx *tx, const baton_transfer_options *options,
                         baton_transfer *transfer_id)
{
    BATON_TRY(check_begin(tx, options));
    bt_tx_transfer *transfer;
    BATON_TRY(transfer_create(tx, options, &transfer));
    bt_tx_command *command = bt_calloc(1, sizeof(*command));
    baton_status status = command != NULL ? bt_eventqueue_reserve(tx->events, 1)
                                          : bt_fail(BATON_ERR_NO_MEMORY, "transfer: command");
    if (status != BATON_OK)
        goto fail;
    pthread_mutex_lock(&tx->inbox.lock);
    if (tx->inbox.closed) {
        pthread_mutex_unlock(&tx->inbox.lock);
        bt_eventqueue_unreserve(tx->events, 1);
        status = bt_fail(BATON_ERR_CLOSED, "transfer: the sender is closing");
        goto fail;
    }
    transfer->id = tx->inbox.next_transfer++;
    *transfer_id = transfer->id;
    bt_tx_transfer **bucket = &tx->inbox.by_id[transfer->id % BT_TX_BUCKETS];
    transfer->hash_next = *bucket;
    *bucket = transfer;
    tx->inbox.n_live++;
    *command = (bt_tx_command){.kind = BT_TX_BEGIN, .transfer = transfer};
    append(tx, command);
    pthread_mutex_unlock(&tx->inbox.lock);
    return BATON_OK;

fail:
    bt_free(command);
    bt_tx_transfer_free(transfer);
    return status;
}

/* The token arrays are the caller's; the owner needs them later. */
static baton_status copy_tokens(bt_tx_source *source)
{
    baton_kv_tokens *tokens = &source->tokens;
    size_t bytes = tokens->slots != NULL ? tokens->n_tokens * sizeof(*tokens->slots)
                                         : tokens->n_blocks * sizeof(*tokens->blocks);
    const void *from =
        tokens->slots != NULL ? (const void *)tokens->slots : (const void *)tokens->blocks;
    source->owned = bt_calloc(1, bytes);
    if (source->owned == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "push: %zu bytes of slots", bytes);
    memcpy(source->owned, from, bytes);
    if (tokens->slots != NULL)
        tokens->slots = source->owned;
    else
        tokens->blocks = source->owned;
    return BATON_OK;
}

/* Inbox lock held. */
static baton_status check_push(bt_tx *tx, const bt_tx_transfer *transfer, uint32_t chunk,
                               const bt_tx_source *source)
{
    if (transfer == NULL)
        return bt_fail(BATON_ERR_NOT_FOUND, "push: the transfer has ended");
    if (chunk >= transfer->n_chunks)
        return bt_fail(BATON_ERR_OUT_OF_RANGE, "push: chunk %u of %u", chunk, transfer->n_chunks);
    bool is_layered = transfer->pushed[chunk] == PUSHED_LAYERS;
    if (transfer->pushed[chunk] != 0 && !(is_layered && source->n_layers != 0))
        return bt_fail(BATON_ERR_INVALID_ARG, "push: chunk %u was pushed before", chunk);
    if (transfer->is_finishing)
        return bt_fail(BATON_ERR_STATE, "push: chunk %u after finish", chunk);
    uint32_t tokens =
        chunk + 1 == transfer->n_chunks ? transfer->last_tokens : tx->options.layout.chunk_tokens;
    if (source->view != NULL && source->tokens.n_tokens != tokens)
        return bt_fail(BATON_ERR_INVALID_ARG, "push: chunk %u: wanted %u tokens, found %u", chunk,
                       tokens, source->tokens.n_tokens);
    uint64_t bytes = tokens * tx->token_bytes;
    if (source->n_layers != 0)
        bytes = bytes / tx->options.layout.n_layers * source->n_layers;
    if (source->view == NULL && source->bytes != bytes)
        return bt_fail(BATON_ERR_INVALID_ARG, "push: chunk %u: wanted %llu bytes, found %zu", chunk,
                       (unsigned long long)bytes, source->bytes);
    return BATON_OK;
}

static baton_status check_view(const bt_tx *tx, const bt_tx_source *source)
{
    if (source->view == NULL)
        return BATON_OK;
    BATON_TRY(baton_kv_view_check(source->view));
    uint64_t token_bytes;
    BATON_TRY(baton_kv_chunk_bytes(source->view, 1, &token_bytes));
    if (token_bytes != tx->token_bytes)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "push: wanted a view of %llu bytes per token, found %llu",
                       (unsigned long long)tx->token_bytes, (unsigned long long)token_bytes);
    if (source->tokens.slots == NULL && source->tokens.blocks == NULL)
        return bt_fail(BATON_ERR_INVALID_ARG, "push: wanted slots or blocks, found neither");
    return BATON_OK;
}

/* On the caller's thread, whose context may be the only one that knows its stream. */
static baton_status record_ready(bt_tx_source *source, struct CUstream_st *stream)
{
    BATON_TRY(bt_cuda_record(source->cuda, stream, &source->ready));
    source->owns_ready = true;
    return BATON_OK;
}

baton_status bt_tx_source_order(bt_tx *tx, const baton_source *from, bt_tx_source *source)
{
    bool is_on_device = source->memory == BATON_MEMORY_CUDA_DEVICE;
    if (from->order == BATON_SOURCE_NOW && !is_on_device)
        return BATON_OK;
    BATON_TRY(bt_transport_cuda(tx->transport, &source->cuda));
    switch (from->order) {
    case BATON_SOURCE_NOW:
        return BATON_OK;
    case BATON_SOURCE_AFTER_STREAM:
        return record_ready(source, from->stream);
    case BATON_SOURCE_AFTER_EVENT:
        source->ready = from->event;
        return from->event != NULL
                   ? BATON_OK
                   : bt_fail(BATON_ERR_INVALID_ARG, "push: wanted an event, found NULL");
    }
    return bt_fail(BATON_ERR_INVALID_ARG, "push: order: found %d", (int)from->order);
}

baton_status bt_tx_push(bt_tx *tx, baton_transfer id, uint32_t chunk, const bt_tx_source *source)
{
    bt_tx_command *command = bt_calloc(1, sizeof(*command));
    if (command == NULL) {
        bt_tx_source unused = *source;
        bt_tx_source_release(&unused);
        return bt_fail(BATON_ERR_NO_MEMORY, "push: command");
    }
    command->kind = BT_TX_PUSH;
    command->chunk = chunk;
    command->source = *source;
    baton_status status = check_view(tx, source);
    if (status == BATON_OK && source->view != NULL)
        status = copy_tokens(&command->source);
    if (status == BATON_OK)
        status = bt_eventqueue_reserve(tx->events, 1);
    if (status != BATON_OK) {
        bt_tx_command_free(command);
        return status;
    }
    pthread_mutex_lock(&tx->inbox.lock);
    bt_tx_transfer *transfer = find_live(tx, id);
    status = check_push(tx, transfer, chunk, source);
    if (status == BATON_OK && source->n_layers != 0)
        status = bt_tx_layers_see(tx, transfer, chunk, source);
    if (status == BATON_OK) {
        transfer->pushed[chunk] = source->n_layers != 0 ? PUSHED_LAYERS : PUSHED_WHOLE;
        command->transfer = transfer;
        append(tx, command);
    }
    pthread_mutex_unlock(&tx->inbox.lock);
    if (status != BATON_OK) {
        bt_eventqueue_unreserve(tx->events, 1);
        bt_tx_command_free(command);
    }
    return status;
}

baton_status bt_tx_post(bt_tx *tx, bt_tx_command_kind kind, baton_transfer id)
{
    bt_tx_command *command = bt_calloc(1, sizeof(*command));
    if (command == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "transfer: command");
    *command = (bt_tx_command){.kind = kind};
    pthread_mutex_lock(&tx->inbox.lock);
    bt_tx_transfer *transfer = find_live(tx, id);
    if (transfer != NULL) {
        transfer->is_finishing |= kind == BT_TX_FINISH;
        command->transfer = transfer;
        append(tx, command);
    }
    pthread_mutex_unlock(&tx->inbox.lock);
    if (transfer != NULL)
        return BATON_OK;
    bt_tx_command_free(command);
    return bt_fail(BATON_ERR_NOT_FOUND, "transfer: it has ended");
}

baton_status bt_tx_connect(bt_tx *tx, const char *host, uint16_t init_port, uint16_t alloc_port)
{
    BATON_TRY(check_peer(host, init_port, alloc_port));
    bt_tx_command *command = bt_calloc(1, sizeof(*command));
    if (command == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "connect: command");
    *command =
        (bt_tx_command){.kind = BT_TX_CONNECT, .init_port = init_port, .alloc_port = alloc_port};
    command->host = bt_calloc(1, strlen(host) + 1);
    if (command->host == NULL) {
        bt_tx_command_free(command);
        return bt_fail(BATON_ERR_NO_MEMORY, "connect: host");
    }
    strcpy(command->host, host);
    pthread_mutex_lock(&tx->inbox.lock);
    append(tx, command);
    pthread_mutex_unlock(&tx->inbox.lock);
    return BATON_OK;
}

bool bt_tx_has_commands(bt_tx *tx)
{
    pthread_mutex_lock(&tx->inbox.lock);
    bool some = tx->inbox.first != NULL;
    pthread_mutex_unlock(&tx->inbox.lock);
    return some;
}

bt_tx_command *bt_tx_next_command(bt_tx *tx)
{
    if (tx->inbox.taken == NULL) { /* all that wait, for one lock */
        pthread_mutex_lock(&tx->inbox.lock);
        tx->inbox.taken = tx->inbox.first;
        tx->inbox.first = NULL;
        tx->inbox.last = &tx->inbox.first;
        pthread_mutex_unlock(&tx->inbox.lock);
    }
    bt_tx_command *command = tx->inbox.taken;
    if (command != NULL) {
        tx->inbox.taken = command->next;
        command->next = NULL;
    }
    return command;
}

bt_tx_event bt_tx_source_event(const bt_tx *tx, const bt_tx_transfer *transfer, uint32_t chunk,
                               const bt_tx_source *source)
{
    uint32_t n_layers = source->n_layers != 0 ? source->n_layers : tx->options.layout.n_layers;
    return (bt_tx_event){.transfer = transfer->id,
                         .user_data = transfer->user_data,
                         .chunk = chunk,
                         .first_layer = source->first_layer,
                         .n_layers = n_layers};
}

void bt_tx_source_free(bt_tx *tx, const bt_tx_transfer *transfer, uint32_t chunk,
                       bt_tx_source *source)
{
    if (source->page != NULL) { /* the user's was reported when it had been copied to the page */
        bt_tx_device_give(tx, source);
        return;
    }
    const bt_tx_event event = bt_tx_source_event(tx, transfer, chunk, source);
    bt_tx_source_release(source);
    bt_tx_event_source_free(tx, &event);
}

/* Moves the transfer's commands from one list to the end of another; returns the end of the first.
 */
static bt_tx_command **take_commands(const bt_tx_transfer *transfer, bt_tx_command **from,
                                     bt_tx_command ***to_last)
{
    while (*from != NULL) {
        bt_tx_command *command = *from;
        if (command->transfer != transfer) {
            from = &command->next;
            continue;
        }
        *from = command->next;
        command->next = NULL;
        **to_last = command;
        *to_last = &command->next;
    }
    return from;
}

void bt_tx_retract(bt_tx *tx, bt_tx_transfer *transfer)
{
    bt_tx_command *taken = NULL, **taken_last = &taken;
    take_commands(transfer, &tx->inbox.taken, &taken_last);
    pthread_mutex_lock(&tx->inbox.lock);
    transfer->is_over = true;
    tx->inbox.last = take_commands(transfer, &tx->inbox.first, &taken_last);
    pthread_mutex_unlock(&tx->inbox.lock);
    for (bt_tx_command *command = taken, *next; command != NULL; command = next) {
        next = command->next;
        if (command->kind == BT_TX_PUSH)
            bt_tx_source_free(tx, transfer, command->chunk, &command->source);
        bt_tx_command_free(command);
    }
}

void bt_tx_unlist(bt_tx *tx, bt_tx_transfer *transfer)
{
    pthread_mutex_lock(&tx->inbox.lock);
    bt_tx_transfer **link = &tx->inbox.by_id[transfer->id % BT_TX_BUCKETS];
    while (*link != transfer)
        link = &(*link)->hash_next;
    *link = transfer->hash_next;
    tx->inbox.n_live--;
    pthread_mutex_unlock(&tx->inbox.lock);
}
