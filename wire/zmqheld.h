/* SPDX-License-Identifier: Apache-2.0 */
/* What ZeroMQ holds for a connection that we listen to: what it has read from the kernel, less what
 * we were given. Besides whole messages that wait for us, that is the parts of a message that has
 * not ended, of which ZeroMQ keeps as many as come.
 *
 *   kernel ──read──▶ ZeroMQ ──given──▶ us         held = read - given
 *
 * A look is taken now and then: first at what was read, then at what was given since the last look.
 * A round ends with the first look at which the queue is known to have been found empty since the
 * round began. What was read before a round and is not given at its end, belongs to a message that
 * has not ended; and whatever is given later began behind it, or is that message.
 *
 * Bytes that never become a message (greetings, pings) would add up. They are forgotten with every
 * message that must have begun behind them. So the estimate errs upwards.
 *
 * Thread rule: owner thread. */
#ifndef BT_WIRE_ZMQHELD_H
#define BT_WIRE_ZMQHELD_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What was given since the last look. */
typedef struct {
    uint64_t bytes;          /* as on the wire */
    uint64_t messages;       /* certainly of this connection */
    uint64_t doubtful_bytes; /* perhaps of the one that had its descriptor before */
    bool ends_round;
} bt_zmq_given;

typedef struct {
    uint64_t read_bytes;       /* at the last look */
    uint64_t round_bytes;      /* read when this round began */
    uint64_t last_round_bytes; /* and the one before */
    int64_t held_bytes;        /* below 0 when more was given than had been read at the look */
    uint64_t doubtful_bytes;   /* of held_bytes: perhaps given, for want of knowing to whom */
    uint64_t unfinished_bytes; /* of a message that has not ended; as of the last round's end */
    uint64_t since_ns;         /* no message has been given since */
} bt_zmq_held;

/* A connection that is new at now_ns: of zeros, but for since_ns. */
void bt_zmq_held_look(bt_zmq_held *held, uint64_t read_bytes, const bt_zmq_given *given,
                      uint64_t now_ns);

/* Bytes that a frame has on the wire, at least; behind CURVE more. */
uint64_t bt_zmq_wire_bytes(uint64_t frame_bytes, bool is_curve);

#endif
