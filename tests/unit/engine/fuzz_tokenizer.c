/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a tokenizer.json; when they are one, it encodes and decodes itself. */
#include <stdint.h>

#include "engine/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bt_tokenizer *tokenizer;
    if (bt_tokenizer_parse((const char *)data, size, &tokenizer) < 0)
        return 0;
    bt_token_list list = {0};
    bt_strbuf text = {0};
    bt_decoder decoder = {0};
    size_t n = size < 4096 ? size : 4096;
    if (bt_tokenizer_encode(tokenizer, (const char *)data, n, BT_ENCODE_SPECIALS | BT_ENCODE_AROUND,
                            &list) == BATON_OK)
        for (size_t i = 0; i < list.n; i++)
            bt_decoder_push(&decoder, tokenizer, list.ids[i], true, &text);
    bt_decoder_finish(&decoder, &text);
    bt_strbuf_free(&text);
    bt_token_list_clear(&list);
    bt_tokenizer_destroy(tokenizer);
    return 0;
}
