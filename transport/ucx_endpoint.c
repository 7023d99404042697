/* SPDX-License-Identifier: Apache-2.0 */
/* Endpoints: connecting, failing and closing.
 *
 *   connect -> open ---- close -----> closing -- UCX let go and no operation left --> CLOSED, freed
 *                \-- FAILED -- close ----^
 */
#include <assert.h>
#include <sys/random.h>

#include "core/alloc.h"
#include "core/fdroom.h"
#include "transport/seal.h"
#include "transport/ucx_message.h"
#include "transport/ucx_state.h"

void bt_ucx_fail(ucx_endpoint *endpoint, baton_status status, const char *detail)
{
    if (endpoint->has_failed)
        return;
    endpoint->has_failed = true;
    bt_op_set_failure(&endpoint->failed, status, detail);
    if (!endpoint->is_closing)
        bt_op_push(&((ucx_worker *)endpoint->base.worker)->done, &endpoint->failed);
    bt_ucx_abandon_flushes(endpoint, status, detail);
    bt_ucx_drop_held(endpoint, status, detail);
}

/* Called by UCX from within progress. */
static void on_failure(void *arg, ucp_ep_h handle, ucs_status_t status)
{
    (void)handle;
    bt_ucx_fail(arg, bt_status_from_ucs(status), ucs_status_string(status));
}

static baton_status fail_to_connect(ucs_status_t status)
{
    if (status != UCS_ERR_INVALID_ADDR)
        return bt_fail_ucs(status, "connecting to a peer's worker (do both ends share a device and "
                                   "a transport?)");
    bt_fail_ucs(status,
                "connecting to a peer's worker: its RDMA address cannot be reached from the "
                "device here (GIDs of both ends must be of one RoCE version and family, "
                "and routed: show_gids, UCX_IB_GID_INDEX)");
    return BATON_ERR_UNREACHABLE;
}

baton_status bt_ucx_connect(bt_worker *base, const void *address, size_t address_bytes,
                            uint64_t user_data, bt_endpoint **endpoint_p)
{
    ucx_worker *worker = (ucx_worker *)base;
    bt_seal seal = {.kind = BT_SEAL_ADDRESS, .backend = BT_SEAL_UCX};
    bt_ucx_version(&seal.major, &seal.minor);
    BATON_TRY(bt_seal_open(address, address_bytes, &seal));
    enum { CONNECTION_FDS = 16 }; /* sockets of its lanes, and files of memory that is mapped */
    BATON_TRY(bt_fdroom_require(CONNECTION_FDS, "ucx: a connection"));
    BATON_TRY(bt_memroom_require(BT_UCX_ROOM_BYTES, "ucx: a connection"));
    ucx_endpoint *endpoint = bt_calloc(1, sizeof(*endpoint));
    if (endpoint == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "ucx: no memory for an endpoint");
    endpoint->base.worker = base;
    if (getrandom(&endpoint->id, sizeof(endpoint->id), 0) != sizeof(endpoint->id))
        endpoint->id = (uint64_t)(uintptr_t)endpoint; /* unique here at least */
    endpoint->failed = (bt_op){.kind = BT_EVENT_FAILED, .owner = endpoint, .user_data = user_data};
    endpoint->closed = (bt_op){.kind = BT_EVENT_CLOSED, .owner = endpoint};
    const ucp_ep_params_t params = {.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS |
                                                  UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                                                  UCP_EP_PARAM_FIELD_ERR_HANDLER,
                                    .address = (const ucp_address_t *)seal.payload,
                                    .err_mode = UCP_ERR_HANDLING_MODE_PEER,
                                    .err_handler = {.cb = on_failure, .arg = endpoint}};
    ucs_status_t status = ucp_ep_create(worker->handle, &params, &endpoint->handle);
    if (status != UCS_OK) {
        bt_free(endpoint);
        return fail_to_connect(status);
    }
    bt_path path;
    bt_ucx_path(&endpoint->base, &path);
    endpoint->uses_verbs = bt_ucx_path_has_queue_pairs(&path);
    endpoint->uses_messages = bt_ucx_needs_messages(endpoint);
    endpoint->next = worker->endpoints;
    worker->endpoints = endpoint;
    if (endpoint->uses_verbs && (status = bt_ucx_wire(endpoint)) != UCS_OK)
        bt_ucx_fail(endpoint, bt_status_from_ucs(status), ucs_status_string(status));
    *endpoint_p = &endpoint->base;
    return BATON_OK;
}

void bt_ucx_try_close(ucx_endpoint *endpoint)
{
    if (!endpoint->ucx_is_done || endpoint->n_ops != 0)
        return;
    bt_op_push(&((ucx_worker *)endpoint->base.worker)->done, &endpoint->closed);
}

static void record_close(ucx_endpoint *endpoint, ucs_status_t status)
{
    endpoint->handle = NULL;
    endpoint->ucx_is_done = true;
    if (status != UCS_OK && !endpoint->is_forced)
        bt_op_set_failure(&endpoint->closed, bt_status_from_ucs(status), ucs_status_string(status));
    bt_ucx_try_close(endpoint);
}

