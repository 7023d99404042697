/* SPDX-License-Identifier: Apache-2.0 */
/* Which way bytes go to a peer, what forbids a faster one, and the lines that say so. */
#include "sender/txpath.h"

#include "sender/tx.h"

#include "core/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Puts must be clearly faster than stores of ours to be worth leaving the CPU out. */
static const double puts_ahead = 1.1;

const char *bt_tx_path_name(baton_path_choice path)
{
    static const char *const names[] = {"auto", "mapped", "put", "staged"};
    return names[path];
}

/* Nanoseconds of one page. */
static double mapped_ns(const bt_tx_figures *f, double bytes)
{
    return bytes / f->copy_gbps;
}

static double put_ns(const bt_tx_figures *f, double bytes)
{
    return f->post_us * 1e3 + bytes / f->wire_gbps;
}

/* Gathering the next page and moving this one overlap. */
static double staged_ns(const bt_tx_figures *f, double bytes)
{
    double gather_ns = f->stage_gbps > 0 ? bytes / f->stage_gbps : 0;
    double move_ns = put_ns(f, bytes);
    return gather_ns > move_ns ? gather_ns : move_ns;
}

baton_path_choice bt_tx_path_choose(const bt_tx_path_question *question,
                                    const bt_tx_figures *figures)
{
    if (question->wanted != BATON_PATH_AUTO)
        return question->wanted;
    /* However small its pieces are: they share messages over tcp, and where each is posted by
     * itself that costs less than what staging pages make it wait (docs/performance.md, Over tcp).
     */
    baton_path_choice by_put = question->has_registered ? BATON_PATH_PUT : BATON_PATH_STAGED;
    if (!question->can_map || question->require_rdma)
        return by_put;
    if (figures->copy_gbps <= 0 || figures->wire_gbps <= 0)
        return BATON_PATH_MAPPED;
    double bytes = (double)question->page_bytes;
    double ns = by_put == BATON_PATH_PUT ? put_ns(figures, bytes) : staged_ns(figures, bytes);
    return mapped_ns(figures, bytes) <= puts_ahead * ns ? BATON_PATH_MAPPED : by_put;
}

double bt_tx_path_gbps(baton_path_choice path, double copy_gbps, double stage_gbps,
                       double wire_gbps)
{
    if (path == BATON_PATH_MAPPED)
        return copy_gbps;
    bool staging_is_slower = stage_gbps > 0 && stage_gbps < wire_gbps;
    return path == BATON_PATH_STAGED && staging_is_slower ? stage_gbps : wire_gbps;
}

static double gbps_of(const bt_tx_peer *peer)
{
    const bt_tx_figures *f = &peer->figures;
    return bt_tx_path_gbps(peer->path, f->copy_gbps, f->stage_gbps, f->wire_gbps);
}

bool bt_tx_path_is_rdma(const bt_path *path, baton_memory_kind memory)
{
    static const char *const families[] = {"rc_", "dc_", "ud_", "srd", "gga_"};
    for (const char *word = path->transport; *word != 0;) {
        size_t n = strcspn(word, ",");
        for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++) {
            if (strncmp(word, families[i], strlen(families[i])) == 0)
                return true;
        }
        if (memory == BATON_MEMORY_CUDA_DEVICE && n == 8 && strncmp(word, "cuda_ipc", 8) == 0)
            return true;
        word += n + (word[n] == ',');
    }
    return false;
}

/* Appends "another NAME (ours A, theirs B)" where both are known and differ. */
static void add_difference(char *text, size_t size, const char *name, uint64_t ours,
                           uint64_t theirs)
{
    size_t n = strlen(text);
    if (ours != theirs && n < size)
        snprintf(text + n, size - n, "%sanother %s (ours %" PRIu64 ", theirs %" PRIu64 ")",
                 n > 0 ? ", " : "", name, ours, theirs);
}

