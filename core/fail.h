/* SPDX-License-Identifier: Apache-2.0 */
/* Failing: sets the thread's error text and returns the status (baton/status.h).
 * Thread rule: any thread. */
#ifndef BT_CORE_FAIL_H
#define BT_CORE_FAIL_H
#include <baton/status.h>

/* Text of one failure, cut to fit; it also travels in completions. */
enum { BT_ERROR_TEXT_BYTES = 512 };

/* Stores the text and returns status, so that a failing line reads `return bt_fail(...)`. */
__attribute__((format(printf, 2, 3))) baton_status bt_fail(baton_status status, const char *format,
                                                           ...);
/* status and the text of errno value err: "noun: what was wanted: Connection refused". */
__attribute__((format(printf, 3, 4))) baton_status bt_fail_errno(baton_status status, int err,
                                                                 const char *format, ...);
/* The status that an errno value stands for; ERR_IO where none fits better. */
baton_status bt_status_from_errno(int err);

/* Returns from the calling function when call fails. The only macro that hides control flow. */
#define BATON_TRY(call)                       \
    do {                                      \
        baton_status bt_try_status_ = (call); \
        if (bt_try_status_ < 0)               \
            return bt_try_status_;            \
    } while (0)

#endif
