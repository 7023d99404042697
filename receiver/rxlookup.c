/* SPDX-License-Identifier: Apache-2.0 */
/* Lookups and pins: the decode engine's side, from any thread. */
#include "receiver/rxadmin.h"
#include "receiver/rxdevice.h"

#include "core/alloc.h"
#include "core/log.h"

#include <string.h>

struct baton_pin {
    baton_pin *prev, *next;
    uint64_t number;
    bool ends_hold; /* the owner was told to end one */
    uint64_t deadline_ns;
    bool expired;        /* its chunks were let go; under the lock */
    bt_cu_event leaving; /* given back, but a GPU still reads it until then; NULL: no */
    uint32_t n_chunks;
    bt_chunk **chunks;          /* [n_chunks]; not to be looked at once expired */
    baton_pinned_chunk *pinned; /* [n_chunks] */
};

static void pin_free(baton_pin *pin)
{
    if (pin == NULL)
        return;
    bt_free(pin->chunks);
    bt_free(pin->pinned);
    bt_free(pin);
}

static baton_status pin_create(uint32_t max_chunks, baton_pin **pin_p)
{
    baton_pin *pin = bt_calloc(1, sizeof(*pin));
    if (pin != NULL) {
        pin->chunks = bt_calloc(max_chunks, sizeof(bt_chunk *));
        pin->pinned = bt_calloc(max_chunks, sizeof(*pin->pinned));
    }
    if (pin == NULL || pin->chunks == NULL || pin->pinned == NULL) {
        pin_free(pin);
        return bt_fail(BATON_ERR_NO_MEMORY, "lookup: pin of %u chunks", max_chunks);
    }
    *pin_p = pin;
    return BATON_OK;
}

/* Which holds this lookup ends: of the prompt itself (decode-first), or of the prompt without the
 * first generated token (early first token), when the pins reach its last key. */
static void fill_consumed(const baton_pin *pin, uint32_t n_tokens, uint32_t n_matched,
                          bt_rx_command *command)
{
    uint32_t end = n_matched;
    command->kind = BT_RX_CONSUMED;
    for (uint32_t i = pin->n_chunks, n = 0; i-- > 0 && n < 2; n++) {
        if (end == n_tokens || end + 1 == n_tokens) {
            command->n_tokens[n] = end;
            command->keys[n] = *bt_chunk_key(pin->chunks[i]);
        }
        end -= pin->pinned[i].n_tokens;
    }
}

static void pin_matched(bt_rx *rx, baton_pin *pin)
{
    for (uint32_t i = 0; i < pin->n_chunks; i++) {
        bt_chunk *chunk = pin->chunks[i];
        bt_chunk_pin(rx->store, chunk);
        pin->pinned[i] = (baton_pinned_chunk){
            .page = bt_rx_page_address(rx, bt_chunk_page(chunk)),
            .bytes = bt_chunk_tokens(chunk) * rx->token_bytes,
            .n_tokens = bt_chunk_tokens(chunk),
            .memory = rx->options.memory,
        };
    }
    uint64_t pin_ns = rx->options.timeouts.pin_ms * BT_NS_PER_MS;
    pin->deadline_ns = bt_deadline_ns(bt_now_ns(rx->clock), pin_ns);
    pin->number = ++rx->last_pin;
    pin->next = rx->pins;
    if (rx->pins != NULL)
        rx->pins->prev = pin;
    rx->pins = pin;
    rx->n_pins++;
}

static baton_status check_tokens(const uint32_t *tokens, uint32_t n_tokens)
{
    if (tokens == NULL || n_tokens == 0)
        return bt_fail(BATON_ERR_INVALID_ARG, "lookup: wanted at least 1 token, found none");
    return BATON_OK;
}