bool bt_tx_path_may_attach(const bt_process *ours, const bt_process *theirs)
{
    bool is_known = ours->ipc_ns != 0 && theirs->ipc_ns != 0;
    if (!bt_process_same_host(ours, theirs) || !is_known)
        return true; /* nobody knows better */
    return ours->user_ns == theirs->user_ns && (ours->uid == theirs->uid || ours->uid == 0);
}

/* Why a region of this peer could not be mapped; transport_text is what the transport said. */
static void explain(const bt_tx *tx, bt_tx_peer *peer, const bt_msg_region *region,
                    const char *transport_text)
{
    char *why = peer->why_not_mapped;
    size_t size = sizeof(peer->why_not_mapped);
    const bt_process *ours = &tx->self, *theirs = &peer->process;
    why[0] = 0;
    peer->should_map = false;
    if (!bt_process_same_host(ours, theirs)) {
        snprintf(why, size, "another host");
    } else if (region->memory == BATON_MEMORY_CUDA_DEVICE) {
        snprintf(why, size, "the pool is device memory");
    } else if (region->kind == BT_REGION_ENGINE) {
        snprintf(why, size, "the pool is the engine's own memory");
    } else {
        peer->should_map = true;
        bool is_known = ours->ipc_ns != 0 && theirs->ipc_ns != 0;
        if (is_known && ours->user_ns == theirs->user_ns)
            add_difference(why, size, "user", ours->uid, theirs->uid);
        if (is_known) {
            add_difference(why, size, "user namespace", ours->user_ns, theirs->user_ns);
            add_difference(why, size, "IPC namespace", ours->ipc_ns, theirs->ipc_ns);
            add_difference(why, size, "mount namespace", ours->mnt_ns, theirs->mnt_ns);
        }
        add_difference(why, size, "PID namespace", ours->pid_ns, theirs->pid_ns);
        if (why[0] == 0)
            snprintf(why, size,
                     "the pool is not in shared memory (is the receiver's /dev/shm too small?): %s",
                     transport_text);
    }
}

static baton_status fail_unmapped(const bt_tx_peer *peer)
{
    return bt_fail(BATON_ERR_UNREACHABLE,
                   "path: wanted mapped, but the receiver's memory cannot be mapped here: %s",
                   peer->why_not_mapped);
}

baton_status bt_tx_path_map(bt_tx *tx, bt_tx_peer *peer, const bt_msg_region *from,
                            bt_tx_region *region)
{
    baton_path_choice wanted = tx->options.path;
    bool was_given_up = peer->state == BT_TX_PEER_READY && peer->path != BATON_PATH_MAPPED;
    void *mapped = NULL;
    if (wanted == BATON_PATH_PUT || wanted == BATON_PATH_STAGED || was_given_up)
        return BATON_OK;
    if (bt_process_same_host(&tx->self, &peer->process) &&
        bt_remote_map(region->remote, region->base, &mapped) == BATON_OK) {
        region->mapped = mapped;
        return BATON_OK;
    }
    char text[BT_ERROR_TEXT_BYTES];
    snprintf(text, sizeof(text), "%s", baton_last_error());
    explain(tx, peer, from, text);
    if (wanted == BATON_PATH_MAPPED && peer->state == BT_TX_PEER_READY)
        return fail_unmapped(peer); /* a fresh region; else see settle */
    return BATON_OK;
}

bool bt_tx_path_may_fail(const bt_tx *tx, const bt_tx_peer *peer)
{
    bool can_map = peer->n_regions > 0 && peer->regions[0].mapped != NULL;
    return peer->require_rdma || peer->min_bytes_per_s != 0 ||
           (tx->options.path == BATON_PATH_MAPPED && !can_map);
}

void bt_tx_path_floors(bt_tx *tx, bt_tx_peer *peer, const bt_msg_init *init)
{
    uint64_t ours = (uint64_t)(tx->options.data.min_gbps * 1e9);
    peer->floor_is_theirs = init->min_bytes_per_s > ours;
    peer->min_bytes_per_s = peer->floor_is_theirs ? init->min_bytes_per_s : ours;
    peer->rdma_is_theirs = !tx->options.data.require_rdma;
    peer->require_rdma = tx->options.data.require_rdma || init->require_rdma != 0;
}

