/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/demo_prompts.h"

#include "core/fail.h"

#include <errno.h>
#include <stdio.h>

enum { MIN_TEXT_BYTES = 4 * BT_DEMO_MAX_BYTES, MAX_TEXT_BYTES = 8 << 20 };

/* Letters, lines and blanks only: other bytes would make tokens that are no English. */
static baton_status read_text(const char *path, bt_strbuf *text)
{
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return bt_fail_errno(BATON_ERR_IO, errno, "demo: %s", path);
    int c;
    while ((c = fgetc(file)) != EOF && text->length < MAX_TEXT_BYTES)
        if (c == '\n' || (c >= ' ' && c < 127))
            bt_strbuf_putc(text, (char)c);
    fclose(file);
    return bt_strbuf_status(text);
}

/* splitmix64: the prompts are the same in every run. */
static uint32_t draw(uint64_t *state, size_t below)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ (z >> 31)) % below);
}

static void cut(const bt_strbuf *text, uint64_t *state, size_t bytes, bt_strbuf *prompt)
{
    size_t at = draw(state, text->length - bytes);
    bt_strbuf_append(prompt, text->data + at, bytes);
}

static baton_status make_one(const bt_strbuf *text, uint64_t *state, bt_strbuf *prompts, uint32_t i)
{
    bt_strbuf *prompt = &prompts[i];
    uint32_t kind = i % 8;
    const bt_strbuf *earlier = kind >= 5 ? &prompts[i - 4] : NULL;
    if (kind == 6) {
        bt_strbuf_append(prompt, earlier->data, earlier->length);
    } else if (earlier != NULL) {
        size_t shared = earlier->length * 3 / 4;
        bt_strbuf_append(prompt, earlier->data, shared);
        cut(text, state, earlier->length - shared + 50, prompt);
    } else {
        size_t span = BT_DEMO_MAX_BYTES - BT_DEMO_MIN_BYTES - 50;
        cut(text, state, BT_DEMO_MIN_BYTES + draw(state, span), prompt);
    }
    return bt_strbuf_status(prompt);
}

baton_status bt_demo_prompts_make(const char *const *paths, size_t n_paths, bt_strbuf *prompts,
                                  uint32_t n)
{
    bt_strbuf text = {0};
    baton_status status = BATON_OK;
    for (size_t i = 0; status == BATON_OK && i < n_paths; i++)
        status = read_text(paths[i], &text);
    if (status == BATON_OK && text.length < MIN_TEXT_BYTES)
        status = bt_fail(BATON_ERR_NOT_FOUND, "demo: wanted at least %d bytes of text, found %zu",
                         MIN_TEXT_BYTES, text.length);
    uint64_t state = 0;
    for (uint32_t i = 0; status == BATON_OK && i < n; i++)
        status = make_one(&text, &state, prompts, i);
    bt_strbuf_free(&text);
    return status;
}
