/* SPDX-License-Identifier: Apache-2.0 */
/* Log lines (baton/log.h): lower case, then key=value ids; never prompts, tokens, keys or page
 * contents. The level is tested before the arguments are evaluated.
 * Thread rule: any thread. */
#ifndef BT_CORE_LOG_H
#define BT_CORE_LOG_H
#include <baton/log.h>
#include <stdbool.h>

bool bt_log_wanted(baton_log_level level);
__attribute__((format(printf, 2, 3))) void bt_log_write(baton_log_level level, const char *format,
                                                        ...);

#define BT_LOG(level, ...)                    \
    do {                                      \
        if (bt_log_wanted(level))             \
            bt_log_write(level, __VA_ARGS__); \
    } while (0)
#define bt_error(...) BT_LOG(BATON_LOG_ERROR, __VA_ARGS__)
#define bt_warn(...) BT_LOG(BATON_LOG_WARN, __VA_ARGS__)
#define bt_info(...) BT_LOG(BATON_LOG_INFO, __VA_ARGS__)
#define bt_debug(...) BT_LOG(BATON_LOG_DEBUG, __VA_ARGS__)
#ifdef NDEBUG
#define bt_trace(...) \
    do {              \
    } while (0)
#else
#define bt_trace(...) BT_LOG(BATON_LOG_TRACE, __VA_ARGS__)
#endif

/* Sink for programs: "2026-11-21T06:12:00.123Z warn  text" on stderr. ctx is unused. */
void bt_log_stderr(void *ctx, baton_log_level level, const char *line);

#endif
