/* SPDX-License-Identifier: Apache-2.0 */
/* One question to one admin endpoint.
 * Thread rule: any thread; blocks until the timeout. */
#ifndef BT_CTL_CLIENT_H
#define BT_CTL_CLIENT_H
#include <baton/status.h>
#include <jansson.h>

/* at: "unix:PATH", "PATH", "HOST:PORT"; target: "/transfers?limit=10". *answer_p is owned by the
 * caller (json_decref). Errors: INVALID_ARG, UNREACHABLE (nobody listens), DEADLINE, BAD_MESSAGE,
 * REFUSED (its own words), TOO_LARGE, NO_MEMORY. */
baton_status bt_ctl_get(const char *at, const char *target, uint32_t timeout_ms, json_t **answer_p);

#endif
