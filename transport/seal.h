/* SPDX-License-Identifier: Apache-2.0 */
/* The envelope around what a backend sends to a peer, worker addresses and remote keys. UCX takes
 * such bytes on trust and may crash on damaged or foreign ones, so they are checked here first.
 *
 *   0  magic "BTNA" (address) or "BTNK" (key)   16  u64 base of the region     (key)
 *   4  u16 version, 1                           24  u64 bytes of the region    (key)
 *   6  u16 backend, see below                   32  u32 memory kind            (key)
 *   8  u16 library major, 10 u16 minor          36  u32 zero
 *  12  u32 payload bytes                        40  u64 XXH64 of the payload, seeded
 *                                                   with XXH64 of bytes 0-39, seed 0
 *                                               48  payload
 *
 * Integers are little-endian. The checksum finds damage and mix-ups; it is no protection against a
 * peer that means harm, which an authenticated control channel keeps out.
 * Thread rule: any thread. */
#ifndef BT_TRANSPORT_SEAL_H
#define BT_TRANSPORT_SEAL_H
#include <baton/kv.h>
#include <baton/status.h>
#include <stdbool.h>

typedef enum { BT_SEAL_ADDRESS, BT_SEAL_KEY } bt_seal_kind;
typedef enum { BT_SEAL_LOOP = 1, BT_SEAL_UCX = 2, BT_SEAL_RAILS = 3 } bt_seal_backend;
enum { BT_SEAL_HEADER_BYTES = 48 };

typedef struct {
    bt_seal_kind kind;
    bt_seal_backend backend;
    uint16_t major, minor; /* of the library behind the backend; must be equal on both ends */
    uint64_t base, bytes;  /* region; 0 for addresses */
    baton_memory_kind memory;
    const uint8_t *payload; /* [payload_bytes] borrowed */
    size_t payload_bytes;
} bt_seal;

/* Writes the sealed bytes to a new block, freed with bt_free, that is at most max bytes long.
 * Errors: NO_MEMORY, TOO_LARGE. */
baton_status bt_seal_pack(const bt_seal *seal, size_t max, uint8_t **bytes_p, size_t *n_bytes);
/* Fills seal, payload borrowed from bytes. On input seal->kind, backend, major and minor say what
 * is wanted. Errors: INVALID_ARG (damaged, or something else), VERSION_MISMATCH (sealed by another
 * backend or library version). */
baton_status bt_seal_open(const void *bytes, size_t n_bytes, bt_seal *seal);

/* Whether at least BT_SEAL_HEADER_BYTES claim to be of that backend; nothing else is looked at. */
bool bt_seal_is_of(const void *bytes, bt_seal_backend backend);

#endif
