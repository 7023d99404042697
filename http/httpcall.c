/* SPDX-License-Identifier: Apache-2.0 */
/* One call: where it is, its deadlines, and its end. */
#include "http/httpclientconn.h"

#include "core/alloc.h"
#include "core/fail.h"

#include <netdb.h>
#include <stdio.h>
#include <string.h>

/* Outlives its call, since a lookup under way cannot always be stopped. */
struct bt_client_lookup {
    uv_getaddrinfo_t request;
    bt_http_client *client;
    bt_http_call *call; /* NULL: nobody waits any more */
};

const char *bt_http_phase_name(bt_http_phase phase)
{
    static const char *const names[] = {"resolve", "connect", "send", "head", "body", "done"};
    return phase <= BT_HTTP_DONE ? names[phase] : "unknown";
}

/* When the stage is over: connecting counts from its start, a gap from the last bytes. */
static uint64_t stage_at_ms(const bt_http_call *call)
{
    uint32_t limit = call->result.phase <= BT_HTTP_CONNECT ? call->connect_ms
                     : call->result.phase == BT_HTTP_SEND  ? call->first_byte_ms
                                                           : call->gap_ms;
    if (limit == BT_HTTP_NO_TIMEOUT || (call->paused && call->result.phase > BT_HTTP_CONNECT))
        return UINT64_MAX;
    return call->stage_start_ms + limit;
}

/* The timer is only ever moved to an earlier time; when it fires too early it is set anew. */
static void arm(bt_http_call *call)
{
    uint64_t at = stage_at_ms(call);
    if (call->total_at_ms < at)
        at = call->total_at_ms;
    if (at >= call->timer_at_ms)
        return;
    uint64_t now = bt_loop_now_ms(call->client->loop);
    call->timer_at_ms = at;
    bt_timer_start(call->timer, at > now ? at - now : 0, 0);
}

void bt_call_enter(bt_http_call *call, bt_http_phase phase)
{
    /* Resolving and connecting share one deadline. */
    if (phase != BT_HTTP_CONNECT)
        call->stage_start_ms = bt_loop_now_ms(call->client->loop);
    if (phase == BT_HTTP_RESOLVE)
        call->timer_at_ms = UINT64_MAX;
    call->result.phase = phase;
    arm(call);
}

void bt_call_touch(bt_http_call *call)
{
    call->stage_start_ms = bt_loop_now_ms(call->client->loop);
}

void bt_call_on_timer(void *arg)
{
    bt_http_call *call = arg;
    uint64_t now = bt_loop_now_ms(call->client->loop);
    bool total = now >= call->total_at_ms;
    call->timer_at_ms = UINT64_MAX;
    if (!total && now < stage_at_ms(call)) {
        arm(call);
        return;
    }
    static const char *const limits[] = {"connecting",     "connecting",     "the first byte",
                                         "the next bytes", "the next bytes", ""};
    bool connecting = call->result.phase <= BT_HTTP_CONNECT;
    char text[256];
    snprintf(text, sizeof(text), "http: %s port %u: %s took too long", call->origin->host,
             call->origin->port, total ? "the whole call" : limits[call->result.phase]);
    bt_call_finish(call, connecting && !total ? BATON_ERR_CONNECT_TIMEOUT : BATON_ERR_DEADLINE,
                   text);
}

void bt_call_free(bt_http_call *call)
{
    bt_loop_undefer(&call->start);
    bt_timer_destroy(call->timer);
    bt_strbuf_free(&call->head);
    bt_free(call->body);
    bt_free(call);
}

static void unlink_call(bt_http_call *call)
{
    if (call->prev != NULL)
        call->prev->next = call->next;
    else
        call->client->calls = call->next;
    if (call->next != NULL)
        call->next->prev = call->prev;
    call->client->stats.n_calls--;
}

void bt_call_finish(bt_http_call *call, baton_status status, const char *text)
{
    char copy[BT_ERROR_TEXT_BYTES]; /* text may be the last error's, or the parser's */
    snprintf(copy, sizeof(copy), "%s", text);
    call->finished = true;
    unlink_call(call);
    bt_timer_stop(call->timer);
    bt_loop_undefer(&call->start);
    if (status != BATON_OK)
        call->client->stats.failed_total++;
    if (call->lookup != NULL) {
        call->lookup->call = NULL;
        uv_cancel((uv_req_t *)&call->lookup->request);
    }
    if (call->conn != NULL)
        bt_client_conn_close(call->conn); /* the kernel reads no slice of the body any more */
    call->result.status = status;
    call->result.text = copy;
    call->ops->on_done(call->ctx, call, &call->result); /* may destroy the client */
    bt_call_free(call);
}

static void try_next_address(bt_http_call *call, baton_status status, const char *text)
{
    while (call->next_address < call->n_addresses) {
        bt_call_enter(call, BT_HTTP_CONNECT);
        status = bt_client_connect(call);
        if (status == BATON_OK)
            return;
        text = baton_last_error();
    }
    bt_call_finish(call, status, text);
}

