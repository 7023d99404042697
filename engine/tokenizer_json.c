/* SPDX-License-Identifier: Apache-2.0 */
/* Reads a Hugging Face tokenizer.json. What it cannot do exactly it refuses, because a tokenizer
 * that is nearly right gives wrong answers that nobody notices. */
#include "engine/tokenizer_impl.h"

#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "core/alloc.h"
#include "core/fail.h"
#include "engine/filetext.h"
#include "engine/unicode.h"

/* Byte-level BPE writes bytes as characters (GPT-2's bytes_to_unicode): printable Latin-1 stands
 * for itself, the other 68 bytes follow from U+0100 on. */
enum { N_BYTE_CHARS = 256 + 68 };

static bool stands_for_itself(unsigned byte)
{
    return (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

static void fill_byte_chars(int16_t bytes[N_BYTE_CHARS])
{
    memset(bytes, 0xff, N_BYTE_CHARS * sizeof(*bytes));
    unsigned next = 256;
    for (unsigned byte = 0; byte < 256; byte++)
        bytes[stands_for_itself(byte) ? byte : next++] = (int16_t)byte;
}

/* A piece's bytes in out (at least strlen(piece) bytes); their count. A piece with a character
 * that stands for no byte is an added token's text: it stays as it is. */
static size_t piece_bytes(const int16_t chars[N_BYTE_CHARS], const char *piece, size_t n,
                          uint8_t *out)
{
    size_t n_out = 0;
    for (size_t pos = 0; pos < n;) {
        uint32_t code = bt_utf8_next((const uint8_t *)piece, n, &pos);
        if (code >= N_BYTE_CHARS || chars[code] < 0) {
            memcpy(out, piece, n);
            return n;
        }
        out[n_out++] = (uint8_t)chars[code];
    }
    return n_out;
}

static baton_status unsupported(const char *what, const char *found)
{
    return bt_fail(BATON_ERR_UNSUPPORTED, "tokenizer.json: %s: found '%s', which is not supported",
                   what, found);
}

/* The text of a field, "" when it is not a text. */
static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

static bool is_set(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return value != NULL && !json_is_null(value);
}

static baton_status id_of(const json_t *value, const char *what, uint32_t *id)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) >= BT_MAX_VOCAB)
        return bt_fail(BATON_ERR_CORRUPT, "tokenizer.json: id of '%s': wanted 0 to %u", what,
                       BT_MAX_VOCAB - 1);
    *id = (uint32_t)json_integer_value(value);
    return BATON_OK;
}

static baton_status read_vocab(bt_tokenizer *tokenizer, json_t *vocab,
                               const int16_t chars[N_BYTE_CHARS], uint8_t *scratch)
{
    const char *piece;
    json_t *value;
    if (!json_is_object(vocab))
        return bt_fail(BATON_ERR_CORRUPT, "tokenizer.json: model.vocab: wanted an object");
    json_object_foreach(vocab, piece, value)
    {
        uint32_t id = 0;
        BATON_TRY(id_of(value, piece, &id));
        size_t n = piece_bytes(chars, piece, strlen(piece), scratch);
        BATON_TRY(bt_vocab_add(&tokenizer->vocab, id, scratch, n));
    }
    return BATON_OK;
}

/* The two halves of a merge, "a b" or ["a", "b"]; false when it is neither. */
static bool merge_halves(const json_t *merge, const char **left, size_t *n_left, const char **right,
                         size_t *n_right)
{
    if (json_is_array(merge) && json_array_size(merge) == 2) {
        *left = json_string_value(json_array_get(merge, 0));
        *right = json_string_value(json_array_get(merge, 1));
        if (*left == NULL || *right == NULL)
            return false;
        *n_left = strlen(*left);
        *n_right = strlen(*right);
        return true;
    }
    const char *text = json_string_value(merge);
    const char *space = text != NULL ? strchr(text, ' ') : NULL;
    if (space == NULL)
        return false;
    *left = text;
    *n_left = (size_t)(space - text);
    *right = space + 1;
    *n_right = strlen(space + 1);
    return true;
}

