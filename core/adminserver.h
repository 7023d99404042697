/* SPDX-License-Identifier: Apache-2.0 */
/* Answers questions about a live process, from outside: HTTP GETs on a Unix socket (or on loopback)
 * that are answered in JSON. It has a thread of its own for everything that has to do with clients;
 * the owner of the state that is asked about writes the text of an answer, and nothing else:
 *
 *   clients ◀──▶ admin thread ──question, ring──▶ owner, in its next turn: bt_admin_pending,
 *                     ▲                                    writes the text
 *                     └───────────── bt_admin_answered ────┘
 *
 * One question is under way at a time, and not more than one in 10 ms, so that clients can cost the
 * owner little; slow ones cost it nothing. An owner who does not answer within two seconds is
 * reported as stuck. Connections, bytes and times are bounded; of a Unix socket only processes of
 * the same user, or root, are heard.
 *
 * Thread rule: open and close by one thread, when the owner does not use it; pending, text and
 * answered by the owner. */
#ifndef BT_CORE_ADMINSERVER_H
#define BT_CORE_ADMINSERVER_H
#include "core/adminquery.h"

typedef struct bt_admin bt_admin;

typedef struct {
    /* NULL, "" or "auto": a socket of its own in the runtime folder, or, where that cannot be,
     * none, with a line in the log. "off". "unix:PATH", a folder being given a socket of its own
     * name. "HOST:PORT" with a loopback HOST; `rank` is added to PORT. */
    const char *where;
    const char *role, *name; /* of the socket's file */
    uint32_t rank;
    void (*ring)(void *ctx); /* on the admin thread: a question waits; wakes the owner */
    void *ctx;
} bt_admin_options;

/* *admin_p is NULL when there is none. Strings are borrowed during the call. Errors: INVALID_ARG,
 * NO_MEMORY; of what was asked for by name also ADDRESS_IN_USE, PERMISSION, IO. */
baton_status bt_admin_open(const bt_admin_options *options, bt_admin **admin_p);
/* Questions that nobody has answered get none. NULL is allowed. */
void bt_admin_close(bt_admin *admin);
/* "unix:/run/user/1000/baton/sender-p1-0-4711-1.sock", "127.0.0.1:7400"; "off" for NULL. */
const char *bt_admin_address(const bt_admin *admin);

/* The question that waits for its answer; NULL: none (or no admin). Valid until answered. */
const bt_admin_query *bt_admin_pending(bt_admin *admin);
/* Where its answer is written. */
bt_strbuf *bt_admin_text(bt_admin *admin);
/* http_status: 200, 404. The text is the admin thread's from now on. */
void bt_admin_answered(bt_admin *admin, unsigned http_status);

/* The folder in which sockets are made and looked for: $XDG_RUNTIME_DIR/baton, else
 * /tmp/baton-UID. Errors: TOO_LARGE. */
baton_status bt_admin_folder(char *path, size_t cap);

#endif
