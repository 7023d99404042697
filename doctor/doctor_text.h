/* SPDX-License-Identifier: Apache-2.0 */
/* The report for people. Thread rule: owner thread. */
#ifndef BT_DOCTOR_TEXT_H
#define BT_DOCTOR_TEXT_H
#include "core/strbuf.h"
#include "doctor/doctor_facts.h"
#include "doctor/doctor_findings.h"

/* Tables, and findings in color or not. Errors: NO_MEMORY. */
baton_status bt_doctor_text(const bt_doctor_facts *facts, const bt_doctor_findings *findings,
                            bool in_color, bt_strbuf *out);

#endif
