/* SPDX-License-Identifier: Apache-2.0 */
/* Who answers at an address, before any library of ours connects to it: looks the name up, connects
 * and exchanges ZMTP greetings (rfc.zeromq.org/spec/23), which also say whether the other side
 * wants keys. Nothing that it says is trusted, and every step ends at the deadline.
 *
 *   we    ──  FF 0*8 7F | 3 0  ──▶
 *       ◀──  FF ...... 7F | 3 1 | "CURVE" 0... | 0*32      anything else is no ZeroMQ
 *
 * Our mechanism is not said: a socket that wants another one would hang up without its own.
 *
 * Thread rule: owner thread. */
#ifndef BT_DOCTOR_GREETING_H
#define BT_DOCTOR_GREETING_H
#include <baton/status.h>

enum { BT_GREETING_HOST_BYTES = 64, BT_GREETING_MECHANISM_BYTES = 21 };

typedef struct {
    char host[BT_GREETING_HOST_BYTES];           /* the address that answered, as numbers */
    char mechanism[BT_GREETING_MECHANISM_BYTES]; /* "NULL", "CURVE" */
    double connect_ms;                           /* until the connection stood */
} bt_greeting;

/* timeout_ms: of all of it. Errors: UNREACHABLE (no such name, refused, no route),
 * CONNECT_TIMEOUT (nobody answers), INIT_TIMEOUT (connected, but not a word), BAD_MESSAGE (talks,
 * but no ZMTP), CLOSED (hangs up). */
baton_status bt_greeting_ask(const char *host, uint16_t port, uint32_t timeout_ms,
                             bt_greeting *greeting);
/* Looks at bytes[n] of an answer: IN_PROGRESS when more are needed. Errors: BAD_MESSAGE. */
baton_status bt_greeting_parse(const uint8_t *bytes, size_t n,
                               char mechanism[BT_GREETING_MECHANISM_BYTES]);

#endif
