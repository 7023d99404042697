/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes that somebody else owns: of a frame (decoding) or of the caller (encoding).
 * Thread rule: any thread. */
#ifndef BT_WIRE_BLOB_H
#define BT_WIRE_BLOB_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    const uint8_t *data; /* not 0-terminated; may be NULL when bytes is 0 */
    size_t bytes;
} bt_blob;

static inline bt_blob bt_blob_of(const void *data, size_t bytes)
{
    return (bt_blob){.data = data, .bytes = bytes};
}

static inline bt_blob bt_blob_of_text(const char *text)
{
    return bt_blob_of(text, strlen(text));
}

static inline bool bt_blob_equals(bt_blob a, bt_blob b)
{
    return a.bytes == b.bytes && (a.bytes == 0 || memcmp(a.data, b.data, a.bytes) == 0);
}

static inline bool bt_blob_is_text(bt_blob blob, const char *text)
{
    return bt_blob_equals(blob, bt_blob_of_text(text));
}

static inline bool bt_byte_is_control(uint8_t byte)
{
    return byte < 0x20 || byte == 0x7f;
}

/* It has no control characters, so that it can be kept as a 0-terminated text and logged. */
static inline bool bt_blob_is_name(bt_blob blob)
{
    for (size_t i = 0; i < blob.bytes; i++) {
        if (bt_byte_is_control(blob.data[i]))
            return false;
    }
    return true;
}

/* Copies the blob as a 0-terminated text for people, cut to fit size > 0 bytes. Control characters
 * become '?', so that a peer cannot break a log line. */
static inline void bt_blob_to_text(bt_blob blob, char *text, size_t size)
{
    size_t n = blob.bytes < size - 1 ? blob.bytes : size - 1;
    for (size_t i = 0; i < n; i++)
        text[i] = bt_byte_is_control(blob.data[i]) ? '?' : (char)blob.data[i];
    text[n] = 0;
}

#endif
