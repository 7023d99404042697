/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/ctl_tables.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef enum { TEXT, NUMBER, MILLISECONDS, BYTES, GBPS, OF_CHUNKS, OWNERS } column_kind;

typedef struct {
    const char *title, *key;
    column_kind kind;
} column;

typedef struct {
    const char *command, *list, *nothing;
    const column *columns;
    size_t n;
} listing;

#define COLUMNS(name) name, sizeof(name) / sizeof((name)[0])

static const column transfers[] = {
    {"REQUEST", "request", TEXT},
    {"STATE", "state", TEXT},
    {"STAGE", "stage_ms", MILLISECONDS},
    {"AGE", "age_ms", MILLISECONDS},
    {"DEADLINE", "deadline_ms", MILLISECONDS},
    {"PEER", "peer", TEXT},
    {"LANDED", "landed", OF_CHUNKS},
    {"BYTES", "bytes", BYTES},
    {"WAITS FOR", "waits_for", TEXT},
    {"TRACE", "trace", TEXT},
};
static const column pages[] = {
    {"PAGE", "page", NUMBER},      {"STATE", "state", TEXT},   {"WHY", "why", TEXT},
    {"TOKENS", "tokens", NUMBER},  {"HOLDS", "holds", NUMBER}, {"PINS", "pins", NUMBER},
    {"HELD BY", "owners", OWNERS},
};
static const column peers[] = {
    {"PEER", "peer", TEXT},
    {"STATE", "state", TEXT},
    {"EPOCH", "epoch", TEXT},
    {"HEARD", "heard_ms", MILLISECONDS},
    {"WATCHED", "watched", TEXT},
    {"TRANSFERS", "transfers", NUMBER},
    {"PATH", "path", TEXT},
    {"TRANSPORT", "transport", TEXT},
    {"DEVICE", "device", TEXT},
    {"COPY GB/s", "copy_gbps", GBPS},
    {"STAGE GB/s", "stage_gbps", GBPS},
    {"WIRE GB/s", "wire_gbps", GBPS},
    {"NOTE", "text", TEXT},
};
static const column leases[] = {
    {"KIND", "kind", TEXT},     {"REQUEST", "request", TEXT},    {"PEER", "peer", TEXT},
    {"PAGES", "pages", NUMBER}, {"AGE", "age_ms", MILLISECONDS}, {"LEFT", "left_ms", MILLISECONDS},
    {"AWAITS", "awaits", TEXT}, {"TRACE", "trace", TEXT},
};
static const listing listings[] = {
    {"transfers", "transfers", "no hand-off is under way", COLUMNS(transfers)},
    {"pages", "pages", "no page is in use", COLUMNS(pages)},
    {"peers", "peers", "no connection", COLUMNS(peers)},
    {"leases", "leases", "nothing keeps a page", COLUMNS(leases)},
};

static const char *text_of(json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

void bt_ctl_who(json_t *answer, char who[BT_CTL_WHO_BYTES])
{
    const char *role = text_of(answer, "role"), *name = text_of(answer, "name");
    json_t *rank = json_object_get(answer, "rank");
    long long pid = json_integer_value(json_object_get(answer, "pid"));
    if (json_is_integer(rank))
        snprintf(who, BT_CTL_WHO_BYTES, "%.20s:%.64s/%lld@%lld", role != NULL ? role : "?",
                 name != NULL ? name : "", (long long)json_integer_value(rank), pid);
    else
        snprintf(who, BT_CTL_WHO_BYTES, "%.20s@%lld", role != NULL ? role : "?", pid);
}

/* What came from a process, and goes to a terminal. */
static void put_text(bt_table *table, const char *text)
{
    bt_strbuf plain = {0};
    if (text != NULL)
        bt_strbuf_escape(&plain, text);
    bt_table_cell(table, "%s", plain.length > 0 ? bt_strbuf_text(&plain) : "-");
    bt_strbuf_free(&plain);
}

void bt_ctl_put_ms(bt_table *table, json_t *value)
{
    double ms = json_number_value(value), size = fabs(ms);
    if (!json_is_number(value))
        bt_table_cell(table, "-");
    else if (size < 1000)
        bt_table_cell(table, size < 10 ? "%.2f ms" : "%.1f ms", ms);
    else if (size < 100000)
        bt_table_cell(table, "%.2f s", ms / 1000);
    else
        bt_table_cell(table, "%lldm%02llds", (long long)(ms / 60000),
                      (long long)(size / 1000) % 60);
}

static void put_bytes(bt_table *table, json_t *value)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double bytes = json_number_value(value);
    size_t unit = 0;
    for (; bytes >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0]); unit++)
        bytes /= 1024;
    if (json_is_number(value))
        bt_table_cell(table, unit > 0 ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
    else
        bt_table_cell(table, "-");
}

