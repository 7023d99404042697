/* SPDX-License-Identifier: Apache-2.0 */
/* Prefill and decode engines of other projects, as far as a proxy sees them: what they accept, what
 * they refuse, what they answer, and what becomes of the KV between them. A decode engine that is
 * told nothing useful computes the prompt itself, as the real ones do, and says so here only. What
 * an engine would choke on is answered with 400 and the reason.
 *
 * Thread rule: read the counters after the answers have come. */
#ifndef BT_TESTS_ENGINEBRAINS_H
#define BT_TESTS_ENGINEBRAINS_H
#include "fakeengine.h"

#include <stdatomic.h>

enum { BRAIN_MAX_HELD = 16 };

/* What a pair of engines shares: the KV that one holds for the other. */
typedef struct {
    char held[BRAIN_MAX_HELD][128]; /* names of what the prefill engine keeps; "": free */
    atomic_int n_made, n_taken;     /* hand-offs begun, and completed */
    atomic_int n_recomputed;        /* prompts that the decode engine computed itself */
    unsigned room;                  /* of the next block id */
    unsigned life;                  /* of the prefill engine: part of its names */
} brain_kv;

/* KV that was made and never taken. */
unsigned brain_stranded(const brain_kv *kv);

bool brain_nixl_prefill(void *kv, const fake_request *request, fake_answer *answer);
bool brain_nixl_decode(void *kv, const fake_request *request, fake_answer *answer);
bool brain_trtllm_prefill(void *kv, const fake_request *request, fake_answer *answer);
bool brain_trtllm_decode(void *kv, const fake_request *request, fake_answer *answer);
/* Both ends; the role is in the parameters, or in which address the id's hold. */
bool brain_moriio_prefill(void *kv, const fake_request *request, fake_answer *answer);
bool brain_moriio_decode(void *kv, const fake_request *request, fake_answer *answer);
bool brain_p2p_prefill(void *kv, const fake_request *request, fake_answer *answer);
bool brain_p2p_decode(void *kv, const fake_request *request, fake_answer *answer);
/* Engines that meet, in whichever order the legs come: the decode engine waits until the other one
 * has something for it. */
bool brain_push_prefill(void *kv, const fake_request *request, fake_answer *answer);
bool brain_push_decode(void *kv, const fake_request *request, fake_answer *answer);
/* The same engine says so at /query of its bootstrap port. */
bool brain_mooncake_prefill(void *kv, const fake_request *request, fake_answer *answer);
bool brain_mooncake_decode(void *kv, const fake_request *request, fake_answer *answer);
bool brain_sglang_prefill(void *kv, const fake_request *request, fake_answer *answer);
bool brain_sglang_decode(void *kv, const fake_request *request, fake_answer *answer);

#endif
