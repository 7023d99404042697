/* SPDX-License-Identifier: Apache-2.0 */
#include "core/adminquery.h"

#include <string.h>
#include <strings.h>

/* A part of the head. */
typedef struct {
    const char *at;
    size_t n;
} piece;

/* Takes what lies before the first c, and steps over that; all of it when there is none. */
static piece take_until(piece *rest, char c)
{
    const char *end = memchr(rest->at, c, rest->n);
    piece taken = {rest->at, end != NULL ? (size_t)(end - rest->at) : rest->n};
    size_t used = end != NULL ? taken.n + 1 : taken.n;
    rest->at += used;
    rest->n -= used;
    return taken;
}

static bool is_text(piece p, const char *text)
{
    return p.n == strlen(text) && memcmp(p.at, text, p.n) == 0;
}

static int hex_value(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* Undoes %XX. No 0 may come out, and it must fit with a 0 behind it. */
static bool decode(piece from, char *out, size_t cap)
{
    size_t n = 0;
    for (size_t i = 0; i < from.n; i++) {
        char c = from.at[i];
        if (c == '%') {
            int high = i + 2 < from.n ? hex_value(from.at[i + 1]) : -1;
            int low = i + 2 < from.n ? hex_value(from.at[i + 2]) : -1;
            if (high < 0 || low < 0)
                return false;
            c = (char)(high << 4 | low);
            i += 2;
        }
        if (c == 0 || n + 1 >= cap)
            return false;
        out[n++] = c;
    }
    out[n] = 0;
    return true;
}

static bool read_number(piece from, uint64_t *out)
{
    uint64_t value = 0;
    if (from.n == 0 || from.n > 18)
        return false;
    for (size_t i = 0; i < from.n; i++) {
        if (from.at[i] < '0' || from.at[i] > '9')
            return false;
        value = 10 * value + (uint64_t)(from.at[i] - '0');
    }
    *out = value;
    return true;
}

static bool read_parameter(piece name, piece value, bt_admin_query *query)
{
    uint64_t limit;
    if (is_text(name, "id"))
        return decode(value, query->id, sizeof(query->id));
    if (is_text(name, "state"))
        return decode(value, query->state, sizeof(query->state));
    if (is_text(name, "from"))
        return read_number(value, &query->from);
    if (!is_text(name, "limit") || !read_number(value, &limit) || limit == 0)
        return false;
    query->limit = limit < BT_ADMIN_ROWS_MAX ? (uint32_t)limit : BT_ADMIN_ROWS_MAX;
    return true;
}

static bool read_target(piece target, bt_admin_query *query)
{
    if (target.n == 0 || target.at[0] != '/')
        return false;
    piece rest = {target.at + 1, target.n - 1};
    piece name = take_until(&rest, '?');
    if (name.n > BT_ADMIN_NAME_BYTES)
        return false;
    for (size_t i = 0; i < name.n; i++)
        if (name.at[i] < 'a' || name.at[i] > 'z')
            return false;
    memcpy(query->name, name.at, name.n);
    while (rest.n > 0) {
        piece value = take_until(&rest, '&');
        piece key = take_until(&value, '=');
        if (!read_parameter(key, value, query))
            return false;
    }
    return true;
}

static piece without_space(piece p)
{
    while (p.n > 0 && (p.at[0] == ' ' || p.at[0] == '\t')) {
        p.at++;
        p.n--;
    }
    while (p.n > 0 && strchr(" \t\r", p.at[p.n - 1]) != NULL)
        p.n--;
    return p;
}

static bool is_this_host(piece host)
{
    static const char *const names[] = {"localhost", "127.0.0.1", "[::1]"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        size_t n = strlen(names[i]);
        if (host.n >= n && strncasecmp(host.at, names[i], n) == 0 &&
            (host.n == n || host.at[n] == ':'))
            return true;
    }
    return false;
}

/* Whether each Host header there is names this host; HTTP/1.0 needs none. */
static bool hosts_are_local(piece lines)
{
    while (lines.n > 0) {
        piece line = take_until(&lines, '\n');
        piece name = take_until(&line, ':');
        if (name.n == 4 && strncasecmp(name.at, "host", 4) == 0 &&
            !is_this_host(without_space(line)))
            return false;
    }
    return true;
}

unsigned bt_admin_query_read(const char *head, size_t n, bool local_host, bt_admin_query *query,
                             const char **error)
{
    piece rest = {head, n};
    piece line = without_space(take_until(&rest, '\n'));
    piece method = take_until(&line, ' ');
    piece target = take_until(&line, ' ');
    *query = (bt_admin_query){.limit = BT_ADMIN_ROWS_DEFAULT};
    bool is_http = is_text(line, "HTTP/1.1") || is_text(line, "HTTP/1.0");
    if (!is_http || memchr(head, 0, n) != NULL) {
        *error = "wanted an HTTP/1 request";
        return 400;
    }
    if (!is_text(method, "GET")) {
        *error = "wanted GET: nothing can be changed here";
        return 405;
    }
    if (local_host && !hosts_are_local(rest)) {
        *error = "wanted a Host header of localhost or its number";
        return 403;
    }
    if (!read_target(target, query)) {
        *error = "wanted /NAME?id=ID&state=STATE&from=N&limit=N, all after NAME optional";
        return 400;
    }
    return 200;
}
