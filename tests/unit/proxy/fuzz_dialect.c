/* SPDX-License-Identifier: Apache-2.0 */
/* Any answer of a prefill engine or its bootstrap server: reading it never reads outside, and what
 * is handed on is an object with everything that the decode engine needs. First byte: the dialect.
 */
#include "fuzz/fuzzinput.h"
#include "proxy/dialect.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const bt_dialect *dialect, const bt_strbuf *copy, bt_json_value value)
{
    bt_json_value again, member;
    if (value.type == BT_JSON_ABSENT)
        return;
    fuzz_must(dialect->answer_key != NULL && value.text.at == copy->data);
    fuzz_must(bt_json_check(value.text.at, value.text.n, &again) == BATON_OK);
    fuzz_must(again.type == BT_JSON_OBJECT);
    for (size_t i = 0; i < BT_MAX_NEEDED && dialect->needed[i] != NULL; i++)
        fuzz_must(bt_json_get(again, dialect->needed[i], &member) == BATON_OK &&
                  member.type != BT_JSON_NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bt_strbuf copy;
    bt_json_value value;
    if (size == 0)
        return 0;
    const bt_dialect *dialect = bt_dialect_find((bt_dialect_id)(data[0] % BT_N_DIALECTS),
                                                BT_MODE_DECODE_FIRST, BT_ENGINES_BATON);
    char *json = malloc(size);
    memcpy(json, data + 1, size - 1);
    (void)bt_dialect_take_answer(dialect, json, size - 1, data[0] & 0x80 ? "h\"" : NULL, &copy,
                                 &value);
    check(dialect, &copy, value);
    bt_json_value ranks;
    if (bt_dialect_check_query(json, size - 1, &ranks) == BATON_OK && bt_json_length(ranks) == 0)
        abort();
    free(json);
    return 0;
}
