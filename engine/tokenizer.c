/* SPDX-License-Identifier: Apache-2.0 */
/* Encoding goes through three stages: added tokens are cut out, the text between them is split
 * into pieces, and bpe.c merges each piece's bytes. */
#include "engine/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/fail.h"
#include "engine/bpe.h"
#include "engine/unicode.h"

enum { MAX_TEXT_BYTES = 1 << 30 };

baton_status bt_token_list_push(bt_token_list *list, uint32_t id)
{
    if (list->n == list->capacity) {
        size_t capacity = list->capacity != 0 ? list->capacity * 2 : 64;
        uint32_t *ids = bt_realloc(list->ids, capacity, sizeof(*ids));
        if (ids == NULL)
            return bt_fail(BATON_ERR_NO_MEMORY, "tokens: list of %zu", capacity);
        list->ids = ids;
        list->capacity = capacity;
    }
    list->ids[list->n++] = id;
    return BATON_OK;
}

void bt_token_list_clear(bt_token_list *list)
{
    bt_free(list->ids);
    *list = (bt_token_list){0};
}

static int longest_first(const void *a, const void *b, void *vocab)
{
    const bt_piece *left = &((const bt_vocab *)vocab)->pieces[*(const uint32_t *)a];
    const bt_piece *right = &((const bt_vocab *)vocab)->pieces[*(const uint32_t *)b];
    return (left->n_bytes < right->n_bytes) - (left->n_bytes > right->n_bytes);
}

static baton_status index_added(bt_tokenizer *tokenizer)
{
    bt_vocab *vocab = &tokenizer->vocab;
    for (uint32_t id = 0; id < vocab->n_ids; id++)
        tokenizer->n_added += vocab->pieces[id].added;
    tokenizer->added = bt_calloc(tokenizer->n_added, sizeof(*tokenizer->added));
    if (tokenizer->added == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "tokenizer: %u added tokens", tokenizer->n_added);
    uint32_t n = 0;
    for (uint32_t id = 0; id < vocab->n_ids; id++) {
        if (!vocab->pieces[id].added)
            continue;
        tokenizer->added[n++] = id;
        tokenizer->added_begins[vocab->bytes[vocab->pieces[id].offset]] = true;
    }
    qsort_r(tokenizer->added, n, sizeof(*tokenizer->added), longest_first, vocab);
    return BATON_OK;
}

baton_status bt_tokenizer_index(bt_tokenizer *tokenizer)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        uint8_t piece = (uint8_t)byte;
        tokenizer->byte_ids[byte] = bt_vocab_find(&tokenizer->vocab, &piece, 1);
        if (tokenizer->byte_ids[byte] == BT_NO_TOKEN)
            return bt_fail(BATON_ERR_UNSUPPORTED,
                           "tokenizer: wanted a token for every byte, found none for 0x%02x", byte);
    }
    return index_added(tokenizer);
}

static baton_status fill_bytes(bt_tokenizer *tokenizer)
{
    static const char *const specials[] = {"<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>"};
    bt_vocab *vocab = &tokenizer->vocab;
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint8_t piece = (uint8_t)byte;
        BATON_TRY(bt_vocab_add(vocab, byte, &piece, 1));
    }
    for (uint32_t i = 0; i < BT_BYTES_N_TOKENS - 256; i++) {
        BATON_TRY(bt_vocab_add(vocab, 256 + i, specials[i], strlen(specials[i])));
        vocab->pieces[256 + i].added = vocab->pieces[256 + i].special = true;
    }
    tokenizer->split = BT_SPLIT_NONE;
    return bt_tokenizer_index(tokenizer);
}

baton_status bt_tokenizer_create_bytes(bt_tokenizer **tokenizer_p)
{
    bt_tokenizer *tokenizer = bt_calloc(1, sizeof(*tokenizer));
    if (tokenizer == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "tokenizer: %zu bytes", sizeof(*tokenizer));
    baton_status status = fill_bytes(tokenizer);
    if (status < 0) {
        bt_tokenizer_destroy(tokenizer);
        return status;
    }
    *tokenizer_p = tokenizer;
    return BATON_OK;
}

/* The added token that text[pos] begins, the longest of several, or BT_NO_TOKEN. */
static uint32_t added_at(const bt_tokenizer *tokenizer, const uint8_t *text, size_t n, size_t pos)
{
    if (!tokenizer->added_begins[text[pos]])
        return BT_NO_TOKEN;
    for (uint32_t i = 0; i < tokenizer->n_added; i++) {
        size_t n_piece;
        const uint8_t *piece = bt_vocab_piece(&tokenizer->vocab, tokenizer->added[i], &n_piece);
        if (n_piece <= n - pos && memcmp(piece, text + pos, n_piece) == 0)
            return tokenizer->added[i];
    }
    return BT_NO_TOKEN;
}

