/* SPDX-License-Identifier: Apache-2.0 */
/* Text to token ids and back. Two kinds behind one interface:
 *
 *   bytes   for models without tokenizer.json: id i < 256 is the byte i, and behind them
 *           256 <|bos|>  257 <|eos|>  258 <|im_start|>  259 <|im_end|>
 *   BPE     a Hugging Face tokenizer.json of byte-level BPE: vocab, merges (ignore_merges too),
 *           added tokens, the ByteLevel pre-tokenizer with GPT-2's expression or behind a Split
 *           with Llama 3's or Qwen 2's, and a TemplateProcessing that adds tokens around a text.
 *           What it asks for beyond that is refused by name, except the normalizer NFC: text is
 *           taken as composed already, as nearly all text is.
 *
 * A decoder turns ids into text that is always well-formed UTF-8: what is not becomes U+FFFD, and
 * the beginning of a character is held back until the rest has come.
 *
 * Thread rule: set up before threads start, then any thread; a decoder: its owner thread. */
#ifndef BT_ENGINE_TOKENIZER_H
#define BT_ENGINE_TOKENIZER_H
#include <stdbool.h>

#include "core/strbuf.h"
#include "engine/vocab.h"

enum { BT_BYTES_BOS = 256, BT_BYTES_EOS, BT_BYTES_IM_START, BT_BYTES_IM_END, BT_BYTES_N_TOKENS };

typedef struct bt_tokenizer bt_tokenizer;

/* A growing list of ids; zeroed memory is an empty one. Freed with bt_token_list_clear. */
typedef struct {
    uint32_t *ids; /* [n] */
    size_t n, capacity;
} bt_token_list;

baton_status bt_token_list_push(bt_token_list *list, uint32_t id); /* Errors: NO_MEMORY. */
void bt_token_list_clear(bt_token_list *list);

baton_status bt_tokenizer_create_bytes(bt_tokenizer **tokenizer_p); /* Errors: NO_MEMORY. */
/* json[n]: the contents of a tokenizer.json. Errors: CORRUPT, UNSUPPORTED (both say what and
 * where), TOO_LARGE, NO_MEMORY. */
baton_status bt_tokenizer_parse(const char *json, size_t n, bt_tokenizer **tokenizer_p);
/* model_dir/tokenizer.json, or the byte tokenizer when there is no such file or model_dir is NULL.
 * Errors: as bt_tokenizer_parse; IO. */
baton_status bt_tokenizer_load(const char *model_dir, bt_tokenizer **tokenizer_p);

enum {
    BT_ENCODE_SPECIALS = 1, /* added tokens' texts become their ids; without it they are text */
    BT_ENCODE_AROUND = 2,   /* with the tokens that belong around a text, such as BOS */
};
/* Appends the ids of text[n] to list. Errors: NO_MEMORY, TOO_LARGE. */
baton_status bt_tokenizer_encode(const bt_tokenizer *tokenizer, const char *text, size_t n,
                                 unsigned flags, bt_token_list *list);

/* One more than the largest id. */
uint32_t bt_tokenizer_n_ids(const bt_tokenizer *tokenizer);
/* The id whose text is exactly `text`, or BT_NO_TOKEN. */
uint32_t bt_tokenizer_find(const bt_tokenizer *tokenizer, const char *text);
/* The bytes of id, not terminated and not always UTF-8; NULL for ids that it does not know. */
const uint8_t *bt_tokenizer_piece(const bt_tokenizer *tokenizer, uint32_t id, size_t *n);
/* True for special tokens, which decoded text leaves out. */
bool bt_tokenizer_is_special(const bt_tokenizer *tokenizer, uint32_t id);
/* NULL is allowed. */
void bt_tokenizer_destroy(bt_tokenizer *tokenizer);

/* Decoder of one stream; zeroed memory is a fresh one. */
typedef struct {
    uint8_t held[4]; /* the beginning of a character */
    uint8_t n_held;
} bt_decoder;

/* Appends to text what id makes certain. Unknown ids decode to nothing, special ones too unless
 * with_specials. */
void bt_decoder_push(bt_decoder *decoder, const bt_tokenizer *tokenizer, uint32_t id,
                     bool with_specials, bt_strbuf *text);
/* The end: what is held becomes U+FFFD. */
void bt_decoder_finish(bt_decoder *decoder, bt_strbuf *text);

#endif
