/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/enginemetrics.h"

#include "core/promtext.h"

static void put(bt_strbuf *out, const char *name, bt_prom_type type, const char *help,
                uint64_t value)
{
    bt_prom_family(out, name, type, help);
    bt_prom_u64(out, name, NULL, 0, value);
}

static void put_by(bt_strbuf *out, const char *name, const char *label, const char *value,
                   uint64_t count)
{
    bt_prom_label labels[] = {{label, value}};
    bt_prom_u64(out, name, labels, 1, count);
}

static void put_requests(bt_strbuf *out, const bt_scheduler_stats *s)
{
    put(out, "baton_engine_requests_total", BT_PROM_COUNTER, "Requests accepted.",
        s->requests_total);
    const char *finished = "baton_engine_finished_total";
    bt_prom_family(out, finished, BT_PROM_COUNTER, "Requests that ended, by reason.");
    put_by(out, finished, "reason", "stop", s->finished_stop_total);
    put_by(out, finished, "reason", "length", s->finished_length_total);
    put_by(out, finished, "reason", "error", s->finished_error_total);
    put_by(out, finished, "reason", "canceled", s->canceled_total);
    const char *now = "baton_engine_requests";
    bt_prom_family(out, now, BT_PROM_GAUGE, "Requests now, by state.");
    put_by(out, now, "state", "waiting", s->n_waiting);
    put_by(out, now, "state", "running", s->n_running);
    put_by(out, now, "state", "draining", s->n_draining);
}

static void put_tokens(bt_strbuf *out, const bt_scheduler_stats *s)
{
    put(out, "baton_engine_prompt_tokens_total", BT_PROM_COUNTER, "Prompt tokens accepted.",
        s->prompt_tokens_total);
    const char *source = "baton_engine_prompt_tokens_by_source_total";
    bt_prom_family(out, source, BT_PROM_COUNTER,
                   "Prompt tokens whose KV was computed here, found in the prefix cache, or handed "
                   "over by a prefill engine.");
    put_by(out, source, "source", "computed", s->prompt_tokens_computed_total);
    put_by(out, source, "source", "cached", s->prompt_tokens_cached_total);
    put_by(out, source, "source", "loaded", s->prompt_tokens_loaded_total);
    put(out, "baton_engine_output_tokens_total", BT_PROM_COUNTER, "Tokens generated.",
        s->output_tokens_total);
    put(out, "baton_engine_steps_total", BT_PROM_COUNTER, "Forward passes.", s->steps_total);
    put(out, "baton_engine_computed_tokens_total", BT_PROM_COUNTER,
        "Tokens computed by forward passes.", s->step_tokens_total);
}

static void put_blocks(bt_strbuf *out, const bt_scheduler_stats *s)
{
    const char *blocks = "baton_engine_blocks";
    bt_prom_family(out, blocks, BT_PROM_GAUGE, "KV blocks, by state.");
    put_by(out, blocks, "state", "used", s->blocks_total - s->blocks_available);
    put_by(out, blocks, "state", "idle", s->blocks_idle);
    put_by(out, blocks, "state", "free", s->blocks_available - s->blocks_idle);
}

static void put_handoff(bt_strbuf *out, const bt_scheduler_stats *s)
{
    const char *transfers = "baton_engine_transfers_total";
    bt_prom_family(out, transfers, BT_PROM_COUNTER,
                   "Hand-offs to decode engines, by what became of "
                   "them.");
    put_by(out, transfers, "result", "begun", s->transfers_begun_total);
    put_by(out, transfers, "result", "done", s->transfers_done_total);
    put_by(out, transfers, "result", "failed", s->transfers_failed_total);
    put(out, "baton_engine_chunks_ready_total", BT_PROM_COUNTER,
        "Chunks of KV given to the sender.", s->chunks_ready_total);
    put(out, "baton_engine_chunks_layered_total", BT_PROM_COUNTER,
        "Of them, given in groups of layers while they were computed.", s->chunks_layered_total);
    put(out, "baton_engine_loads_total", BT_PROM_COUNTER, "Prompts looked up in the receiver.",
        s->loads_total);
    put(out, "baton_engine_load_misses_total", BT_PROM_COUNTER,
        "Prompts of which more than the last token had to be computed here.", s->load_misses_total);
}

static void put_times(bt_strbuf *out, const bt_scheduler_stats *s)
{
    bt_prom_family(out, "baton_engine_ttft_seconds", BT_PROM_HISTOGRAM,
                   "From accepting a request to its first token.");
    bt_prom_histogram(out, "baton_engine_ttft_seconds", NULL, 0, &s->ttft_ns, &bt_prom_seconds);
    bt_prom_family(out, "baton_engine_queue_seconds", BT_PROM_HISTOGRAM,
                   "From accepting a request to its first step.");
    bt_prom_histogram(out, "baton_engine_queue_seconds", NULL, 0, &s->queue_ns, &bt_prom_seconds);
    bt_prom_family(out, "baton_engine_step_seconds", BT_PROM_HISTOGRAM, "Of a forward pass.");
    bt_prom_histogram(out, "baton_engine_step_seconds", NULL, 0, &s->step_ns, &bt_prom_seconds);
}

void bt_engine_metrics(bt_strbuf *out, const char *role, const bt_scheduler_stats *stats,
                       const bt_http_server_stats *http)
{
    bt_prom_family(out, "baton_engine_info", BT_PROM_GAUGE, "Version and role, always 1.");
    bt_prom_label labels[] = {{"version", baton_version()}, {"role", role}};
    bt_prom_u64(out, "baton_engine_info", labels, 2, 1);
    put_requests(out, stats);
    put_tokens(out, stats);
    put_blocks(out, stats);
    put_handoff(out, stats);
    put_times(out, stats);
    put(out, "baton_engine_http_connections", BT_PROM_GAUGE, "HTTP connections now.",
        http->n_connections);
    put(out, "baton_engine_http_requests_total", BT_PROM_COUNTER, "HTTP requests.",
        http->requests_total);
    put(out, "baton_engine_http_refused_total", BT_PROM_COUNTER,
        "HTTP requests refused before they reached the engine.", http->refused_total);
}