static baton_status encode_plain(const bt_tokenizer *tokenizer, bt_bpe *bpe, const uint8_t *text,
                                 size_t n, bt_token_list *list)
{
    if (tokenizer->split == BT_SPLIT_NONE && tokenizer->vocab.n_merges == 0) {
        for (size_t i = 0; i < n; i++)
            BATON_TRY(bt_token_list_push(list, tokenizer->byte_ids[text[i]]));
        return BATON_OK;
    }
    for (size_t pos = 0; pos < n;) {
        size_t end = bt_split_next(tokenizer->split, text, n, pos);
        uint32_t whole = tokenizer->ignore_merges
                             ? bt_vocab_find(&tokenizer->vocab, text + pos, end - pos)
                             : BT_NO_TOKEN;
        if (whole != BT_NO_TOKEN)
            BATON_TRY(bt_token_list_push(list, whole));
        else
            BATON_TRY(bt_bpe_encode(bpe, tokenizer, text + pos, end - pos, list));
        pos = end;
    }
    return BATON_OK;
}

static baton_status encode_segments(const bt_tokenizer *tokenizer, bt_bpe *bpe, const uint8_t *text,
                                    size_t n, bt_token_list *list)
{
    size_t begin = 0;
    for (size_t pos = 0; pos < n;) {
        uint32_t id = added_at(tokenizer, text, n, pos);
        if (id == BT_NO_TOKEN) {
            pos++;
            continue;
        }
        BATON_TRY(encode_plain(tokenizer, bpe, text + begin, pos - begin, list));
        BATON_TRY(bt_token_list_push(list, id));
        pos += tokenizer->vocab.pieces[id].n_bytes;
        begin = pos;
    }
    return encode_plain(tokenizer, bpe, text + begin, n - begin, list);
}

static baton_status push_all(bt_token_list *list, const uint32_t *ids, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        BATON_TRY(bt_token_list_push(list, ids[i]));
    return BATON_OK;
}

baton_status bt_tokenizer_encode(const bt_tokenizer *tokenizer, const char *text, size_t n,
                                 unsigned flags, bt_token_list *list)
{
    if (n > MAX_TEXT_BYTES)
        return bt_fail(BATON_ERR_TOO_LARGE, "tokenizer: wanted at most %d bytes of text, found %zu",
                       MAX_TEXT_BYTES, n);
    const uint8_t *bytes = (const uint8_t *)text;
    bool around = (flags & BT_ENCODE_AROUND) != 0;
    if (around)
        BATON_TRY(push_all(list, tokenizer->before, tokenizer->n_before));
    bt_bpe bpe = {0};
    baton_status status = (flags & BT_ENCODE_SPECIALS) != 0
                              ? encode_segments(tokenizer, &bpe, bytes, n, list)
                              : encode_plain(tokenizer, &bpe, bytes, n, list);
    bt_bpe_clear(&bpe);
    BATON_TRY(status);
    return around ? push_all(list, tokenizer->after, tokenizer->n_after) : BATON_OK;
}

uint32_t bt_tokenizer_n_ids(const bt_tokenizer *tokenizer)
{
    return tokenizer->vocab.n_ids;
}

uint32_t bt_tokenizer_find(const bt_tokenizer *tokenizer, const char *text)
{
    return bt_vocab_find(&tokenizer->vocab, text, strlen(text));
}

const uint8_t *bt_tokenizer_piece(const bt_tokenizer *tokenizer, uint32_t id, size_t *n)
{
    return bt_vocab_piece(&tokenizer->vocab, id, n);
}

bool bt_tokenizer_is_special(const bt_tokenizer *tokenizer, uint32_t id)
{
    return id < tokenizer->vocab.n_ids && tokenizer->vocab.pieces[id].special;
}

void bt_tokenizer_destroy(bt_tokenizer *tokenizer)
{
    if (tokenizer == NULL)
        return;
    bt_vocab_clear(&tokenizer->vocab);
    bt_free(tokenizer->added);
    bt_free(tokenizer);
}

static void put_replacement(bt_strbuf *text)
{
    bt_strbuf_append(text, "\xef\xbf\xbd", 3);
}

/* Appends what of held + byte is decided. held never keeps more than three bytes. */
static void push_byte(bt_decoder *decoder, uint8_t byte, bt_strbuf *text)
{
    decoder->held[decoder->n_held++] = byte;
    while (decoder->n_held != 0) {
        int length = bt_utf8_sequence(decoder->held, decoder->n_held);
        if (length == 0)
            return;
        uint8_t used = (uint8_t)(length > 0 ? length : -length);
        if (length > 0)
            bt_strbuf_append(text, decoder->held, used);
        else
            put_replacement(text);
        decoder->n_held = (uint8_t)(decoder->n_held - used);
        memmove(decoder->held, decoder->held + used, decoder->n_held);
    }
}

void bt_decoder_push(bt_decoder *decoder, const bt_tokenizer *tokenizer, uint32_t id,
                     bool with_specials, bt_strbuf *text)
{
    if (!with_specials && bt_tokenizer_is_special(tokenizer, id))
        return;
    size_t n;
    const uint8_t *piece = bt_tokenizer_piece(tokenizer, id, &n);
    for (size_t i = 0; i < n; i++)
        push_byte(decoder, piece[i], text);
}

void bt_decoder_finish(bt_decoder *decoder, bt_strbuf *text)
{
    if (decoder->n_held != 0)
        put_replacement(text);
    decoder->n_held = 0;
}