static baton_status read_merge(bt_tokenizer *tokenizer, const json_t *merge, uint32_t rank,
                               const int16_t chars[N_BYTE_CHARS], uint8_t *scratch)
{
    const char *left, *right;
    size_t n_left, n_right;
    if (!merge_halves(merge, &left, &n_left, &right, &n_right))
        return bt_fail(BATON_ERR_CORRUPT, "tokenizer.json: merge %u: wanted \"a b\" or [a, b]",
                       rank);
    size_t n = piece_bytes(chars, left, n_left, scratch);
    uint32_t left_id = bt_vocab_find(&tokenizer->vocab, scratch, n);
    n += piece_bytes(chars, right, n_right, scratch + n);
    uint32_t merged_id = bt_vocab_find(&tokenizer->vocab, scratch, n);
    n = piece_bytes(chars, right, n_right, scratch);
    uint32_t right_id = bt_vocab_find(&tokenizer->vocab, scratch, n);
    if (left_id == BT_NO_TOKEN || right_id == BT_NO_TOKEN || merged_id == BT_NO_TOKEN)
        return bt_fail(BATON_ERR_CORRUPT,
                       "tokenizer.json: merge %u names a piece that the "
                       "vocabulary does not have",
                       rank);
    return bt_vocab_add_merge(&tokenizer->vocab, left_id, right_id, rank, merged_id);
}

static baton_status read_model(bt_tokenizer *tokenizer, const json_t *model, uint8_t *scratch)
{
    if (strcmp(text_of(model, "type"), "BPE") != 0)
        return unsupported("model.type: wanted 'BPE'", text_of(model, "type"));
    if (json_is_true(json_object_get(model, "byte_fallback")))
        return unsupported("model.byte_fallback", "true");
    if (is_set(model, "dropout"))
        return unsupported("model.dropout", "a number");
    if (text_of(model, "continuing_subword_prefix")[0] != 0 ||
        text_of(model, "end_of_word_suffix")[0] != 0)
        return unsupported("model", "continuing_subword_prefix or end_of_word_suffix");
    tokenizer->ignore_merges = json_is_true(json_object_get(model, "ignore_merges"));
    int16_t chars[N_BYTE_CHARS];
    fill_byte_chars(chars);
    BATON_TRY(read_vocab(tokenizer, json_object_get(model, "vocab"), chars, scratch));
    const json_t *merges = json_object_get(model, "merges");
    if (!json_is_array(merges))
        return bt_fail(BATON_ERR_CORRUPT, "tokenizer.json: model.merges: wanted an array");
    for (size_t rank = 0; rank < json_array_size(merges); rank++)
        BATON_TRY(
            read_merge(tokenizer, json_array_get(merges, rank), (uint32_t)rank, chars, scratch));
    return BATON_OK;
}

static baton_status read_added_token(bt_tokenizer *tokenizer, const json_t *token)
{
    static const char *const strips[] = {"lstrip", "rstrip", "single_word"};
    const char *text = text_of(token, "content");
    uint32_t id = 0;
    BATON_TRY(id_of(json_object_get(token, "id"), text, &id));
    for (size_t i = 0; i < sizeof(strips) / sizeof(strips[0]); i++)
        if (json_is_true(json_object_get(token, strips[i])))
            return unsupported(text, strips[i]);
    bt_vocab *vocab = &tokenizer->vocab;
    if (bt_vocab_find(vocab, text, strlen(text)) != id)
        BATON_TRY(bt_vocab_add(vocab, id, text, strlen(text)));
    vocab->pieces[id].added = true;
    vocab->pieces[id].special = json_is_true(json_object_get(token, "special"));
    return BATON_OK;
}

static baton_status read_byte_level(const json_t *step, bool *use_regex)
{
    if (json_is_true(json_object_get(step, "add_prefix_space")))
        return unsupported("pre_tokenizer.add_prefix_space", "true");
    *use_regex = !json_is_false(json_object_get(step, "use_regex"));
    return BATON_OK;
}

