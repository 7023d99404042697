/* SPDX-License-Identifier: Apache-2.0 */
/* What an admin client asks: the head of an HTTP GET, read strictly and within bounds.
 *
 *   GET /pages?state=landed&from=200&limit=100 HTTP/1.1
 *
 * Thread rule: any thread. */
#ifndef BT_CORE_ADMINQUERY_H
#define BT_CORE_ADMINQUERY_H
#include "core/strbuf.h"

enum {
    BT_ADMIN_HEAD_BYTES_MAX = 4096,
    BT_ADMIN_NAME_BYTES = 31,
    BT_ADMIN_ID_BYTES = 256,
    BT_ADMIN_ROWS_DEFAULT = 200,
    BT_ADMIN_ROWS_MAX = 500, /* of one answer: how much an owner can be made to write at once */
};

typedef struct {
    char name[BT_ADMIN_NAME_BYTES + 1];  /* "transfers"; "" for / */
    char id[BT_ADMIN_ID_BYTES + 1];      /* trace: which one; "": none was given */
    char state[BT_ADMIN_NAME_BYTES + 1]; /* only rows in this state; "": all */
    uint64_t from;                       /* rows to leave out at the beginning */
    uint32_t limit;                      /* rows at most, 1 to BT_ADMIN_ROWS_MAX */
} bt_admin_query;

/* head[n] ends with its empty line. local_host: only a Host header that names this host by number
 * or as localhost is answered, so that no web page's script gets in by a name of its own. Returns
 * the HTTP status: 200, or else *error has a text (constant). */
unsigned bt_admin_query_read(const char *head, size_t n, bool local_host, bt_admin_query *query,
                             const char **error);

#endif
