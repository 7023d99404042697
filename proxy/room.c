/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that wait until a decode engine has room for their KV, before any prefill engine begins:
 * what it computes must not wait for a place longer than it is kept there.
 *
 * First come, first served: each loop has a line, who stands in it has a number of one series, and
 * only the lowest number of all lines goes on. Who comes while somebody waits, on whatever loop,
 * stands in line too. A leg that leaves a decode engine wakes all loops, and so does who leaves a
 * line, for the next one:
 *
 *   leaves:  room += ...     n_waiting is read  (> 0: wake)
 *   waits:   n_waiting += 1  room is looked at, in a wake-up of its own
 *
 * Both touch n_waiting by read-modify-write (acq_rel), so one of them comes second, and sees what
 * the other did before. */
#include "core/fail.h"
#include "core/log.h"
#include "proxy/proxyrequest.h"

uint64_t bt_req_full_engines(const bt_req *req, uint64_t tried, bool *must_wait)
{
    const bt_worker_pool *pool = bt_req_pool(req, BT_LEG_DECODE);
    uint64_t room = req->pl->proxy->options.decode_room, full = 0;
    uint64_t need = bt_req_burden(req, BT_LEG_DECODE, 0).held_tokens;
    uint32_t n_up = 0, n_free = 0;
    *must_wait = false;
    if (room == 0)
        return 0;
    for (uint32_t i = 0; i < pool->n_workers; i++) {
        const bt_load *load = &pool->loads[i];
        bool is_out =
            (tried >> i & 1) != 0 || atomic_load_explicit(&load->is_down, memory_order_relaxed);
        if (is_out)
            continue;
        uint64_t held = atomic_load_explicit(&load->held_tokens, memory_order_relaxed);
        n_up++;
        /* Into an empty one anything goes: if it is too large, the engine says so. */
        if (held > 0 && held + need > room)
            full |= UINT64_C(1) << i;
        else
            n_free++;
    }
    *must_wait = n_up > 0 && n_free == 0;
    return n_free > 0 ? full : 0;
}

static bool must_wait(const bt_req *req)
{
    bool is_full;
    bt_req_full_engines(req, req->tried_decode | ~req->allowed[BT_LEG_DECODE], &is_full);
    return is_full;
}

/* Nobody on another loop came before the first in line here. */
static bool is_next(const bt_proxy_loop *pl)
{
    const bt_proxy *proxy = pl->proxy;
    uint64_t own = atomic_load_explicit(&pl->line_number, memory_order_seq_cst);
    for (uint32_t i = 0; i < proxy->n_loops; i++) {
        uint64_t other = atomic_load_explicit(&proxy->loops[i].line_number, memory_order_seq_cst);
        if (other != 0 && other < own)
            return false;
    }
    return true;
}

static void on_wake(void *arg);

static void wake(bt_proxy_loop *pl)
{
    if (!atomic_exchange_explicit(&pl->is_woken, true, memory_order_seq_cst) &&
        bt_loop_post(pl->loop, on_wake, pl) != BATON_OK)
        /* The next leg to leave tries again; deadlines end what waits in any case. */
        atomic_store_explicit(&pl->is_woken, false, memory_order_seq_cst);
}

static void wake_all(bt_proxy *proxy)
{
    for (uint32_t i = 0; i < proxy->n_loops; i++)
        wake(&proxy->loops[i]);
}

void bt_req_free_room(const bt_req *req)
{
    bt_proxy *proxy = req->pl->proxy;
    if (proxy->options.decode_room != 0 &&
        atomic_fetch_add_explicit(&proxy->n_waiting, 0, memory_order_acq_rel) > 0)
        wake_all(proxy);
}

static void take_out(bt_req *req)
{
    bt_proxy_loop *pl = req->pl;
    bt_timer_destroy(req->room_timer);
    req->room_timer = NULL;
    *(req->line_prev != NULL ? &req->line_prev->line_next : &pl->line_first) = req->line_next;
    *(req->line_next != NULL ? &req->line_next->line_prev : &pl->line_last) = req->line_prev;
    req->line_prev = req->line_next = NULL;
}

/* Shows the other loops who is first here. */
static void show_first(bt_proxy_loop *pl)
{
    uint64_t number = pl->line_first == NULL ? 0 : pl->line_first->line_number;
    atomic_store_explicit(&pl->line_number, number, memory_order_seq_cst);
}

/* One has been taken out: the next one may need less. */
static void close_up(bt_proxy_loop *pl)
{
    show_first(pl);
    if (atomic_fetch_sub_explicit(&pl->proxy->n_waiting, 1, memory_order_acq_rel) > 1)
        wake_all(pl->proxy);
}

void bt_req_leave_line(bt_req *req)
{
    bt_proxy_loop *pl = req->pl;
    if (req->room_timer == NULL)
        return;
    take_out(req);
    close_up(pl);
}

/* Whoever is first goes on, as long as there is room; its place is taken before others look. */
static void on_wake(void *arg)
{
    bt_proxy_loop *pl = arg;
    /* Before looking: who frees room from now on posts again. */
    atomic_exchange_explicit(&pl->is_woken, false, memory_order_seq_cst);
    while (pl->line_first != NULL && is_next(pl) && !must_wait(pl->line_first)) {
        bt_req *req = pl->line_first;
        take_out(req);
        req->has_turn = true;
        bt_req_attempt(req);
        close_up(pl);
    }
}

static void on_too_late(void *arg)
{
    bt_req *req = arg;
    bool is_total = bt_req_left_ms(req) <= 1;
    bt_req_leave_line(req);
    bt_req_failure failure = {
        .status = is_total ? 504 : 503,
        .code = is_total ? "total_timeout" : "overloaded",
        .text = "no decode engine had room for the prompt's KV in time",
        .leg = BT_LEG_DECODE,
        .retry_after = is_total ? 0 : 1,
    };
    bt_req_fail(req, &failure);
}

bool bt_req_has_room(bt_req *req)
{
    bt_proxy_loop *pl = req->pl;
    bt_proxy *proxy = pl->proxy;
    uint32_t wait_ms = proxy->options.ms.room, left_ms = bt_req_left_ms(req);
    bool has_turn = req->has_turn;
    req->has_turn = false;
    bool is_first = has_turn || atomic_load_explicit(&proxy->n_waiting, memory_order_relaxed) == 0;
    /* Who has had a place once does not keep the line waiting for the few engines it has left. */
    if (proxy->options.decode_room == 0 || req->tried_decode != 0 || (is_first && !must_wait(req)))
        return true;
    bt_req_set_state(req, BT_REQ_ROOM_WAIT);
    if (bt_timer_create(pl->loop, on_too_late, req, &req->room_timer) != BATON_OK) {
        bt_req_failure failure = {
            .status = 500, .code = "internal_error", .text = baton_last_error()};
        bt_req_fail(req, &failure);
        return false;
    }
    req->line_number = atomic_fetch_add_explicit(&proxy->line_numbers, 1, memory_order_seq_cst) + 1;
    req->line_prev = pl->line_last;
    *(pl->line_last != NULL ? &pl->line_last->line_next : &pl->line_first) = req;
    pl->line_last = req;
    show_first(pl);
    bt_timer_start(req->room_timer, wait_ms < left_ms ? wait_ms : left_ms, 0);
    bt_count(&pl->metrics.room_waits);
    atomic_fetch_add_explicit(&proxy->n_waiting, 1, memory_order_acq_rel);
    wake(pl); /* room may have come meanwhile */
    return false;
}
