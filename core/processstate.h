/* SPDX-License-Identifier: Apache-2.0 */
/* What a process has once: the thread's error text, the log sink and its level. libbaton_sender.so
 * and libbaton_receiver.so each carry a copy of core; these two functions are exported, so that in
 * a process that loads both, every copy's calls end in the same one.
 *
 * Not public, but part of the ABI between the two libraries: never change a layout here.
 * Thread rule: any thread. */
#ifndef BT_CORE_PROCESSSTATE_H
#define BT_CORE_PROCESSSTATE_H
#include <baton/log.h>
#include <stdatomic.h>

typedef struct {
    baton_log_fn sink; /* NULL: stderr; set up before threads start */
    void *sink_ctx;
    atomic_int max_level; /* baton_log_level; relaxed, it orders nothing */
} bt_log_state;

/* This thread's text, [BT_ERROR_TEXT_BYTES], "" at first. */
BATON_API char *baton_process_error_text(void);
BATON_API bt_log_state *baton_process_log(void);

#endif
