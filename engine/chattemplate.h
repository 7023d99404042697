/* SPDX-License-Identifier: Apache-2.0 */
/* Chat messages to prompt tokens, by a fixed template. Prefill and decode engines must be started
 * with the same one. <..> are special tokens, where the tokenizer has them, else plain text:
 *
 *   chatml  <|im_start|>ROLE\nCONTENT<|im_end|>\n ... <|im_start|>assistant\n
 *   llama3  <|begin_of_text|><|start_header_id|>ROLE<|end_header_id|>\n\nCONTENT<|eot_id|> ...
 *           <|start_header_id|>assistant<|end_header_id|>\n\n       CONTENT without outer white
 * space plain   ROLE: CONTENT\n ... assistant:
 *
 * The last part of each is the generation prompt. What a client writes never becomes a special
 * token, and no template adds a system message of its own.
 *
 * Thread rule: any thread. */
#ifndef BT_ENGINE_CHATTEMPLATE_H
#define BT_ENGINE_CHATTEMPLATE_H
#include "engine/tokenizer.h"

typedef enum { BT_CHAT_CHATML, BT_CHAT_LLAMA3, BT_CHAT_PLAIN } bt_chat_template;

typedef struct {
    const char *role; /* system, developer, user, assistant or tool */
    const char *content;
    size_t n_content;
} bt_chat_message;

/* "chatml", "llama3" or "plain". Errors: INVALID_ARG. */
baton_status bt_chat_template_parse(const char *name, bt_chat_template *chat_template);
const char *bt_chat_template_name(bt_chat_template chat_template);
/* The template whose special tokens the tokenizer has, below n_vocab; plain when it has none. */
bt_chat_template bt_chat_template_of(const bt_tokenizer *tokenizer, uint32_t n_vocab);
/* The token that ends an assistant's turn, or BT_NO_TOKEN. */
uint32_t bt_chat_end_token(bt_chat_template chat_template, const bt_tokenizer *tokenizer);

/* Appends the prompt of messages[n] to list. Errors: INVALID_ARG (a role), NO_MEMORY, TOO_LARGE. */
baton_status bt_chat_render(bt_chat_template chat_template, const bt_tokenizer *tokenizer,
                            const bt_chat_message *messages, size_t n, bool generation_prompt,
                            bt_token_list *list);

#endif
