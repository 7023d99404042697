/* SPDX-License-Identifier: Apache-2.0 */
/* Asks a server for the name of its model.
 * Thread rule: owner thread (the loop's). */
#ifndef BT_BENCH_LOAD_MODEL_H
#define BT_BENCH_LOAD_MODEL_H
#include "bench/load/load_options.h"
#include "http/httpclient.h"

/* Runs the loop until the answer is there; name[cap] gets the id of the first model that
 * /v1/models lists. Errors: UNREACHABLE and the client's others; BAD_MESSAGE, TOO_LARGE. */
baton_status bt_load_model_ask(bt_loop *loop, bt_http_client *client,
                               const bt_load_options *options, char *name, size_t cap);

#endif
