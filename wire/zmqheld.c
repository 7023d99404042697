/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/zmqheld.h"

static uint64_t above_zero(int64_t bytes)
{
    return bytes > 0 ? (uint64_t)bytes : 0;
}

/* What had been read when the last round began is gone: in that round the queue was found empty,
 * and of what came later a message has been given. */
static void forget_noise(bt_zmq_held *held)
{
    int64_t most = (int64_t)(held->read_bytes - held->last_round_bytes);
    if (held->held_bytes > most)
        held->held_bytes = most;
}

void bt_zmq_held_look(bt_zmq_held *held, uint64_t read_bytes, const bt_zmq_given *given,
                      uint64_t now_ns)
{
    if (read_bytes < held->read_bytes) /* a look while more came in */
        read_bytes = held->read_bytes;
    held->held_bytes += (int64_t)(read_bytes - held->read_bytes) - (int64_t)given->bytes;
    held->read_bytes = read_bytes;
    held->doubtful_bytes += given->doubtful_bytes;
    if (given->messages > 0) {
        held->since_ns = now_ns;
        forget_noise(held);
    }
    if (held->doubtful_bytes > above_zero(held->held_bytes))
        held->doubtful_bytes = above_zero(held->held_bytes);
    if (!given->ends_round)
        return;
    int64_t fresh = (int64_t)(read_bytes - held->round_bytes);
    held->unfinished_bytes = above_zero(held->held_bytes - fresh);
    held->last_round_bytes = held->round_bytes;
    held->round_bytes = read_bytes;
}

/* ZMTP 3, RFC 23 and 26: flags, a length of one octet or eight, the body; behind CURVE the body is
 * "\x07MESSAGE", a nonce of 8 octets, and a box of 16 octets, flags and the frame. */
uint64_t bt_zmq_wire_bytes(uint64_t frame_bytes, bool is_curve)
{
    enum { SHORT_HEAD = 2, LONG_HEAD = 9, SHORT_MAX = 255, CURVE_HEAD = 8 + 8 + 16 + 1 };
    uint64_t body = frame_bytes + (is_curve ? CURVE_HEAD : 0);
    return body + (body <= SHORT_MAX ? SHORT_HEAD : LONG_HEAD);
}
