/* SPDX-License-Identifier: Apache-2.0 */
/* The tests of HTTP and some of the proxy's run twice: as they are, and with everything in TLS
 * (BATON_TEST_TLS in the environment). What they need for that is here. Thread rule: the test's
 * thread. */
#ifndef BT_TESTS_TLSKIT_H
#define BT_TESTS_TLSKIT_H
#include "http/httptls.h"

#include <stddef.h>

/* A folder with an authority "ca" and, signed by it, "server" (localhost, 127.0.0.1, ::1) and
 * "client". It goes when the program ends. */
const char *tlskit_folder(void);
/* FOLDER/NAME into path[256]. */
char *tlskit_path(char *path, const char *name);

/* Contexts for the two ends; NULL when the tests run without TLS. */
bt_tls_context *tlskit_server(void);
bt_tls_context *tlskit_client(void);

/* For raw sockets: OpenSSL's own blocking calls on a connected socket; send and recv on one that
 * has no session, as when the tests run without TLS. A session goes when its descriptor's number is
 * used again. */
void tlskit_connect(int fd);
void tlskit_forget(int fd);
void tlskit_send(int fd, const char *bytes, size_t n);
/* As recv: 0 at the end, -1 with errno. */
long tlskit_recv(int fd, char *out, size_t room);

#endif
