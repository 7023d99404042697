/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/kvwait.h"
#include "support/test.h"

#include <sodium.h>
#include <stdio.h>

static const uint64_t epoch = 0xfeed;

static bt_kvwait *open_table(void)
{
    bt_kvwait *table = NULL;
    assert_true(sodium_init() >= 0);
    assert_ok(bt_kvwait_create(epoch, 3, &table));
    return table;
}

static bt_kv_notice notice_for(const char *id, int rank, uint32_t world)
{
    bt_kv_notice notice = {.has_rank = rank >= 0, .world = world};
    notice.rank = rank >= 0 ? (uint32_t)rank : 0;
    snprintf(notice.id, sizeof(notice.id), "%s", id);
    return notice;
}

static bt_heard hear(bt_kvwait *table, const char *id, int rank, uint32_t world)
{
    bt_kv_entry *entry;
    bt_kv_notice notice = notice_for(id, rank, world);
    return bt_kvwait_notice(table, &notice, &entry);
}

static void ready_when_every_distinct_rank_was_heard(void **state)
{
    (void)state;
    bt_kvwait *table = open_table();
    bt_kv_entry entry = {0};
    bt_kvwait_add(table, &entry, 2, true);
    assert_int_equal(hear(table, entry.id, 1, 2), BT_HEARD_MATCHED);
    assert_int_equal(hear(table, entry.id, 1, 2), BT_HEARD_DUPLICATE);
    assert_false(entry.ready);
    assert_int_equal(hear(table, entry.id, 0, 2), BT_HEARD_READY);
    assert_true(entry.ready);
    assert_int_equal(hear(table, entry.id, 0, 2), BT_HEARD_DUPLICATE);
    bt_kvwait_remove(table, &entry);
    assert_int_equal(hear(table, entry.id, 0, 2), BT_HEARD_LATE);
    assert_int_equal(bt_kvwait_count(table), 0);
    bt_kvwait_destroy(table);
}

static void frames_without_rank_are_counted(void **state)
{
    (void)state;
    bt_kvwait *table = open_table();
    bt_kv_entry entry = {0};
    bt_kvwait_add(table, &entry, 2, true);
    assert_int_equal(hear(table, entry.id, -1, 0), BT_HEARD_MATCHED);
    assert_int_equal(hear(table, entry.id, -1, 0), BT_HEARD_READY);
    bt_kvwait_remove(table, &entry);
    bt_kvwait_destroy(table);
}

static void world_of_a_notice_is_learnt_and_may_not_change(void **state)
{
    (void)state;
    bt_kvwait *table = open_table();
    bt_kv_entry entry = {0};
    bt_kvwait_add(table, &entry, 1, true);
    assert_int_equal(hear(table, entry.id, 0, 3), BT_HEARD_MATCHED);
    assert_int_equal(hear(table, entry.id, 1, 2), BT_HEARD_INVALID);
    assert_int_equal(hear(table, entry.id, 3, 3), BT_HEARD_INVALID);
    assert_int_equal(hear(table, entry.id, 64, 0), BT_HEARD_INVALID);
    assert_int_equal(hear(table, entry.id, 1, 65), BT_HEARD_INVALID);
    assert_int_equal(hear(table, entry.id, 1, 3), BT_HEARD_MATCHED);
    assert_int_equal(hear(table, entry.id, 2, 3), BT_HEARD_READY);
    bt_kvwait_remove(table, &entry);
    /* A number given by hand stays. */
    bt_kvwait_add(table, &entry, 1, false);
    assert_int_equal(hear(table, entry.id, 0, 3), BT_HEARD_READY);
    bt_kvwait_remove(table, &entry);
    bt_kvwait_destroy(table);
}

static void one_failure_decides(void **state)
{
    (void)state;
    bt_kvwait *table = open_table();
    bt_kv_entry entry = {0}, *found;
    bt_kvwait_add(table, &entry, 2, true);
    assert_int_equal(hear(table, entry.id, 0, 2), BT_HEARD_MATCHED);
    bt_kv_notice failed = notice_for(entry.id, 1, 2);
    failed.failed = true;
    snprintf(failed.text, sizeof(failed.text), "put timed out");
    assert_int_equal(bt_kvwait_notice(table, &failed, &found), BT_HEARD_FAILED);
    assert_ptr_equal(found, &entry);
    assert_string_equal(entry.text, "put timed out");
    assert_int_equal(hear(table, entry.id, 1, 2), BT_HEARD_DUPLICATE);
    assert_false(entry.ready);
    bt_kvwait_remove(table, &entry);
    bt_kvwait_destroy(table);
}

static void failure_after_ready_is_an_expired_hold(void **state)
{
    (void)state;
    bt_kvwait *table = open_table();
    bt_kv_entry entry = {0}, *found;
    bt_kvwait_add(table, &entry, 1, true);
    assert_int_equal(hear(table, entry.id, 0, 1), BT_HEARD_READY);
    bt_kv_notice failed = notice_for(entry.id, 0, 1);
    failed.failed = true;
    assert_int_equal(bt_kvwait_notice(table, &failed, &found), BT_HEARD_EXPIRED);
    assert_true(entry.ready);
    bt_kvwait_remove(table, &entry);
    bt_kvwait_destroy(table);
}

