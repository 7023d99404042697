/* SPDX-License-Identifier: Apache-2.0 */
#include "http/httpmsg.h"

#include "core/fail.h"
#include "http/jsonscan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { HTTPS_PORT = 443 };

bt_slice bt_slice_of(const char *text)
{
    return (bt_slice){text, strlen(text)};
}

bool bt_slice_equals(bt_slice slice, const char *text)
{
    return slice.n == strlen(text) && (slice.n == 0 || memcmp(slice.at, text, slice.n) == 0);
}

bool bt_slice_equals_nocase(bt_slice slice, const char *text)
{
    return slice.n == strlen(text) && (slice.n == 0 || strncasecmp(slice.at, text, slice.n) == 0);
}

size_t bt_slices_bytes(const bt_slice *slices, size_t n_slices)
{
    size_t bytes = 0;
    for (size_t i = 0; i < n_slices; i++)
        bytes += slices[i].n;
    return bytes;
}

const char *bt_http_header_get(bt_http_headers headers, const char *name)
{
    for (size_t i = 0; i < headers.n; i++) {
        if (strcasecmp(headers.items[i].name, name) == 0)
            return headers.items[i].value;
    }
    return NULL;
}

size_t bt_http_header_count(bt_http_headers headers, const char *name)
{
    size_t n = 0;
    for (size_t i = 0; i < headers.n; i++)
        n += strcasecmp(headers.items[i].name, name) == 0;
    return n;
}

bool bt_http_has_token(const char *value, const char *token)
{
    while (value != NULL && *value != '\0') {
        value += strspn(value, " \t,");
        size_t n = strcspn(value, ",");
        size_t used = n;
        while (used > 0 && (value[used - 1] == ' ' || value[used - 1] == '\t'))
            used--;
        if (bt_slice_equals_nocase((bt_slice){value, used}, token))
            return true;
        value += n;
    }
    return false;
}

bool bt_http_is_hop_by_hop(bt_http_headers headers, const char *name)
{
    static const char *const names[] = {
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcasecmp(name, names[i]) == 0)
            return true;
    }
    for (size_t i = 0; i < headers.n; i++) {
        if (strcasecmp(headers.items[i].name, "connection") == 0 &&
            bt_http_has_token(headers.items[i].value, name))
            return true;
    }
    return false;
}