baton_status bt_rx_lookup(bt_rx *rx, const uint32_t *tokens, uint32_t n_tokens, baton_pin **pin_p,
                          uint32_t *n_matched)
{
    BATON_TRY(check_tokens(tokens, n_tokens));
    uint32_t max_chunks = (n_tokens - 1) / rx->root.chunk_tokens + 1;
    baton_pin *pin;
    BATON_TRY(pin_create(max_chunks, &pin));
    baton_status status = BATON_OK;
    bt_rx_command command = {.looked_up_ns = bt_now_ns(rx->clock)};
    uint32_t matched = 0;

    pthread_mutex_lock(&rx->lock);
    rx->stats.lookups_total++;
    rx->stats.lookup_tokens_total += n_tokens;
    pin->n_chunks =
        bt_store_match(rx->store, &rx->root, tokens, n_tokens, pin->chunks, max_chunks, &matched);
    if (matched > 0 && rx->n_commands == BT_RX_COMMANDS_MAX) {
        status = bt_fail(BATON_ERR_BUSY, "lookup: the progress thread is %d commands behind",
                         BT_RX_COMMANDS_MAX);
        matched = 0;
    }
    if (matched > 0) {
        rx->stats.lookup_hit_tokens_total += matched;
        pin_matched(rx, pin);
        fill_consumed(pin, n_tokens, matched, &command);
        command.pin = pin->number;
        command.at_ns = bt_now_ns(rx->clock);
        pin->ends_hold = command.n_tokens[0] != 0 || command.n_tokens[1] != 0;
        if (pin->ends_hold)
            rx->commands[rx->n_commands++] = command;
    }
    pthread_mutex_unlock(&rx->lock);

    if (matched == 0) {
        pin_free(pin);
        pin = NULL;
    }
    if (status == BATON_OK) {
        *pin_p = pin;
        *n_matched = matched;
    }
    return status;
}

baton_status bt_rx_peek(bt_rx *rx, const uint32_t *tokens, uint32_t n_tokens, uint32_t *n_matched)
{
    BATON_TRY(check_tokens(tokens, n_tokens));
    uint32_t max_chunks = (n_tokens - 1) / rx->root.chunk_tokens + 1;
    bt_chunk **chunks = bt_calloc(max_chunks, sizeof(*chunks));
    if (chunks == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "peek: %u chunks", max_chunks);
    pthread_mutex_lock(&rx->lock);
    bt_store_match(rx->store, &rx->root, tokens, n_tokens, chunks, max_chunks, n_matched);
    pthread_mutex_unlock(&rx->lock);
    bt_free(chunks);
    return BATON_OK;
}

uint32_t baton_pin_chunks(const baton_pin *pin)
{
    return pin->n_chunks;
}

baton_status baton_pin_chunk(const baton_pin *pin, uint32_t chunk, baton_pinned_chunk *out)
{
    if (chunk >= pin->n_chunks)
        return bt_fail(BATON_ERR_OUT_OF_RANGE, "pin: chunk %u of %u", chunk, pin->n_chunks);
    *out = pin->pinned[chunk];
    return BATON_OK;
}

/* Last first: the beginning of a prompt, which more requests share, becomes the youngest. */
static void unpin_chunks(bt_rx *rx, baton_pin *pin)
{
    for (uint32_t i = pin->n_chunks; i-- > 0;)
        bt_chunk_unpin(rx->store, pin->chunks[i]);
}

/* For the request's trace only: not worth refusing a lookup for want of room. */
static void note_released(bt_rx *rx, const baton_pin *pin)
{
    if (rx->traces == NULL || !pin->ends_hold || rx->n_commands >= BT_RX_COMMANDS_MAX / 2)
        return;
    rx->commands[rx->n_commands++] =
        (bt_rx_command){.kind = BT_RX_UNPINNED, .pin = pin->number, .at_ns = bt_now_ns(rx->clock)};
}

static void unlink_pin(bt_rx *rx, baton_pin *pin)
{
    note_released(rx, pin);
    *(pin->prev != NULL ? &pin->prev->next : &rx->pins) = pin->next;
    if (pin->next != NULL)
        pin->next->prev = pin->prev;
    rx->n_pins--;
}

baton_status bt_rx_unpin(bt_rx *rx, baton_pin *pin)
{
    pthread_mutex_lock(&rx->lock);
    bool expired = pin->expired;
    if (!expired)
        unpin_chunks(rx, pin);
    unlink_pin(rx, pin);
    pthread_mutex_unlock(&rx->lock);
    pin_free(pin);
    if (expired)
        return bt_fail(BATON_ERR_LEASE_EXPIRED,
                       "unpin: the pin's %u ms had passed; what was read must not be used",
                       rx->options.timeouts.pin_ms);
    return BATON_OK;
}

/* From here on the pin is ours, and has no time limit: what was queued will be done. */
baton_status bt_rx_unpin_after(bt_rx *rx, baton_pin *pin, struct CUstream_st *stream)
{
    bt_cu_event event;
    BATON_TRY(bt_rx_device_mark(rx, stream, &event));
    pthread_mutex_lock(&rx->lock);
    bool expired = pin->expired;
    if (!expired) {
        pin->leaving = event;
        rx->n_leaving++;
    }
    pthread_mutex_unlock(&rx->lock);
    if (!expired)
        return BATON_OK;
    bt_rx_device_unmark(rx, event);
    return bt_rx_unpin(rx, pin);
}