static void put_owners(bt_table *table, json_t *row)
{
    bt_strbuf text = {0};
    size_t i;
    json_t *owner, *owners = json_object_get(row, "owners");
    long long n_more =
        json_integer_value(json_object_get(row, "n_owners")) - (long long)json_array_size(owners);
    json_array_foreach(owners, i, owner)
    {
        const char *request = text_of(owner, "request");
        bt_strbuf_puts(&text, i > 0 ? "; " : "");
        if (request != NULL)
            bt_strbuf_printf(&text, "%.100s (%s, chunk %lld)", request, text_of(owner, "state"),
                             (long long)json_integer_value(json_object_get(owner, "chunk")));
        else
            bt_strbuf_printf(&text, "pin %lld",
                             (long long)json_integer_value(json_object_get(owner, "pin")));
    }
    if (n_more > 0)
        bt_strbuf_printf(&text, "; %lld more", n_more);
    put_text(table, text.length > 0 ? bt_strbuf_text(&text) : NULL);
    bt_strbuf_free(&text);
}

static void put_cell(bt_table *table, json_t *row, const column *c)
{
    json_t *value = json_object_get(row, c->key);
    switch (c->kind) {
    case TEXT:
        put_text(table, json_string_value(value));
        break;
    case MILLISECONDS:
        bt_ctl_put_ms(table, value);
        break;
    case BYTES:
        put_bytes(table, value);
        break;
    case OF_CHUNKS:
        bt_table_cell(table, "%lld/%lld", (long long)json_integer_value(value),
                      (long long)json_integer_value(json_object_get(row, "chunks")));
        break;
    case OWNERS:
        put_owners(table, row);
        break;
    case GBPS:
        if (json_number_value(value) > 0) {
            bt_table_cell(table, "%.2f", json_number_value(value));
            break;
        }
        bt_table_cell(table, "-");
        break;
    case NUMBER:
        if (json_is_integer(value))
            bt_table_cell(table, "%lld", (long long)json_integer_value(value));
        else
            bt_table_cell(table, "-");
    }
}

static void put_counts(const bt_ctl_answers *answers, bt_strbuf *out)
{
    static const char *const keys[] = {"total",  "free",        "reserved",
                                       "landed", "quarantined", "retired"};
    enum { N_KEYS = sizeof(keys) / sizeof(keys[0]) };
    bt_table table = {0};
    size_t i;
    json_t *answer;
    bt_table_row(&table);
    bt_table_cell(&table, "WHO");
    for (int k = 0; k < N_KEYS; k++)
        bt_table_cell(&table, "%s", keys[k]);
    json_array_foreach(answers->answers, i, answer)
    {
        char who[BT_CTL_WHO_BYTES];
        json_t *counts = json_object_get(answer, "counts");
        if (json_object_get(counts, "total") == NULL)
            continue;
        bt_ctl_who(answer, who);
        bt_table_row(&table);
        put_text(&table, who);
        for (int k = 0; k < N_KEYS; k++)
            bt_table_cell(&table, "%lld",
                          (long long)json_integer_value(json_object_get(counts, keys[k])));
    }
    bt_table_print(&table, 0, out);
}

