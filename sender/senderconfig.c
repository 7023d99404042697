/* SPDX-License-Identifier: Apache-2.0 */
/* A sender from a file. */
#include <baton/sender.h>

#include "core/fail.h"
#include "core/fileoptions.h"

static void to_file(const baton_sender_options *options, bt_file_options *file)
{
    *file = (bt_file_options){
        .name = options->name,
        .notice = options->notice,
        .admin = options->admin,
        .notice_allow = options->notice_allow,
        .n_notice_allow = options->n_notice_allow,
        .digests = (int)options->digests,
        .progress = (int)options->progress,
        .path = (int)options->path,
        .memory_kind = (int)options->memory,
        .commit = (int)options->commit,
        .staging_chunks = options->staging_chunks,
        .copy_threads = options->copy_threads,
        .layerwise = (int)options->layerwise,
        .layerwise_min_tokens = options->layerwise_min_tokens,
        .measure = !options->skip_measure,
        .security = options->security,
        .data = options->data,
        .timeouts = options->timeouts,
    };
}

static void from_file(const bt_file_options *file, baton_sender_options *options)
{
    options->name = file->name;
    options->notice = file->notice;
    options->admin = file->admin;
    options->notice_allow = file->notice_allow;
    options->n_notice_allow = file->n_notice_allow;
    options->digests = (baton_digests)file->digests;
    options->progress = (baton_progress_mode)file->progress;
    options->path = (baton_path_choice)file->path;
    options->memory = (baton_memory_kind)file->memory_kind;
    options->commit = (baton_commit_choice)file->commit;
    options->staging_chunks = file->staging_chunks;
    options->copy_threads = file->copy_threads;
    options->layerwise = (baton_layerwise)file->layerwise;
    options->layerwise_min_tokens = file->layerwise_min_tokens;
    options->skip_measure = !file->measure;
    options->security = file->security;
    options->data = file->data;
    options->timeouts = file->timeouts;
}

/* Files that name one receiver have it connected before the first request comes. */
static baton_status create(const bt_config *config, const bt_file_options *file,
                           baton_sender_options *options, baton_sender **sender_p)
{
    uint16_t init_port, alloc_port;
    BATON_TRY(bt_file_check_keys(config, file, &options->layout, options->key_seed));
    BATON_TRY(bt_file_port(config, BT_KEY_INIT_PORT, file->init_port, file->n_init_port,
                           options->rank, &init_port));
    BATON_TRY(bt_file_port(config, BT_KEY_ALLOC_PORT, file->alloc_port, file->n_alloc_port,
                           options->rank, &alloc_port));
    from_file(file, options);
    baton_sender *sender;
    BATON_TRY(baton_sender_create(options, &sender));
    baton_status status = BATON_OK;
    if (file->host != NULL && init_port != 0 && alloc_port != 0)
        status = baton_sender_connect(sender, file->host, init_port, alloc_port);
    if (status != BATON_OK) {
        baton_sender_destroy(sender);
        return status;
    }
    *sender_p = sender;
    return BATON_OK;
}

baton_status baton_sender_create_from_file(const char *path, const baton_sender_options *options,
                                           const char *const *overrides, uint32_t n_overrides,
                                           baton_sender **sender_p)
{
    baton_sender_options wanted = {0};
    if (options != NULL)
        wanted = *options;
    bt_file_options file;
    bt_config *config;
    to_file(&wanted, &file);
    BATON_TRY(
        bt_file_options_load(path, BT_FILE_ROLE_SENDER, overrides, n_overrides, &file, &config));
    baton_status status = create(config, &file, &wanted, sender_p);
    bt_config_destroy(config); /* create has copied what it keeps */
    return status;
}
