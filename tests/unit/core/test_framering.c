/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "core/framering.h"
#include "core/wakesocket.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

enum { CAPACITY = 4096, TAIL_AT = 0, HEAD_AT = 64, RECORD_BYTES = 8 };

typedef struct {
    uint8_t *memory;
    bt_framering writer, reader;
    uint8_t frame[CAPACITY];
} pair;

static void open_pair(pair *p)
{
    size_t bytes = BT_FRAMERING_HEADER_BYTES + CAPACITY;
    p->memory = aligned_alloc(64, bytes);
    assert_non_null(p->memory);
    memset(p->memory, 0, bytes);
    bt_framering_open(&p->writer, p->memory, CAPACITY);
    bt_framering_open(&p->reader, p->memory, CAPACITY);
}

static void close_pair(pair *p)
{
    free(p->memory);
}

static baton_status put(pair *p, uint8_t byte, size_t bytes)
{
    static uint8_t frame[2 * CAPACITY];
    bool must_ring;
    memset(frame, byte, bytes);
    return bt_framering_write(&p->writer, frame, bytes, &must_ring);
}

static void expect(pair *p, uint8_t byte, size_t bytes)
{
    size_t n;
    assert_ok(bt_framering_read(&p->reader, p->frame, &n));
    assert_int_equal(n, bytes);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(p->frame[i], byte);
}

static void expect_nothing(pair *p)
{
    size_t n;
    assert_int_equal(bt_framering_read(&p->reader, p->frame, &n), BATON_IN_PROGRESS);
}

static void poke(pair *p, size_t at, uint64_t value)
{
    memcpy(p->memory + at, &value, sizeof(value));
}

static void frames_of_all_lengths_wrap_anywhere(void **state)
{
    (void)state;
    pair p;
    open_pair(&p);
    for (size_t bytes = 1; bytes <= bt_framering_frame_max(CAPACITY); bytes += 13) {
        assert_ok(put(&p, (uint8_t)bytes, bytes));
        expect(&p, (uint8_t)bytes, bytes);
        expect_nothing(&p);
    }
    assert_true(p.reader.position > 100 * CAPACITY);
    close_pair(&p);
}

static void a_full_ring_is_busy_and_takes_nothing(void **state)
{
    (void)state;
    pair p;
    open_pair(&p);
    uint32_t n = 0;
    while (put(&p, (uint8_t)n, 100) == BATON_OK)
        n++;
    assert_int_equal(n, CAPACITY / (RECORD_BYTES + 104));
    assert_int_equal(put(&p, 1, 100), BATON_ERR_BUSY);
    expect(&p, 0, 100);
    assert_ok(put(&p, (uint8_t)n, 100));
    for (uint32_t i = 1; i <= n; i++)
        expect(&p, (uint8_t)i, 100);
    expect_nothing(&p);
    assert_ok(put(&p, 7, bt_framering_frame_max(CAPACITY)));
    expect(&p, 7, bt_framering_frame_max(CAPACITY));
    assert_int_equal(put(&p, 7, bt_framering_frame_max(CAPACITY) + 1), BATON_ERR_TOO_LARGE);
    assert_int_equal(put(&p, 7, 0), BATON_ERR_TOO_LARGE);
    close_pair(&p);
}

static void capacities_are_powers_of_two_within_limits(void **state)
{
    (void)state;
    assert_true(bt_framering_capacity_ok(4096));
    assert_true(bt_framering_capacity_ok(4 << 20));
    static const uint64_t bad[] = {0, 1, 2048, 4097, 12288, 8 << 20, UINT64_C(1) << 32, UINT64_MAX};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(bt_framering_capacity_ok(bad[i]));
}

/* Whatever a hostile writer leaves there, the reader says so once and never looks again. */
static void a_tail_that_cannot_be_breaks_the_reader(void **state)
{
    (void)state;
    static const uint64_t tails[] = {CAPACITY + 8,     4, 12, UINT64_MAX, UINT64_MAX - 7,
                                     UINT64_C(1) << 63};
    for (size_t i = 0; i < sizeof(tails) / sizeof(tails[0]); i++) {
        pair p;
        size_t n;
        open_pair(&p);
        assert_ok(put(&p, 1, 24)); /* the record itself is sound */
        poke(&p, TAIL_AT, tails[i]);
        assert_fails(bt_framering_read(&p.reader, p.frame, &n), BATON_ERR_CORRUPT, "frame ring");
        expect_nothing(&p);
        assert_true(bt_framering_announce_sleep(&p.reader));
        assert_false(bt_framering_is_up(&p.reader));
        close_pair(&p);
    }
}

static void a_length_that_cannot_be_breaks_the_reader(void **state)
{
    (void)state;
    static const uint32_t lengths[] = {0, 25, CAPACITY, UINT32_MAX, UINT32_MAX - 7, 1u << 31};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        pair p;
        size_t n;
        open_pair(&p);
        assert_ok(put(&p, 1, 24));
        memcpy(p.memory + BT_FRAMERING_HEADER_BYTES + 4, &lengths[i], 4);
        assert_fails(bt_framering_read(&p.reader, p.frame, &n), BATON_ERR_CORRUPT, "frame ring");
        expect_nothing(&p);
        close_pair(&p);
    }
    pair p;
    size_t n;
    open_pair(&p);
    assert_ok(put(&p, 1, 24));
    p.memory[BT_FRAMERING_HEADER_BYTES] ^= 1; /* the magic */
    assert_fails(bt_framering_read(&p.reader, p.frame, &n), BATON_ERR_CORRUPT, "frame ring");
    close_pair(&p);
}