static baton_status read_split(const json_t *step, bt_split *split)
{
    const char *regex = text_of(json_object_get(step, "pattern"), "Regex");
    if (strcmp(text_of(step, "behavior"), "Isolated") != 0 ||
        json_is_true(json_object_get(step, "invert")))
        return unsupported("pre_tokenizer Split: wanted behavior 'Isolated', not inverted",
                           text_of(step, "behavior"));
    if (strcmp(regex, BT_SPLIT_REGEX_LLAMA3) == 0)
        *split = BT_SPLIT_LLAMA3;
    else if (strcmp(regex, BT_SPLIT_REGEX_QWEN2) == 0)
        *split = BT_SPLIT_QWEN2;
    else if (strcmp(regex, BT_SPLIT_REGEX_GPT2) == 0)
        *split = BT_SPLIT_GPT2;
    else
        return unsupported("pre_tokenizer Split: wanted Llama 3's, Qwen 2's or GPT-2's expression",
                           regex);
    return BATON_OK;
}

/* ByteLevel alone, or Split then ByteLevel without its own expression. */
static baton_status read_pre_tokenizer(bt_tokenizer *tokenizer, const json_t *step)
{
    const char *type = text_of(step, "type");
    bool use_regex = false;
    if (strcmp(type, "ByteLevel") == 0) {
        BATON_TRY(read_byte_level(step, &use_regex));
        tokenizer->split = use_regex ? BT_SPLIT_GPT2 : BT_SPLIT_NONE;
        return BATON_OK;
    }
    const json_t *steps = json_object_get(step, "pretokenizers");
    if (strcmp(type, "Sequence") != 0 || json_array_size(steps) != 2 ||
        strcmp(text_of(json_array_get(steps, 0), "type"), "Split") != 0 ||
        strcmp(text_of(json_array_get(steps, 1), "type"), "ByteLevel") != 0)
        return unsupported("pre_tokenizer: wanted ByteLevel, or a Sequence of Split and ByteLevel",
                           type);
    BATON_TRY(read_split(json_array_get(steps, 0), &tokenizer->split));
    BATON_TRY(read_byte_level(json_array_get(steps, 1), &use_regex));
    return use_regex ? unsupported("pre_tokenizer: ByteLevel.use_regex behind a Split", "true")
                     : BATON_OK;
}

static baton_status check_normalizer(const json_t *normalizer)
{
    if (normalizer == NULL || json_is_null(normalizer) ||
        strcmp(text_of(normalizer, "type"), "NFC") == 0)
        return BATON_OK;
    const json_t *steps = json_object_get(normalizer, "normalizers");
    if (!json_is_array(steps))
        return unsupported("normalizer", text_of(normalizer, "type"));
    for (size_t i = 0; i < json_array_size(steps); i++)
        if (strcmp(text_of(json_array_get(steps, i), "type"), "NFC") != 0)
            return unsupported("normalizer", text_of(json_array_get(steps, i), "type"));
    return BATON_OK;
}

static baton_status add_around(bt_tokenizer *tokenizer, const json_t *special, const char *name,
                               bool is_after)
{
    const json_t *ids = json_object_get(special, "ids");
    if (!json_is_array(ids))
        return bt_fail(BATON_ERR_CORRUPT, "tokenizer.json: post_processor: no ids for '%s'", name);
    for (size_t i = 0; i < json_array_size(ids); i++) {
        uint32_t *n = is_after ? &tokenizer->n_after : &tokenizer->n_before;
        uint32_t id = 0;
        BATON_TRY(id_of(json_array_get(ids, i), name, &id));
        if (*n == BT_MAX_AROUND)
            return unsupported("post_processor", "too many tokens around a text");
        (is_after ? tokenizer->after : tokenizer->before)[(*n)++] = id;
    }
    return BATON_OK;
}

static baton_status read_template(bt_tokenizer *tokenizer, const json_t *step)
{
    const json_t *parts = json_object_get(step, "single");
    bool is_after = false;
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *part = json_array_get(parts, i);
        const json_t *special = json_object_get(part, "SpecialToken");
        if (special == NULL) {
            is_after = true;
            continue;
        }
        const char *name = text_of(special, "id");
        const json_t *found = json_object_get(json_object_get(step, "special_tokens"), name);
        BATON_TRY(add_around(tokenizer, found, name, is_after));
    }
    return BATON_OK;
}

