/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/ucx_greet.h"

#include <string.h>

#include "core/alloc.h"
#include "core/log.h"

/* NEW -> OPENING -> OPEN -> CLOSING -> freed; CLOSING from OPENING too. */
typedef enum { WAY_NEW, WAY_OPENING, WAY_OPEN, WAY_CLOSING } way_state;

/* The target's endpoint to a writer that has greeted. UCX answers and asks through it, too: it
 * lives until it fails, or its worker ends. */
struct ucx_way {
    ucx_way *next;
    ucx_worker *worker;
    uint64_t endpoint_id; /* of the writer's endpoint */
    ucp_ep_h handle;
    way_state state;
    bool is_flushed, has_failed, is_closed; /* UCX's callbacks set them */
    uint8_t header[BT_UCX_HEADER_BYTES];
    size_t n_bytes;
    uint8_t address[]; /* [n_bytes], sealed */
};

bool bt_ucx_must_greet(const ucx_endpoint *endpoint)
{
    const ucx_transport *transport = (const ucx_transport *)endpoint->base.worker->transport;
    return bt_ucx_is_older(14) && endpoint->uses_messages && !transport->has_verbs;
}

ucs_status_t bt_ucx_greet(ucx_endpoint *endpoint)
{
    const bt_worker *worker = endpoint->base.worker;
    const ucx_fields fields = {BT_UCX_GREETING, endpoint->id, {worker->address_bytes}};
    return bt_ucx_message_send_short(endpoint->handle, endpoint->greeting, &fields, worker->address,
                                     worker->address_bytes);
}

static bool may_come(const ucx_worker *worker, uint64_t endpoint_id)
{
    uint32_t n = 0;
    for (const ucx_way *way = worker->ways; way != NULL; way = way->next, n++)
        if (way->endpoint_id == endpoint_id)
            return false;
    return n < BT_UCX_WAYS_MAX;
}

void bt_ucx_take_greeting(ucx_worker *worker, const ucx_fields *fields, const void *address,
                          size_t bytes)
{
    if (!bt_ucx_is_older(14) || bytes != fields->values[0] || bytes > BT_ADDRESS_BYTES_MAX ||
        !may_come(worker, fields->endpoint_id))
        return;
    ucx_way *way = bt_calloc(1, sizeof(*way) + bytes);
    if (way == NULL)
        return; /* the writer's deadline tells */
    way->worker = worker;
    way->endpoint_id = fields->endpoint_id;
    way->n_bytes = bytes;
    memcpy(way->address, address, bytes);
    way->next = worker->ways;
    worker->ways = way;
    worker->has_way_news = true;
}

void bt_ucx_take_welcome(ucx_worker *worker, const ucx_fields *fields)
{
    ucx_endpoint *endpoint = worker->endpoints;
    while (endpoint != NULL && endpoint->id != fields->endpoint_id)
        endpoint = endpoint->next;
    if (endpoint != NULL && endpoint->is_greeting && !endpoint->has_failed &&
        !endpoint->is_handed_back)
        bt_ucx_wired(endpoint);
}

static void on_failure(void *arg, ucp_ep_h handle, ucs_status_t status)
{
    (void)handle, (void)status;
    ucx_way *way = arg;
    way->has_failed = way->worker->has_way_news = true;
}

static void on_flushed(void *request, ucs_status_t status, void *arg)
{
    ucx_way *way = arg;
    ucp_request_free(request);
    way->is_flushed = status == UCS_OK;
    way->has_failed = way->has_failed || status != UCS_OK;
    way->worker->has_way_news = true;
}

static void on_closed(void *request, ucs_status_t status, void *arg)
{
    (void)status;
    ucx_way *way = arg;
    ucp_request_free(request);
    way->is_closed = way->worker->has_way_news = true;
}

static ucp_request_param_t params_of(ucx_way *way, ucp_send_nbx_callback_t callback)
{
    return (ucp_request_param_t){.op_attr_mask =
                                     UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA,
                                 .cb = {.send = callback},
                                 .user_data = way};
}

static void open_way(ucx_way *way)
{
    const ucp_err_handler_t handler = {.cb = on_failure, .arg = way};
    way->state = WAY_OPENING;
    if (bt_ucx_handle_create(way->worker, way->address, way->n_bytes, &handler, &way->handle) < 0) {
        bt_debug("ucx: a writer's greeting cannot be answered");
        way->state = WAY_CLOSING;
        way->is_closed = true;
        return;
    }
    const ucp_request_param_t params = params_of(way, on_flushed);
    ucs_status_ptr_t request = ucp_ep_flush_nbx(way->handle, &params);
    way->is_flushed = request == NULL;
    way->has_failed = way->has_failed || UCS_PTR_IS_ERR(request);
}

static void close_way(ucx_way *way)
{
    ucp_request_param_t params = params_of(way, on_closed);
    params.op_attr_mask |= UCP_OP_ATTR_FIELD_FLAGS;
    params.flags = UCP_EP_CLOSE_FLAG_FORCE;
    way->state = WAY_CLOSING;
    ucs_status_ptr_t request = ucp_ep_close_nbx(way->handle, &params);
    way->is_closed = request == NULL || UCS_PTR_IS_ERR(request);
}

static void welcome(ucx_way *way)
{
    const ucx_fields fields = {BT_UCX_WELCOME, way->endpoint_id, {0}};
    way->state = WAY_OPEN;
    if (bt_ucx_message_send_short(way->handle, way->header, &fields, NULL, 0) != UCS_OK)
        close_way(way);
}

/* True: it has ended. */
static bool step(ucx_way *way)
{
    if (way->state == WAY_NEW)
        open_way(way);
    if (way->has_failed && way->state != WAY_CLOSING)
        close_way(way);
    if (way->is_flushed && way->state == WAY_OPENING)
        welcome(way);
    return way->state == WAY_CLOSING && way->is_closed;
}

void bt_ucx_ways_progress(ucx_worker *worker)
{
    worker->has_way_news = false;
    for (ucx_way **at = &worker->ways; *at != NULL;) {
        ucx_way *way = *at;
        if (!step(way)) {
            at = &way->next;
            continue;
        }
        *at = way->next;
        bt_free(way);
    }
}

void bt_ucx_ways_free(ucx_worker *worker)
{
    for (ucx_way *way; (way = worker->ways) != NULL;) {
        worker->ways = way->next;
        bt_free(way);
    }
}
