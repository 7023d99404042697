/* SPDX-License-Identifier: Apache-2.0 */
/* One end that lives and SLOTS others that restart on their addresses, again and again, in this
 * process or as processes of their own; and what the living end uses, which must not grow.
 * Thread rule: the test's thread. */
#ifndef BT_TESTS_RESTARTKIT_H
#define BT_TESTS_RESTARTKIT_H
#include <baton/receiver.h>
#include <baton/sender.h>

#include "bench/perf_usage.h"
#include "support/children.h"

enum {
    SLOTS = 8,
    CHUNK_TOKENS = 16,
    N_CHUNKS = 3,
    N_TOKENS = N_CHUNKS * CHUNK_TOKENS,
    TOKEN_BYTES = 128,
    CHUNK_BYTES = CHUNK_TOKENS * TOKEN_BYTES,
    SILENT_MS = 1000,
};

typedef struct {
    uint32_t tokens[N_TOKENS];
    baton_key keys[N_CHUNKS];
    uint8_t data[N_CHUNKS * CHUNK_BYTES];
} prompt;

/* The nth prompt, the same in every process. */
void prompt_make(uint64_t n, prompt *p);

typedef struct {
    uint16_t init, alloc;
} ports;

baton_receiver *receiver_open(baton_progress_mode progress, ports *at); /* 0: any; says which */
baton_sender *sender_open(baton_progress_mode progress, baton_path_choice path);
/* Starts the transfer `name` of p; pushes the first n_pushed chunks and, when that is all of them,
 * finishes it. */
baton_transfer hand_over(baton_sender *sender, ports to, const char *name, const prompt *p,
                         uint32_t n_pushed, uint64_t user_data);
/* All of p can be looked up at the receiver, byte by byte. */
void check_landed(baton_receiver *receiver, const prompt *p);

/* What is used at rest, after each of n rounds: its most in the second half must be no more than in
 * the second quarter, but for what comes and goes: one thing a slot, and what the C library keeps.
 * Prints one line. */
enum { ROUNDS_MAX = 4096 };
/* Before anything else, so that resident memory is what is in use. UCX allocates megabytes for each
 * worker and touches little of them. Once the C library has freed such a block it takes the next
 * ones from its heap, where every life leaves other pages touched, and keeps them: resident memory
 * creeps up, ever slower, to the most the heap has ever held, although no more is in use. */
void usage_open(void);
typedef struct {
    bt_perf_usage rounds[ROUNDS_MAX];
    uint32_t n;
} usage_log;
void usage_note(usage_log *log);
void usage_check(const usage_log *log, const char *what, uint32_t n_restarts);

#endif
