/* SPDX-License-Identifier: Apache-2.0 */
#include "core/log.h"

#include "core/fail.h"
#include "core/processstate.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { LINE_BYTES = 2048 };

static const char *const level_names[] = {"error", "warn", "info", "debug", "trace"};

void baton_log_set_sink(baton_log_fn fn, void *ctx)
{
    bt_log_state *log = baton_process_log();
    log->sink = fn;
    log->sink_ctx = ctx;
}

void baton_log_set_level(baton_log_level level)
{
    atomic_store_explicit(&baton_process_log()->max_level, (int)level, memory_order_relaxed);
}

baton_log_level baton_log_get_level(void)
{
    return (baton_log_level)atomic_load_explicit(&baton_process_log()->max_level,
                                                 memory_order_relaxed);
}

baton_status baton_log_level_parse(const char *name, baton_log_level *level)
{
    for (int i = 0; i <= BATON_LOG_TRACE; i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *level = (baton_log_level)i;
            return BATON_OK;
        }
    }
    return bt_fail(BATON_ERR_INVALID_ARG,
                   "log level: wanted error, warn, info, debug or trace, found '%s'", name);
}

bool bt_log_wanted(baton_log_level level)
{
    return (int)level <=
           atomic_load_explicit(&baton_process_log()->max_level, memory_order_relaxed);
}

void bt_log_stderr(void *ctx, baton_log_level level, const char *line)
{
    (void)ctx;
    struct timespec now;
    struct tm utc;
    char stamp[32];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &utc);
    fprintf(stderr, "%s.%03ldZ %-5s %s\n", stamp, now.tv_nsec / 1000000, level_names[level], line);
}

void bt_log_write(baton_log_level level, const char *format, ...)
{
    char line[LINE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    const bt_log_state *log = baton_process_log();
    if (log->sink != NULL)
        log->sink(log->sink_ctx, level, line);
    else
        bt_log_stderr(NULL, level, line);
}
