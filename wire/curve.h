/* SPDX-License-Identifier: Apache-2.0 */
/* CURVE: who may talk to us. Every process has a key pair; a server (receiver, proxy) also has a
 * folder with the public keys of those it lets in, which a bt_zap asks for each connection before
 * any frame of it is seen. Protocols: rfc.zeromq.org/spec/26 (CurveZMQ), /27 (ZAP).
 *
 * A key file holds one key, 40 characters of Z85, and lines that begin with '#'. NAME.key is the
 * secret key (mode 0600 or less), NAME.pub the public one.
 *
 * Thread rule: any thread; a bt_zap is created and destroyed by its owner. */
#ifndef BT_WIRE_CURVE_H
#define BT_WIRE_CURVE_H
#include <baton/status.h>
#include <stdbool.h>

enum { BT_CURVE_KEY_CHARS = 40, BT_CURVE_CLIENTS_MAX = 4096 };

typedef struct bt_zap bt_zap;

typedef struct {
    char public_key[BT_CURVE_KEY_CHARS + 1];
    char secret_key[BT_CURVE_KEY_CHARS + 1];
} bt_curve_keys;

/* A new pair. Errors: UNSUPPORTED (libzmq was built without CURVE). */
baton_status bt_curve_generate(bt_curve_keys *keys);
/* Reads a secret key and derives the public one. Errors: NOT_FOUND, PERMISSION (others may read
 * the file, or we may not), CORRUPT (no key in it). */
baton_status bt_curve_load_secret(const char *path, bt_curve_keys *keys);
/* Reads a public key. Errors: NOT_FOUND, PERMISSION, CORRUPT. */
baton_status bt_curve_load_public(const char *path, char key[BT_CURVE_KEY_CHARS + 1]);
/* Writes prefix.key (mode 0600) and prefix.pub; never over a file that is there. Leaves neither on
 * failure. Errors: BUSY (a file is there), PERMISSION, IO. */
baton_status bt_curve_save(const char *prefix, const bt_curve_keys *keys);
/* Overwrites the secret. */
void bt_curve_forget(bt_curve_keys *keys);

/* Before bind: peers must know our public key and be let in by zap, the handler of the socket's
 * context, which must outlive the socket: with no handler libzmq lets everybody in. */
baton_status bt_curve_apply_server(void *socket, const bt_curve_keys *keys, const bt_zap *zap);
/* Before connect. */
baton_status bt_curve_apply_client(void *socket, const bt_curve_keys *keys,
                                   const char *server_public);

typedef struct {
    uint64_t allowed_total; /* handshakes let in */
    uint64_t denied_total;  /* unknown keys, and malformed or foreign requests */
} bt_zap_stats;

/* Starts the one authentication handler of the context: a thread that lets in the keys of every
 * *.pub file in the folder, which it reads again for each handshake (keys stay as they were while
 * it cannot). An empty folder lets in nobody. Who is in stays in until its connection ends. Errors:
 * NOT_FOUND, CORRUPT (names the file), TOO_LARGE, STATE (the context has a handler), NO_MEMORY. */
baton_status bt_zap_create(void *context, const char *allowed_folder, bt_zap **zap_p);
/* Stops the thread and waits for it. After the server sockets are closed and before the context is
 * destroyed. NULL is allowed. */
void bt_zap_destroy(bt_zap *zap);
/* Any thread. */
void bt_zap_get_stats(const bt_zap *zap, bt_zap_stats *out);

#endif