static void put_listing(const listing *l, const bt_ctl_answers *answers, bt_strbuf *out)
{
    bt_table table = {0};
    size_t i, j, n_rows = 0;
    bool has_more = false;
    json_t *answer, *row;
    bt_table_row(&table);
    bt_table_cell(&table, "WHO");
    for (size_t c = 0; c < l->n; c++)
        bt_table_cell(&table, "%s", l->columns[c].title);
    json_array_foreach(answers->answers, i, answer)
    {
        char who[BT_CTL_WHO_BYTES];
        bt_ctl_who(answer, who);
        has_more |= json_is_integer(json_object_get(answer, "next"));
        json_array_foreach(json_object_get(answer, l->list), j, row)
        {
            n_rows++;
            bt_table_row(&table);
            put_text(&table, who);
            for (size_t c = 0; c < l->n; c++)
                put_cell(&table, row, &l->columns[c]);
        }
    }
    if (n_rows > 0) {
        bt_table_print(&table, 0, out);
    } else {
        bt_strbuf nothing = {0};
        bt_table_print(&table, 0, &nothing);
        bt_strbuf_free(&nothing);
        bt_strbuf_printf(out, "%s\n", l->nothing);
    }
    if (has_more)
        bt_strbuf_puts(out, "... there are more: --limit\n");
}

static void put_counters(const bt_ctl_answers *answers, bt_strbuf *out)
{
    bt_table table = {0};
    size_t i;
    const char *name;
    json_t *answer, *value;
    bt_table_row(&table);
    bt_table_cell(&table, "WHO");
    bt_table_cell(&table, "COUNTER");
    bt_table_cell(&table, "VALUE");
    json_array_foreach(answers->answers, i, answer)
    {
        char who[BT_CTL_WHO_BYTES];
        bt_ctl_who(answer, who);
        json_object_foreach(json_object_get(answer, "counters"), name, value)
        {
            bt_table_row(&table);
            put_text(&table, who);
            put_text(&table, name);
            bt_table_cell(&table, "%lld", (long long)json_integer_value(value));
        }
    }
    bt_table_print(&table, 0, out);
}

static void put_endpoints(const bt_ctl_answers *answers, bt_strbuf *out)
{
    bt_table table = {0};
    size_t i;
    json_t *answer;
    bt_table_row(&table);
    static const char *const titles[] = {"WHO", "VERSION", "EPOCH", "AT"};
    static const char *const keys[] = {NULL, "baton", "epoch", "at"};
    for (int c = 0; c < 4; c++)
        bt_table_cell(&table, "%s", titles[c]);
    json_array_foreach(answers->answers, i, answer)
    {
        char who[BT_CTL_WHO_BYTES];
        bt_ctl_who(answer, who);
        bt_table_row(&table);
        for (int c = 0; c < 4; c++)
            put_text(&table, keys[c] != NULL ? text_of(answer, keys[c]) : who);
    }
    bt_table_print(&table, 0, out);
}

void bt_ctl_put_table(const char *command, const bt_ctl_answers *answers, bool only_counts,
                      bt_strbuf *out)
{
    if (strcmp(command, "counters") == 0)
        put_counters(answers, out);
    if (strcmp(command, "endpoints") == 0)
        put_endpoints(answers, out);
    if (strcmp(command, "pages") == 0)
        put_counts(answers, out);
    for (size_t i = 0; i < sizeof(listings) / sizeof(listings[0]) && !only_counts; i++)
        if (strcmp(listings[i].command, command) == 0)
            put_listing(&listings[i], answers, out);
}

void bt_ctl_put_failed(const bt_ctl_answers *answers, bt_strbuf *out)
{
    size_t i;
    json_t *failure;
    json_array_foreach(answers->failed, i, failure)
    {
        const char *error = text_of(failure, "error");
        bt_strbuf_puts(out, "baton-ctl: ");
        bt_strbuf_escape(out, error != NULL ? error : "no memory");
        bt_strbuf_putc(out, '\n');
    }
}
