/* SPDX-License-Identifier: Apache-2.0 */
/* Answers as tables for people.
 * Thread rule: owner thread. */
#ifndef BT_CTL_TABLES_H
#define BT_CTL_TABLES_H
#include "core/texttable.h"
#include "ctl/ctl_ask.h"

enum { BT_CTL_WHO_BYTES = 128 };

/* "sender:p1/0@4711": role, name, rank and pid of who answered. */
void bt_ctl_who(json_t *answer, char who[BT_CTL_WHO_BYTES]);
/* "12.3 ms", "4.50 s", "2m05s"; "-" for what is no number. */
void bt_ctl_put_ms(bt_table *table, json_t *ms);

/* Which of the commands transfers, pages, peers, leases, counters, endpoints; only_counts: of pages
 * not the rows. */
void bt_ctl_put_table(const char *command, const bt_ctl_answers *answers, bool only_counts,
                      bt_strbuf *out);
/* Endpoints that did not answer, a line each; nothing when all did. */
void bt_ctl_put_failed(const bt_ctl_answers *answers, bt_strbuf *out);

#endif
