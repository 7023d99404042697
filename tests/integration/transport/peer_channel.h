/* SPDX-License-Identifier: Apache-2.0 */
/* What the two processes of the transport tests say to each other, over a socket pair: the target
 * sends its worker address, key and base, then answers commands. Both are one program's build, so
 * plain structs do.
 *
 * Thread rule: the test's thread. */
#ifndef BT_TESTS_PEER_CHANNEL_H
#define BT_TESTS_PEER_CHANNEL_H
#include "transport/transport.h"

typedef struct {
    uint8_t address[BT_ADDRESS_BYTES_MAX];
    uint8_t rkey[BT_RKEY_BYTES_MAX];
    size_t address_bytes, rkey_bytes;
    uint64_t base, bytes;
} peer_hello;

/* XXH64 of bytes at offset of the region, please: the answer is 8 bytes. */
typedef struct {
    uint64_t offset, bytes;
} peer_question;

/* Whole blocks or nothing. */
bool peer_send(int fd, const void *block, size_t bytes);
bool peer_receive(int fd, void *block, size_t bytes);

#endif