static bool is_token_char(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c != 0 && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

bool bt_http_header_is_clean(const char *name, const char *value)
{
    if (*name == '\0')
        return false;
    for (; *name != '\0'; name++) {
        if (!is_token_char((unsigned char)*name))
            return false;
    }
    for (; *value != '\0'; value++) {
        unsigned char c = (unsigned char)*value;
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

const char *bt_http_status_text(unsigned status)
{
    static const struct {
        unsigned status;
        const char *text;
    } texts[] = {
        {100, "Continue"},
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {304, "Not Modified"},
        {307, "Temporary Redirect"},
        {308, "Permanent Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {411, "Length Required"},
        {413, "Payload Too Large"},
        {415, "Unsupported Media Type"},
        {417, "Expectation Failed"},
        {422, "Unprocessable Entity"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {499, "Client Closed Request"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
        {529, "Site Is Overloaded"},
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        if (texts[i].status == status)
            return texts[i].text;
    }
    return "Unknown";
}

static baton_status parse_port(const char *text, uint16_t *port)
{
    char *end;
    if (*text < '0' || *text > '9')
        return bt_fail(BATON_ERR_INVALID_ARG, "origin: wanted a port, found '%s'", text);
    unsigned long value = strtoul(text, &end, 10);
    if ((*end != '\0' && strcmp(end, "/") != 0) || value == 0 || value > UINT16_MAX)
        return bt_fail(BATON_ERR_INVALID_ARG, "origin: wanted a port of 1 to 65535, found '%s'",
                       text);
    *port = (uint16_t)value;
    return BATON_OK;
}

baton_status bt_http_parse_origin(const char *text, uint16_t default_port, char *host, size_t cap,
                                  uint16_t *port, bool *is_tls)
{
    const char *at = text;
    bool is_https = is_tls != NULL && strncasecmp(at, "https://", 8) == 0;
    if (is_https)
        at += 8;
    else if (strncasecmp(at, "http://", 7) == 0)
        at += 7;
    if (strstr(at, "://") != NULL)
        return bt_fail(BATON_ERR_INVALID_ARG, "origin: wanted http://host:port, found '%s'", text);
    bool bracket = *at == '[';
    at += bracket;
    size_t n = strcspn(at, bracket ? "]" : ":/");
    const char *rest = at + n;
    if (bracket && *rest++ != ']')
        return bt_fail(BATON_ERR_INVALID_ARG, "origin: wanted ']' in '%s'", text);
    if (n == 0 || (*rest != '\0' && *rest != ':' && strcmp(rest, "/") != 0))
        return bt_fail(BATON_ERR_INVALID_ARG, "origin: wanted http://host:port, found '%s'", text);
    if (n >= cap)
        return bt_fail(BATON_ERR_TOO_LARGE, "origin: host longer than %zu bytes in '%s'", cap - 1,
                       text);
    uint16_t found = is_https ? HTTPS_PORT : default_port;
    if (*rest == ':')
        BATON_TRY(parse_port(rest + 1, &found));
    memcpy(host, at, n);
    host[n] = '\0';
    *port = found;
    if (is_tls != NULL)
        *is_tls = is_https;
    return BATON_OK;
}

static const char *error_type(unsigned status)
{
    switch (status) {
    case 401:
        return "authentication_error";
    case 403:
        return "permission_error";
    case 404:
        return "not_found_error";
    case 429:
        return "rate_limit_error";
    case 503:
    case 529:
        return "overloaded_error";
    default:
        return status >= 500 ? "server_error" : "invalid_request_error";
    }
}

/* Appends at out + *used and counts on when cap is short. */
static void put_text(char *out, size_t cap, size_t *used, const char *text)
{
    size_t n = strlen(text);
    size_t room = cap > *used ? cap - *used : 0;
    if (room > 0) {
        size_t fits = n < room - 1 ? n : room - 1;
        memcpy(out + *used, text, fits);
        out[*used + fits] = '\0';
    }
    *used += n;
}

static void put_member(char *out, size_t cap, size_t *used, const char *before, const char *value)
{
    put_text(out, cap, used, before);
    if (value == NULL) {
        put_text(out, cap, used, "null");
        return;
    }
    bool room = cap > *used;
    *used += bt_json_quote(room ? out + *used : NULL, room ? cap - *used : 0, value, strlen(value));
}

size_t bt_http_error_body(char *out, size_t cap, unsigned status, const char *type,
                          const char *message, const char *param, const char *code)
{
    size_t used = 0;
    put_member(out, cap, &used, "{\"error\":{\"message\":", message);
    put_member(out, cap, &used, ",\"type\":", type != NULL ? type : error_type(status));
    put_member(out, cap, &used, ",\"param\":", param);
    put_member(out, cap, &used, ",\"code\":", code);
    put_text(out, cap, &used, "}}");
    return used;
}

unsigned bt_http_status_of(baton_status status)
{
    switch (status) {
    case BATON_OK:
        return 200;
    case BATON_ERR_INVALID_ARG:
    case BATON_ERR_BAD_MESSAGE:
    case BATON_ERR_OUT_OF_RANGE:
        return 400;
    case BATON_ERR_NOT_FOUND:
        return 404;
    case BATON_ERR_TOO_LARGE:
        return 413;
    case BATON_ERR_BUSY:
        return 429;
    case BATON_ERR_CANCELED:
        return 499;
    case BATON_ERR_OVERLOADED:
    case BATON_ERR_NO_PAGES:
    case BATON_ERR_NO_MEMORY:
        return 503;
    case BATON_ERR_UNREACHABLE:
    case BATON_ERR_CLOSED:
    case BATON_ERR_PEER_GONE:
    case BATON_ERR_PEER_RESTARTED:
    case BATON_ERR_TRANSPORT:
        return 502;
    case BATON_ERR_DEADLINE:
    case BATON_ERR_CONNECT_TIMEOUT:
    case BATON_ERR_PEER_SILENT:
        return 504;
    default:
        return 500;
    }
}
