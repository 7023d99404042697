/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of baton-ctl.
 * Thread rule: owner thread. */
#ifndef BT_CTL_OPTIONS_H
#define BT_CTL_OPTIONS_H
#include "core/args.h"

enum { BT_CTL_ENDPOINTS_MAX = 64 };

typedef struct {
    const char *command; /* "transfers" ... */
    const char *id;      /* of `trace`; NULL: none */
    const char *at[BT_CTL_ENDPOINTS_MAX];
    uint32_t n_at; /* 0: look for endpoints */
    /* By the table in ctl_options.c. */
    bool json;
    const char *state;
    uint32_t limit, watch_ms, timeout_ms;
    bt_config_table table;
    bt_args_spec spec;
    bt_args *args;
    bt_config *config;
} bt_ctl_options;

/* *info is not empty when the user asked for help, which then is in it. Errors: INVALID_ARG,
 * CONFIG, NO_MEMORY. */
baton_status bt_ctl_options_parse(int argc, char *const *argv, bt_ctl_options *options,
                                  bt_strbuf *info);
void bt_ctl_options_free(bt_ctl_options *options);

#endif
