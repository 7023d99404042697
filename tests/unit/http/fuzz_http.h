/* SPDX-License-Identifier: Apache-2.0 */
/* What the fuzz targets of requests and answers share.
 *
 * Thread rule: the test's thread. */
#ifndef BT_TESTS_FUZZ_HTTP_H
#define BT_TESTS_FUZZ_HTTP_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Aborts when the bytes read differently in pieces than whole. */
void fuzz_messages(const uint8_t *data, size_t size, bool is_response);

#endif
