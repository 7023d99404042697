/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of baton-doctor, and the hand-off's configuration that it looks at.
 * Thread rule: owner thread. */
#ifndef BT_DOCTOR_OPTIONS_H
#define BT_DOCTOR_OPTIONS_H
#include "core/args.h"
#include "core/fileoptions.h"

enum { BT_DOCTOR_OVERRIDES_MAX = 256, BT_DOCTOR_HOST_BYTES = 256 };

typedef enum {
    BT_DOCTOR_COLOR_AUTO,
    BT_DOCTOR_COLOR_ALWAYS,
    BT_DOCTOR_COLOR_NEVER
} bt_doctor_color;

typedef struct {
    const char *root; /* "": this machine */
    bool json, verbose;
    int color;                       /* bt_doctor_color */
    const char *peer;                /* as given, NULL: none */
    char host[BT_DOCTOR_HOST_BYTES]; /* of peer, its port below */
    uint16_t init_port;
    uint32_t timeout_ms; /* of each stage of the peer's check */
    const char *config_path;
    const char *overrides[BT_DOCTOR_OVERRIDES_MAX]; /* [n_overrides] "key=value" */
    uint32_t n_overrides;
    bt_file_options file; /* what the hand-off's configuration says */
    bt_config *own, *hand_off;
    bt_args *args;
    bt_config_table table; /* own and args borrow these two */
    bt_args_spec spec;
} bt_doctor_options;

/* argv is borrowed as long as the options live. When *info is not empty it is a text to print
 * instead of anything else (--help, --version). Freed with bt_doctor_options_free, also after an
 * error. Errors: INVALID_ARG, CONFIG, IO, NO_MEMORY. */
baton_status bt_doctor_options_parse(int argc, char *const *argv, bt_doctor_options *options,
                                     bt_strbuf *info);
void bt_doctor_options_free(bt_doctor_options *options);

#endif
