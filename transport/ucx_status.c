/* SPDX-License-Identifier: Apache-2.0 */
/* The border where UCX's codes stop. */
#include "transport/ucx_state.h"

#include <stdarg.h>
#include <stdio.h>

baton_status bt_status_from_ucs(ucs_status_t status)
{
    switch (status) {
    case UCS_OK:
        return BATON_OK;
    case UCS_INPROGRESS:
        return BATON_IN_PROGRESS;
    case UCS_ERR_NO_MEMORY:
        return BATON_ERR_NO_MEMORY;
    case UCS_ERR_INVALID_PARAM:
    case UCS_ERR_INVALID_ADDR:
        return BATON_ERR_INVALID_ARG;
    case UCS_ERR_UNSUPPORTED:
    case UCS_ERR_NOT_IMPLEMENTED:
        return BATON_ERR_UNSUPPORTED;
    case UCS_ERR_BUSY:
        return BATON_ERR_BUSY;
    case UCS_ERR_CANCELED:
        return BATON_ERR_CANCELED;
    case UCS_ERR_UNREACHABLE:
    case UCS_ERR_NOT_CONNECTED:
    case UCS_ERR_CONNECTION_RESET:
    case UCS_ERR_ENDPOINT_TIMEOUT:
    case UCS_ERR_REJECTED:
    case UCS_ERR_NO_DEVICE:
        return BATON_ERR_UNREACHABLE;
    default:
        return BATON_ERR_TRANSPORT;
    }
}

baton_status bt_fail_ucs(ucs_status_t status, const char *format, ...)
{
    char text[BT_ERROR_TEXT_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return bt_fail(bt_status_from_ucs(status), "ucx: %s: %s", text, ucs_status_string(status));
}

void bt_ucx_version(uint16_t *major, uint16_t *minor)
{
    unsigned found_major, found_minor, release;
    ucp_get_version(&found_major, &found_minor, &release);
    *major = (uint16_t)found_major;
    *minor = (uint16_t)found_minor;
}

bool bt_ucx_is_older(uint16_t minor)
{
    uint16_t found_major, found_minor;
    bt_ucx_version(&found_major, &found_minor);
    return found_major == 1 && found_minor < minor;
}
