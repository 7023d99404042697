/* SPDX-License-Identifier: Apache-2.0 */
/* libmsgpack's unpacker as the oracle for our reader: both must agree on which frames are good and
 * on every value in them. Used by unit tests and fuzz targets.
 *
 * Thread rule: the test's thread. */
#ifndef BT_TESTS_WIRE_ORACLE_H
#define BT_TESTS_WIRE_ORACLE_H
#include "wire/packreader.h"

typedef enum {
    ORACLE_AGREE,
    ORACLE_WE_ACCEPT_ONLY, /* our reader accepts what libmsgpack refuses */
    ORACLE_WE_REFUSE_ONLY, /* ... refuses what libmsgpack reads and our limits allow */
    ORACLE_OTHER_VALUES    /* both accept, and read different values */
} oracle_verdict;

oracle_verdict oracle_compare(const uint8_t *bytes, size_t n, const bt_unpack_limits *limits);

#endif