void bt_call_connect_failed(bt_http_call *call, baton_status status, const char *reason)
{
    char text[BT_ERROR_TEXT_BYTES];
    snprintf(text, sizeof(text), "http: connecting to %s port %u: %s", call->origin->host,
             call->origin->port, reason);
    try_next_address(call, status, text);
}

static void add_address(bt_http_call *call, const struct sockaddr *address, size_t bytes)
{
    bt_client_address *slot = &call->addresses[call->n_addresses];
    if (call->n_addresses == BT_CLIENT_MAX_ADDRESSES || bytes > sizeof(*slot))
        return;
    memcpy(slot, address, bytes);
    if (address->sa_family == AF_INET)
        slot->v4.sin_port = htons(call->origin->port);
    else
        slot->v6.sin6_port = htons(call->origin->port);
    call->n_addresses++;
}

static void fail_lookup(bt_http_call *call, int err)
{
    char text[256];
    snprintf(text, sizeof(text), "http: resolving '%s': %s", call->origin->host, uv_strerror(err));
    bt_call_finish(call, BATON_ERR_UNREACHABLE, text);
}

static void on_resolved(uv_getaddrinfo_t *request, int err, struct addrinfo *list)
{
    bt_client_lookup *lookup = request->data;
    bt_http_client *client = lookup->client;
    bt_http_call *call = lookup->call;
    bt_free(lookup);
    if (call != NULL) {
        call->lookup = NULL;
        for (struct addrinfo *entry = list; entry != NULL; entry = entry->ai_next) {
            if (entry->ai_family == AF_INET || entry->ai_family == AF_INET6)
                add_address(call, entry->ai_addr, entry->ai_addrlen);
        }
        if (err != 0)
            fail_lookup(call, err);
        else
            try_next_address(call, BATON_ERR_UNREACHABLE, "http: the host has no address");
    }
    uv_freeaddrinfo(list);
    bt_client_release(client);
}

static void resolve(bt_http_call *call)
{
    bt_client_address address = {0};
    call->n_addresses = call->next_address = 0;
    if (uv_ip4_addr(call->origin->host, 0, &address.v4) == 0) {
        add_address(call, &address.any, sizeof(address.v4));
    } else if (uv_ip6_addr(call->origin->host, 0, &address.v6) == 0) {
        add_address(call, &address.any, sizeof(address.v6));
    } else {
        const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
        bt_client_lookup *lookup = bt_calloc(1, sizeof(*lookup));
        if (lookup == NULL) {
            bt_call_finish(call, BATON_ERR_NO_MEMORY, "http: out of memory for a lookup");
            return;
        }
        *lookup = (bt_client_lookup){.client = call->client, .call = call};
        lookup->request.data = lookup;
        int err = uv_getaddrinfo(bt_loop_uv(call->client->loop), &lookup->request, on_resolved,
                                 call->origin->host, NULL, &hints);
        if (err != 0) {
            bt_free(lookup);
            fail_lookup(call, err);
            return;
        }
        call->lookup = lookup;
        call->client->n_open++;
        return;
    }
    try_next_address(call, BATON_ERR_UNREACHABLE, "http: the host has no address");
}

void bt_call_connected(bt_http_call *call, bt_client_conn *conn)
{
    bt_call_enter(call, BT_HTTP_SEND);
    bt_client_send(conn, call);
}

void bt_call_begin(void *arg)
{
    bt_http_call *call = arg;
    bt_client_conn *conn = call->fresh ? NULL : bt_client_take_idle(call->client, call->origin);
    if (conn == NULL) {
        resolve(call);
        return;
    }
    call->client->stats.reused_total++;
    call->result.reused = true;
    bt_call_connected(call, conn);
}

void bt_call_broken(bt_http_call *call, const char *text)
{
    if (!call->result.reused || call->result.retried) {
        bt_call_finish(call, BATON_ERR_CLOSED, text);
        return;
    }
    bt_client_conn *conn = call->conn;
    call->conn = NULL;
    bt_client_conn_close(conn);
    call->client->stats.retried_total++;
    call->result.retried = true;
    call->result.reused = false;
    bt_call_enter(call, BT_HTTP_RESOLVE);
    resolve(call);
}

void bt_http_call_cancel(bt_http_call *call)
{
    if (!call->finished) /* canceling inside on_done is too late, not an error */
        bt_call_finish(call, BATON_ERR_CANCELED, "http: canceled");
}

void bt_http_call_lower_gap(bt_http_call *call, uint32_t gap_ms)
{
    if (gap_ms >= call->gap_ms)
        return; /* a timer is only ever moved to an earlier time */
    call->gap_ms = gap_ms;
    if (!call->finished)
        arm(call);
}

void bt_http_call_pause(bt_http_call *call)
{
    call->paused = true;
    if (call->conn != NULL && call->conn->state == BT_CLIENT_BUSY)
        bt_client_read_stop(call->conn);
}

void bt_http_call_resume(bt_http_call *call)
{
    if (!call->paused)
        return;
    call->paused = false;
    bt_call_touch(call);
    arm(call);
    if (call->conn != NULL && call->conn->state == BT_CLIENT_BUSY)
        bt_client_read_start(call->conn);
}
