/* SPDX-License-Identifier: Apache-2.0 */
/* What bites on this machine: from facts to findings.
 * Thread rule: owner thread. */
#ifndef BT_DOCTOR_CHECKS_H
#define BT_DOCTOR_CHECKS_H
#include "doctor/doctor_facts.h"
#include "doctor/doctor_findings.h"

/* All of it, with the peer when one was asked. */
void bt_doctor_check(const bt_doctor_facts *facts, bt_doctor_findings *findings);
/* The peer's part. */
void bt_doctor_check_peer(const bt_doctor_facts *facts, bt_doctor_findings *findings);
/* "64 MiB", "1.5 GiB", "no limit": for people. */
enum { BT_DOCTOR_SIZE_BYTES = 32 };
const char *bt_doctor_size(uint64_t bytes, char text[BT_DOCTOR_SIZE_BYTES]);

#endif
