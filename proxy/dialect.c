/* SPDX-License-Identifier: Apache-2.0 */
/* What fills the templates of dialects.c in. */
#include "proxy/dialect.h"
#include "core/fail.h"

#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

void bt_uuid_make(char *out)
{
    uint8_t b[16];
    randombytes_buf(b, sizeof(b));
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    char *at = out;
    for (int i = 0; i < 16; i++) {
        bool is_group = i == 4 || i == 6 || i == 8 || i == 10;
        at += sprintf(at, is_group ? "-%02x" : "%02x", b[i]);
    }
}

uint64_t bt_room_make(uint32_t rank, uint32_t n_ranks)
{
    uint64_t room, n = n_ranks == 0 ? 1 : n_ranks;
    randombytes_buf(&room, sizeof(room));
    room %=
        (uint64_t)INT64_MAX - (UINT64_C(1) << 32); /* a rank or a sequence stays within 63 bits */
    return room - room % n + rank % n;
}

/* One slot being filled in: as a JSON value, or as bare text. */
typedef struct {
    const bt_dialect_values *values;
    bool is_bare;
    bool is_in_list; /* one of several values, for sequence number */
    uint32_t sequence;
    bt_strbuf *out;
} filling;

static void put_text(const filling *f, const char *text)
{
    if (f->is_bare)
        bt_strbuf_puts(f->out, text);
    else
        bt_json_append_string(f->out, text, strlen(text));
}

static void put_number(const filling *f, uint64_t number)
{
    bt_strbuf_printf(f->out, "%llu", (unsigned long long)number);
}

/* 0 stands for not known. */
static void put_port(const filling *f, uint16_t port)
{
    if (port == 0)
        bt_strbuf_puts(f->out, "null");
    else
        put_number(f, port);
}

static void put_url_host(const filling *f, const char *host)
{
    char text[BT_HOST_BYTES + 2];
    bool is_ipv6 = strchr(host, ':') != NULL;
    snprintf(text, sizeof(text), is_ipv6 ? "[%.*s]" : "%.*s", BT_HOST_BYTES - 1, host);
    put_text(f, text);
}

static void put_ports(const filling *f, const uint16_t *ports, uint32_t n)
{
    bt_strbuf_putc(f->out, '[');
    for (uint32_t i = 0; i < n; i++)
        bt_strbuf_printf(f->out, i == 0 ? "%u" : ",%u", ports[i]);
    bt_strbuf_putc(f->out, ']');
}

/* p.X and d.X */
static bool put_of_engine(const filling *f, bt_slice name, const bt_worker_address *at)
{
    if (bt_slice_equals(name, "host"))
        put_text(f, at->host);
    else if (bt_slice_equals(name, "port"))
        put_number(f, at->port);
    else if (bt_slice_equals(name, "url_host"))
        put_url_host(f, at->host);
    else if (bt_slice_equals(name, "bootstrap"))
        put_port(f, at->bootstrap_port);
    else if (bt_slice_equals(name, "zmq"))
        put_text(f, at->zmq);
    else if (bt_slice_equals(name, "handshake"))
        put_number(f, at->handshake_port);
    else if (bt_slice_equals(name, "notify"))
        put_number(f, at->notify_port);
    else if (bt_slice_equals(name, "tp"))
        put_number(f, at->tp == 0 ? 1 : at->tp);
    else if (bt_slice_equals(name, "dp"))
        put_number(f, at->dp == 0 ? 1 : at->dp);
    else if (bt_slice_equals(name, "init_ports"))
        put_ports(f, at->init_ports, at->n_ranks);
    else if (bt_slice_equals(name, "alloc_ports"))
        put_ports(f, at->alloc_ports, at->n_ranks);
    else
        return false;
    return true;
}

static void put_req_id(const filling *f)
{
    char text[128];
    if (!f->is_in_list) {
        put_text(f, f->values->req_id);
        return;
    }
    snprintf(text, sizeof(text), "%s-%u", f->values->req_id, f->sequence);
    put_text(f, text);
}

static void put_room(const filling *f)
{
    uint32_t dp = f->values->prefill->dp;
    uint64_t room = f->values->room + (uint64_t)f->sequence * (dp == 0 ? 1 : dp);
    put_number(f, room);
}

