/* SPDX-License-Identifier: Apache-2.0 */
/* Facts of machines made of files, for the doctor's tests. Thread rule: the test's thread. */
#ifndef BT_TESTS_DOCTORKIT_H
#define BT_TESTS_DOCTORKIT_H
#include "doctor/doctor_checks.h"
#include "support/fakesys.h"

typedef struct {
    bt_fakesys fake;
    bt_file_options file;
    bt_doctor_facts facts;
    bt_doctor_findings findings;
} bt_doctorkit;

extern bt_doctorkit kit;

/* A machine on which nothing bites: lo, memory, no devices. */
int bt_doctorkit_setup(void **state);
int bt_doctorkit_teardown(void **state);
#define bt_doctor_test(fn) \
    cmocka_unit_test_setup_teardown(fn, bt_doctorkit_setup, bt_doctorkit_teardown)

/* Adds two sockets, each with a GPU and a 400 Gbit/s NIC behind one switch, and a driver. */
void bt_doctorkit_add_gpu_server(void);
/* Reads the machine; environment ends with NULL. UCX is one of 1.18 with everything. */
void bt_doctorkit_read(char *const *environment);
/* Reads and checks it. */
void bt_doctorkit_check(char *const *environment);
/* A peer on this host that is mapped, at 20 GB/s. */
void bt_doctorkit_add_peer(void);
/* How many findings have this id; 0 also for those of another severity. */
unsigned bt_doctorkit_found(bt_doctor_severity severity, const char *id);
/* Nothing but notes was found. */
void bt_doctorkit_assert_fine(void);

#endif
