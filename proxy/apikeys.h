/* SPDX-License-Identifier: Apache-2.0 */
/* Who may ask: keys in a file, one a line, empty lines and those that begin with '#' left out. A
 * request shows one of them, "Authorization: Bearer KEY". Only digests are kept, and how long a
 * look takes tells nothing about them.
 *
 * Thread rule: any thread, but for create and destroy. */
#ifndef BT_PROXY_APIKEYS_H
#define BT_PROXY_APIKEYS_H
#include <baton/status.h>

#include <stdbool.h>

enum { BT_API_KEY_BYTES_MAX = 512, BT_API_KEYS_MAX = 4096 };

typedef struct bt_apikeys bt_apikeys;

/* Errors: PERMISSION (others may read the file), NOT_FOUND, CONFIG (no key, one that is too long or
 * has white space in it, too many), NO_MEMORY, IO. */
baton_status bt_apikeys_create(const char *path, bt_apikeys **keys_p);
/* Reads the file again; on failure the old keys stay. */
baton_status bt_apikeys_reload(bt_apikeys *keys);
/* authorization: the header's value; NULL: there is none. */
bool bt_apikeys_admit(bt_apikeys *keys, const char *authorization);
void bt_apikeys_destroy(bt_apikeys *keys); /* NULL is allowed */

#endif
