/* SPDX-License-Identifier: Apache-2.0 */
/* Where the libraries' log lines go. A library never prints on its own account: without a sink,
 * lines of warning level and above go to stderr, which baton_log_set_sink replaces.
 *
 * Thread rule: any thread; set up before threads start. */
#ifndef BATON_LOG_H
#define BATON_LOG_H
#include <baton/status.h>
BATON_BEGIN_DECLS

typedef enum {
    BATON_LOG_ERROR, /* given up */
    BATON_LOG_WARN,  /* degraded */
    BATON_LOG_INFO,  /* life cycle */
    BATON_LOG_DEBUG, /* per request */
    BATON_LOG_TRACE, /* per page; compiled out of release builds */
} baton_log_level;

/* line: text without newline or time stamp, borrowed for the call. May be called from any thread,
 * also at the same time. */
typedef void (*baton_log_fn)(void *ctx, baton_log_level level, const char *line);

/* NULL restores the default, stderr. ctx is borrowed until the sink is replaced. */
BATON_API void baton_log_set_sink(baton_log_fn fn, void *ctx);
/* Lines above this level are dropped before their arguments are formatted. Default: WARN. */
BATON_API void baton_log_set_level(baton_log_level level);
BATON_API baton_log_level baton_log_get_level(void);
/* "error", "warn", "info", "debug", "trace" to a level. Errors: INVALID_ARG. */
BATON_API baton_status baton_log_level_parse(const char *name, baton_log_level *level);

BATON_END_DECLS
#endif
