/* SPDX-License-Identifier: Apache-2.0 */
/* What is reckoned of a connection, compared with what is so, in runs of random traffic. */
#include "wire/zmqheld.h"

#include "support/test.h"

enum { FRAME_MAX = 4096, N_RUNS = 200, N_LOOKS = 200, NOISE_MAX = 40 };

/* A connection as ZeroMQ sees it. */
typedef struct {
    bt_rng rng;
    bt_zmq_held held;
    bt_zmq_given given;
    uint64_t read_bytes;             /* from the kernel */
    uint64_t queued_bytes, n_queued; /* whole messages */
    uint64_t unfinished_bytes;
    uint64_t now_ns;
} connection;

static void read_some(connection *c, uint64_t bytes)
{
    c->read_bytes += bytes;
    c->unfinished_bytes += bytes;
}

static void end_message(connection *c)
{
    c->queued_bytes += c->unfinished_bytes;
    c->n_queued++;
    c->unfinished_bytes = 0;
}

static void read_noise(connection *c)
{
    c->read_bytes += 1 + bt_rng_below(&c->rng, NOISE_MAX);
}

static void take_all(connection *c)
{
    c->given.bytes += c->queued_bytes;
    c->given.messages += c->n_queued;
    c->queued_bytes = c->n_queued = 0;
    c->given.ends_round = true;
}

static void look(connection *c)
{
    bt_zmq_held_look(&c->held, c->read_bytes, &c->given, ++c->now_ns);
    c->given = (bt_zmq_given){0};
}

/* Never less than is held, and with messages now and then not much more however long it takes. */
static void the_estimate_is_an_upper_bound_and_does_not_drift(void **state)
{
    (void)state;
    for (uint64_t run = 0; run < N_RUNS; run++) {
        connection c = {.rng = {run}};
        for (int i = 0; i < N_LOOKS; i++) {
            for (uint64_t n = bt_rng_below(&c.rng, 4); n > 0; n--) {
                read_some(&c, bt_rng_below(&c.rng, FRAME_MAX));
                if (bt_rng_below(&c.rng, 2) == 0)
                    end_message(&c);
                if (bt_rng_below(&c.rng, 2) == 0 && c.unfinished_bytes == 0)
                    read_noise(&c);
            }
            if (bt_rng_below(&c.rng, 2) == 0)
                take_all(&c);
            look(&c);
            assert_true(c.held.held_bytes >= (int64_t)(c.queued_bytes + c.unfinished_bytes));
        }
        for (int i = 0; i < 4; i++) { /* whatever came is forgotten with the last message */
            read_some(&c, 10);
            end_message(&c);
            take_all(&c);
            look(&c);
        }
        assert_in_range(c.held.held_bytes, 0, 20);
    }
}

static void a_message_without_an_end_adds_up(void **state)
{
    (void)state;
    connection c = {.rng = {1}};
    for (int i = 0; i < 100; i++) {
        read_some(&c, FRAME_MAX);
        take_all(&c);
        look(&c);
        assert_int_equal(c.held.held_bytes, (i + 1) * FRAME_MAX);
        assert_int_equal(c.held.unfinished_bytes,
                         i * FRAME_MAX); /* this look's may be on its way */
        assert_int_equal(c.held.since_ns, 0);
    }
    end_message(&c);
    take_all(&c);
    look(&c);
    assert_int_equal(c.held.held_bytes, 0);
    assert_int_equal(c.held.unfinished_bytes, 0);
    assert_int_equal(c.held.since_ns, c.now_ns);
}

static void what_waits_for_a_late_owner_is_not_unfinished(void **state)
{
    (void)state;
    connection c = {.rng = {1}};
    for (int i = 0; i < 100; i++) {
        read_some(&c, FRAME_MAX);
        end_message(&c);
        look(&c);
        assert_int_equal(c.held.unfinished_bytes, 0);
    }
    assert_int_equal(c.held.held_bytes, 100 * FRAME_MAX);
    take_all(&c);
    look(&c);
    assert_int_equal(c.held.unfinished_bytes, 0);
    assert_int_equal(c.held.held_bytes, 0);
}

/* As when the connection that had the descriptor before left messages behind. */
static void what_is_given_of_another_does_not_hide_what_is_held(void **state)
{
    (void)state;
    connection c = {.rng = {1}};
    read_some(&c, 10 * FRAME_MAX);
    c.given.doubtful_bytes = 10 * FRAME_MAX;
    c.given.ends_round = true;
    look(&c);
    take_all(&c);
    look(&c);
    assert_int_equal(c.held.held_bytes, 10 * FRAME_MAX);
    assert_int_equal(c.held.unfinished_bytes, 10 * FRAME_MAX);
    assert_int_equal(c.held.doubtful_bytes, 10 * FRAME_MAX); /* and perhaps it is nothing */
    end_message(&c);
    take_all(&c);
    look(&c);
    assert_int_equal(c.held.doubtful_bytes, 0);
}

static void a_look_that_comes_early_changes_nothing(void **state)
{
    (void)state;
    connection c = {.rng = {1}};
    read_some(&c, 100);
    look(&c);
    c.read_bytes -= 10; /* more came while it was looked at */
    look(&c);
    assert_int_equal(c.held.held_bytes, 100);
    assert_int_equal(c.held.read_bytes, 100);
}

static void frames_have_heads(void **state)
{
    (void)state;
    assert_int_equal(bt_zmq_wire_bytes(0, false), 2);
    assert_int_equal(bt_zmq_wire_bytes(255, false), 257);
    assert_int_equal(bt_zmq_wire_bytes(256, false), 265);
    assert_int_equal(bt_zmq_wire_bytes(0, true), 35);
    assert_int_equal(bt_zmq_wire_bytes(222, true), 257);
    assert_int_equal(bt_zmq_wire_bytes(223, true), 265);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(the_estimate_is_an_upper_bound_and_does_not_drift),
        bt_test(a_message_without_an_end_adds_up),
        bt_test(what_waits_for_a_late_owner_is_not_unfinished),
        bt_test(what_is_given_of_another_does_not_hide_what_is_held),
        bt_test(a_look_that_comes_early_changes_nothing),
        bt_test(frames_have_heads),
    };
    return bt_run_tests(tests);
}
