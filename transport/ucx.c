/* SPDX-License-Identifier: Apache-2.0 */
/* The ucx backend: opening UCP with settings of ours, and the table of operations.
 *
 * UCX reads UCX_* environment variables itself; a setting of ours is applied only where the user
 * has not set that variable, and a variable that wins over us is logged. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/fdroom.h"
#include "core/log.h"
#include "transport/ucx_state.h"
#include "transport/ucxoffers.h"
#include "transport/verbs.h"

enum { DEVICES_TEXT_BYTES = 1024 };

/* Before 1.17 UCX matches a transport's keys without the transport's own prefix, and so in every
 * transport that has such a key; those chosen here mean the same in all of them. */
typedef struct {
    const char *key;     /* of a UCX_* variable, without "UCX_" */
    const char *old_key; /* before 1.17; NULL: not set there */
    const char *value;
} ucx_setting;

/* UCX 1.13 moves 0.7 GB/s over loopback with its own segments (8 and 64 KiB), three to six times as
 * much with these, for every size of puts. Segments of 132, 256 and 512 KiB, with messages to fill
 * them, were not better. */
static const ucx_setting tcp_settings[] = {
    {"TCP_TX_SEG_SIZE", "TX_SEG_SIZE", "128k"},
    {"TCP_RX_SEG_SIZE", "RX_SEG_SIZE", "128k"},
    {"TCP_MAX_IOV", NULL, "16"}, /* pieces that the kernel gathers; UCX's 6 are too few */
};
/* Without tcp nothing but the keep-alive tells that a peer on the same host has died, and shared
 * memory takes part in peer error handling only when told so. */
static const ucx_setting no_tcp_settings[] = {
    {"POSIX_ERROR_HANDLING", "MM_ERROR_HANDLING", "y"},
    {"SYSV_ERROR_HANDLING", "MM_ERROR_HANDLING", "y"},
    {"KEEPALIVE_INTERVAL", "KEEPALIVE_INTERVAL", "1s"},
};
/* Retry count 7 means for ever on some devices (rxe), and UCX's timeout of 1 s makes it 7 s until a
 * dead peer is noticed. One that nothing is sent to is noticed by the keep-alive, which UCX does
 * every 20 s. */
static const ucx_setting rc_settings[] = {
    {"RC_RETRY_COUNT", "RC_RETRY_COUNT", "6"},
    {"RC_TIMEOUT", "RC_TIMEOUT", "250ms"},
    {"KEEPALIVE_INTERVAL", "KEEPALIVE_INTERVAL", "1s"},
};
/* ud carries puts itself, or connects what carries them; UCX waits 30 s for a peer that has gone.
 */
static const ucx_setting ud_settings[] = {
    {"UD_TIMEOUT", "UD_TIMEOUT", "5s"},
    {"KEEPALIVE_INTERVAL", "KEEPALIVE_INTERVAL", "1s"},
};

/* The user's value of a variable, or NULL. */
static const char *users_value(const char *key)
{
    char variable[64];
    snprintf(variable, sizeof(variable), "UCX_%s", key);
    return getenv(variable);
}

static baton_status apply(ucp_config_t *config, const ucx_setting *setting)
{
    const char *users = users_value(setting->key);
    if (users != NULL) {
        bt_info("ucx: the environment wins over our setting variable=UCX_%s value=%s ours=%s",
                setting->key, users, setting->value);
        return BATON_OK;
    }
    const char *key = bt_ucx_is_older(17) ? setting->old_key : setting->key;
    if (key == NULL)
        return BATON_OK;
    ucs_status_t status = ucp_config_modify(config, key, setting->value);
    if (status == UCS_ERR_NO_ELEM) {
        bt_debug("ucx: this version does not know a setting of ours key=%s", key);
        return BATON_OK;
    }
    if (status != UCS_OK)
        return bt_fail_ucs(status, "setting %s=%s", key, setting->value);
    return BATON_OK;
}

static bool has_key(const ucx_setting *settings, size_t n, const char *key)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(settings[i].key, key) == 0)
            return true;
    return false;
}
#define HAS_KEY(settings, key) has_key((settings), sizeof(settings) / sizeof((settings)[0]), (key))

bool bt_ucx_sets(const char *variable)
{
    const char *key = strncmp(variable, "UCX_", 4) == 0 ? variable + 4 : "";
    return strcmp(key, "TLS") == 0 || strcmp(key, "NET_DEVICES") == 0 ||
           HAS_KEY(tcp_settings, key) || HAS_KEY(no_tcp_settings, key) ||
           HAS_KEY(rc_settings, key) || HAS_KEY(ud_settings, key);
}

static baton_status apply_one(ucp_config_t *config, const char *key, const char *value)
{
    return apply(config, &(ucx_setting){key, key, value});
}

