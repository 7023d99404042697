/* SPDX-License-Identifier: Apache-2.0 */
/* What the doctor has to say: a list of findings, the worst of which is the program's exit status.
 * Thread rule: owner thread. */
#ifndef BT_DOCTOR_FINDINGS_H
#define BT_DOCTOR_FINDINGS_H
#include <stdint.h>

enum { BT_DOCTOR_FINDINGS_MAX = 128, BT_DOCTOR_FINDING_BYTES = 384 };

/* Values are exit statuses. */
typedef enum {
    BT_DOCTOR_FINE = 0,    /* a note: good to know */
    BT_DOCTOR_WARNING = 1, /* works, but slower or less safely than it could */
    BT_DOCTOR_BROKEN = 2,  /* does not work */
} bt_doctor_severity;

typedef struct {
    bt_doctor_severity severity;
    const char *id;                       /* for scripts, never changed: "memlock-small" */
    char text[BT_DOCTOR_FINDING_BYTES];   /* what was found and what it means */
    char advice[BT_DOCTOR_FINDING_BYTES]; /* what to do; "" nothing */
} bt_doctor_finding;

typedef struct {
    uint32_t n, n_left_out;
    uint32_t counts[3];                              /* by severity, those left out too */
    bt_doctor_finding items[BT_DOCTOR_FINDINGS_MAX]; /* [n] */
} bt_doctor_findings;

/* The finding, for the caller to advise on; what does not fit is counted. Never NULL. */
__attribute__((format(printf, 4, 5))) bt_doctor_finding *
bt_doctor_find(bt_doctor_findings *findings, bt_doctor_severity severity, const char *id,
               const char *text, ...);
__attribute__((format(printf, 2, 3))) void bt_doctor_advise(bt_doctor_finding *finding,
                                                            const char *advice, ...);
/* Warnings of this id become notes: whoever runs the doctor knows, and has decided. What is broken
 * stays so. */
void bt_doctor_accept(bt_doctor_findings *findings, const char *id);
bt_doctor_severity bt_doctor_worst(const bt_doctor_findings *findings);
/* "fine", "warning", "broken". */
const char *bt_doctor_severity_name(bt_doctor_severity severity);

#endif
