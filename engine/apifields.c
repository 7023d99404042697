/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/apifields.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool bt_api_refuse(bt_api_reader *reader, unsigned status, const char *param, const char *code,
                   const char *format, ...)
{
    if (reader->failed)
        return false;
    reader->failed = true;
    reader->error->status = status;
    reader->error->param = param;
    reader->error->code = code;
    va_list args;
    va_start(args, format);
    vsnprintf(reader->error->message, sizeof(reader->error->message), format, args);
    va_end(args);
    return false;
}

const json_t *bt_api_get(const bt_api_reader *reader, const char *key)
{
    const json_t *value = json_object_get(reader->object, key);
    return json_is_null(value) ? NULL : value;
}

void bt_api_bool(bt_api_reader *reader, const char *key, bool *out)
{
    const json_t *value = bt_api_get(reader, key);
    if (value == NULL)
        return;
    if (!json_is_boolean(value))
        bt_api_refuse(reader, 400, key, NULL, "%s: wanted true or false", key);
    else
        *out = json_is_true(value);
}

void bt_api_uint(bt_api_reader *reader, const char *key, uint32_t min, uint32_t max, uint32_t *out)
{
    const json_t *value = bt_api_get(reader, key);
    if (value == NULL)
        return;
    json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < (json_int_t)min || number > (json_int_t)max)
        bt_api_refuse(reader, 400, key, NULL, "%s: wanted an integer from %u to %u", key, min, max);
    else
        *out = (uint32_t)number;
}

void bt_api_number(bt_api_reader *reader, const char *key, double min, double max, double *out)
{
    const json_t *value = bt_api_get(reader, key);
    if (value == NULL)
        return;
    double number = json_number_value(value);
    if (!json_is_number(value) || !(number >= min && number <= max))
        bt_api_refuse(reader, 400, key, NULL, "%s: wanted a number from %g to %g", key, min, max);
    else
        *out = number;
}

void bt_api_text(bt_api_reader *reader, const char *key, char *out, size_t cap)
{
    const json_t *value = bt_api_get(reader, key);
    if (value == NULL)
        return;
    const char *text = json_string_value(value);
    if (text == NULL || text[0] == 0 || strlen(text) >= cap)
        bt_api_refuse(reader, 400, key, NULL, "%s: wanted a text of 1 to %zu bytes", key, cap - 1);
    else
        memcpy(out, text, strlen(text) + 1);
}

static bool is_harmless(const json_t *value)
{
    return json_is_false(value) || (json_is_number(value) && json_number_value(value) == 0) ||
           (json_is_string(value) && json_string_length(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_object(value) && json_object_size(value) == 0);
}

void bt_api_unsupported(bt_api_reader *reader, const char *key)
{
    const json_t *value = bt_api_get(reader, key);
    if (value != NULL && !is_harmless(value))
        bt_api_refuse(reader, 400, key, NULL, "%s: this engine does not support it", key);
}
