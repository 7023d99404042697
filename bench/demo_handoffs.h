/* SPDX-License-Identifier: Apache-2.0 */
/* What moved for each request, as the receivers counted it: read from the logs that the proxy and
 * the decode engines write at level debug. The proxy's log says which attempt a request became, the
 * decode engines' what was received for an attempt.
 * Thread rule: owner thread. */
#ifndef BT_BENCH_DEMO_HANDOFFS_H
#define BT_BENCH_DEMO_HANDOFFS_H
#include "bench/demo_run.h"

typedef struct {
    char attempt[160];
    uint32_t n_ranks;               /* that reported; 0: nothing is known */
    uint32_t n_chunks, sent_chunks; /* over ranks */
    uint64_t sent_bytes;            /* over ranks */
    uint64_t move_us;               /* of the slowest rank */
} bt_demo_handoff;

/* Reads folder/proxy.log and folder/decode-<i>.log for i from 1 to n_decoders, and fills
 * handoffs[n] (zeroed). Errors: IO. */
baton_status bt_demo_handoffs_read(const char *folder, uint32_t n_decoders,
                                   const bt_demo_request *requests, uint32_t n,
                                   bt_demo_handoff *handoffs);

#endif