/* Inside an object, so that nothing stays of it where there is no rank. */
static void put_rank_member(const filling *f)
{
    const char *rank = f->values->rank;
    if (rank != NULL && rank[0] != 0)
        bt_strbuf_printf(f->out, ",\"remote_dp_rank\":%s", rank);
}

/* Things of the attempt. */
static bool put_of_attempt(const filling *f, bt_slice name)
{
    const bt_dialect_values *values = f->values;
    if (bt_slice_equals(name, "req_id"))
        put_req_id(f);
    else if (bt_slice_equals(name, "room"))
        put_room(f);
    else if (bt_slice_equals(name, "rank"))
        bt_strbuf_puts(f->out, values->rank == NULL ? "" : values->rank);
    else if (bt_slice_equals(name, "dp_rank_member"))
        put_rank_member(f);
    else if (bt_slice_equals(name, "uuid"))
        put_text(f, values->uuid);
    else if (bt_slice_equals(name, "hex"))
        for (const char *at = values->uuid; *at != 0; at++)
            bt_strbuf_append(f->out, at, *at != '-');
    else if (bt_slice_equals(name, "notice_addr"))
        put_text(f, values->notice_addr);
    else if (bt_slice_equals(name, "traceparent"))
        put_text(f, values->traceparent);
    else if (bt_slice_equals(name, "kv_wait_ms"))
        put_number(f, values->kv_wait_ms);
    else
        return false;
    return true;
}

static void put_member(const filling *f, bt_json_value object, bt_slice name)
{
    char key[64];
    bt_json_value value;
    snprintf(key, sizeof(key), "%.*s", (int)name.n, name.at);
    if (bt_json_get(object, key, &value) == BATON_OK)
        bt_strbuf_append(f->out, value.text.at, value.text.n);
    else
        bt_strbuf_puts(f->out, "null");
}

static bool has_prefix(bt_slice slice, const char *prefix, bt_slice *rest)
{
    size_t n = strlen(prefix);
    if (slice.n < n || memcmp(slice.at, prefix, n) != 0)
        return false;
    *rest = (bt_slice){slice.at + n, slice.n - n};
    return true;
}

/* What was learnt of the attempt's rank. */
static bt_json_value of_rank(const bt_dialect_values *values)
{
    bt_json_value value = {.type = BT_JSON_ABSENT};
    if (values->rank == NULL || bt_json_get(values->learnt, values->rank, &value) != BATON_OK)
        value.type = BT_JSON_ABSENT;
    return value;
}

static void put_one(const filling *f, bt_slice slot)
{
    bt_slice rest;
    bool is_known;
    if (has_prefix(slot, "p.", &rest)) {
        is_known = put_of_engine(f, rest, f->values->prefill);
    } else if (has_prefix(slot, "d.", &rest)) {
        is_known = put_of_engine(f, rest, f->values->decode);
    } else if (has_prefix(slot, "answer.", &rest)) {
        put_member(f, f->values->answer, rest);
        is_known = true;
    } else if (has_prefix(slot, "learnt.", &rest)) {
        put_member(f, f->values->learnt, rest);
        is_known = true;
    } else if (has_prefix(slot, "rank.", &rest)) {
        put_member(f, of_rank(f->values), rest);
        is_known = true;
    } else if (bt_slice_equals(slot, "answer")) {
        bt_strbuf_append(f->out, f->values->answer.text.at, f->values->answer.text.n);
        is_known = true;
    } else {
        is_known = put_of_attempt(f, slot);
    }
    assert(is_known && "dialect: no such slot");
    (void)is_known; /* without assertions nothing else looks at it */
}

static void put_list(filling *f, bt_slice slot)
{
    f->is_in_list = true;
    bt_strbuf_putc(f->out, '[');
    for (f->sequence = 0; f->sequence < f->values->n_sequences; f->sequence++) {
        if (f->sequence > 0)
            bt_strbuf_putc(f->out, ',');
        put_one(f, slot);
    }
    bt_strbuf_putc(f->out, ']');
}

