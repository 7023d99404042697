/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the rails: the structs behind the seam's types. Thread rule: as transport.h. */
#ifndef BT_TRANSPORT_RAILS_STATE_H
#define BT_TRANSPORT_RAILS_STATE_H
#include "transport/rails.h"
#include "transport/transport_op.h"

typedef struct {
    bt_transport base;
    uint32_t n;
    bt_transport *rails[BT_RAILS_MAX]; /* [n] owned */
} rails_transport;

typedef struct {
    bt_memory base;
    bt_memory *parts[BT_RAILS_MAX]; /* one per rail, owned */
} rails_memory;

typedef struct rails_endpoint rails_endpoint;
typedef struct rails_note rails_note;

typedef struct {
    bt_worker base;
    bt_worker *rails[BT_RAILS_MAX];
    int fd; /* epoll over theirs */
    uint32_t turn;
    rails_endpoint *endpoints;
    bt_op_pool pool;
    bt_op_queue done;
    bt_run *runs; /* [cap_runs] of the put that is being spread */
    uint32_t cap_runs;
} rails_worker;

struct rails_endpoint {
    bt_endpoint base;
    rails_endpoint *next;
    bt_endpoint *rails[BT_RAILS_MAX]; /* [n]; NULL once closed */
    uint32_t n, n_open;
    bt_op failed, closed, note_flush;
    uint32_t n_ops;
    bool has_failed, is_closing, is_stillborn; /* nobody waits for its end */
    uint32_t turn;                             /* rail of the next small put */
    uint64_t n_puts, n_flushed; /* put calls; those that messages need not wait for */
    rails_note *notes;          /* messages that wait for puts */
    char failure[BT_PATH_TEXT_BYTES];
};

typedef struct {
    bt_remote base;
    bt_remote *parts[BT_RAILS_MAX]; /* [n of the endpoint] owned */
} rails_remote;

/* The parts of something sealed, borrowed from it. */
typedef struct {
    uint32_t n;
    const uint8_t *bytes[BT_RAILS_MAX];
    size_t n_bytes[BT_RAILS_MAX];
    uint64_t base, region_bytes;
    baton_memory_kind memory;
} rails_parts;

/* Errors: INVALID_ARG, VERSION_MISMATCH. What another backend has sealed is one part, which
 * the rail will look at. */
baton_status bt_rails_unseal(const void *bytes, size_t n_bytes, bool is_key, rails_parts *parts);

baton_status bt_rails_connect(bt_worker *worker, const void *address, size_t address_bytes,
                              uint64_t user_data, bt_endpoint **endpoint_p);
void bt_rails_close(bt_endpoint *endpoint, bt_close_mode mode, uint64_t user_data);
void bt_rails_path(bt_endpoint *endpoint, bt_path *out);
baton_status bt_rails_import(bt_endpoint *endpoint, const void *rkey, size_t rkey_bytes,
                             bt_remote **remote_p);
void bt_rails_release(bt_remote *remote);
baton_status bt_rails_map(bt_remote *remote, uint64_t remote_addr, void **local_p);
bool bt_rails_populate(bt_remote *remote, uint64_t remote_addr, uint64_t bytes);
baton_status bt_rails_put(bt_endpoint *endpoint, bt_memory *local, bt_remote *remote,
                          const bt_run *runs, uint32_t n_runs, uint64_t user_data);
baton_status bt_rails_flush(bt_endpoint *endpoint, uint64_t user_data);
baton_status bt_rails_send(bt_endpoint *endpoint, const void *bytes, size_t n_bytes);
/* What a rail's worker reported, but for messages. */
void bt_rails_on_event(rails_worker *worker, const bt_event *event);
void bt_rails_endpoint_free(rails_endpoint *endpoint);

#endif
