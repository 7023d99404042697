/* SPDX-License-Identifier: Apache-2.0 */
/* The report for scripts: one JSON object (docs/doctor.md). Unknown numbers are null.
 * Thread rule: owner thread. */
#ifndef BT_DOCTOR_JSON_H
#define BT_DOCTOR_JSON_H
#include "core/strbuf.h"
#include "doctor/doctor_facts.h"
#include "doctor/doctor_findings.h"

/* Errors: NO_MEMORY. */
baton_status bt_doctor_json(const bt_doctor_facts *facts, const bt_doctor_findings *findings,
                            bt_strbuf *out);

#endif
