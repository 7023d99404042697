/* SPDX-License-Identifier: Apache-2.0 */
/* Stop strings: text ends before the first of them, wherever tokens cut it. Text that may be the
 * beginning of a stop string is held back until it is known.
 *
 * Thread rule: owner thread. */
#ifndef BT_ENGINE_STOPS_H
#define BT_ENGINE_STOPS_H
#include <baton/status.h>
#include <stdbool.h>

enum { BT_MAX_STOPS = 16, BT_MAX_STOP_BYTES = 256 };

typedef struct {
    char *texts[BT_MAX_STOPS]; /* owned, not empty */
    uint32_t n;
} bt_stops;

/* Errors: INVALID_ARG (empty), TOO_LARGE (too many or too long), NO_MEMORY. */
baton_status bt_stops_add(bt_stops *stops, const char *text);
void bt_stops_clear(bt_stops *stops);

/* How many bytes of text[n], the text not given out so far, are safe to give out. *hit: a whole
 * stop string begins right there, and the text ends. A whole one goes before the beginning of
 * another that is further left. */
size_t bt_stops_scan(const bt_stops *stops, const char *text, size_t n, bool *hit);

#endif
