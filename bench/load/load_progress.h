/* SPDX-License-Identifier: Apache-2.0 */
/* The progress bar of a load run: one line on stderr, drawn over and over.
 * Thread rule: owner thread. */
#ifndef BT_BENCH_LOAD_PROGRESS_H
#define BT_BENCH_LOAD_PROGRESS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const char *title; /* in front of the bar; "": none */
    uint32_t n_requests;
    uint32_t n_running;
    uint32_t n_ended; /* failed ones too */
    uint32_t n_failed;
    uint64_t n_output_tokens;
    uint64_t elapsed_ns;
} bt_load_progress;

/* stderr is a terminal. */
bool bt_load_progress_is_wanted(void);
/* The line's text into out[cap], 0-terminated. */
void bt_load_progress_format(const bt_load_progress *progress, char *out, size_t cap);
void bt_load_progress_draw(const bt_load_progress *progress);
void bt_load_progress_clear(void);

#endif