static void put_slot(filling *f, bt_slice slot)
{
    const char *bar = memchr(slot.at, '|', slot.n);
    size_t start = f->out->length;
    bt_slice name = {slot.at, bar == NULL ? slot.n : (size_t)(bar - slot.at)};
    bool is_list = name.n > 2 && memcmp(name.at + name.n - 2, "[]", 2) == 0;
    if (is_list)
        name.n -= 2;
    if (is_list && f->values->n_sequences > 0)
        put_list(f, name);
    else
        put_one(f, name);
    bool is_null = f->out->length - start == 4 && !f->out->failed &&
                   memcmp(f->out->data + start, "null", 4) == 0;
    if (bar != NULL && is_null) {
        f->out->length = start;
        bt_strbuf_append(f->out, bar + 1, (size_t)(slot.at + slot.n - bar - 1));
    }
}

void bt_dialect_put(const char *text, const bt_dialect_values *values, bt_strbuf *out)
{
    for (const char *at = text; *at != 0;) {
        const char *slot = strchr(at, '$');
        size_t n = slot == NULL ? strlen(at) : (size_t)(slot - at);
        bt_strbuf_append(out, at, n);
        if (slot == NULL)
            return;
        bool is_bare = slot[1] == '(';
        const char *end = strchr(slot, is_bare ? ')' : '}');
        filling f = {.values = values, .is_bare = is_bare, .out = out};
        put_slot(&f, (bt_slice){slot + 2, (size_t)(end - slot - 2)});
        at = end + 1;
    }
}

/* It is made of something that is not known. */
static bool is_unknown(const char *text, const bt_dialect_values *values)
{
    bool wants_answer = strstr(text, "${answer") != NULL;
    bool wants_learnt = strstr(text, "${learnt.") != NULL || strstr(text, "${rank.") != NULL;
    return (wants_answer && values->answer.type == BT_JSON_ABSENT) ||
           (wants_learnt && values->learnt.type == BT_JSON_ABSENT);
}

static const char *template_of(const bt_dialect *dialect, bt_leg leg, size_t i,
                               const bt_dialect_values *values)
{
    bool is_first = leg == BT_LEG_PREFILL && i == 0 && dialect->params_no_ports != NULL;
    return is_first && values->decode->n_ranks == 0 ? dialect->params_no_ports
                                                    : dialect->legs[leg].members[i].value;
}

baton_status bt_dialect_fill(const bt_dialect *dialect, bt_leg leg, const bt_dialect_values *values,
                             bt_leg_members *out)
{
    const bt_dialect_member *members = dialect->legs[leg].members;
    bt_strbuf_clear(&out->text);
    out->n = 0;
    for (size_t i = 0; i < BT_LEG_MAX_MEMBERS && members[i].key != NULL; i++) {
        const char *text = template_of(dialect, leg, i, values);
        size_t start = out->text.length;
        if (is_unknown(text, values))
            continue;
        bt_dialect_put(text, values, &out->text);
        if (out->text.length == start)
            continue;
        out->values[out->n].key = members[i].key;
        out->values[out->n].at = start;
        out->values[out->n].n = out->text.length - start;
        out->values[out->n++].only_if_there = members[i].only_if_there;
    }
    if (bt_strbuf_status(&out->text) == BATON_OK)
        return BATON_OK;
    out->n = 0; /* what they point to is not there */
    return bt_fail(BATON_ERR_NO_MEMORY, "dialect: no memory for a leg's parameters");
}

/* What the prefill engine's answer hands on. */

static bt_json_value member_of(bt_json_value object, const char *name)
{
    bt_json_value value;
    bt_json_value absent = {.type = BT_JSON_ABSENT};
    return bt_json_get(object, name, &value) == BATON_OK ? value : absent;
}

static bool is_there(bt_json_value value)
{
    bool is_empty_list = value.type == BT_JSON_ARRAY && bt_json_length(value) == 0;
    bool is_empty_text = value.type == BT_JSON_STRING && value.text.n == 2;
    return value.type != BT_JSON_ABSENT && value.type != BT_JSON_NULL && !is_empty_list &&
           !is_empty_text;
}

/* The answer's params, as they are in it. */
static bt_json_value find_params(const bt_dialect *dialect, const char *json, size_t n,
                                 bool *is_over)
{
    enum { PARAMS, CHOICES, N };
    const char *const keys[N] = {dialect->answer_key, "choices"};
    bt_json_object scan;
    bt_json_value choice = {.type = BT_JSON_ABSENT};
    *is_over = false;
    if (bt_json_scan(json, n, keys, N, &scan) != BATON_OK)
        return choice;
    bt_json_iter it = bt_json_begin(bt_json_at(&scan, CHOICES));
    bool has_choice = bt_json_next(&it, &choice);
    bt_json_value reason = {.type = BT_JSON_ABSENT};
    if (has_choice)
        reason = member_of(choice, "finish_reason");
    *is_over = reason.type == BT_JSON_STRING && !bt_json_string_equals(reason, "length") &&
               !bt_json_string_equals(reason, "not_finished");
    if (!dialect->is_in_choice)
        return bt_json_at(&scan, PARAMS);
    return has_choice ? member_of(choice, dialect->answer_key) : choice;
}

