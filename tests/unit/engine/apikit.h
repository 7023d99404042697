/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the engine's HTTP side share: a real server over the fake model, its loop on a
 * thread of its own, forward passes that the test can hold back, and a hand-off that notes what it
 * is asked.
 *
 * Thread rule: the test's thread, but api_call any. */
#ifndef BT_TESTS_APIKIT_H
#define BT_TESTS_APIKIT_H
#include "support/test.h"

#include <jansson.h>
#include <pthread.h>

#include "engine/engineapi.h"
#include "engine/fakemodel.h"
#include "support/httpask.h"

enum { MAX_LEN = 2000, N_BLOCKS = 1000 };

typedef struct {
    bt_loop *loop;
    bt_api *api;
    uint16_t port;
    pthread_t thread;
    bt_fake_model model;
    bt_tokenizer *tokenizer;
    bt_handoff_ops ops;
    pthread_mutex_t lock;
    pthread_cond_t opened;
    bool held; /* forward passes wait */
    /* what the fake hand-off saw */
    bt_handoff_target target;
    uint32_t n_tokens, n_chunks;
    bool finished, told;
    void *transfer_user;
    baton_status fails; /* begin fails */
} bench;

extern const char *const api_names[2]; /* of the model */

/* Forward passes wait, or go on. */
void api_hold(bench *b, bool held);
bench *api_open(bool sends, uint32_t max_running, uint32_t max_queued);
/* The bench's loop, as a thread; for a test that has ended the first. */
void *api_run_loop(void *arg);
/* Every block is back. */
void api_close(bench *b);
/* Waits until a statistic has a value; the hang guard is ctest's. */
void api_wait_for(bench *b, size_t offset, uint64_t wanted, bool is_u64);
#define WAIT_FOR_U64(b, field, wanted) \
    api_wait_for((b), offsetof(bt_scheduler_stats, field), (wanted), true)
#define WAIT_FOR_U32(b, field, wanted) \
    api_wait_for((b), offsetof(bt_scheduler_stats, field), (wanted), false)
/* POST of body, or GET where it is NULL; the answer, owned by the caller, must have the status. */
json_t *api_call(bench *b, const char *path, const char *body, unsigned status);
json_t *first_choice(const json_t *root);
/* "(none)" where there is no such text. */
const char *text_of(const json_t *object, const char *key);

#endif
