/* SPDX-License-Identifier: Apache-2.0 */
/* The control thread: everything the proxy says or hears over ZMQ.
 *
 *   engines --PUSH--> PULL (bound)  notices, handed to the loop that the id names
 *   loops --ring--> this thread --DEALER--> alloc ports of a decode engine's receivers:
 *       STATUS (a notice is late) and RELEASE (a hand-off nobody will use)
 *
 * It sleeps in zmq_poll over its sockets and the ring's doorbell. A frame that cannot be read is
 * counted and dropped, and the next one is read as any other.
 *
 * Thread rule: create and destroy from the owner's thread; ask from any thread. */
#ifndef BT_PROXY_KVCONTROL_H
#define BT_PROXY_KVCONTROL_H
#include <baton/options.h>

#include "proxy/kvwait.h"
#include "proxy/proxymetrics.h"

typedef struct bt_kvcontrol bt_kvcontrol;

typedef struct {
    const char *host; /* numeric or a name, to bind the PULL socket to; borrowed during start */
    uint16_t port;    /* 0: any free one */
    uint64_t epoch;   /* of this process life; part of every id */
    uint32_t n_threads;
    const bt_worker_pool *decoders; /* borrowed; not changed any more */
    /* Called on the control thread for each notice of thread `thread`. */
    void (*deliver)(void *ctx, uint32_t thread, const bt_kv_notice *notice);
    void *ctx;
    /* Receivers understand RELEASE: what was got ready for a former life of this proxy is released,
     * since the engines' notices come to the address that they were told, and nobody waits. */
    bool releases_former;
    /* key_file; server_key, of the receivers; clients_path, of those whose notices are heard.
     * Borrowed during start. */
    baton_security security;
} bt_kvcontrol_options;

typedef enum { BT_ASK_STATUS, BT_ASK_RELEASE } bt_ask;

/* Binds and starts the thread. Errors: ADDRESS_IN_USE, INVALID_ARG, NO_MEMORY, IO, and those of
 * bt_security_open_client and _server. */
baton_status bt_kvcontrol_start(const bt_kvcontrol_options *options, bt_kvcontrol **control_p);
uint16_t bt_kvcontrol_port(const bt_kvcontrol *control);
/* Sends STATUS or RELEASE for the attempt to every rank of decode engine `decoder`. Never blocks; a
 * full queue drops it, counted. */
void bt_kvcontrol_ask(bt_kvcontrol *control, bt_ask ask, uint32_t decoder, const char *id);
const bt_kvcontrol_metrics *bt_kvcontrol_counters(const bt_kvcontrol *control);
uint64_t bt_kvcontrol_cut_total(const bt_kvcontrol *control); /* connections to the notice port */
/* Stops the thread: no notice is delivered any more, and what is asked from now on is dropped, as
 * is what was not sent yet (leases end it). NULL is allowed. */
void bt_kvcontrol_stop(bt_kvcontrol *control);
/* Stops it if need be and closes everything. NULL is allowed. */
void bt_kvcontrol_destroy(bt_kvcontrol *control);

#endif
