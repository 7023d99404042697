/* SPDX-License-Identifier: Apache-2.0 */
/* From what a user configured (baton_security) to what a socket needs: loads the keys, starts the
 * authentication handler, and refuses to listen to strangers.
 *
 *   bt_security_open_server(context, &options.security, host, &security);
 *   bt_security_apply(&security, &socket_options);
 *   bt_zmq_open(context, &socket_options, &socket); ...
 *   close all sockets; bt_security_close(&security); bt_zmq_context_destroy(context);
 *
 * Thread rule: owner thread. */
#ifndef BT_WIRE_SECURITY_H
#define BT_WIRE_SECURITY_H
#include <baton/options.h>

#include "wire/zmqsocket.h"

typedef struct {
    bool has_keys, is_server;
    bt_curve_keys keys;
    char server_public[BT_CURVE_KEY_CHARS + 1]; /* client */
    char proxy_public[BT_CURVE_KEY_CHARS + 1];  /* of whom notices go to; "": none */
    bt_zap *zap;                                /* server; one per context */
} bt_security;

/* For sockets that bind to host. Without a key file: only loopback, unless allow_unauthenticated.
 * With one, clients_path is needed too. Errors: PERMISSION, CONFIG (what to set), and those of
 * bt_curve_load_secret and bt_zap_create. */
baton_status bt_security_open_server(void *context, const baton_security *options, const char *host,
                                     bt_security *security);
/* For sockets that connect. With a key file, server_key is needed too. Errors: CONFIG, and those of
 * bt_curve_load_*. */
baton_status bt_security_open_client(const baton_security *options, bt_security *security);
/* Fills the keys of options; security is borrowed until bt_zmq_open has returned. */
void bt_security_apply(const bt_security *security, bt_zmq_options *options);
/* The same for a socket that notices leave by, of either side. Errors: PERMISSION (there are keys,
 * but none of the proxy: a notice must not leave in the clear). */
baton_status bt_security_apply_notices(const bt_security *security, bt_zmq_options *options);
/* Ends the handler and overwrites the keys. After the sockets are closed. A zeroed one is allowed.
 */
void bt_security_close(bt_security *security);

#endif
