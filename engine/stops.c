/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/stops.h"

#include <string.h>

#include "core/alloc.h"
#include "core/fail.h"

baton_status bt_stops_add(bt_stops *stops, const char *text)
{
    size_t n = strlen(text);
    if (n == 0)
        return bt_fail(BATON_ERR_INVALID_ARG, "stop: a stop string is empty");
    if (n > BT_MAX_STOP_BYTES)
        return bt_fail(BATON_ERR_TOO_LARGE, "stop: wanted at most %d bytes, found %zu",
                       BT_MAX_STOP_BYTES, n);
    if (stops->n == BT_MAX_STOPS)
        return bt_fail(BATON_ERR_TOO_LARGE, "stop: wanted at most %d stop strings", BT_MAX_STOPS);
    char *copy = bt_strdup(text);
    if (copy == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "stop: %zu bytes", n);
    stops->texts[stops->n++] = copy;
    return BATON_OK;
}

void bt_stops_clear(bt_stops *stops)
{
    for (uint32_t i = 0; i < stops->n; i++)
        bt_free(stops->texts[i]);
    *stops = (bt_stops){0};
}

/* Where text[n] first has the whole of a stop string; n when nowhere. */
static size_t find_whole(const bt_stops *stops, const char *text, size_t n)
{
    size_t found = n;
    for (uint32_t i = 0; i < stops->n; i++) {
        const char *at = memmem(text, n, stops->texts[i], strlen(stops->texts[i]));
        if (at != NULL && (size_t)(at - text) < found)
            found = (size_t)(at - text);
    }
    return found;
}

/* Where the longest end of text[n] that is the beginning of a stop string begins. */
static size_t find_beginning(const bt_stops *stops, const char *text, size_t n)
{
    for (size_t at = n > BT_MAX_STOP_BYTES ? n - BT_MAX_STOP_BYTES : 0; at < n; at++)
        for (uint32_t i = 0; i < stops->n; i++)
            if (strncmp(stops->texts[i], text + at, n - at) == 0)
                return at;
    return n;
}

size_t bt_stops_scan(const bt_stops *stops, const char *text, size_t n, bool *hit)
{
    size_t whole = find_whole(stops, text, n);
    *hit = whole < n;
    return *hit ? whole : find_beginning(stops, text, n);
}
