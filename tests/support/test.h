/* SPDX-License-Identifier: Apache-2.0 */
/* What every unit test includes: CMocka, and a log sink under which a warn or error line that
 * nobody expected fails the test.
 *
 *   static void free_twice_is_refused(void **state) { ... }
 *   int main(void)
 *   {
 *       const struct CMUnitTest tests[] = {bt_test(free_twice_is_refused)};
 *       return bt_run_tests(tests);
 *   }
 *
 * Thread rule: the test's thread; guarded copies and random numbers any. */
#ifndef BT_TESTS_SUPPORT_TEST_H
#define BT_TESTS_SUPPORT_TEST_H
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <baton/status.h>

/* A sanitizer keeps what was freed, adds records of its own, and reserves terabytes: tests do not
 * judge memory then. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define BT_HAS_SANITIZER true
#elif defined(__has_feature)
#define BT_HAS_SANITIZER (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define BT_HAS_SANITIZER false
#endif

int bt_test_setup(void **state);
int bt_test_teardown(void **state);
#define bt_test(fn) cmocka_unit_test_setup_teardown(fn, bt_test_setup, bt_test_teardown)
#define bt_run_tests(tests) cmocka_run_group_tests(tests, NULL, NULL)

/* Allows warn and error lines that contain text, until the end of the test. */
void bt_expect_log(const char *text);
/* Lines seen so far in this test whose text contains `text` (any level that is on). */
unsigned bt_log_seen(const char *text);

/* status is ok; otherwise the test fails and prints the last error. */
#define assert_ok(status) bt_assert_status((status), BATON_OK, NULL, __FILE__, __LINE__)
/* status is `wanted` and the last error contains every piece of `text` (NULL: not looked at). */
#define assert_fails(status, wanted, text) \
    bt_assert_status((status), (wanted), (text), __FILE__, __LINE__)
void bt_assert_status(baton_status status, baton_status wanted, const char *text, const char *file,
                      int line);

/* n bytes that end exactly at an unreadable page, so that reading one byte too far faults.
 * Freed with bt_guarded_free. */
uint8_t *bt_guarded_copy(const void *bytes, size_t n);
void bt_guarded_free(uint8_t *bytes, size_t n);

/* Seeded pseudo random numbers (splitmix64): the same on every machine. */
typedef struct {
    uint64_t state;
} bt_rng;
uint64_t bt_rng_next(bt_rng *rng);
/* Uniform enough in [0, n); n > 0. */
uint64_t bt_rng_below(bt_rng *rng, uint64_t n);
void bt_rng_fill(bt_rng *rng, void *bytes, size_t n);

/* Ends the program as "skipped", with the reason on stdout. */
_Noreturn void bt_test_skip(const char *why);

#endif
