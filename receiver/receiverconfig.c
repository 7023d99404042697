/* SPDX-License-Identifier: Apache-2.0 */
/* A receiver from a file. */
#include <baton/receiver.h>

#include "core/fail.h"
#include "core/fileoptions.h"
#include "core/log.h"

static void to_file(const baton_receiver_options *options, bt_file_options *file)
{
    *file = (bt_file_options){
        .name = options->name,
        .host = options->host,
        .notice = options->notice,
        .admin = options->admin,
        .notice_allow = options->notice_allow,
        .n_notice_allow = options->n_notice_allow,
        .digests = (int)options->digests,
        .progress = (int)options->progress,
        .memory_kind = (int)options->memory,
        .pool_bytes = options->pool_bytes,
        .n_regions = options->n_regions,
        .max_queued = options->max_queued,
        .max_peers = options->max_peers,
        .max_deadline_ms = options->max_deadline_ms,
        .security = options->security,
        .data = options->data,
        .timeouts = options->timeouts,
    };
}

static void from_file(const bt_file_options *file, baton_receiver_options *options)
{
    options->name = file->name;
    options->host = file->host;
    options->notice = file->notice;
    options->admin = file->admin;
    options->notice_allow = file->notice_allow;
    options->n_notice_allow = file->n_notice_allow;
    options->digests = (baton_digests)file->digests;
    options->progress = (baton_progress_mode)file->progress;
    options->memory = (baton_memory_kind)file->memory_kind;
    options->pool_bytes = file->pool_bytes;
    options->n_regions = file->n_regions;
    options->max_queued = file->max_queued;
    options->max_peers = file->max_peers;
    options->max_deadline_ms = file->max_deadline_ms;
    options->security = file->security;
    options->data = file->data;
    options->timeouts = file->timeouts;
}

static baton_status apply(const bt_config *config, const bt_file_options *file,
                          baton_receiver_options *options)
{
    uint16_t init_port, alloc_port;
    BATON_TRY(bt_file_check_keys(config, file, &options->layout, options->key_seed));
    BATON_TRY(bt_file_port(config, BT_KEY_INIT_PORT, file->init_port, file->n_init_port,
                           options->rank, &init_port));
    BATON_TRY(bt_file_port(config, BT_KEY_ALLOC_PORT, file->alloc_port, file->n_alloc_port,
                           options->rank, &alloc_port));
    from_file(file, options);
    options->init_port = init_port != 0 ? init_port : options->init_port;
    options->alloc_port = alloc_port != 0 ? alloc_port : options->alloc_port;
    return BATON_OK;
}

baton_status baton_receiver_create_from_file(const char *path,
                                             const baton_receiver_options *options,
                                             const char *const *overrides, uint32_t n_overrides,
                                             baton_receiver **receiver_p)
{
    baton_receiver_options wanted = {0};
    if (options != NULL)
        wanted = *options;
    bt_file_options file;
    bt_config *config;
    to_file(&wanted, &file);
    BATON_TRY(
        bt_file_options_load(path, BT_FILE_ROLE_RECEIVER, overrides, n_overrides, &file, &config));
    baton_status status = apply(config, &file, &wanted);
    if (status == BATON_OK)
        status = baton_receiver_create(&wanted, receiver_p);
    bt_config_destroy(config); /* create has copied what it keeps */
    return status;
}
