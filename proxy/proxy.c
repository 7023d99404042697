/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/proxy.h"
#include "core/alloc.h"
#include "core/clock.h"
#include "core/fail.h"
#include "core/thread.h"
#include "proxy/farewell.h"
#include "proxy/probe.h"
#include "proxy/proxyloop.h"
#include "proxy/proxyrequest.h"
#include "proxy/watch.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void set_default(uint32_t *value, uint32_t fallback)
{
    if (*value == 0)
        *value = fallback;
}

static void fill_defaults(bt_proxy_options *options)
{
    long n_cores = sysconf(_SC_NPROCESSORS_ONLN);
    bt_proxy_deadlines *ms = &options->ms;
    if (options->host == NULL)
        options->host = "127.0.0.1";
    if (options->notice_host == NULL)
        options->notice_host = "127.0.0.1";
    if (options->max_body_bytes == 0)
        options->max_body_bytes = (size_t)64 << 20;
    if (options->session_header == NULL)
        options->session_header = "X-Session-Id";
    if (options->prefix_bytes == 0)
        options->prefix_bytes = (size_t)16 << 20;
    if (options->local_queue == 0)
        options->local_queue = 8192;
    if (options->prefix_window == 0)
        options->prefix_window = 16384;
    set_default(&options->threads, n_cores < 1 ? 1 : n_cores > 8 ? 8 : (uint32_t)n_cores);
    set_default(&options->max_inflight, 4096);
    set_default(&ms->connect, 1000);
    set_default(&ms->tokenize, 2000);
    set_default(&ms->room, 30000);
    set_default(&ms->prefill, 300000);
    set_default(&ms->kv_wait, 30000);
    set_default(&ms->first_byte, 60000);
    set_default(&ms->gap, 60000);
    set_default(&ms->total, 3600000);
    set_default(&ms->status_after, 1000);
    set_default(&ms->probe, 1000);
    set_default(&ms->silent, 5000);
    set_default(&ms->drain, 180000);
}

static baton_status check(const bt_proxy_options *options)
{
    if (options->n_prefill == 0 || options->n_decode == 0)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "proxy: wanted at least one prefill and one decode engine, found %u and %u",
                       options->n_prefill, options->n_decode);
    if (options->threads > BT_PROXY_MAX_THREADS)
        return bt_fail(BATON_ERR_OUT_OF_RANGE, "threads: wanted 1 to %d, found %u",
                       BT_PROXY_MAX_THREADS, options->threads);
    if (options->notices < BT_NOTICES_AUTO || options->notices > BT_MAX_RANKS)
        return bt_fail(BATON_ERR_OUT_OF_RANGE, "notices: wanted auto or 0 to %d, found %d",
                       BT_MAX_RANKS, options->notices);
    return BATON_OK;
}

/* Notices. */

typedef struct {
    bt_proxy_loop *pl;
    bt_kv_notice notice;
} posted_notice;

/* The receivers of engines that send notices. Other dialects have neither. */
static bool answers_questions(const bt_proxy_options *options)
{
    return bt_dialect_find(BT_DIALECT_LMCACHE_PD, options->mode, options->engines)
        ->answers_questions;
}

/* A hand-off became ready after its attempt had ended: the RELEASE that was said then may have come
 * to the receiver before the sender's ALLOC did. Which decode engine it was is not known any more.
 */
static void release_late(bt_proxy *proxy, const char *id)
{
    if (!answers_questions(&proxy->options))
        return;
    for (uint32_t i = 0; i < proxy->decode.n_workers; i++)
        bt_kvcontrol_ask(proxy->control, BT_ASK_RELEASE, i, id);
}

static void on_posted(void *arg)
{
    posted_notice *posted = arg;
    bt_proxy_loop *pl = posted->pl;
    bt_kv_entry *entry;
    bt_heard heard = bt_kvwait_notice(pl->kvwait, &posted->notice, &entry);
    bt_count(&pl->metrics.notices[heard]);
    if (heard == BT_HEARD_LATE && !posted->notice.failed)
        release_late(pl->proxy, posted->notice.id);
    bt_free(posted);
    if (entry != NULL)
        bt_req_on_notice(entry, heard);
}

/* On the control thread. A notice that is lost here is asked for again with STATUS. */
static void deliver(void *ctx, uint32_t thread, const bt_kv_notice *notice)
{
    bt_proxy *proxy = ctx;
    posted_notice *posted = bt_calloc(1, sizeof(*posted));
    if (posted == NULL)
        return;
    posted->pl = &proxy->loops[thread];
    posted->notice = *notice;
    if (bt_loop_post(posted->pl->loop, on_posted, posted) != BATON_OK)
        bt_free(posted);
}

/* Loops. */

static void close_loop(bt_proxy_loop *pl)
{
    if (pl->loop == NULL)
        return;
    bt_req_end_all(pl);
    bt_fanout_end_all(pl);
    bt_probe_end_all(pl);
    bt_farewell_end_all(pl);
    bt_watch_destroy(pl->watch);
    bt_http_client_destroy(pl->client);
    bt_http_server_destroy(pl->server);
    bt_kvwait_destroy(pl->kvwait);
    bt_tracelog_destroy(pl->traces);
    for (int i = 0; i < BT_MAX_WORKERS; i++)
        bt_strbuf_free(&pl->learnt[i]);
    bt_loop_destroy(pl->loop);
}

