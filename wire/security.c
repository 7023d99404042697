/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/security.h"

#include "core/fail.h"

static bool is_set(const char *text)
{
    return text != NULL && text[0] != 0;
}

/* One without the other would run without encryption, against what somebody wanted. */
static baton_status check_pair(const baton_security *options, const char *other, const char *name)
{
    if (is_set(options->key_file) == is_set(other))
        return BATON_OK;
    return bt_fail(BATON_ERR_CONFIG, "security: key_file and %s go together, %s is not set", name,
                   is_set(other) ? "key_file" : name);
}

static baton_status load_proxy_key(const baton_security *options, bt_security *security)
{
    if (!is_set(options->proxy_key))
        return BATON_OK;
    if (!security->has_keys)
        return bt_fail(BATON_ERR_CONFIG, "security: proxy_key wants a key_file, none is set");
    return bt_curve_load_public(options->proxy_key, security->proxy_public);
}

baton_status bt_security_open_server(void *context, const baton_security *options, const char *host,
                                     bt_security *security)
{
    bt_security opened = {.is_server = true, .has_keys = is_set(options->key_file)};
    BATON_TRY(check_pair(options, options->clients_path, "clients_path"));
    BATON_TRY(bt_zmq_check_bind_allowed(host, opened.has_keys, options->allow_unauthenticated));
    BATON_TRY(load_proxy_key(options, &opened));
    if (opened.has_keys) {
        BATON_TRY(bt_curve_load_secret(options->key_file, &opened.keys));
        baton_status status = bt_zap_create(context, options->clients_path, &opened.zap);
        if (status < 0) {
            bt_curve_forget(&opened.keys);
            return status;
        }
    }
    *security = opened;
    bt_curve_forget(&opened.keys);
    return BATON_OK;
}

baton_status bt_security_open_client(const baton_security *options, bt_security *security)
{
    bt_security opened = {.has_keys = is_set(options->key_file)};
    BATON_TRY(check_pair(options, options->server_key, "server_key"));
    BATON_TRY(load_proxy_key(options, &opened));
    if (opened.has_keys) {
        BATON_TRY(bt_curve_load_public(options->server_key, opened.server_public));
        BATON_TRY(bt_curve_load_secret(options->key_file, &opened.keys));
    }
    *security = opened;
    bt_curve_forget(&opened.keys);
    return BATON_OK;
}

void bt_security_apply(const bt_security *security, bt_zmq_options *options)
{
    if (!security->has_keys)
        return;
    if (security->is_server) {
        options->server_keys = &security->keys;
        options->zap = security->zap;
    } else {
        options->client_keys = &security->keys;
        options->server_public = security->server_public;
    }
}

baton_status bt_security_apply_notices(const bt_security *security, bt_zmq_options *options)
{
    if (!security->has_keys)
        return BATON_OK;
    if (security->proxy_public[0] == 0)
        return bt_fail(BATON_ERR_PERMISSION,
                       "notice: wanted the proxy's public key, since a key_file is set; set "
                       "proxy_key");
    options->client_keys = &security->keys;
    options->server_public = security->proxy_public;
    return BATON_OK;
}

void bt_security_close(bt_security *security)
{
    bt_zap_destroy(security->zap);
    bt_curve_forget(&security->keys);
    *security = (bt_security){0};
}
