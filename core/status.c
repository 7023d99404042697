/* SPDX-License-Identifier: Apache-2.0 */
#include "core/fail.h"

#include "core/processstate.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *baton_strerror(baton_status status)
{
    switch (status) {
#define STATUS_TEXT(name, value, text) \
    case BATON_##name:                 \
        return text;
        BATON_STATUS_LIST(STATUS_TEXT)
#undef STATUS_TEXT
    }
    return "unknown status";
}

const char *baton_status_name(baton_status status)
{
    switch (status) {
#define STATUS_NAME(name, value, text) \
    case BATON_##name:                 \
        return #name;
        BATON_STATUS_LIST(STATUS_NAME)
#undef STATUS_NAME
    }
    return "ERR_UNKNOWN";
}

const char *baton_last_error(void)
{
    return baton_process_error_text();
}

const char *baton_version(void)
{
    return BATON_VERSION;
}

__attribute__((format(printf, 1, 0))) static void store_text(const char *format, va_list args)
{
    /* Formatted aside first: the arguments may point into the stored text itself. */
    char text[BT_ERROR_TEXT_BYTES];
    vsnprintf(text, sizeof(text), format, args);
    memcpy(baton_process_error_text(), text, sizeof(text));
}

baton_status bt_fail(baton_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    store_text(format, args);
    va_end(args);
    return status;
}

baton_status bt_fail_errno(baton_status status, int err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    store_text(format, args);
    va_end(args);
    char *stored = baton_process_error_text();
    size_t used = strlen(stored);
    char reason[128];
    snprintf(stored + used, BT_ERROR_TEXT_BYTES - used, ": %s",
             strerror_r(err, reason, sizeof(reason)));
    return status;
}

baton_status bt_status_from_errno(int err)
{
    switch (err) {
    case 0:
        return BATON_OK;
    case ENOMEM:
        return BATON_ERR_NO_MEMORY;
    case EADDRINUSE:
        return BATON_ERR_ADDRESS_IN_USE;
    case EACCES:
    case EPERM:
        return BATON_ERR_PERMISSION;
    case ENOENT:
    case ESRCH:
        return BATON_ERR_NOT_FOUND;
    case EINVAL:
        return BATON_ERR_INVALID_ARG;
    case ECONNREFUSED:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case EADDRNOTAVAIL:
        return BATON_ERR_UNREACHABLE;
    case ETIMEDOUT:
        return BATON_ERR_CONNECT_TIMEOUT;
    case EPIPE:
    case ECONNRESET:
        return BATON_ERR_CLOSED;
    default:
        return BATON_ERR_IO;
    }
}
