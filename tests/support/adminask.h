/* SPDX-License-Identifier: Apache-2.0 */
/* A client of admin sockets (core/adminserver.h), good or bad. What goes wrong fails the test.
 * Thread rule: any thread. */
#ifndef BT_TESTS_ADMINASK_H
#define BT_TESTS_ADMINASK_H
#include "support/test.h"

/* A socket that is connected to "unix:PATH" or "HOST:PORT". */
int bt_admin_connect(const char *address);
void bt_admin_send(int fd, const char *text);
/* All that comes until the other side closes, 0-terminated; freed with free. Closes fd. */
char *bt_admin_receive(int fd);
/* One question, "/pages?state=landed", and the body of its answer, which must have this status. */
char *bt_admin_ask(const char *address, const char *target, unsigned status);

/* A runtime folder of this test's own, for sockets of `admin: auto`; gone with the process's end.
 */
void bt_admin_own_folder(void);
void bt_admin_remove_folder(void);

#endif
