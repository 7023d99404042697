/* SPDX-License-Identifier: Apache-2.0 */
/* Any body: planning it never reads outside, and every leg that comes of it is JSON again, without
 * the client's kv_transfer_params. First byte: the route. */
#include "proxy/bodyplan.h"
#include "fuzz/fuzzinput.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Also where assertions are off. */
static void check(const bt_leg_body *leg, baton_status status, const char *kv)
{
    static const char *const keys[] = {"kv_transfer_params", "max_tokens"};
    static bt_json_object scan;
    fuzz_must(status == BATON_OK || status == BATON_ERR_TOO_LARGE);
    if (status != BATON_OK)
        return;
    size_t n = bt_slices_bytes(leg->slices, leg->n_slices), at = 0;
    char *text = malloc(n + 1);
    for (size_t i = 0; i < leg->n_slices; at += leg->slices[i++].n)
        memcpy(text + at, leg->slices[i].at, leg->slices[i].n);
    fuzz_must(bt_json_scan(text, n, keys, 2, &scan) == BATON_OK);
    bt_json_value params = bt_json_at(&scan, 0);
    if (kv == NULL)
        fuzz_must(params.type == BT_JSON_ABSENT);
    else
        fuzz_must(bt_slice_equals(params.text, kv));
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bt_body_plan plan;
    static bt_leg_body leg;
    const char *param;
    static char kv[] = "{\"k\":1}";
    static const bt_leg_members members = {
        .text = {.data = kv, .length = sizeof(kv) - 1},
        .n = 2,
        .values = {{.key = "kv_transfer_params", .n = sizeof(kv) - 1},
                   {.key = "cache_hit_threshold", .at = 5, .n = 1, .only_if_there = true}}};
    if (size == 0)
        return 0;
    bt_route route = data[0] & 1 ? BT_ROUTE_CHAT : BT_ROUTE_COMPLETIONS;
    char *body = malloc(size);
    memcpy(body, data + 1, size - 1);
    if (bt_body_plan_make(route, body, size - 1, &plan, &param) == BATON_OK) {
        check(&leg, bt_leg_prefill_plain(&plan, &members, &leg), kv);
        check(&leg, bt_leg_plain(&plan, NULL, &leg), NULL);
        if (plan.is_early_safe) {
            check(&leg, bt_leg_tokenize(&plan, &leg), NULL);
            check(&leg, bt_leg_prefill_early(&plan, bt_slice_of("[1]"), &members, &leg), kv);
            check(&leg, bt_leg_decode_early(&plan, bt_slice_of("[1,2]"), 3, NULL, &leg), NULL);
        }
        bt_plan_may_begin_stop(&plan, "a\n", 2);
    }
    free(body);
    return 0;
}
