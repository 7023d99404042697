/* SPDX-License-Identifier: Apache-2.0 */
/* What HTTP server, client, proxy and engine share about messages: slices, header lists, status
 * texts, and OpenAI's error JSON.
 * Thread rule: any thread (no state). */
#ifndef BT_HTTP_HTTPMSG_H
#define BT_HTTP_HTTPMSG_H
#include <baton/status.h>

#include <stdbool.h>

/* Bytes that belong to somebody else; not 0-terminated. */
typedef struct {
    const char *at;
    size_t n;
} bt_slice;

/* A 0-terminated text as a slice. */
bt_slice bt_slice_of(const char *text);
bool bt_slice_equals(bt_slice slice, const char *text);
/* ASCII case is ignored. */
bool bt_slice_equals_nocase(bt_slice slice, const char *text);
/* Sum of the slices' sizes. */
size_t bt_slices_bytes(const bt_slice *slices, size_t n_slices);

/* name and value are 0-terminated, borrowed, and hold no control characters. */
typedef struct {
    const char *name;
    const char *value;
} bt_http_header;

typedef struct {
    const bt_http_header *items; /* [n], in the order of arrival, duplicates kept */
    size_t n;
} bt_http_headers;

/* Value of the first header called name (case ignored), or NULL. */
const char *bt_http_header_get(bt_http_headers headers, const char *name);
/* Headers of that name. */
size_t bt_http_header_count(bt_http_headers headers, const char *name);
/* The comma-separated value has this token (case ignored): ("keep-alive, Upgrade", "upgrade"). */
bool bt_http_has_token(const char *value, const char *token);
/* Connection, Keep-Alive, Transfer-Encoding, TE, Trailer, Upgrade, Proxy-...: a proxy drops these,
 * and whatever the Connection header names. */
bool bt_http_is_hop_by_hop(bt_http_headers headers, const char *name);
/* name is an HTTP token and value holds no control characters, so both may be sent. */
bool bt_http_header_is_clean(const char *name, const char *value);

/* "Not Found" for 404; "Unknown" where there is no name. Never NULL. */
const char *bt_http_status_text(unsigned status);

/* Splits "http://host:port", "https://host:port", "host:port", "[::1]:port" or "host" (the port is
 * then default_port, 443 for https). host[cap] gets the name without brackets; is_tls NULL: https
 * is refused. Errors: INVALID_ARG, TOO_LARGE. */
baton_status bt_http_parse_origin(const char *text, uint16_t default_port, char *host, size_t cap,
                                  uint16_t *port, bool *is_tls);

/* OpenAI's error object, {"error":{"message":..,"type":..,"param":..,"code":..}}, into out[cap],
 * 0-terminated, cut when cap is short. type NULL: what belongs to the status ("server_error", ...).
 * param, code NULL: null. Result: bytes needed without the 0, as snprintf has it. */
size_t bt_http_error_body(char *out, size_t cap, unsigned status, const char *type,
                          const char *message, const char *param, const char *code);
/* HTTP status that fits a failed operation: 400, 404, 413, 429, 499, 500, 502, 503, 504. */
unsigned bt_http_status_of(baton_status status);

#endif
