/* SPDX-License-Identifier: Apache-2.0 */
/* Engines of each role, whole: what they lack at their start is said, and nothing is left behind.
 */
#include "core/fail.h"
#include "engine/engineserver.h"
#include "support/oom.h"
#include "support/test.h"

static baton_status make_engine(void *ctx)
{
    static const char *const small[] = {"pool_bytes=2097152"};
    const bt_engine_role role = *(const bt_engine_role *)ctx;
    const bt_engine_options options = {.role = role,
                                       .seed = 5,
                                       .tp = 2,
                                       .threads = 2,
                                       .chunk_tokens = 32,
                                       .max_running = 2,
                                       .kv_blocks = 16,
                                       .overrides = small,
                                       .n_overrides = role == BT_ROLE_DECODE};
    bt_loop *loop;
    bt_engine_server *server;
    BATON_TRY(bt_loop_create(&loop));
    baton_status status = bt_engine_server_create(loop, &options, &server);
    if (status == BATON_OK)
        bt_engine_server_destroy(server, 0);
    bt_loop_destroy(loop);
    return status;
}

typedef void (*bt_check)(bt_attempt attempt, void *ctx);

static void check_roles(bt_check check)
{
    bt_engine_role roles[] = {BT_ROLE_BOTH, BT_ROLE_PREFILL, BT_ROLE_DECODE};
    for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++)
        check(make_engine, &roles[i]);
}

static void every_role_without_memory_is_refused(void **state)
{
    (void)state;
    check_roles(bt_check_scarce_memory);
}

static void every_role_without_descriptors_is_refused(void **state)
{
    (void)state;
    check_roles(bt_check_scarce_descriptors);
}

static void every_role_without_threads_is_refused(void **state)
{
    (void)state;
    check_roles(bt_check_scarce_threads);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(every_role_without_memory_is_refused),
        bt_test(every_role_without_descriptors_is_refused),
        bt_test(every_role_without_threads_is_refused),
    };
    return bt_run_tests(tests);
}
