/* SPDX-License-Identifier: Apache-2.0 */
/* What can be asked of a proxy from outside (docs/operations.md). A question goes from loop thread
 * to loop thread, each of which writes what it has:
 *
 *   admin thread --post--> loop 0 --post--> loop 1 ... loop n-1 --answered--> admin thread
 *
 * Thread rule: open before the loops run; close when they have stopped. */
#ifndef BT_PROXY_PROXYADMIN_H
#define BT_PROXY_PROXYADMIN_H
#include <baton/status.h>

struct bt_proxy;
typedef struct bt_proxy_admin bt_proxy_admin;

/* *admin_p is NULL when it is off. Errors: as bt_admin_open. */
baton_status bt_proxy_admin_open(struct bt_proxy *proxy, bt_proxy_admin **admin_p);
void bt_proxy_admin_close(bt_proxy_admin *admin); /* NULL is allowed. */
const char *bt_proxy_admin_address(const bt_proxy_admin *admin);

#endif
