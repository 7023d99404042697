/* SPDX-License-Identifier: Apache-2.0 */
/* Optional typed fields of a request body. A missing field and null leave the default; a field of
 * another type or out of range fills the error and gives false, as everything after it.
 *
 *   bt_api_reader r = {.object = body, .error = error};
 *   bt_api_bool(&r, "stream", &stream);
 *   bt_api_uint(&r, "n", 1, 1, &n);
 *   return !r.failed;
 *
 * Thread rule: owner thread. */
#ifndef BT_ENGINE_APIFIELDS_H
#define BT_ENGINE_APIFIELDS_H
#include <jansson.h>

#include "engine/apirequest.h"

typedef struct {
    const json_t *object; /* borrowed */
    bt_api_error *error;
    bool failed;
} bt_api_reader;

/* Fills the error, once; always false. code NULL: none. */
__attribute__((format(printf, 5, 6))) bool bt_api_refuse(bt_api_reader *reader, unsigned status,
                                                         const char *param, const char *code,
                                                         const char *format, ...);
/* The field, NULL when it is missing or null. */
const json_t *bt_api_get(const bt_api_reader *reader, const char *key);
void bt_api_bool(bt_api_reader *reader, const char *key, bool *out);
void bt_api_uint(bt_api_reader *reader, const char *key, uint32_t min, uint32_t max, uint32_t *out);
void bt_api_number(bt_api_reader *reader, const char *key, double min, double max, double *out);
/* A text of 1 to cap - 1 bytes into out[cap]; a missing one leaves out. */
void bt_api_text(bt_api_reader *reader, const char *key, char *out, size_t cap);
/* The field must be missing, null, or one of the harmless kinds: false, 0, "", [], {}. */
void bt_api_unsupported(bt_api_reader *reader, const char *key);

#endif
