/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/dialect.h"
#include "http/jsonscan.h"

#include <assert.h>
#include <string.h>

#define RECEIVER                                                                               \
    "\"req_id\":${req_id},\"receiver_host\":${d.host},\"receiver_init_port\":${d.init_ports}," \
    "\"receiver_alloc_port\":${d.alloc_ports}"
#define NOTICE                                                      \
    ",\"notice_addr\":${notice_addr},\"kv_wait_ms\":${kv_wait_ms}," \
    "\"traceparent\":${traceparent}"

static const bt_dialect dialects[] = {
    {.name = "lmcache-pd",
     .mode = BT_MODE_EARLY_FIRST_TOKEN,
     .engines = BT_ENGINES_BATON,
     .signal = BT_SIGNAL_NOTICES,
     .prefill_params = "{\"ret_first_tok\":true,\"disagg_spec\":{" RECEIVER NOTICE "}}",
     .prefill_params_no_ports = "{\"ret_first_tok\":true}",
     .answers_questions = true},
    {.name = "lmcache-pd",
     .mode = BT_MODE_DECODE_FIRST,
     .engines = BT_ENGINES_BATON,
     .signal = BT_SIGNAL_NOTICES,
     .prefill_params = "{\"disagg_spec\":{" RECEIVER NOTICE "}}",
     .answers_questions = true},
    /* LMCache's own workers: no key that they do not know, and nothing but ALLOC on their ports. */
    {.name = "lmcache-pd",
     .mode = BT_MODE_EARLY_FIRST_TOKEN,
     .engines = BT_ENGINES_LMCACHE,
     .signal = BT_SIGNAL_NOTICES,
     .prefill_params = "{\"ret_first_tok\":true,\"disagg_spec\":{" RECEIVER "}}",
     .prefill_params_no_ports = "{\"ret_first_tok\":true}"},
    {.name = "lmcache-pd",
     .mode = BT_MODE_DECODE_FIRST,
     .engines = BT_ENGINES_LMCACHE,
     .signal = BT_SIGNAL_NOTICES,
     .prefill_params = "{\"disagg_spec\":{" RECEIVER "}}"},
};

const bt_dialect *bt_dialect_find(bt_mode mode, bt_engines engines)
{
    const bt_dialect *found = &dialects[0];
    for (size_t i = 0; i < sizeof(dialects) / sizeof(dialects[0]); i++) {
        if (dialects[i].mode == mode && dialects[i].engines == engines)
            found = &dialects[i];
    }
    return found;
}

static void put_text(bt_strbuf *out, const char *text)
{
    char quoted[2 * BT_HOST_BYTES + 128];
    bt_json_quote(quoted, sizeof(quoted), text, strlen(text));
    bt_strbuf_puts(out, quoted);
}

static void put_ports(bt_strbuf *out, const uint16_t *ports, uint32_t n)
{
    bt_strbuf_putc(out, '[');
    for (uint32_t i = 0; i < n; i++)
        bt_strbuf_printf(out, i == 0 ? "%u" : ",%u", ports[i]);
    bt_strbuf_putc(out, ']');
}

static void put_slot(const char *name, size_t n, const bt_dialect_values *values, bt_strbuf *out)
{
    bt_slice slot = {name, n};
    const bt_worker_address *d = values->decoder;
    if (bt_slice_equals(slot, "req_id"))
        put_text(out, values->req_id);
    else if (bt_slice_equals(slot, "d.host"))
        put_text(out, d->host);
    else if (bt_slice_equals(slot, "d.init_ports"))
        put_ports(out, d->init_ports, d->n_ranks);
    else if (bt_slice_equals(slot, "d.alloc_ports"))
        put_ports(out, d->alloc_ports, d->n_ranks);
    else if (bt_slice_equals(slot, "notice_addr"))
        put_text(out, values->notice_addr);
    else if (bt_slice_equals(slot, "traceparent"))
        put_text(out, values->traceparent);
    else if (bt_slice_equals(slot, "kv_wait_ms"))
        bt_strbuf_printf(out, "%u", values->kv_wait_ms);
    else
        assert(false && "dialect: no such slot");
}

void bt_dialect_put_params(const bt_dialect *dialect, const bt_dialect_values *values,
                           bt_strbuf *out)
{
    const char *at =
        values->decoder->n_ranks > 0 ? dialect->prefill_params : dialect->prefill_params_no_ports;
    while (at != NULL && *at != 0) {
        const char *slot = strstr(at, "${");
        size_t n = slot == NULL ? strlen(at) : (size_t)(slot - at);
        bt_strbuf_append(out, at, n);
        if (slot == NULL)
            break;
        const char *end = strchr(slot, '}');
        put_slot(slot + 2, (size_t)(end - slot - 2), values, out);
        at = end + 1;
    }
}