static baton_status check_rdma(const bt_tx_peer *peer, const bt_path *path)
{
    if (!peer->require_rdma)
        return BATON_OK;
    const char *whose = peer->rdma_is_theirs ? "the receiver's" : "ours";
    if (peer->path == BATON_PATH_MAPPED)
        return bt_fail(BATON_ERR_PATH,
                       "path: wanted RDMA (require_rdma, %s), found mapped memory: use path auto "
                       "or put",
                       whose);
    if (bt_tx_path_is_rdma(path, peer->memory))
        return BATON_OK;
    return bt_fail(BATON_ERR_PATH,
                   "path: wanted RDMA (require_rdma, %s), found transport %s on device %s: both "
                   "ends need an RDMA device that is up and named in data_devices",
                   whose, path->transport[0] != 0 ? path->transport : "unknown",
                   path->device[0] != 0 ? path->device : "unknown");
}

static baton_status check_floor(const bt_tx_peer *peer, const bt_path *path)
{
    if (peer->min_bytes_per_s == 0)
        return BATON_OK;
    bool is_mapped = peer->path == BATON_PATH_MAPPED;
    double gbps = gbps_of(peer);
    double wanted = (double)peer->min_bytes_per_s / 1e9;
    const char *whose = peer->floor_is_theirs ? "the receiver's" : "ours";
    if (gbps <= 0)
        return bt_fail(BATON_ERR_PATH,
                       "path: wanted at least %.3g GB/s (min_gbps, %s), but nothing could be "
                       "measured: measure is off, the receiver offers no scratch area, or nothing "
                       "arrived in time",
                       wanted, whose);
    if (gbps >= wanted)
        return BATON_OK;
    if (is_mapped)
        return bt_fail(BATON_ERR_PATH,
                       "path: wanted at least %.3g GB/s (min_gbps, %s), measured %.3g GB/s into "
                       "mapped memory",
                       wanted, whose, gbps);
    return bt_fail(BATON_ERR_PATH,
                   "path: wanted at least %.3g GB/s (min_gbps, %s), measured %.3g GB/s by %s over "
                   "%s on device %s",
                   wanted, whose, gbps, bt_tx_path_name(peer->path), path->transport, path->device);
}

/* The one line that says how the bytes will go. */
static void log_path(const bt_tx_peer *peer, const bt_path *path)
{
    static const char *const memories[] = {"host", "cuda", "cuda_host"};
    const bt_tx_figures *f = &peer->figures;
    bool is_mapped = peer->path == BATON_PATH_MAPPED;
    bool says_why = !is_mapped && peer->why_not_mapped[0] != 0 && !peer->should_map;
    bt_info("sender: connected peer=%s address=%s:%u path=%s transport=%s device=%s rails=%u "
            "memory=%s gbps=%.3g copy_gbps=%.3g stage_gbps=%.3g wire_gbps=%.3g post_us=%.2f "
            "flush_us=%.1f regions=%u pages_bytes=%" PRIu64 " control=%s%s%s",
            peer->name, peer->host, peer->init_port, bt_tx_path_name(peer->path), path->transport,
            path->device, path->n_rails, memories[peer->memory], gbps_of(peer), f->copy_gbps,
            f->stage_gbps, f->wire_gbps, f->post_us, f->flush_us, peer->n_regions,
            peer->n_regions > 0 ? peer->regions[0].page_bytes : 0,
            bt_framering_is_up(&peer->to_receiver) ? "ring" : "zmq", says_why ? " not_mapped=" : "",
            says_why ? peer->why_not_mapped : "");
    if (!is_mapped && peer->should_map)
        bt_warn("sender: the receiver is on this host, but its memory cannot be mapped: %s "
                "peer=%s:%u path=%s",
                peer->why_not_mapped, peer->host, peer->init_port, bt_tx_path_name(peer->path));
}

