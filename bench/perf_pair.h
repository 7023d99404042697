/* SPDX-License-Identifier: Apache-2.0 */
/* The sending end of baton-perf: a sender in this process, the receiving end in another (or, with
 * --loop, in a thread), and a source of pages. What is measured with them is up to the caller.
 *
 *   prepare ──▶ begin ──▶ push every page ──▶ finish ──▶ end ──▶ check
 *   keys, bytes           measured, as the caller likes          every byte, at the other end
 *
 * Thread rule: owner thread. */
#ifndef BT_BENCH_PERF_PAIR_H
#define BT_BENCH_PERF_PAIR_H
#include "bench/perf_control.h"
#include "bench/perf_options.h"
#include "bench/perf_receiver.h"
#include "bench/perf_source.h"

#include <baton/log.h>
#include <pthread.h>

enum { BT_PERF_PATH_TEXT_BYTES = 256 };

typedef struct {
    const bt_perf_options *options;
    bt_perf_work work;
    bt_perf_source *source;
    bt_perf_control control; /* to the receiving end */
    baton_sender *sender;
    uint16_t init_port, alloc_port;
    baton_key *keys; /* [n_pages] of the transfer prepared last */
    uint32_t n_pages, last_tokens;
    uint32_t n_verified; /* transfers of which every byte was right */
    const char *notice;  /* to be set before a transfer: where its end is told; NULL: nowhere */
    char path[BT_PERF_PATH_TEXT_BYTES]; /* what the sender said when it connected */

    uint32_t *tokens;
    pid_t child;          /* of the receiver; -1: none of ours */
    bt_perf_place place;  /* --loop: of the receiver's thread */
    bt_perf_control away; /* --loop: its end of the channel */
    pthread_t thread;
    bool has_thread, set_tls;
    struct bt_loop_net *loop_net;
    baton_log_level level; /* to go back to */
} bt_perf_pair;

/* program: this executable, to start the receiver. The pair must stay where it is, and is to be
 * closed also after a failure. Errors: INVALID_ARG, NO_MEMORY, UNREACHABLE, IO, ... */
baton_status bt_perf_pair_open(const bt_perf_options *options, const char *program,
                               bt_perf_pair *pair);
/* Without a receiving end: whoever begins a transfer sets init_port and alloc_port. */
baton_status bt_perf_pair_open_alone(const bt_perf_options *options, bt_perf_pair *pair);
/* Returns status with the text it had. */
baton_status bt_perf_pair_close(bt_perf_pair *pair, baton_status status);

/* Keys and bytes of an iteration. No transfer may be under way. */
baton_status bt_perf_pair_prepare(bt_perf_pair *pair, uint32_t iteration);
/* Keys alone, of a transfer of fewer pages, the last of which may be shorter. */
baton_status bt_perf_pair_hash(bt_perf_pair *pair, uint32_t iteration, uint32_t n_pages,
                               uint32_t last_tokens);
/* Begins a transfer of what was prepared, under the request name of `name`. */
baton_status bt_perf_pair_begin(bt_perf_pair *pair, uint32_t name, baton_transfer *transfer);
baton_status bt_perf_pair_push(bt_perf_pair *pair, baton_transfer transfer, uint32_t page);
/* Moves the sender on, if that is up to us; then, with `sleep`, waits until something happens, at
 * most until until_ns. fd: also wakes; -1: none. */
void bt_perf_pair_wait(bt_perf_pair *pair, bool sleep, uint64_t until_ns, int fd);
/* The end of the one transfer there is, sleeping or polling. Errors: what the transfer failed
 * with; STATE (not n_sent pages were sent). */
baton_status bt_perf_pair_end(bt_perf_pair *pair, bool sleep, uint32_t n_sent,
                              baton_sender_event *end);
/* The receiving end looks request `name` up, which has the pages of `iteration` as prepared last,
 * and verifies every byte. *cpu_ns: its CPU time since it answered last; may be NULL. Result
 * CORRUPT: a byte was wrong. */
baton_status bt_perf_pair_check(bt_perf_pair *pair, uint32_t name, uint32_t iteration,
                                uint64_t *cpu_ns);
/* Which way the bytes went: mapped, put or mixed. */
const char *bt_perf_way(uint64_t bytes_sent, uint64_t bytes_mapped);
/* The same of all transfers so far, as the sender counted them. */
const char *bt_perf_pair_path(const bt_perf_pair *pair);

#endif
