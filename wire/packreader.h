/* SPDX-License-Identifier: Apache-2.0 */
/* Bounded pull reader for MessagePack frames from peers. bt_unpack_open checks the whole frame
 * first: one value and nothing behind it, no truncation, no extension types, depth, element count,
 * blob bytes and map keys within limits, keys are strings and no map has one twice. Then the
 * caller pulls values in order; strings and blobs are borrowed from the frame.
 *
 * It never allocates: libmsgpack's unpacker allocates what a frame claims, and 5 bytes can claim
 * 4 GiB. Encodings wider than needed (str 8 for a short string, uint 64 for 1) are accepted, since
 * other writers make them.
 *
 * Format: github.com/msgpack/msgpack/blob/master/spec.md. Every error is BAD_MESSAGE, its text
 * "<what>: ..., at byte N". After a failure the reader must not be used again.
 * Thread rule: owner thread. */
#ifndef BT_WIRE_PACKREADER_H
#define BT_WIRE_PACKREADER_H
#include <baton/status.h>
#include <stdbool.h>

#include "wire/blob.h"

enum {
    BT_UNPACK_MAX_DEPTH = 8, /* containers in each other */
    BT_UNPACK_MAX_KEYS = 64, /* of one map */
};

typedef struct {
    uint32_t max_elements;   /* values in the frame, containers and map keys included */
    uint32_t max_blob_bytes; /* of one string or binary */
    uint32_t max_depth;      /* at most BT_UNPACK_MAX_DEPTH */
} bt_unpack_limits;

typedef enum {
    BT_PACK_NIL,
    BT_PACK_BOOL,
    BT_PACK_UINT, /* an integer that is not negative, however it is encoded */
    BT_PACK_INT,  /* a negative integer */
    BT_PACK_F64,  /* float 32 too */
    BT_PACK_STR,
    BT_PACK_BIN,
    BT_PACK_ARRAY,
    BT_PACK_MAP,
} bt_pack_type;

typedef struct {
    const char *what; /* names the message in errors; borrowed */
    const uint8_t *bytes;
    size_t n, pos;
    bt_unpack_limits limits;
    uint32_t n_elements; /* seen by the check */
} bt_packreader;

/* Checks bytes[n] as described above and places the reader before its one value. bytes and what
 * are borrowed for the reader's life. */
baton_status bt_unpack_open(bt_packreader *reader, const char *what, const void *bytes, size_t n,
                            const bt_unpack_limits *limits);
/* Fails unless every byte has been read. */
baton_status bt_unpack_finish(const bt_packreader *reader);

/* Type of the next value, which stays unread. */
baton_status bt_unpack_peek(const bt_packreader *reader, bt_pack_type *type);
/* Begin a container; *count values (arrays) or pairs of key and value (maps) follow. */
baton_status bt_unpack_array(bt_packreader *reader, uint32_t *count);
baton_status bt_unpack_map(bt_packreader *reader, uint32_t *count);
baton_status bt_unpack_str(bt_packreader *reader, bt_blob *value);
baton_status bt_unpack_bin(bt_packreader *reader, bt_blob *value);
/* An integer in [0, max]. */
baton_status bt_unpack_u64(bt_packreader *reader, uint64_t max, uint64_t *value);
baton_status bt_unpack_u32(bt_packreader *reader, uint32_t max, uint32_t *value);
/* Fails for an integer above INT64_MAX. */
baton_status bt_unpack_i64(bt_packreader *reader, int64_t *value);
baton_status bt_unpack_f64(bt_packreader *reader, double *value);
baton_status bt_unpack_bool(bt_packreader *reader, bool *value);
baton_status bt_unpack_nil(bt_packreader *reader);
/* Skips one value with all it contains. */
baton_status bt_unpack_skip(bt_packreader *reader);
/* Skips one value and gives its encoded bytes, which bt_unpack_open takes later. */
baton_status bt_unpack_raw(bt_packreader *reader, bt_blob *value);

/* Fails with the reader's name and place: for checks that the caller makes on values. */
__attribute__((format(printf, 2, 3))) baton_status bt_unpack_fail(const bt_packreader *reader,
                                                                  const char *format, ...);

#endif
