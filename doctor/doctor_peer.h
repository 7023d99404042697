/* SPDX-License-Identifier: Apache-2.0 */
/* What a receiver looks like from here: who answers, and which path the bytes would take, as the
 * sender library finds it when it connects. Nothing is written but the receiver's scratch area.
 * Thread rule: owner thread. */
#ifndef BT_DOCTOR_PEER_H
#define BT_DOCTOR_PEER_H
#include <baton/sender.h>

#include "core/fileoptions.h"
#include "doctor/doctor_greeting.h"

typedef struct {
    const char *host; /* a name or an address */
    uint16_t init_port;
    uint32_t timeout_ms; /* of each stage */
    const bt_file_options *file;
} bt_doctor_question;

typedef struct {
    bool was_asked;
    char address[BATON_EVENT_TEXT_BYTES + 8]; /* "host:port", as asked for */
    baton_status status;                      /* OK: connected and measured */
    char text[BATON_EVENT_TEXT_BYTES];        /* why not */
    bt_greeting greeting;
    baton_sender_peer found; /* of the last connection, where there was one */
} bt_doctor_peer;

/* Never fails: what went wrong is in the answer. */
void bt_doctor_ask_peer(const bt_doctor_question *question, bt_doctor_peer *peer);
/* GB/s of the path that was chosen; 0: not measured. */
double bt_doctor_peer_gbps(const bt_doctor_peer *peer);
/* "mapped", "put", "staged"; "" not connected. */
const char *bt_doctor_peer_path(const bt_doctor_peer *peer);

#endif
