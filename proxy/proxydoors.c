/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/proxydoors.h"

#include "core/fail.h"

#include <stdio.h>

static baton_status check(const bt_door_files *files)
{
    bool has_listener_file = files->tls_key != NULL || files->tls_client_ca != NULL;
    if (has_listener_file && files->tls_certificate == NULL)
        return bt_fail(BATON_ERR_CONFIG,
                       "tls: wanted --tls-certificate with --tls-key and --tls-client-ca");
    if (files->engine_key != NULL && files->engine_certificate == NULL)
        return bt_fail(BATON_ERR_CONFIG, "tls: wanted --engine-certificate with --engine-key");
    return BATON_OK;
}

static baton_status open_all(const bt_door_files *files, bool has_tls_engines, bt_doors *doors)
{
    const bt_tls_options listener = {.is_server = true,
                                     .certificate_file = files->tls_certificate,
                                     .key_file = files->tls_key,
                                     .ca_file = files->tls_client_ca};
    const bt_tls_options engines = {.certificate_file = files->engine_certificate,
                                    .key_file = files->engine_key,
                                    .ca_file = files->engine_ca};
    BATON_TRY(check(files));
    if (files->tls_certificate != NULL)
        BATON_TRY(bt_tls_context_create(&listener, &doors->listener));
    if (has_tls_engines)
        BATON_TRY(bt_tls_context_create(&engines, &doors->engines));
    if (files->api_keys != NULL)
        BATON_TRY(bt_apikeys_create(files->api_keys, &doors->keys));
    return BATON_OK;
}

baton_status bt_doors_open(const bt_door_files *files, bool has_tls_engines, bt_doors *doors)
{
    *doors = (bt_doors){0};
    baton_status status = open_all(files, has_tls_engines, doors);
    if (status != BATON_OK)
        bt_doors_close(doors);
    return status;
}

/* Keeps the first failure. */
static void note(baton_status status, baton_status *first, char text[BT_ERROR_TEXT_BYTES])
{
    if (status == BATON_OK || *first != BATON_OK)
        return;
    *first = status;
    snprintf(text, BT_ERROR_TEXT_BYTES, "%s", baton_last_error());
}

baton_status bt_doors_reload(const bt_doors *doors)
{
    baton_status first = BATON_OK;
    char text[BT_ERROR_TEXT_BYTES];
    if (doors->listener != NULL)
        note(bt_tls_context_reload(doors->listener), &first, text);
    if (doors->engines != NULL)
        note(bt_tls_context_reload(doors->engines), &first, text);
    if (doors->keys != NULL)
        note(bt_apikeys_reload(doors->keys), &first, text);
    return first == BATON_OK ? BATON_OK : bt_fail(first, "%s", text);
}

void bt_doors_close(bt_doors *doors)
{
    bt_tls_context_destroy(doors->listener);
    bt_tls_context_destroy(doors->engines);
    bt_apikeys_destroy(doors->keys);
    *doors = (bt_doors){0};
}
