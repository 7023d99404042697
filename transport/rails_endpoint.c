/* SPDX-License-Identifier: Apache-2.0 */
/* Endpoints over several rails. An operation counts its parts on the rails; the last one queues it
 * for reporting, or calls its `then`. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "transport/rails_state.h"

/* A put of less than this goes over one rail, the next one over the next; shares of larger ones end
 * at pages. */
enum { SHARE_BYTES_MIN = 32 << 10, SHARE_ALIGN = 4096 };

struct rails_note {
    rails_note *next;
    uint64_t n_before; /* put calls that it must stay behind */
    size_t n_bytes;
    uint8_t bytes[];
};

static const bt_transport_ops *ops_of(const bt_endpoint *rail)
{
    return rail->worker->transport->ops;
}

static void drop_notes(rails_endpoint *endpoint)
{
    while (endpoint->notes != NULL) {
        rails_note *note = endpoint->notes;
        endpoint->notes = note->next;
        bt_free(note);
    }
}

void bt_rails_endpoint_free(rails_endpoint *endpoint)
{
    rails_endpoint **at = &((rails_worker *)endpoint->base.worker)->endpoints;
    while (*at != endpoint)
        at = &(*at)->next;
    *at = endpoint->next;
    drop_notes(endpoint);
    bt_free(endpoint);
}

static void try_close(rails_endpoint *endpoint)
{
    if (!endpoint->is_closing || endpoint->n_open != 0 || endpoint->n_ops != 0)
        return;
    if (endpoint->is_stillborn)
        bt_rails_endpoint_free(endpoint);
    else
        bt_op_push(&((rails_worker *)endpoint->base.worker)->done, &endpoint->closed);
}

static void fail(rails_endpoint *endpoint, baton_status status, const char *text)
{
    if (endpoint->has_failed)
        return;
    endpoint->has_failed = true;
    if (text != endpoint->failure) /* it may come back from an operation's */
        snprintf(endpoint->failure, sizeof(endpoint->failure), "%s", text);
    bt_op_set_failure(&endpoint->failed, status, endpoint->failure);
    drop_notes(endpoint);
    if (!endpoint->is_closing)
        bt_op_push(&((rails_worker *)endpoint->base.worker)->done, &endpoint->failed);
}

static void finish_part(bt_op *op)
{
    if (--op->n_pending != 0)
        return;
    rails_endpoint *endpoint = op->owner;
    endpoint->n_ops--;
    if (op->then != NULL)
        op->then(op);
    else
        bt_op_push(&((rails_worker *)endpoint->base.worker)->done, op);
    try_close(endpoint);
}

/* A part's failure is its operation's; the text is kept where it lives as long. */
static void record_failure(bt_op *op, const bt_event *event)
{
    rails_endpoint *endpoint = op->owner;
    if (endpoint->failure[0] == '\0')
        snprintf(endpoint->failure, sizeof(endpoint->failure), "%s", event->text);
    bt_op_set_failure(op, event->status, endpoint->failure);
}

static void on_rail_closed(rails_endpoint *endpoint, const bt_event *event)
{
    endpoint->n_open--;
    if (event->status < 0) {
        if (endpoint->failure[0] == '\0')
            snprintf(endpoint->failure, sizeof(endpoint->failure), "%s", event->text);
        bt_op_set_failure(&endpoint->closed, event->status, endpoint->failure);
    }
    try_close(endpoint);
}

void bt_rails_on_event(rails_worker *worker, const bt_event *event)
{
    (void)worker;
    void *subject = (void *)(uintptr_t)event->user_data;
    if (event->kind == BT_EVENT_CLOSED) {
        on_rail_closed(subject, event);
    } else if (event->kind == BT_EVENT_FAILED) {
        fail(subject, event->status, event->text);
    } else {
        bt_op *op = subject;
        if (event->status < 0)
            record_failure(op, event);
        /* Messages behind it would speak of bytes that never come. */
        if (event->status < 0 && op->kind == BT_EVENT_PUT)
            fail(op->owner, event->status, event->text);
        finish_part(op);
    }
}

/* What was opened before one rail could not be: closes itself. */
static void abandon(rails_endpoint *endpoint)
{
    endpoint->is_closing = endpoint->is_stillborn = true;
    uint32_t n = endpoint->n_open;
    for (uint32_t i = 0; i < n; i++)
        ops_of(endpoint->rails[i])
            ->close(endpoint->rails[i], BT_CLOSE_FORCE, (uint64_t)(uintptr_t)endpoint);
    try_close(endpoint);
}

