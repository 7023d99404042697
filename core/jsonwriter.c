/* SPDX-License-Identifier: Apache-2.0 */
#include "core/jsonwriter.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>

static void put_string(bt_strbuf *out, const char *text)
{
    bt_strbuf_putc(out, '"');
    bt_strbuf_escape_json(out, text);
    bt_strbuf_putc(out, '"');
}

/* What comes before a value: a comma, and its key. */
static void begin(bt_jsonwriter *json, const char *key)
{
    if (json->has_values[json->depth])
        bt_strbuf_putc(json->out, ',');
    json->has_values[json->depth] = true;
    if (key == NULL)
        return;
    put_string(json->out, key);
    bt_strbuf_putc(json->out, ':');
}

void bt_jw_open(bt_jsonwriter *json, const char *key, char bracket)
{
    assert(json->depth < BT_JSONWRITER_DEPTH_MAX);
    begin(json, key);
    bt_strbuf_putc(json->out, bracket);
    json->depth++;
    json->closers[json->depth] = bracket == '{' ? '}' : ']';
    json->has_values[json->depth] = false;
}

void bt_jw_close(bt_jsonwriter *json)
{
    assert(json->depth > 0);
    bt_strbuf_putc(json->out, json->closers[json->depth]);
    json->depth--;
}

void bt_jw_text(bt_jsonwriter *json, const char *key, const char *text)
{
    begin(json, key);
    if (text == NULL)
        bt_strbuf_puts(json->out, "null");
    else
        put_string(json->out, text);
}

void bt_jw_u64(bt_jsonwriter *json, const char *key, uint64_t value)
{
    begin(json, key);
    bt_strbuf_printf(json->out, "%" PRIu64, value);
}

void bt_jw_i64(bt_jsonwriter *json, const char *key, int64_t value)
{
    begin(json, key);
    bt_strbuf_printf(json->out, "%" PRId64, value);
}

void bt_jw_bool(bt_jsonwriter *json, const char *key, bool value)
{
    begin(json, key);
    bt_strbuf_puts(json->out, value ? "true" : "false");
}

void bt_jw_double(bt_jsonwriter *json, const char *key, double value, int decimals)
{
    begin(json, key);
    if (isfinite(value))
        bt_strbuf_printf(json->out, "%.*f", decimals, value);
    else
        bt_strbuf_puts(json->out, "null");
}

void bt_jw_hex64(bt_jsonwriter *json, const char *key, uint64_t value)
{
    begin(json, key);
    bt_strbuf_printf(json->out, "\"%016" PRIx64 "\"", value);
}

void bt_jw_ms(bt_jsonwriter *json, const char *key, uint64_t ns)
{
    bt_jw_double(json, key, (double)ns / 1e6, 3);
}
