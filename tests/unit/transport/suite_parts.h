/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of the suite, and what they share. Thread rule: the test's thread. */
#ifndef BT_TESTS_SUITE_PARTS_H
#define BT_TESTS_SUITE_PARTS_H
#include "support/test.h"
#include "transport_suite.h"

enum { BT_SUITE_REGION_BYTES = 1 << 20 };

extern const bt_suite_backend *bt_suite_tested;

/* Each is a group of tests; the number that failed. */
int bt_suite_puts(void);
int bt_suite_messages(void);
int bt_suite_lives(void);
int bt_suite_names(void);

void bt_suite_put_and_flush(bt_pair *pair, const bt_run *runs, uint32_t n_runs);
void bt_suite_assert_landed(const bt_run *run);
/* Counts events of the kind by user_data until n have come. */
void bt_suite_collect(bt_pair *pair, bt_event_kind kind, uint32_t *counts, uint32_t n);

#endif