static baton_status open_loop(bt_proxy *proxy, bt_proxy_loop *pl, uint32_t index)
{
    const bt_proxy_options *options = &proxy->options;
    pl->proxy = proxy;
    pl->index = index;
    bt_http_server_options server = {
        .host = options->host,
        .port = proxy->port,
        .reuse_port = options->threads > 1,
        .tls = proxy->doors.listener,
        .max_body_bytes = options->max_body_bytes,
        .on_head = proxy->doors.keys != NULL ? bt_surface_on_head : NULL,
        .on_request = bt_surface_on_request,
        .ctx = pl,
    };
    BATON_TRY(bt_loop_create(&pl->loop));
    BATON_TRY(bt_kvwait_create(proxy->epoch, index, &pl->kvwait));
    BATON_TRY(bt_http_client_create(pl->loop, NULL, &pl->client));
    BATON_TRY(bt_watch_create(pl, &pl->watch));
    BATON_TRY(bt_http_server_create(pl->loop, &server, &pl->server));
    proxy->port = bt_http_server_port(pl->server); /* the first loop's choice is everyone's */
    return BATON_OK;
}

static void *run_loop(void *arg)
{
    bt_proxy_loop *pl = arg;
    bt_loop_run(pl->loop);
    /* On this thread, which owns all of it; the loop itself goes with the owner. */
    bt_req_end_all(pl);
    bt_fanout_end_all(pl);
    bt_probe_end_all(pl);
    bt_farewell_end_all(pl);
    return NULL;
}

static baton_status run_loops(bt_proxy *proxy)
{
    for (uint32_t i = 0; i < proxy->n_loops; i++) {
        bt_proxy_loop *pl = &proxy->loops[i];
        BATON_TRY(bt_thread_start(&pl->thread, "baton-proxy", run_loop, pl));
        proxy->loops[i].is_running = true;
    }
    return BATON_OK;
}

/* Start and stop. */

static baton_status open_control(bt_proxy *proxy)
{
    const bt_proxy_options *options = &proxy->options;
    bt_kvcontrol_options control = {
        .host = options->notice_host,
        .port = options->notice_port,
        .epoch = proxy->epoch,
        .n_threads = options->threads,
        .decoders = &proxy->decode,
        .deliver = deliver,
        .ctx = proxy,
        .releases_former = answers_questions(options),
        .security = {.key_file = options->key_file,
                     .server_key = options->receiver_key,
                     .clients_path = options->clients_path,
                     .allow_unauthenticated = options->allow_unauthenticated}};
    BATON_TRY(bt_kvcontrol_start(&control, &proxy->control));
    if (options->notice_address != NULL)
        snprintf(proxy->notice_address, sizeof(proxy->notice_address), "%s",
                 options->notice_address);
    else
        snprintf(proxy->notice_address, sizeof(proxy->notice_address), "tcp://%s:%u",
                 options->notice_host, bt_kvcontrol_port(proxy->control));
    return BATON_OK;
}

/* A hand-off needs both ends. */
static baton_status check_pairs(const bt_proxy *proxy)
{
    for (unsigned id = 0; id < BT_N_DIALECTS; id++) {
        bool has_prefill = proxy->prefill.of_dialect[id] != 0;
        bool has_decode = proxy->decode.of_dialect[id] != 0;
        const char *name =
            bt_dialect_find((bt_dialect_id)id, BT_MODE_DECODE_FIRST, BT_ENGINES_BATON)->name;
        if (has_prefill != has_decode)
            return bt_fail(BATON_ERR_INVALID_ARG,
                           "proxy: wanted a prefill and a decode engine that speak %s, found only "
                           "a %s engine",
                           name, has_prefill ? "prefill" : "decode");
    }
    return BATON_OK;
}

static baton_status set_policy(const bt_proxy_options *options, bt_policy policy, uint64_t seed,
                               bt_policy_state *state)
{
    state->policy = policy;
    state->seed = seed;
    state->window_tokens = options->prefix_window;
    if (bt_policy_needs(policy) & BT_NEEDS_PROMPT)
        return bt_prefix_index_create(options->prefix_bytes, &state->prefix);
    return BATON_OK;
}

static bool has_tls_engines(const bt_proxy_options *options)
{
    bool found = false;
    for (uint32_t i = 0; i < options->n_prefill; i++)
        found = found || options->prefill[i].is_tls;
    for (uint32_t i = 0; i < options->n_decode; i++)
        found = found || options->decode[i].is_tls;
    return found;
}

