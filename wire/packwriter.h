/* SPDX-License-Identifier: Apache-2.0 */
/* Writes one MessagePack frame, canonically (libmsgpack's packer), into a buffer of the caller's
 * or one that grows up to a cap. The first failure sticks: later calls do nothing and
 * bt_pack_finish returns it, so that a message is written without a check per field.
 * Thread rule: owner thread. */
#ifndef BT_WIRE_PACKWRITER_H
#define BT_WIRE_PACKWRITER_H
#include <baton/status.h>
#include <stdbool.h>

typedef struct {
    uint8_t *bytes; /* owned when growable */
    size_t n, capacity, max_bytes;
    bool growable;
    uint64_t n_open; /* values that announced containers still lack, 1 for the frame itself */
    baton_status status;
} bt_packwriter;

/* A frame of at most max_bytes, on the heap. Ends with bt_pack_release. */
void bt_pack_init(bt_packwriter *writer, size_t max_bytes);
/* A frame in buffer[n_bytes], borrowed. bt_pack_release is allowed and does nothing. */
void bt_pack_init_fixed(bt_packwriter *writer, void *buffer, size_t n_bytes);
/* Empties it and forgets a failure; keeps the memory. */
void bt_pack_reset(bt_packwriter *writer);
void bt_pack_release(bt_packwriter *writer);

void bt_pack_map(bt_packwriter *writer, uint32_t n_pairs);
void bt_pack_array(bt_packwriter *writer, uint32_t n_values);
void bt_pack_str(bt_packwriter *writer, const char *text);
void bt_pack_str_n(bt_packwriter *writer, const void *text, size_t n);
void bt_pack_bin(bt_packwriter *writer, const void *bytes, size_t n);
void bt_pack_u64(bt_packwriter *writer, uint64_t value);
void bt_pack_i64(bt_packwriter *writer, int64_t value);
void bt_pack_f64(bt_packwriter *writer, double value);
void bt_pack_bool(bt_packwriter *writer, bool value);
void bt_pack_nil(bt_packwriter *writer);
/* An encoded value, as bt_unpack_raw gives it. */
void bt_pack_raw(bt_packwriter *writer, const void *bytes, size_t n);

/* A key and its value. */
void bt_pack_key_str(bt_packwriter *writer, const char *key, const char *text);
void bt_pack_key_bin(bt_packwriter *writer, const char *key, const void *bytes, size_t n);
void bt_pack_key_u64(bt_packwriter *writer, const char *key, uint64_t value);
void bt_pack_key_i64(bt_packwriter *writer, const char *key, int64_t value);
void bt_pack_key_bool(bt_packwriter *writer, const char *key, bool value);

/* OK when the frame is complete: writer->bytes[writer->n]. Errors: NO_MEMORY, TOO_LARGE (buffer or
 * cap too small), STATE (containers announced more, or fewer, values than were written). */
baton_status bt_pack_finish(bt_packwriter *writer);

#endif