static void leave(bt_rx *rx, baton_pin *pin)
{
    bt_rx_device_unmark(rx, pin->leaving);
    unpin_chunks(rx, pin);
    unlink_pin(rx, pin);
    rx->n_leaving--;
    pin_free(pin);
}

bool bt_rx_next_pin(const bt_rx *rx, bt_rx_pin_look *look)
{
    const baton_pin *pin = look->pin == NULL ? rx->pins : look->pin->next;
    *look = (bt_rx_pin_look){.pin = pin};
    if (pin == NULL)
        return false;
    look->number = pin->number;
    look->deadline_ns = pin->deadline_ns;
    look->is_leaving = pin->leaving != NULL;
    look->n_chunks = pin->n_chunks;
    look->chunks = pin->expired ? NULL : pin->chunks;
    return true;
}

void bt_rx_pins_finish(bt_rx *rx, uint64_t until_ns)
{
    for (baton_pin *pin = rx->pins, *next; pin != NULL; pin = next) {
        next = pin->next;
        if (pin->leaving == NULL)
            continue;
        if (!bt_rx_device_wait(rx, pin->leaving, until_ns))
            rx->gpu_hangs = true;
        leave(rx, pin);
    }
}

void bt_rx_pins_tick(bt_rx *rx, uint64_t now_ns)
{
    for (baton_pin *pin = rx->pins, *next; pin != NULL; pin = next) {
        next = pin->next;
        if (pin->leaving != NULL) {
            if (bt_rx_device_is_done(rx, pin->leaving))
                leave(rx, pin);
            continue;
        }
        if (pin->expired || now_ns < pin->deadline_ns)
            continue;
        pin->expired = true;
        unpin_chunks(rx, pin);
        rx->stats.pins_expired_total++;
        bt_warn("receiver: pin expired after %u ms chunks=%u", rx->options.timeouts.pin_ms,
                pin->n_chunks);
    }
}

static bool request_is_live(const bt_rx *rx, const char *request)
{
    const bt_rx_ticket *ticket = rx->first_ticket;
    while (ticket != NULL && strcmp(ticket->request, request) != 0)
        ticket = ticket->next;
    return ticket != NULL;
}

baton_status bt_rx_post_release(bt_rx *rx, const char *request)
{
    if (request == NULL || request[0] == 0 || strlen(request) > BT_REQUEST_ID_BYTES_MAX)
        return bt_fail(BATON_ERR_INVALID_ARG, "release: wanted a request of 1 to %d bytes",
                       BT_REQUEST_ID_BYTES_MAX);
    baton_status status = BATON_OK;
    pthread_mutex_lock(&rx->lock);
    if (!request_is_live(rx, request)) {
        status = bt_fail(BATON_ERR_NOT_FOUND, "release: no such request: %s", request);
    } else if (rx->n_commands == BT_RX_COMMANDS_MAX) {
        status = bt_fail(BATON_ERR_BUSY, "receiver: the progress thread is %d commands behind",
                         BT_RX_COMMANDS_MAX);
    } else {
        bt_rx_command *command = &rx->commands[rx->n_commands++];
        *command = (bt_rx_command){.kind = BT_RX_RELEASE};
        strcpy(command->request, request);
    }
    pthread_mutex_unlock(&rx->lock);
    return status;
}

void bt_rx_get_stats(bt_rx *rx, baton_receiver_stats *stats)
{
    pthread_mutex_lock(&rx->lock);
    bt_store_stats store;
    bt_store_get_stats(rx->store, &store);
    *stats = rx->stats;
    stats->pages_total = store.pages_total;
    stats->pages_free = store.pages[BT_PAGE_FREE];
    stats->pages_reserved = store.pages[BT_PAGE_RESERVED];
    stats->pages_landed = store.pages[BT_PAGE_LANDED];
    stats->pages_quarantined = store.pages[BT_PAGE_QUARANTINED];
    stats->pages_retired = store.pages[BT_PAGE_RETIRED];
    stats->page_bytes = rx->page_bytes;
    stats->moves_refused_total += store.moves_refused_total;
    stats->chunks_landed_total = store.landed_total;
    stats->chunks_evicted_total = store.evicted_total;
    stats->chunks_duplicate_total = store.duplicate_total;
    stats->peers = rx->n_peers;
    stats->tickets_live = rx->n_tickets;
    stats->tickets_queued = rx->n_queued;
    stats->holds_live = rx->n_held;
    stats->pins_live = rx->n_pins;
    pthread_mutex_unlock(&rx->lock);
}