baton_status bt_rails_connect(bt_worker *base, const void *address, size_t address_bytes,
                              uint64_t user_data, bt_endpoint **endpoint_p)
{
    rails_worker *worker = (rails_worker *)base;
    rails_parts parts;
    BATON_TRY(bt_rails_unseal(address, address_bytes, false, &parts));
    rails_endpoint *endpoint = bt_calloc(1, sizeof(*endpoint));
    if (endpoint == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "rails: no memory for an endpoint");
    uint32_t n_ours = ((rails_transport *)base->transport)->n;
    endpoint->base.worker = base;
    endpoint->n = parts.n < n_ours ? parts.n : n_ours;
    endpoint->failed = (bt_op){.kind = BT_EVENT_FAILED, .owner = endpoint, .user_data = user_data};
    endpoint->closed = (bt_op){.kind = BT_EVENT_CLOSED, .owner = endpoint};
    endpoint->next = worker->endpoints;
    worker->endpoints = endpoint;
    for (uint32_t i = 0; i < endpoint->n; i++) {
        bt_worker *rail = worker->rails[i];
        baton_status status =
            rail->transport->ops->connect(rail, parts.bytes[i], parts.n_bytes[i],
                                          (uint64_t)(uintptr_t)endpoint, &endpoint->rails[i]);
        if (status != BATON_OK) {
            abandon(endpoint);
            return status;
        }
        endpoint->n_open++;
    }
    *endpoint_p = &endpoint->base;
    return BATON_OK;
}

void bt_rails_close(bt_endpoint *base, bt_close_mode mode, uint64_t user_data)
{
    rails_endpoint *endpoint = (rails_endpoint *)base;
    assert(!endpoint->is_closing && "an endpoint is closed once");
    endpoint->is_closing = true;
    endpoint->closed.user_data = user_data;
    drop_notes(endpoint);
    for (uint32_t i = 0; i < endpoint->n; i++)
        ops_of(endpoint->rails[i])->close(endpoint->rails[i], mode, (uint64_t)(uintptr_t)endpoint);
}

/* "a", then "a,b". */
static void add_text(char *text, const char *more)
{
    size_t used = strlen(text);
    if (strstr(text, more) == NULL)
        snprintf(text + used, BT_PATH_TEXT_BYTES - used, "%s%s", used != 0 ? "," : "", more);
}

void bt_rails_path(bt_endpoint *base, bt_path *out)
{
    const rails_endpoint *endpoint = (const rails_endpoint *)base;
    *out = (bt_path){.puts_from_device = true};
    for (uint32_t i = 0; i < endpoint->n; i++) {
        bt_path path;
        ops_of(endpoint->rails[i])->path(endpoint->rails[i], &path);
        add_text(out->transport, path.transport);
        add_text(out->device, path.device);
        out->n_rails += path.n_rails;
        out->puts_are_mapped = out->puts_are_mapped || path.puts_are_mapped;
        out->puts_from_device = out->puts_from_device && path.puts_from_device;
    }
}

void bt_rails_release(bt_remote *base)
{
    rails_remote *remote = (rails_remote *)base;
    for (uint32_t i = 0; i < BT_RAILS_MAX; i++)
        if (remote->parts[i] != NULL)
            ops_of(remote->parts[i]->endpoint)->release(remote->parts[i]);
    bt_free(remote);
}

baton_status bt_rails_import(bt_endpoint *base, const void *rkey, size_t rkey_bytes,
                             bt_remote **remote_p)
{
    rails_endpoint *endpoint = (rails_endpoint *)base;
    rails_parts parts;
    BATON_TRY(bt_rails_unseal(rkey, rkey_bytes, true, &parts));
    if (parts.n < endpoint->n)
        return bt_fail(BATON_ERR_INVALID_ARG, "rails: wanted a key for %u rails, found %u",
                       endpoint->n, parts.n);
    rails_remote *remote = bt_calloc(1, sizeof(*remote));
    if (remote == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "rails: no memory for a remote key");
    baton_status status = BATON_OK;
    for (uint32_t i = 0; i < endpoint->n && status == BATON_OK; i++) {
        bt_endpoint *rail = endpoint->rails[i];
        rail->may_not_attach = base->may_not_attach;
        status = ops_of(rail)->import(rail, parts.bytes[i], parts.n_bytes[i], &remote->parts[i]);
        if (status == BATON_OK && (remote->parts[i]->base != remote->parts[0]->base ||
                                   remote->parts[i]->bytes != remote->parts[0]->bytes))
            status = bt_fail(BATON_ERR_INVALID_ARG, "rails: a key's parts name different regions");
    }
    if (status != BATON_OK) {
        bt_rails_release(&remote->base);
        return status;
    }
    remote->base = *remote->parts[0];
    remote->base.endpoint = base;
    *remote_p = &remote->base;
    return BATON_OK;
}

