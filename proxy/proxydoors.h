/* SPDX-License-Identifier: Apache-2.0 */
/* Who comes in, and how engines are spoken to: TLS on either side, and API keys. All of it comes
 * from files that can be read again while the proxy runs.
 *
 * Thread rule: open and close: the owner's. The rest: any thread. */
#ifndef BT_PROXY_PROXYDOORS_H
#define BT_PROXY_PROXYDOORS_H
#include "http/httptls.h"
#include "proxy/apikeys.h"

/* Files; NULL: without. Borrowed during open. */
typedef struct {
    const char *tls_certificate, *tls_key; /* the listener speaks TLS; key NULL: in the same file */
    const char *tls_client_ca;             /* clients must show a certificate that it signed */
    const char *api_keys;
    const char *engine_ca; /* of engines with https://; NULL: the system's authorities */
    const char *engine_certificate, *engine_key; /* shown to engines */
} bt_door_files;

typedef struct {
    bt_tls_context *listener; /* NULL: plain HTTP */
    bt_tls_context *engines;  /* NULL: no engine has https:// */
    bt_apikeys *keys;         /* NULL: everybody may ask */
} bt_doors;

/* Errors: CONFIG, PERMISSION, NOT_FOUND, NO_MEMORY, IO. */
baton_status bt_doors_open(const bt_door_files *files, bool has_tls_engines, bt_doors *doors);
/* Reads all files again; what fails stays as it is, and the first failure is told. */
baton_status bt_doors_reload(const bt_doors *doors);
void bt_doors_close(bt_doors *doors);

#endif
