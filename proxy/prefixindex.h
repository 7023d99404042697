/* SPDX-License-Identifier: Apache-2.0 */
/* Which engine has seen which beginnings of prompts, as far as this proxy knows: what it sent
 * there.
 *
 * A prompt is cut into blocks of 256 bytes, and each block's hash (XXH3) includes the one before
 * it, so that a block stands for the whole prompt up to its end. The index is a table of a fixed
 * size: an entry is one (block, engine) pair in one word, and a block's entries are in one bucket
 * of eight, which is one cache line.
 *
 *   entry: | tag of the block's hash: 39 bits | engine + 1: 16 | life of the engine: 8 | used: 1 |
 *
 * A new entry takes the place of one that was not found since it was noted (clock), so that a flood
 * of prompts that come once pushes out its own kind first. Of a block that more than eight engines
 * know, eight are known here. An entry that is lost, or that a torn race of two threads spoils, or
 * a tag that two blocks share, makes a choice less good, never an answer wrong.
 *
 * Thread rule: create before threads start; note and find from any thread, without locks. */
#ifndef BT_PROXY_PREFIXINDEX_H
#define BT_PROXY_PREFIXINDEX_H
#include <baton/status.h>
#include <stddef.h>

enum {
    BT_PREFIX_BLOCK_BYTES = 256,
    BT_PREFIX_MAX_BLOCKS = 1024, /* what is further behind is not looked at */
    BT_PREFIX_MATCHES = 16
};

/* The blocks of one prompt. */
typedef struct {
    uint32_t n;
    uint64_t hashes[BT_PREFIX_MAX_BLOCKS];
} bt_prefix_blocks;

/* Whole blocks only. salt: of what else decides the tokens, the model say. */
void bt_prefix_blocks_of(const char *text, size_t n, uint64_t salt, bt_prefix_blocks *blocks);

typedef struct {
    uint32_t engine;
    uint8_t life;      /* of the engine when it was noted */
    uint32_t n_blocks; /* of the beginning that it has seen */
} bt_prefix_match;

typedef struct bt_prefix_index bt_prefix_index;

/* Of at most max_bytes, and at least a bucket. Errors: NO_MEMORY. */
baton_status bt_prefix_index_create(size_t max_bytes, bt_prefix_index **index_p);
size_t bt_prefix_index_bytes(const bt_prefix_index *index);
/* The engine (below 65535) has got the prompt. */
void bt_prefix_index_note(bt_prefix_index *index, const bt_prefix_blocks *blocks, uint32_t engine,
                          uint8_t life);
/* The engines that know most of it, in no order; returns how many. */
uint32_t bt_prefix_index_find(bt_prefix_index *index, const bt_prefix_blocks *blocks,
                              bt_prefix_match matches[BT_PREFIX_MATCHES]);
void bt_prefix_index_destroy(bt_prefix_index *index); /* NULL is allowed. */

#endif
