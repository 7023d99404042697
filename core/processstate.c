/* SPDX-License-Identifier: Apache-2.0 */
/* In a file of its own: a compiler that sees these bodies may call them directly, past the dynamic
 * linker that makes them one. */
#include "core/processstate.h"

#include "core/fail.h"

static _Thread_local char error_text[BT_ERROR_TEXT_BYTES];
static bt_log_state log_state = {.max_level = BATON_LOG_WARN};

char *baton_process_error_text(void)
{
    return error_text;
}

bt_log_state *baton_process_log(void)
{
    return &log_state;
}
