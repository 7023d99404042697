/* SPDX-License-Identifier: Apache-2.0 */
#include "doctor/doctor_findings.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bt_doctor_finding *bt_doctor_find(bt_doctor_findings *findings, bt_doctor_severity severity,
                                  const char *id, const char *text, ...)
{
    va_list args;
    findings->counts[severity]++;
    if (findings->n == BT_DOCTOR_FINDINGS_MAX)
        findings->n_left_out++;
    else
        findings->n++;
    bt_doctor_finding *finding = &findings->items[findings->n - 1]; /* the last one is given up */
    *finding = (bt_doctor_finding){.severity = severity, .id = id};
    va_start(args, text);
    vsnprintf(finding->text, sizeof(finding->text), text, args);
    va_end(args);
    return finding;
}

void bt_doctor_advise(bt_doctor_finding *finding, const char *advice, ...)
{
    va_list args;
    va_start(args, advice);
    vsnprintf(finding->advice, sizeof(finding->advice), advice, args);
    va_end(args);
}

void bt_doctor_accept(bt_doctor_findings *findings, const char *id)
{
    for (uint32_t i = 0; i < findings->n; i++) {
        bt_doctor_finding *finding = &findings->items[i];
        if (finding->severity != BT_DOCTOR_WARNING || strcmp(finding->id, id) != 0)
            continue;
        finding->severity = BT_DOCTOR_FINE;
        findings->counts[BT_DOCTOR_WARNING]--;
        findings->counts[BT_DOCTOR_FINE]++;
    }
}

bt_doctor_severity bt_doctor_worst(const bt_doctor_findings *findings)
{
    if (findings->counts[BT_DOCTOR_BROKEN] != 0)
        return BT_DOCTOR_BROKEN;
    return findings->counts[BT_DOCTOR_WARNING] != 0 ? BT_DOCTOR_WARNING : BT_DOCTOR_FINE;
}

const char *bt_doctor_severity_name(bt_doctor_severity severity)
{
    static const char *const names[] = {"fine", "warning", "broken"};
    return names[severity];
}