static baton_status read_post_processor(bt_tokenizer *tokenizer, const json_t *step)
{
    const char *type = text_of(step, "type");
    if (step == NULL || json_is_null(step) || strcmp(type, "ByteLevel") == 0)
        return BATON_OK;
    if (strcmp(type, "TemplateProcessing") == 0)
        return read_template(tokenizer, step);
    const json_t *steps = json_object_get(step, "processors");
    if (strcmp(type, "Sequence") != 0 || !json_is_array(steps))
        return unsupported("post_processor", type);
    for (size_t i = 0; i < json_array_size(steps); i++) {
        const json_t *inner = json_array_get(steps, i);
        if (strcmp(text_of(inner, "type"), "Sequence") == 0)
            return unsupported("post_processor", "a Sequence inside a Sequence");
        BATON_TRY(read_post_processor(tokenizer, inner));
    }
    return BATON_OK;
}

static baton_status read_root(bt_tokenizer *tokenizer, const json_t *root, uint8_t *scratch)
{
    BATON_TRY(check_normalizer(json_object_get(root, "normalizer")));
    BATON_TRY(read_pre_tokenizer(tokenizer, json_object_get(root, "pre_tokenizer")));
    if (is_set(root, "decoder") &&
        strcmp(text_of(json_object_get(root, "decoder"), "type"), "ByteLevel") != 0)
        return unsupported("decoder: wanted 'ByteLevel'",
                           text_of(json_object_get(root, "decoder"), "type"));
    BATON_TRY(read_model(tokenizer, json_object_get(root, "model"), scratch));
    const json_t *added = json_object_get(root, "added_tokens");
    for (size_t i = 0; i < json_array_size(added); i++)
        BATON_TRY(read_added_token(tokenizer, json_array_get(added, i)));
    BATON_TRY(read_post_processor(tokenizer, json_object_get(root, "post_processor")));
    return bt_tokenizer_index(tokenizer);
}

baton_status bt_tokenizer_parse(const char *json, size_t n, bt_tokenizer **tokenizer_p)
{
    json_error_t error;
    json_t *root = json_loadb(json, n, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL)
        return bt_fail(BATON_ERR_CORRUPT, "tokenizer.json:%d: %s", error.line, error.text);
    baton_status status = BATON_OK;
    bt_tokenizer *tokenizer = bt_calloc(1, sizeof(*tokenizer));
    uint8_t *scratch = bt_calloc(n, 1); /* no piece, nor two halves of one, is longer */
    if (tokenizer == NULL || scratch == NULL)
        status = bt_fail(BATON_ERR_NO_MEMORY, "tokenizer: %zu bytes", n);
    else
        status = read_root(tokenizer, root, scratch);
    bt_free(scratch);
    json_decref(root);
    if (status < 0) {
        bt_tokenizer_destroy(tokenizer);
        return status;
    }
    *tokenizer_p = tokenizer;
    return BATON_OK;
}

baton_status bt_tokenizer_load(const char *model_dir, bt_tokenizer **tokenizer_p)
{
    char path[4096];
    if (model_dir == NULL)
        return bt_tokenizer_create_bytes(tokenizer_p);
    if (snprintf(path, sizeof(path), "%s/tokenizer.json", model_dir) >= (int)sizeof(path))
        return bt_fail(BATON_ERR_INVALID_ARG, "tokenizer: path of '%.64s...' is too long",
                       model_dir);
    char *json;
    size_t n;
    baton_status status = bt_file_read(path, (size_t)1 << 28, &json, &n);
    if (status == BATON_ERR_NOT_FOUND)
        return bt_tokenizer_create_bytes(tokenizer_p);
    BATON_TRY(status);
    status = bt_tokenizer_parse(json, n, tokenizer_p);
    bt_free(json);
    return status;
}