baton_status bt_rails_map(bt_remote *base, uint64_t remote_addr, void **local_p)
{
    bt_remote *first = ((rails_remote *)base)->parts[0];
    return ops_of(first->endpoint)->map(first, remote_addr, local_p);
}

bool bt_rails_populate(bt_remote *base, uint64_t remote_addr, uint64_t bytes)
{
    bt_remote *first = ((rails_remote *)base)->parts[0];
    return ops_of(first->endpoint)->populate(first, remote_addr, bytes);
}

static baton_status check_open(const rails_endpoint *endpoint)
{
    if (endpoint->has_failed)
        return bt_fail(BATON_ERR_CLOSED, "rails: the endpoint has failed: %s; wanted: close it",
                       endpoint->failure);
    return BATON_OK;
}

static baton_status take_op(rails_endpoint *endpoint, bt_event_kind kind, uint64_t user_data,
                            bt_op **op_p)
{
    BATON_TRY(check_open(endpoint));
    bt_op *op = bt_op_take(&((rails_worker *)endpoint->base.worker)->pool);
    if (op == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "rails: no memory for an operation");
    op->kind = kind;
    op->owner = endpoint;
    op->user_data = user_data;
    *op_p = op;
    return BATON_OK;
}

typedef struct {
    uint32_t run, piece;
    uint64_t done; /* of the piece */
} cut;

/* The share of one rail, cut from the list; *at is where the last one ended. At most 2 n_runs + 3
 * runs: a cut piece at either end, and whole pieces join again. */
static uint32_t cut_share(const bt_run *runs, uint32_t n_runs, uint64_t share, cut *at, bt_run *out)
{
    uint32_t n = 0;
    while (share > 0 && at->run < n_runs) {
        const bt_run *run = &runs[at->run];
        uint64_t left = run->bytes - at->done;
        const bt_run part = {.local_addr = bt_run_local(run, at->piece) + at->done,
                             .remote_addr = bt_run_remote(run, at->piece) + at->done,
                             .bytes = left < share ? left : share};
        if (n == 0 || !bt_run_join(&out[n - 1], &part))
            out[n++] = part;
        share -= part.bytes;
        at->done += part.bytes;
        if (at->done < run->bytes)
            continue;
        at->done = 0;
        if (++at->piece == bt_run_count(run)) {
            at->piece = 0;
            at->run++;
        }
    }
    return n;
}

static baton_status reserve_runs(rails_worker *worker, uint32_t n)
{
    if (n <= worker->cap_runs)
        return BATON_OK;
    bt_run *runs = bt_realloc(worker->runs, n, sizeof(*runs));
    if (runs == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "rails: no memory for %u runs", n);
    worker->runs = runs;
    worker->cap_runs = n;
    return BATON_OK;
}

static baton_status post(bt_op *op, uint32_t rail, bt_memory *local, bt_remote *remote,
                         const bt_run *runs, uint32_t n_runs)
{
    const rails_endpoint *endpoint = op->owner;
    bt_memory *part = local != NULL ? ((rails_memory *)local)->parts[rail] : NULL;
    BATON_TRY(ops_of(endpoint->rails[rail])
                  ->put(endpoint->rails[rail], part, ((rails_remote *)remote)->parts[rail], runs,
                        n_runs, (uint64_t)(uintptr_t)op));
    op->n_pending++;
    return BATON_OK;
}

static baton_status spread(bt_op *op, bt_memory *local, bt_remote *remote, const bt_run *runs,
                           uint32_t n_runs)
{
    rails_endpoint *endpoint = op->owner;
    rails_worker *worker = (rails_worker *)endpoint->base.worker;
    uint64_t bytes = 0;
    cut at = {0};
    for (uint32_t i = 0; i < n_runs; i++)
        bytes += runs[i].bytes * bt_run_count(&runs[i]);
    if (bytes < (uint64_t)SHARE_BYTES_MIN * endpoint->n)
        return post(op, endpoint->turn++ % endpoint->n, local, remote, runs, n_runs);
    BATON_TRY(reserve_runs(worker, 2 * n_runs + 3));
    uint64_t share = (bytes / endpoint->n + SHARE_ALIGN - 1) / SHARE_ALIGN * SHARE_ALIGN;
    for (uint32_t rail = 0; rail < endpoint->n; rail++) {
        uint32_t n = cut_share(runs, n_runs, share, &at, worker->runs);
        if (n > 0)
            BATON_TRY(post(op, rail, local, remote, worker->runs, n));
    }
    return BATON_OK;
}