static baton_status apply_all(ucp_config_t *config, const ucx_setting *settings, size_t n)
{
    for (size_t i = 0; i < n; i++)
        BATON_TRY(apply(config, &settings[i]));
    return BATON_OK;
}
#define APPLY_ALL(config, settings) \
    apply_all((config), (settings), sizeof(settings) / sizeof((settings)[0]))

static baton_status join_devices(const bt_transport_options *options, char *text, size_t bytes)
{
    size_t used = (size_t)snprintf(text, bytes, "%s", options->n_data_devices == 0 ? "lo" : "");
    for (uint32_t i = 0; i < options->n_data_devices; i++) {
        int n = snprintf(text + used, bytes - used, "%s%s", i != 0 ? "," : "",
                         options->data_devices[i]);
        used += (size_t)n;
        if (used >= bytes)
            return bt_fail(BATON_ERR_TOO_LARGE, "ucx: data_devices are longer than %zu bytes",
                           bytes);
    }
    return BATON_OK;
}

/* Whether the comma separated list has the word. */
static bool has_word(const char *list, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = list; at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, word, length) == 0 && (at[length] == ',' || at[length] == '\0'))
            return true;
    }
    return false;
}

static bool names_verbs(const char *devices)
{
    return strchr(devices, ':') != NULL;
}

/* Of several soft RoCE devices the first decides: UCX has one setting for all. */
static baton_status apply_gid_index(ucp_config_t *config, const bt_transport_options *options)
{
    for (uint32_t i = 0; i < options->n_data_devices && bt_ucx_is_older(19); i++) {
        char text[16];
        uint32_t index;
        if (!bt_verbs_is_name(options->data_devices[i]) ||
            !bt_verbs_soft_roce_gid(BT_SYSFS_ROOT, options->data_devices[i], &index))
            continue;
        snprintf(text, sizeof(text), "%u", index);
        return apply(config, &(ucx_setting){"IB_GID_INDEX", "GID_INDEX", text});
    }
    return BATON_OK;
}

/* A list without any device of the network is no list of verbs devices alone. */
static bool names_net(const char *devices)
{
    for (const char *at = devices; at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        size_t length = strcspn(at, ",");
        if (memchr(at, ':', length) == NULL)
            return true;
    }
    return false;
}

/* Whether a UCX_TLS list, NULL for the default, lets one of the transports in: names[n], the
 * aliases that UCX has for it. */
static bool lets_in(const char *list, const char *const *names, size_t n)
{
    bool is_named = false;
    bool is_negated = list != NULL && list[0] == '^';
    for (size_t i = 0; i < n && list != NULL; i++)
        is_named = is_named || has_word(list + is_negated, names[i]);
    return list == NULL || is_named != is_negated || (!is_negated && has_word(list, "all"));
}
#define LETS_IN(list, ...)                              \
    lets_in((list), (const char *const[]){__VA_ARGS__}, \
            sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *))

static bool lets_tcp_in(const char *list)
{
    return LETS_IN(list, "tcp");
}

/* UCX prints a warning about settings of transports that are not in use. */
static baton_status apply_transports(ucp_config_t *config, const char *list, const char *devices)
{
    if (lets_tcp_in(list) && names_net(devices))
        BATON_TRY(APPLY_ALL(config, tcp_settings));
    if (!lets_tcp_in(list) && LETS_IN(list, "sm", "shm", "mm", "posix", "sysv"))
        BATON_TRY(APPLY_ALL(config, no_tcp_settings));
    bool has_verbs = names_verbs(devices);
    bool has_rc = has_verbs && LETS_IN(list, "rc", "rc_v", "rc_verbs", "rc_x", "rc_mlx5", "ib");
    bool has_ud =
        has_verbs && LETS_IN(list, "rc", "ud", "ud_v", "ud_verbs", "ud_x", "ud_mlx5", "ib");
    if (has_rc)
        BATON_TRY(APPLY_ALL(config, rc_settings));
    /* Giving up a peer that never answered is where UCX before 1.14 aborts: with rc our own
     * deadlines come first. */
    if (has_ud && !(has_rc && bt_ucx_is_older(14)))
        BATON_TRY(APPLY_ALL(config, ud_settings));
    return BATON_OK;
}

static baton_status configure(ucp_config_t *config, const bt_transport_options *options)
{
    char devices[DEVICES_TEXT_BYTES];
    BATON_TRY(join_devices(options, devices, sizeof(devices)));
    if (options->transports != NULL && options->no_tcp && lets_tcp_in(options->transports))
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "ucx: data_tcp is off, but the transports \"%s\" let tcp in",
                       options->transports);
    const char *ours =
        options->transports == NULL && options->no_tcp ? "^tcp" : options->transports;
    const char *users = users_value("TLS");
    BATON_TRY(apply_one(config, "NET_DEVICES", devices));
    if (ours != NULL)
        BATON_TRY(apply_one(config, "TLS", ours));
    const char *users_devices = users_value("NET_DEVICES");
    if (users_devices == NULL)
        BATON_TRY(bt_verbs_check(BT_SYSFS_ROOT, options->data_devices, options->n_data_devices));
    BATON_TRY(apply_gid_index(config, options));
    return apply_transports(config, users != NULL ? users : ours,
                            users_devices != NULL ? users_devices : devices);
}

