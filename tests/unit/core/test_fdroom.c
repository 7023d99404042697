/* SPDX-License-Identifier: Apache-2.0 */
#include "core/fdroom.h"

#include "support/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

enum { LIMIT = 64 };
static struct rlimit before;
static int taken[LIMIT];
static int n_taken;

/* Takes descriptors until `n_left` are left. */
static void leave(int n_left)
{
    int fd;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    setrlimit(RLIMIT_NOFILE, &(struct rlimit){LIMIT, before.rlim_max});
    while ((fd = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
        taken[n_taken++] = fd;
    for (; n_left > 0; n_left--)
        close(taken[--n_taken]);
}

static void give_back(void)
{
    while (n_taken > 0)
        close(taken[--n_taken]);
    setrlimit(RLIMIT_NOFILE, &before);
}

static void room_is_what_can_be_opened(void **state)
{
    (void)state;
    leave(5);
    assert_int_equal(bt_fdroom(1), 1);
    assert_int_equal(bt_fdroom(5), 5);
    assert_int_equal(bt_fdroom(6), 5);
    assert_int_equal(bt_fdroom(BT_FDROOM_MAX), 5);
    assert_int_equal(bt_fdroom(5), 5); /* nothing was kept */
    give_back();
}

static void too_little_room_is_an_error_that_names_the_limit(void **state)
{
    (void)state;
    leave(3);
    assert_ok(bt_fdroom_require(3, "thing"));
    assert_fails(bt_fdroom_require(4, "thing"), BATON_ERR_OVERLOADED,
                 "thing: wanted 4 free descriptors, found 3 of RLIMIT_NOFILE 64");
    give_back();
}

static void a_reserve_is_spent_when_there_is_nothing_else(void **state)
{
    (void)state;
    bt_fdreserve reserve = {0};
    leave(3);
    bt_fdreserve_fill(&reserve, BT_FDRESERVE_MAX);
    assert_int_equal(reserve.n, 3);
    assert_int_equal(bt_fdroom(1), 0);
    assert_true(bt_fdreserve_spend(&reserve, 2));
    assert_int_equal(bt_fdroom(4), 2);
    assert_true(bt_fdreserve_spend(&reserve, 2));
    assert_int_equal(bt_fdroom(4), 3);
    assert_false(bt_fdreserve_spend(&reserve, 1));
    give_back();
}

static void more_memory_than_there_can_be_is_an_error_that_names_the_limit(void **state)
{
    (void)state;
    assert_ok(bt_memroom_require(1 << 20, "thing"));
    assert_fails(bt_memroom_require((size_t)1 << 62, "thing"), BATON_ERR_NO_MEMORY, "RLIMIT_AS");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(room_is_what_can_be_opened),
        bt_test(too_little_room_is_an_error_that_names_the_limit),
        bt_test(a_reserve_is_spent_when_there_is_nothing_else),
        bt_test(more_memory_than_there_can_be_is_an_error_that_names_the_limit),
    };
    return bt_run_tests(tests);
}