static void count_path(baton_sender_stats *stats, const baton_sender_peer *shown, uint64_t by)
{
    if (shown->connected)
        *(shown->path == BATON_PATH_MAPPED ? &stats->peers_mapped
          : shown->path == BATON_PATH_PUT  ? &stats->peers_put
                                           : &stats->peers_staged) += by;
}

void bt_tx_path_publish(bt_tx *tx, bt_tx_peer *peer, baton_status status, const char *text)
{
    baton_sender_peer shown = peer->shown;
    bt_path path = {0};
    shown.connected = peer->state == BT_TX_PEER_READY;
    shown.status = status;
    snprintf(shown.text, sizeof(shown.text), "%s", text);
    if (shown.connected) {
        bt_endpoint_path(peer->endpoint, &path);
        shown.path = peer->path;
        shown.memory = peer->memory;
        shown.n_rails = path.n_rails;
        shown.copy_gbps = peer->figures.copy_gbps;
        shown.stage_gbps = peer->figures.stage_gbps;
        shown.wire_gbps = peer->figures.wire_gbps;
        shown.post_us = peer->figures.post_us;
        shown.flush_us = peer->figures.flush_us;
        snprintf(shown.transport, sizeof(shown.transport), "%s", path.transport);
        snprintf(shown.device, sizeof(shown.device), "%s", path.device);
        snprintf(shown.why_not_mapped, sizeof(shown.why_not_mapped), "%s",
                 peer->path != BATON_PATH_MAPPED ? peer->why_not_mapped : "");
    }
    pthread_mutex_lock(&tx->stats_lock);
    count_path(&tx->stats, &peer->shown, UINT64_MAX); /* one less */
    count_path(&tx->stats, &shown, 1);
    peer->shown = shown;
    pthread_mutex_unlock(&tx->stats_lock);
}

baton_status bt_tx_path_settle(bt_tx *tx, bt_tx_peer *peer)
{
    bool has_regions = peer->n_regions > 0;
    peer->memory = has_regions ? peer->regions[0].remote->kind : BATON_MEMORY_HOST;
    peer->figures = peer->measure.found;
    const bt_tx_path_question question = {
        .wanted = tx->options.path,
        .can_map = has_regions && peer->regions[0].mapped != NULL,
        .has_registered = atomic_load_explicit(&tx->n_registered, memory_order_relaxed) > 0,
        .require_rdma = peer->require_rdma,
        .page_bytes = has_regions ? peer->regions[0].page_bytes : tx->page_bytes,
    };
    peer->path = bt_tx_path_choose(&question, &peer->figures);
    if (peer->path == BATON_PATH_MAPPED && !question.can_map)
        return fail_unmapped(peer);
    bt_path path = {0};
    bt_endpoint_path(peer->endpoint, &path);
    /* Over other transports UCX copies device memory piece by piece, and waits for each. */
    peer->puts_from_device = tx->transport->reaches_device &&
                             tx->options.path != BATON_PATH_STAGED &&
                             (path.puts_from_device || bt_tx_path_is_rdma(&path, peer->memory));
    BATON_TRY(check_rdma(peer, &path));
    BATON_TRY(check_floor(peer, &path));
    for (uint32_t i = 0; i < peer->n_regions && peer->path != BATON_PATH_MAPPED; i++)
        peer->regions[i].mapped = NULL;
    log_path(peer, &path);
    return BATON_OK;
}

uint32_t bt_tx_peers_shown(bt_tx *tx, baton_sender_peer *peers, uint32_t max)
{
    uint32_t n = 0;
    pthread_mutex_lock(&tx->stats_lock);
    for (const bt_tx_peer *peer = tx->peers; peer != NULL; peer = peer->next, n++) {
        if (n >= max)
            continue;
        peers[n] = peer->shown;
    }
    pthread_mutex_unlock(&tx->stats_lock);
    return n;
}