static baton_status open_all(bt_proxy *proxy)
{
    bt_proxy_options *options = &proxy->options;
    BATON_TRY(check(options));
    BATON_TRY(bt_doors_open(&options->doors, has_tls_engines(options), &proxy->doors));
    bt_tls_context *tls = proxy->doors.engines;
    for (uint32_t i = 0; i < options->n_prefill; i++)
        BATON_TRY(bt_worker_add(&proxy->prefill, BT_ROLE_PREFILL, &options->prefill[i], tls));
    for (uint32_t i = 0; i < options->n_decode; i++)
        BATON_TRY(bt_worker_add(&proxy->decode, BT_ROLE_DECODE, &options->decode[i], tls));
    BATON_TRY(check_pairs(proxy));
    BATON_TRY(set_policy(options, options->prefill_policy, proxy->epoch, &proxy->prefill.policy));
    BATON_TRY(set_policy(options, options->decode_policy, ~proxy->epoch, &proxy->decode.policy));
    proxy->loops = bt_calloc(options->threads, sizeof(*proxy->loops));
    if (proxy->loops == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "proxy: %u threads", options->threads);
    proxy->port = options->port;
    proxy->n_loops = options->threads;
    for (uint32_t i = 0; i < proxy->n_loops; i++)
        BATON_TRY(open_loop(proxy, &proxy->loops[i], i));
    BATON_TRY(open_control(proxy));
    BATON_TRY(bt_proxy_admin_open(proxy, &proxy->admin));
    return run_loops(proxy);
}

baton_status bt_proxy_start(const bt_proxy_options *options, bt_proxy **proxy_p)
{
    if (sodium_init() < 0)
        return bt_fail(BATON_ERR_IO, "proxy: no random numbers");
    bt_proxy *proxy = bt_calloc(1, sizeof(*proxy));
    if (proxy == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "proxy: no memory");
    proxy->options = *options;
    fill_defaults(&proxy->options);
    while (proxy->epoch == 0)
        randombytes_buf(&proxy->epoch, sizeof(proxy->epoch));
    baton_status status = open_all(proxy);
    if (status != BATON_OK) {
        bt_proxy_destroy(proxy);
        return status;
    }
    *proxy_p = proxy;
    return BATON_OK;
}

baton_status bt_proxy_reload(bt_proxy *proxy)
{
    return bt_doors_reload(&proxy->doors);
}

uint16_t bt_proxy_port(const bt_proxy *proxy)
{
    return proxy->port;
}

uint16_t bt_proxy_notice_port(const bt_proxy *proxy)
{
    return bt_kvcontrol_port(proxy->control);
}

uint32_t bt_proxy_threads(const bt_proxy *proxy)
{
    return proxy->n_loops;
}

const char *bt_proxy_admin_at(const bt_proxy *proxy)
{
    return bt_proxy_admin_address(proxy->admin);
}

uint32_t bt_proxy_inflight(const bt_proxy *proxy)
{
    return atomic_load_explicit(&proxy->inflight, memory_order_relaxed);
}

static void drain_loop(void *arg)
{
    bt_proxy_loop *pl = arg;
    bt_http_server_drain(pl->server, NULL, NULL);
}

void bt_proxy_drain(bt_proxy *proxy)
{
    /* Relaxed: read by /readyz only. The loops are told through their queues. */
    if (atomic_exchange_explicit(&proxy->is_draining, true, memory_order_relaxed))
        return;
    for (uint32_t i = 0; i < proxy->n_loops; i++)
        bt_loop_post(proxy->loops[i].loop, drain_loop, &proxy->loops[i]);
}

void bt_proxy_stop(bt_proxy *proxy)
{
    if (proxy == NULL)
        return;
    bt_proxy_drain(proxy);
    uint64_t until = bt_now_ns(&bt_clock_monotonic) + proxy->options.ms.drain * BT_NS_PER_MS;
    const struct timespec tick = {.tv_nsec = 10 * 1000 * 1000};
    while (bt_proxy_inflight(proxy) > 0 && bt_now_ns(&bt_clock_monotonic) < until)
        nanosleep(&tick, NULL); /* the process is ending: nothing else is to be done meanwhile */
    bt_proxy_destroy(proxy);
}

void bt_proxy_destroy(bt_proxy *proxy)
{
    if (proxy == NULL)
        return;
    /* First, so that each notice it posted is run, and freed, by a loop that still runs. */
    bt_kvcontrol_stop(proxy->control);
    for (uint32_t i = 0; i < proxy->n_loops; i++) {
        if (proxy->loops[i].is_running)
            bt_loop_stop(proxy->loops[i].loop);
    }
    for (uint32_t i = 0; i < proxy->n_loops; i++) {
        if (proxy->loops[i].is_running)
            pthread_join(proxy->loops[i].thread, NULL);
    }
    bt_proxy_admin_close(proxy->admin);   /* no loop writes an answer any more */
    bt_kvcontrol_destroy(proxy->control); /* requests, which ask it, are gone */
    for (uint32_t i = 0; i < proxy->n_loops; i++)
        close_loop(&proxy->loops[i]);
    bt_prefix_index_destroy(proxy->prefill.policy.prefix);
    bt_prefix_index_destroy(proxy->decode.policy.prefix);
    bt_doors_close(&proxy->doors);
    bt_free(proxy->loops);
    bt_free(proxy);
}