static void a_head_that_cannot_be_breaks_the_writer(void **state)
{
    (void)state;
    static const uint64_t heads[] = {8, 1, UINT64_MAX, UINT64_MAX - CAPACITY};
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        pair p;
        open_pair(&p);
        poke(&p, HEAD_AT, heads[i]);
        assert_int_equal(put(&p, 1, 8), BATON_ERR_CORRUPT);
        poke(&p, HEAD_AT, 0);
        assert_int_equal(put(&p, 1, 8), BATON_ERR_CORRUPT); /* for good */
        close_pair(&p);
    }
}

static void only_an_announced_sleeper_is_to_be_rung_and_once(void **state)
{
    (void)state;
    pair p;
    bool must_ring = true;
    open_pair(&p);
    assert_false(bt_framering_has_frame(&p.reader));
    assert_ok(bt_framering_write(&p.writer, "a", 1, &must_ring));
    assert_true(bt_framering_has_frame(&p.reader));
    assert_false(must_ring);
    assert_false(bt_framering_announce_sleep(&p.reader));
    expect(&p, 'a', 1);
    assert_true(bt_framering_announce_sleep(&p.reader));
    assert_ok(bt_framering_write(&p.writer, "b", 1, &must_ring));
    assert_true(must_ring);
    assert_ok(bt_framering_write(&p.writer, "c", 1, &must_ring));
    assert_false(must_ring);
    bt_framering_end_sleep(&p.reader);
    expect(&p, 'b', 1);
    expect(&p, 'c', 1);
    assert_true(bt_framering_announce_sleep(&p.reader));
    bt_framering_end_sleep(&p.reader);
    assert_ok(bt_framering_write(&p.writer, "d", 1, &must_ring));
    assert_false(must_ring);
    close_pair(&p);
}

static void a_ring_that_was_never_opened_is_down(void **state)
{
    (void)state;
    bt_framering none = {0};
    uint8_t frame[8];
    size_t n;
    bool must_ring;
    assert_false(bt_framering_is_up(&none));
    assert_false(bt_framering_has_frame(&none));
    assert_int_equal(bt_framering_write(&none, "a", 1, &must_ring), BATON_ERR_CORRUPT);
    assert_int_equal(bt_framering_read(&none, frame, &n), BATON_IN_PROGRESS);
    assert_true(bt_framering_announce_sleep(&none));
    bt_framering_end_sleep(&none);
}

/* Two threads as the two processes. */
enum { N_FRAMES = 30000 };

typedef struct {
    pair *p;
    bt_wakesocket *own;
    const char *name; /* the reader's */
    size_t name_bytes;
} writer_arg;

static size_t length_of(uint32_t i)
{
    return 4 + (i * 2654435761u >> 16) % 300;
}

static void *write_all(void *arg)
{
    const writer_arg *self = arg;
    uint8_t frame[512];
    for (uint32_t i = 0; i < N_FRAMES; i++) {
        bool must_ring = false;
        memset(frame, (uint8_t)i, sizeof(frame));
        memcpy(frame, &i, sizeof(i));
        while (bt_framering_write(&self->p->writer, frame, length_of(i), &must_ring) != BATON_OK)
            sched_yield();
        if (must_ring)
            bt_wakesocket_ring(self->own, self->name, self->name_bytes);
        if (i % 64 == 0)
            sched_yield();
    }
    return NULL;
}

/* Sleeps without a limit: a lost wake-up shows as a hang, which the test's time limit ends. */
static void read_one(pair *p, bt_wakesocket *wake, size_t *n)
{
    while (bt_framering_read(&p->reader, p->frame, n) != BATON_OK) {
        if (!bt_framering_announce_sleep(&p->reader))
            continue;
        struct pollfd fd = {.fd = bt_wakesocket_fd(wake), .events = POLLIN};
        poll(&fd, 1, -1);
        bt_wakesocket_silence(wake);
        bt_framering_end_sleep(&p->reader);
    }
}

static void a_sleeping_reader_loses_no_frame(void **state)
{
    (void)state;
    static pair p;
    bt_wakesocket *wake, *other;
    open_pair(&p);
    assert_ok(bt_wakesocket_create(&wake));
    assert_ok(bt_wakesocket_create(&other));
    writer_arg arg = {.p = &p, .own = other};
    arg.name = bt_wakesocket_name(wake, &arg.name_bytes);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, write_all, &arg), 0);
    for (uint32_t i = 0; i < N_FRAMES; i++) {
        size_t n;
        uint32_t found;
        read_one(&p, wake, &n);
        memcpy(&found, p.frame, sizeof(found));
        assert_int_equal(found, i);
        assert_int_equal(n, length_of(i));
        assert_true(n == 4 || p.frame[n - 1] == (uint8_t)i);
    }
    pthread_join(thread, NULL);
    expect_nothing(&p);
    bt_wakesocket_destroy(wake);
    bt_wakesocket_destroy(other);
    close_pair(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(frames_of_all_lengths_wrap_anywhere),
        bt_test(a_full_ring_is_busy_and_takes_nothing),
        bt_test(capacities_are_powers_of_two_within_limits),
        bt_test(a_tail_that_cannot_be_breaks_the_reader),
        bt_test(a_length_that_cannot_be_breaks_the_reader),
        bt_test(a_head_that_cannot_be_breaks_the_writer),
        bt_test(only_an_announced_sleeper_is_to_be_rung_and_once),
        bt_test(a_ring_that_was_never_opened_is_down),
        bt_test(a_sleeping_reader_loses_no_frame),
    };
    return bt_run_tests(tests);
}