/* What the user has set is what most often leaves nothing. */
static baton_status fail_to_open(ucs_status_t status)
{
    static const char *const keys[] = {"TLS", "NET_DEVICES", "IB_GID_INDEX"};
    char text[256] = "";
    for (size_t i = 0, used = 0; i < sizeof(keys) / sizeof(keys[0]) && used < sizeof(text); i++)
        if (users_value(keys[i]) != NULL)
            used += (size_t)snprintf(text + used, sizeof(text) - used, " UCX_%s=%s", keys[i],
                                     users_value(keys[i]));
    return bt_fail_ucs(status, "opening UCX: no usable device or transport%s%s",
                       text[0] != '\0' ? ", with" : "", text);
}

static baton_status open_context(ucp_config_t *config, ucx_transport *transport)
{
    /* Of 5 without RDMA devices; UCX 1.13 aborts when its thread has none, and with fewer still it
     * goes on without tcp. */
    enum { CONTEXT_FDS = 24 };
    BATON_TRY(bt_fdroom_require(CONTEXT_FDS, "ucx: a context"));
    BATON_TRY(bt_memroom_require(BT_UCX_ROOM_BYTES, "ucx: a context"));
    /* Memory may be registered by one thread while workers of others run. */
    const uint64_t features = UCP_FEATURE_RMA | UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
    const ucp_params_t params = {.field_mask = UCP_PARAM_FIELD_FEATURES |
                                               UCP_PARAM_FIELD_MT_WORKERS_SHARED |
                                               UCP_PARAM_FIELD_NAME,
                                 .features = features,
                                 .mt_workers_shared = 1,
                                 .name = "baton"};
    ucs_status_t status = ucp_init(&params, config, &transport->context);
    if (status != UCS_OK)
        return fail_to_open(status);
    ucp_context_attr_t attr = {.field_mask = UCP_ATTR_FIELD_MEMORY_TYPES};
    status = ucp_context_query(transport->context, &attr);
    if (status != UCS_OK)
        return bt_fail_ucs(status, "asking for memory types");
    transport->base.reaches_device =
        (attr.memory_types & (UINT64_C(1) << UCS_MEMORY_TYPE_CUDA)) != 0;
    return BATON_OK;
}

static void ucx_destroy(bt_transport *base)
{
    ucx_transport *transport = (ucx_transport *)base;
    assert(transport->n_users == 0 && "workers or memories of the transport are still alive");
    if (transport->context != NULL && !transport->has_left_workers)
        ucp_cleanup(transport->context);
    pthread_mutex_destroy(&transport->lock);
    bt_free(transport);
}

static baton_status ucx_create(const bt_transport_options *options, bt_transport **transport_p)
{
    ucp_config_t *config;
    ucs_status_t read = ucp_config_read(NULL, NULL, &config);
    if (read != UCS_OK)
        return bt_fail_ucs(read, "reading the UCX_* environment");
    baton_status status;
    ucx_transport *transport = bt_calloc(1, sizeof(*transport));
    if (transport == NULL) {
        status = bt_fail(BATON_ERR_NO_MEMORY, "ucx: no memory for a transport");
        goto release_config;
    }
    transport->base.ops = &bt_ucx_ops;
    pthread_mutex_init(&transport->lock, NULL);
    for (uint32_t i = 0; i < options->n_data_devices; i++)
        transport->has_verbs = transport->has_verbs || bt_verbs_is_name(options->data_devices[i]);
    status = configure(config, options);
    if (status >= 0)
        status = open_context(config, transport);
    if (status >= 0)
        *transport_p = &transport->base;
    else
        ucx_destroy(&transport->base);
release_config:
    ucp_config_release(config);
    return status;
}

const bt_transport_ops bt_ucx_ops = {
    .name = "ucx",
    .create = ucx_create,
    .destroy = ucx_destroy,
    .memory_alloc = bt_ucx_memory_alloc,
    .memory_register = bt_ucx_memory_register,
    .memory_free = bt_ucx_memory_free,
    .worker_create = bt_ucx_worker_create,
    .worker_destroy = bt_ucx_worker_destroy,
    .worker_fd = bt_ucx_worker_fd,
    .worker_arm = bt_ucx_worker_arm,
    .worker_progress = bt_ucx_worker_progress,
    .worker_observe = bt_ucx_worker_observe,
    .connect = bt_ucx_connect,
    .close = bt_ucx_close,
    .path = bt_ucx_path,
    .import = bt_ucx_import,
    .release = bt_ucx_release,
    .map = bt_ucx_map,
    .populate = bt_ucx_populate,
    .put = bt_ucx_put,
    .flush = bt_ucx_flush,
    .send = bt_ucx_send,
};
