/* SPDX-License-Identifier: Apache-2.0 */
/* A listener that passes ZeroMQ messages on to another port of this host and back, and loses,
 * repeats or swaps whole messages, or cuts all connections, when told to. It reads ZMTP 3 framing
 * (rfc.zeromq.org/spec/23: greeting of 64 bytes, frames with a flag byte and a short or long size)
 * and leaves the greeting and commands alone. Thread rule: its own thread moves the bytes; the
 * functions here may be called from any. */
#ifndef BT_TESTS_RELAY_H
#define BT_TESTS_RELAY_H
#include <stdint.h>

typedef struct bt_relay bt_relay;

typedef struct {
    uint64_t passed, lost, repeated, swapped, cut; /* messages; connections */
} bt_relay_counts;

/* Listens on 127.0.0.1:port and connects to 127.0.0.1:to_port for each connection. NULL: could not
 * (errno). Freed with bt_relay_stop. */
bt_relay *bt_relay_start(uint16_t port, uint16_t to_port, uint64_t seed);
/* Of 1000 messages, so many are lost, and repeated, and swapped with the next one. */
void bt_relay_disturb(bt_relay *relay, unsigned per_mille);
/* Closes every connection; what was on its way is lost. */
void bt_relay_cut(bt_relay *relay);
void bt_relay_count(bt_relay *relay, bt_relay_counts *out);
void bt_relay_stop(bt_relay *relay);

#endif