static void on_closed(void *request, ucs_status_t status, void *user_data)
{
    ucp_request_free(request);
    record_close(user_data, status);
}

/* Hands the endpoint back to UCX. A failed one has nothing left to flush, and waiting for a dead
 * peer may take minutes. */
static void hand_back(ucx_endpoint *endpoint)
{
    bool force = endpoint->is_forced || endpoint->has_failed;
    const ucp_request_param_t params = {.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK |
                                                        UCP_OP_ATTR_FIELD_USER_DATA |
                                                        UCP_OP_ATTR_FIELD_FLAGS,
                                        .flags = force ? UCP_EP_CLOSE_FLAG_FORCE : 0,
                                        .cb = {.send = on_closed},
                                        .user_data = endpoint};
    bt_ucx_drop_held(endpoint, BATON_ERR_CANCELED, "the endpoint was closed");
    bt_ucx_drop_parked(endpoint, BATON_ERR_CANCELED, "the endpoint was closed");
    endpoint->is_handed_back = true;
    if (endpoint->has_failed && !endpoint->is_forced)
        bt_op_set_failure(&endpoint->closed, endpoint->failed.status, endpoint->failed.detail);
    ucs_status_ptr_t request = ucp_ep_close_nbx(endpoint->handle, &params);
    if (request == NULL || UCS_PTR_IS_ERR(request))
        record_close(endpoint, UCS_PTR_STATUS(request));
}

static bool wait_to_close(ucx_endpoint *endpoint)
{
    endpoint->waits_to_close = true;
    ((ucx_worker *)endpoint->base.worker)->n_closing++;
    return true;
}

/* Messages have arrived only when the target says so: asks it, and closes when it has answered.
 * Over verbs flushes that are under way still have to read back. */
static bool wait_for_landing(ucx_endpoint *endpoint)
{
    bool is_owed = endpoint->uses_messages ? endpoint->n_messages != 0
                                           : endpoint->uses_verbs && endpoint->n_ops != 0;
    if (!is_owed || endpoint->has_failed)
        return false;
    endpoint->last_flush = (bt_op){.kind = BT_EVENT_FLUSH, .owner = endpoint};
    return bt_ucx_start_flush(endpoint, &endpoint->last_flush) >= 0 && wait_to_close(endpoint);
}

/* Before 1.14 UCX aborts the process ("got REQ message") when an endpoint over verbs is closed by
 * force while its peer has not answered yet: waits for the answer, or for UCX to give the peer up.
 */
bool bt_ucx_is_stuck(const ucx_endpoint *endpoint)
{
    return bt_ucx_is_older(14) && bt_ucx_must_hold(endpoint) && !endpoint->has_failed &&
           !endpoint->is_handed_back;
}

static bool wait_for_wire(ucx_endpoint *endpoint)
{
    if (!bt_ucx_is_stuck(endpoint))
        return false;
    bt_ucx_drop_held(endpoint, BATON_ERR_CANCELED, "the endpoint was closed");
    return wait_to_close(endpoint);
}

static bool may_close(const ucx_endpoint *endpoint)
{
    if (endpoint->is_forced)
        return endpoint->is_wired || endpoint->has_failed;
    return endpoint->n_ops == 0;
}

void bt_ucx_close(bt_endpoint *base, bt_close_mode mode, uint64_t user_data)
{
    ucx_endpoint *endpoint = (ucx_endpoint *)base;
    assert(!endpoint->is_closing && "an endpoint is closed once");
    endpoint->is_closing = true;
    endpoint->is_forced = mode == BT_CLOSE_FORCE;
    endpoint->closed.user_data = user_data;
    if (mode == BT_CLOSE_FLUSH ? wait_for_landing(endpoint) : wait_for_wire(endpoint))
        return;
    bt_ucx_abandon_flushes(endpoint, BATON_ERR_CANCELED, "the endpoint was closed");
    hand_back(endpoint);
}

void bt_ucx_close_waiting(ucx_worker *worker)
{
    for (ucx_endpoint *endpoint = worker->endpoints; endpoint != NULL; endpoint = endpoint->next) {
        if (!endpoint->waits_to_close || !may_close(endpoint))
            continue;
        endpoint->waits_to_close = false;
        worker->n_closing--;
        if (endpoint->is_forced)
            bt_ucx_abandon_flushes(endpoint, BATON_ERR_CANCELED, "the endpoint was closed");
        else if (endpoint->last_flush.status < 0)
            bt_op_set_failure(&endpoint->closed, endpoint->last_flush.status,
                              endpoint->last_flush.detail);
        hand_back(endpoint);
    }
}

void bt_ucx_force(ucx_endpoint *endpoint)
{
    bool is_with_ucx = endpoint->is_closing && !endpoint->waits_to_close;
    endpoint->is_closing = endpoint->is_forced = true;
    if (is_with_ucx)
        return;
    if (endpoint->waits_to_close)
        ((ucx_worker *)endpoint->base.worker)->n_closing--;
    endpoint->waits_to_close = false;
    if (wait_for_wire(endpoint))
        return;
    bt_ucx_abandon_flushes(endpoint, BATON_ERR_CANCELED, "the endpoint was closed");
    hand_back(endpoint);
}
