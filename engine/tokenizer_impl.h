/* SPDX-License-Identifier: Apache-2.0 */
/* What tokenizer.c (encoding) and tokenizer_json.c (reading the file) share.
 *
 * Thread rule: as tokenizer.h. */
#ifndef BT_ENGINE_TOKENIZER_IMPL_H
#define BT_ENGINE_TOKENIZER_IMPL_H
#include "engine/pretokenize.h"
#include "engine/tokenizer.h"

enum { BT_MAX_AROUND = 8 };

struct bt_tokenizer {
    bt_vocab vocab;
    bt_split split;
    bool ignore_merges;     /* a piece that is a token needs no merges */
    uint32_t byte_ids[256]; /* the token of each byte alone */
    uint32_t *added;        /* [n_added], longest text first */
    uint32_t n_added;       /* tokens found in text before it is split */
    bool added_begins[256]; /* bytes that an added token begins with */
    uint32_t before[BT_MAX_AROUND], after[BT_MAX_AROUND]; /* put around a text */
    uint32_t n_before, n_after;
};

/* Fills byte_ids, added and added_begins from the vocabulary.
 * Errors: UNSUPPORTED (a byte without a token), NO_MEMORY. */
baton_status bt_tokenizer_index(bt_tokenizer *tokenizer);

#endif
