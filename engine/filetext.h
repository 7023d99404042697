/* SPDX-License-Identifier: Apache-2.0 */
/* A whole small file as text: the JSON beside a model's weights.
 * Thread rule: any thread. */
#ifndef BT_ENGINE_FILETEXT_H
#define BT_ENGINE_FILETEXT_H
#include <baton/status.h>

/* The bytes of a regular file of at most max_bytes, with a 0 behind them: *text_p[*n], owned by the
 * caller (bt_free). Errors: NOT_FOUND, PERMISSION, TOO_LARGE, INVALID_ARG (no regular file), IO,
 * NO_MEMORY. */
baton_status bt_file_read(const char *path, size_t max_bytes, char **text_p, size_t *n);

#endif