/* Appends params with a member set. */
static bool put_patched(bt_slice params, const char *key, bt_slice value, bt_strbuf *out)
{
    bt_json_object scan;
    bt_slice slices[BT_JSON_MAX_RECORDED + 8];
    size_t n_slices;
    bt_json_edit edit = {BT_JSON_SET, 0, value};
    if (bt_json_scan(params.at, params.n, &key, 1, &scan) != BATON_OK ||
        bt_json_patch(&scan, &edit, 1, slices, sizeof(slices) / sizeof(slices[0]), &n_slices) !=
            BATON_OK)
        return false;
    for (size_t i = 0; i < n_slices; i++)
        bt_strbuf_append(out, slices[i].at, slices[i].n);
    return true;
}

/* Copies params to out, with what the dialect and the worker change. */
static bool copy_params(const bt_dialect *dialect, bt_slice params, const char *kv_host,
                        bt_strbuf *out)
{
    char host[2 * BT_HOST_BYTES];
    const char *key = dialect->set_key;
    bt_slice value = dialect->set_value == NULL ? params : bt_slice_of(dialect->set_value);
    bt_strbuf_clear(out);
    if (key == NULL && dialect->host_key != NULL && kv_host != NULL && kv_host[0] != 0) {
        key = dialect->host_key;
        bt_json_quote(host, sizeof(host), kv_host, strlen(kv_host));
        value = bt_slice_of(host);
    }
    if (key != NULL)
        return put_patched(params, key, value, out);
    bt_strbuf_append(out, params.at, params.n);
    return true;
}

bool bt_dialect_take_answer(const bt_dialect *dialect, const char *json, size_t n,
                            const char *kv_host, bt_strbuf *out, bt_json_value *value)
{
    bool is_over;
    *value = (bt_json_value){.type = BT_JSON_ABSENT};
    if (dialect->answer_key == NULL)
        return true;
    bt_json_value params = find_params(dialect, json, n, &is_over);
    if (dialect->is_over_at_stop && is_over)
        return true;
    if (params.type != BT_JSON_OBJECT)
        return is_over; /* older engines hand nothing over when the first token is the last */
    for (size_t i = 0; i < BT_MAX_NEEDED && dialect->needed[i] != NULL; i++) {
        if (!is_there(member_of(params, dialect->needed[i])))
            return false;
    }
    if (!copy_params(dialect, params.text, kv_host, out) || bt_strbuf_status(out) != BATON_OK)
        return false;
    *value = (bt_json_value){BT_JSON_OBJECT, {bt_strbuf_text(out), out->length}};
    return true;
}

baton_status bt_dialect_check_query(const char *json, size_t n, bt_json_value *ranks)
{
    bt_json_value all, entry;
    BATON_TRY(bt_json_check(json, n, &all));
    if (all.type != BT_JSON_OBJECT || bt_json_length(all) == 0)
        return bt_fail(BATON_ERR_BAD_MESSAGE, "bootstrap: wanted an object with a rank at least");
    bt_json_iter it = bt_json_begin(all);
    while (bt_json_next(&it, &entry)) {
        size_t n_key = it.key.text.n - 2; /* without quotes */
        if (n_key == 0 || n_key > 5 || strspn(it.key.text.at + 1, "0123456789") != n_key)
            return bt_fail(BATON_ERR_BAD_MESSAGE, "bootstrap: wanted ranks, found \"%.*s\"",
                           (int)(n_key < 32 ? n_key : 32), it.key.text.at + 1);
        if (!is_there(member_of(entry, "engine_id")))
            return bt_fail(BATON_ERR_BAD_MESSAGE, "bootstrap: rank %.*s has no engine_id",
                           (int)n_key, it.key.text.at + 1);
    }
    *ranks = all;
    return BATON_OK;
}