static void strangers_are_unknown(void **state)
{
    (void)state;
    bt_kvwait *table = open_table();
    bt_kv_entry entry = {0};
    bt_kvwait_add(table, &entry, 1, true);
    char other[BT_ATTEMPT_ID_BYTES];
    memcpy(other, entry.id, sizeof(other));
    size_t last = strlen(other) - 1;
    other[last] = other[last] == '0' ? '1' : '0'; /* all but the last random bit */
    assert_int_equal(hear(table, other, 0, 1), BT_HEARD_UNKNOWN);
    assert_int_equal(hear(table, "12", -1, 0), BT_HEARD_UNKNOWN);
    assert_int_equal(hear(table, "", -1, 0), BT_HEARD_UNKNOWN);
    assert_false(entry.ready);
    bt_kvwait_remove(table, &entry);
    bt_kvwait_remove(table, &entry);
    bt_kvwait_destroy(table);
}

/* A request's attempts follow each other in one entry. */
static void an_earlier_attempts_notices_never_complete_a_later_one(void **state)
{
    (void)state;
    bt_kvwait *table = open_table();
    bt_kv_entry entry = {0};
    char earlier[8][BT_ATTEMPT_ID_BYTES];
    for (int attempt = 0; attempt < 8; attempt++) {
        bt_kvwait_add(table, &entry, 2, true);
        for (uint32_t i = 0; i < 2 * (uint32_t)attempt; i++) {
            bt_heard heard = hear(table, earlier[i / 2], (int)(i % 2), 2);
            /* Of two ids with one place in the memory of ended attempts, the first is forgotten. */
            assert_true(heard == BT_HEARD_LATE || heard == BT_HEARD_UNKNOWN);
        }
        assert_int_equal(hear(table, entry.id, 0, 2), BT_HEARD_MATCHED);
        assert_false(entry.ready || entry.failed);
        memcpy(earlier[attempt], entry.id, sizeof(entry.id));
        bt_kvwait_remove(table, &entry);
    }
    bt_kvwait_destroy(table);
}

static void no_signal_needed_means_ready_at_once(void **state)
{
    (void)state;
    bt_kvwait *table = open_table();
    bt_kv_entry entry = {0};
    bt_kvwait_add(table, &entry, 0, true);
    assert_true(entry.ready);
    bt_kvwait_remove(table, &entry);
    bt_kvwait_destroy(table);
}

static void an_id_names_its_thread_and_life(void **state)
{
    (void)state;
    bt_kvwait *table = open_table();
    bt_kv_entry a = {0}, b = {0};
    bt_kvwait_add(table, &a, 1, true);
    bt_kvwait_add(table, &b, 1, true);
    assert_string_not_equal(a.id, b.id);
    assert_int_equal(bt_kvwait_thread_of(a.id, epoch), 3);
    assert_int_equal(bt_kvwait_thread_of(a.id, epoch + 1), -1);
    assert_true(bt_kvwait_is_id(a.id) && bt_kvwait_is_id(b.id));
    assert_false(bt_kvwait_is_id("12") || bt_kvwait_is_id("000000000000feed.3.1."));
    assert_int_equal(bt_kvwait_thread_of("12", epoch), -1);
    assert_int_equal(bt_kvwait_thread_of("000000000000feed.", epoch), -1);
    assert_int_equal(bt_kvwait_thread_of("000000000000feed.7", epoch), -1);
    assert_int_equal(bt_kvwait_thread_of("000000000000feed.99999999999999999999.", epoch), -1);
    assert_int_equal(bt_kvwait_thread_of("000000000000feed.-1.", epoch), -1);
    bt_kvwait_remove(table, &a);
    bt_kvwait_remove(table, &b);
    bt_kvwait_destroy(table);
}

static void many_entries_come_and_go_in_any_order(void **state)
{
    (void)state;
    enum { N = 10000 };
    bt_kvwait *table = open_table();
    bt_kv_entry *entries = calloc(N, sizeof(*entries));
    bt_rng rng = {.state = 7};
    for (int step = 0; step < 4 * N; step++) {
        bt_kv_entry *entry = &entries[bt_rng_below(&rng, N)];
        if (entry->listed)
            bt_kvwait_remove(table, entry);
        else
            bt_kvwait_add(table, entry, 1, false);
    }
    uint32_t n_listed = 0;
    for (int i = 0; i < N; i++)
        n_listed += entries[i].listed;
    assert_int_equal(bt_kvwait_count(table), n_listed);
    for (int i = 0; i < N; i++) {
        if (entries[i].listed) {
            assert_int_equal(hear(table, entries[i].id, 0, 1), BT_HEARD_READY);
            bt_kvwait_remove(table, &entries[i]);
        }
    }
    assert_int_equal(bt_kvwait_count(table), 0);
    free(entries);
    bt_kvwait_destroy(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(ready_when_every_distinct_rank_was_heard),
        bt_test(frames_without_rank_are_counted),
        bt_test(world_of_a_notice_is_learnt_and_may_not_change),
        bt_test(one_failure_decides),
        bt_test(failure_after_ready_is_an_expired_hold),
        bt_test(strangers_are_unknown),
        bt_test(an_earlier_attempts_notices_never_complete_a_later_one),
        bt_test(no_signal_needed_means_ready_at_once),
        bt_test(an_id_names_its_thread_and_life),
        bt_test(many_entries_come_and_go_in_any_order),
    };
    return bt_run_tests(tests);
}
