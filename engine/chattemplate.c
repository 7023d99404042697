/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/chattemplate.h"

#include <string.h>

#include "core/fail.h"
#include "engine/unicode.h"

/* A prompt in the making. Text between special tokens is encoded as one piece, as if the whole
 * prompt had been one text, but without looking for special tokens in it. */
typedef struct {
    const bt_tokenizer *tokenizer;
    bt_token_list *list;
    bt_strbuf plain; /* text since the last special token */
} prompt;

static const char *const names[] = {"chatml", "llama3", "plain"};

baton_status bt_chat_template_parse(const char *name, bt_chat_template *chat_template)
{
    for (int i = BT_CHAT_CHATML; i <= BT_CHAT_PLAIN; i++)
        if (strcmp(name, names[i]) == 0) {
            *chat_template = (bt_chat_template)i;
            return BATON_OK;
        }
    return bt_fail(BATON_ERR_INVALID_ARG,
                   "chat template: wanted chatml, llama3 or plain, found '%.64s'", name);
}

const char *bt_chat_template_name(bt_chat_template chat_template)
{
    return names[chat_template];
}

bt_chat_template bt_chat_template_of(const bt_tokenizer *tokenizer, uint32_t n_vocab)
{
    if (bt_tokenizer_find(tokenizer, "<|im_start|>") < n_vocab)
        return BT_CHAT_CHATML;
    if (bt_tokenizer_find(tokenizer, "<|start_header_id|>") < n_vocab)
        return BT_CHAT_LLAMA3;
    return BT_CHAT_PLAIN;
}

uint32_t bt_chat_end_token(bt_chat_template chat_template, const bt_tokenizer *tokenizer)
{
    switch (chat_template) {
    case BT_CHAT_CHATML:
        return bt_tokenizer_find(tokenizer, "<|im_end|>");
    case BT_CHAT_LLAMA3:
        return bt_tokenizer_find(tokenizer, "<|eot_id|>");
    case BT_CHAT_PLAIN:
        break;
    }
    return BT_NO_TOKEN;
}

static baton_status flush(prompt *p)
{
    BATON_TRY(bt_strbuf_status(&p->plain));
    baton_status status =
        bt_tokenizer_encode(p->tokenizer, bt_strbuf_text(&p->plain), p->plain.length, 0, p->list);
    bt_strbuf_clear(&p->plain);
    return status;
}

static baton_status put_special(prompt *p, const char *name)
{
    uint32_t id = bt_tokenizer_find(p->tokenizer, name);
    if (id == BT_NO_TOKEN) {
        bt_strbuf_puts(&p->plain, name);
        return BATON_OK;
    }
    BATON_TRY(flush(p));
    return bt_token_list_push(p->list, id);
}

static bt_chat_message trimmed(bt_chat_message message)
{
    const uint8_t *text = (const uint8_t *)message.content;
    size_t begin = message.n_content, end = 0;
    for (size_t pos = 0; pos < message.n_content;) {
        size_t at = pos;
        if (bt_unicode_is_space(bt_utf8_next(text, message.n_content, &pos)))
            continue;
        begin = at < begin ? at : begin;
        end = pos;
    }
    message.content += begin;
    message.n_content = end > begin ? end - begin : 0;
    return message;
}

static baton_status put_header(prompt *p, bt_chat_template chat_template, const char *role)
{
    if (chat_template == BT_CHAT_PLAIN) {
        bt_strbuf_printf(&p->plain, "%s:", role);
        return BATON_OK;
    }
    bool is_llama3 = chat_template == BT_CHAT_LLAMA3;
    BATON_TRY(put_special(p, is_llama3 ? "<|start_header_id|>" : "<|im_start|>"));
    bt_strbuf_puts(&p->plain, role);
    if (is_llama3)
        BATON_TRY(put_special(p, "<|end_header_id|>"));
    bt_strbuf_puts(&p->plain, is_llama3 ? "\n\n" : "\n");
    return BATON_OK;
}

static baton_status put_message(prompt *p, bt_chat_template chat_template, bt_chat_message message)
{
    BATON_TRY(put_header(p, chat_template, message.role));
    switch (chat_template) {
    case BT_CHAT_CHATML:
        bt_strbuf_append(&p->plain, message.content, message.n_content);
        BATON_TRY(put_special(p, "<|im_end|>"));
        bt_strbuf_putc(&p->plain, '\n');
        break;
    case BT_CHAT_LLAMA3:
        message = trimmed(message);
        bt_strbuf_append(&p->plain, message.content, message.n_content);
        BATON_TRY(put_special(p, "<|eot_id|>"));
        break;
    case BT_CHAT_PLAIN:
        bt_strbuf_putc(&p->plain, ' ');
        bt_strbuf_append(&p->plain, message.content, message.n_content);
        bt_strbuf_putc(&p->plain, '\n');
        break;
    }
    return BATON_OK;
}

static baton_status check_role(const char *role)
{
    static const char *const roles[] = {"system", "developer", "user", "assistant", "tool"};
    for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++)
        if (strcmp(role, roles[i]) == 0)
            return BATON_OK;
    return bt_fail(BATON_ERR_INVALID_ARG,
                   "chat: wanted role system, developer, user, assistant or tool, found '%.64s'",
                   role);
}

static baton_status render(prompt *p, bt_chat_template chat_template,
                           const bt_chat_message *messages, size_t n, bool generation_prompt)
{
    if (chat_template == BT_CHAT_LLAMA3)
        BATON_TRY(put_special(p, "<|begin_of_text|>"));
    for (size_t i = 0; i < n; i++) {
        BATON_TRY(check_role(messages[i].role));
        BATON_TRY(put_message(p, chat_template, messages[i]));
    }
    if (generation_prompt)
        BATON_TRY(put_header(p, chat_template, "assistant"));
    return flush(p);
}

baton_status bt_chat_render(bt_chat_template chat_template, const bt_tokenizer *tokenizer,
                            const bt_chat_message *messages, size_t n, bool generation_prompt,
                            bt_token_list *list)
{
    prompt p = {.tokenizer = tokenizer, .list = list};
    baton_status status = render(&p, chat_template, messages, n, generation_prompt);
    bt_strbuf_free(&p.plain);
    return status;
}
