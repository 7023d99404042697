/* SPDX-License-Identifier: Apache-2.0 */
/* baton-proxy's command line: its own flags, and those of LMCache's proxies, so that start scripts
 * need only another program name. Engines are given either way, not both.
 * Thread rule: owner thread. */
#ifndef BT_PROXY_PROXYFLAGS_H
#define BT_PROXY_PROXYFLAGS_H
#include "core/args.h"
#include "proxy/proxy.h"

extern const bt_args_spec bt_proxy_args_spec;

/* What the options borrow. */
typedef struct {
    bt_worker_address prefill[BT_MAX_WORKERS], decode[BT_MAX_WORKERS];
    char host[BT_HOST_BYTES], notice_host[BT_HOST_BYTES];
} bt_proxy_flag_room;

/* Fills options from the parsed line; they borrow room and args. Errors: INVALID_ARG,
 * OUT_OF_RANGE ("--flag: wanted ..., found ..."), TOO_LARGE. */
baton_status bt_proxy_flags_read(const bt_args *args, bt_proxy_flag_room *room,
                                 bt_proxy_options *options);

#endif