baton_status bt_rails_put(bt_endpoint *base, bt_memory *local, bt_remote *remote,
                          const bt_run *runs, uint32_t n_runs, uint64_t user_data)
{
    rails_endpoint *endpoint = (rails_endpoint *)base;
    bt_op *op = NULL;
    BATON_TRY(take_op(endpoint, BT_EVENT_PUT, user_data, &op));
    op->n_pending = 1; /* ours, so that it cannot finish while it is being posted */
    endpoint->n_ops++;
    baton_status status = spread(op, local, remote, runs, n_runs);
    if (status < 0 && op->n_pending == 1) {
        endpoint->n_ops--;
        bt_op_give(&((rails_worker *)base->worker)->pool, op);
        return status;
    }
    endpoint->n_puts++;
    if (status < 0) {
        bt_op_set_failure(op, status, "a rail did not take its share");
        fail(endpoint, status, "a rail did not take its share");
    }
    finish_part(op);
    return BATON_OK;
}

/* On failure of the first rail nothing was started. */
static baton_status start_flush(rails_endpoint *endpoint, bt_op *op)
{
    op->n_pending = 1;
    endpoint->n_ops++;
    for (uint32_t i = 0; i < endpoint->n; i++) {
        baton_status status =
            ops_of(endpoint->rails[i])->flush(endpoint->rails[i], (uint64_t)(uintptr_t)op);
        if (status < 0 && i == 0) {
            endpoint->n_ops--;
            return status;
        }
        if (status < 0) {
            bt_op_set_failure(op, status, "a rail could not be flushed");
            break;
        }
        op->n_pending++;
    }
    finish_part(op);
    return BATON_OK;
}

baton_status bt_rails_flush(bt_endpoint *base, uint64_t user_data)
{
    rails_endpoint *endpoint = (rails_endpoint *)base;
    bt_op *op = NULL;
    BATON_TRY(take_op(endpoint, BT_EVENT_FLUSH, user_data, &op));
    baton_status status = start_flush(endpoint, op);
    if (status < 0)
        bt_op_give(&((rails_worker *)base->worker)->pool, op);
    return status;
}

static baton_status send_now(rails_endpoint *endpoint, const void *bytes, size_t n_bytes)
{
    return ops_of(endpoint->rails[0])->send(endpoint->rails[0], bytes, n_bytes);
}

static baton_status flush_for_notes(rails_endpoint *endpoint);

/* Messages go over the first rail, when the puts before them are visible on all. */
static void on_notes_flushed(bt_op *op)
{
    rails_endpoint *endpoint = op->owner;
    if (op->status < 0 || endpoint->has_failed || endpoint->is_closing) {
        if (op->status < 0)
            fail(endpoint, op->status, op->detail != NULL ? op->detail : "");
        drop_notes(endpoint);
        return;
    }
    endpoint->n_flushed = op->tag;
    baton_status status = BATON_OK;
    while (status == BATON_OK && endpoint->notes != NULL &&
           endpoint->notes->n_before <= endpoint->n_flushed) {
        rails_note *note = endpoint->notes;
        status = send_now(endpoint, note->bytes, note->n_bytes);
        endpoint->notes = note->next;
        bt_free(note);
    }
    if (status == BATON_OK && endpoint->notes != NULL)
        status = flush_for_notes(endpoint);
    if (status < 0)
        fail(endpoint, status, baton_last_error());
}

static baton_status flush_for_notes(rails_endpoint *endpoint)
{
    endpoint->note_flush = (bt_op){.kind = BT_EVENT_FLUSH,
                                   .owner = endpoint,
                                   .tag = endpoint->n_puts,
                                   .then = on_notes_flushed};
    return start_flush(endpoint, &endpoint->note_flush);
}

baton_status bt_rails_send(bt_endpoint *base, const void *bytes, size_t n_bytes)
{
    rails_endpoint *endpoint = (rails_endpoint *)base;
    BATON_TRY(check_open(endpoint));
    if (endpoint->notes == NULL && endpoint->n_flushed == endpoint->n_puts)
        return send_now(endpoint, bytes, n_bytes);
    rails_note *note = bt_calloc(1, sizeof(*note) + n_bytes);
    if (note == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "rails: no memory for a message of %zu bytes", n_bytes);
    note->n_before = endpoint->n_puts;
    note->n_bytes = n_bytes;
    memcpy(note->bytes, bytes, n_bytes);
    bool is_flushing = endpoint->notes != NULL;
    rails_note **at = &endpoint->notes;
    while (*at != NULL)
        at = &(*at)->next;
    *at = note;
    baton_status status = is_flushing ? BATON_OK : flush_for_notes(endpoint);
    if (status < 0)
        drop_notes(endpoint); /* this one alone */
    return status;
}
