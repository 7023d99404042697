/* SPDX-License-Identifier: Apache-2.0 */
#include "chaos.h"

#include <signal.h>
#include <stdlib.h>
#include <time.h>

enum { TICK_MS = 20, MOST_AT_ONCE = 2, SHRUNK_MS = 100 };

typedef enum {
    KILL_PREFILL,
    KILL_DECODE,
    KILL_PROXY,
    STOP_PREFILL,
    STOP_DECODE,
    STOP_PROXY,
    RESIZE_POOL,
    LOSE_FRAMES,
    CUT_CONNECTIONS,
    N_KINDS,
} kind;

/* How often, of the sum; how long, in ms: a process is down or stopped, frames get lost. */
static const struct {
    const char *text;
    unsigned weight, shortest_ms, longest_ms;
} kinds[N_KINDS] = {
    [KILL_PREFILL] = {"prefill engine killed, started again", 4, 50, 2500},
    [KILL_DECODE] = {"decode engine killed, started again", 4, 50, 2500},
    [KILL_PROXY] = {"proxy killed, started again", 1, 50, 1000},
    [STOP_PREFILL] = {"prefill engine stopped, continued", 4, 100, 8000},
    [STOP_DECODE] = {"decode engine stopped, continued", 4, 100, 8000},
    [STOP_PROXY] = {"proxy stopped, continued", 1, 100, 3000},
    [RESIZE_POOL] = {"decode engine restarted with a pool of another size", 2, SHRUNK_MS,
                     SHRUNK_MS},
    [LOSE_FRAMES] = {"control frames lost, repeated, swapped", 4, 500, 5000},
    [CUT_CONNECTIONS] = {"control connections cut", 3, 100, 100},
};

typedef struct {
    bool is_on;
    kind what;
    unsigned slot;
    uint64_t until_ms;
    unsigned per_mille; /* of frames */
} fault;

typedef struct {
    chaos_fleet *fleet;
    chaos_journal *journal;
    bt_rng rng;
    fault now[MOST_AT_ONCE];
    uint64_t n_done[N_KINDS], next_ms;
} injector;

static uint64_t between(injector *in, uint64_t least, uint64_t most)
{
    return least + bt_rng_below(&in->rng, most - least + 1);
}

static kind pick_kind(injector *in)
{
    uint64_t sum = 0;
    for (int i = 0; i < N_KINDS; i++)
        sum += kinds[i].weight;
    uint64_t at = bt_rng_below(&in->rng, sum);
    int i = 0;
    for (; at >= kinds[i].weight; i++)
        at -= kinds[i].weight;
    return (kind)i;
}

static unsigned pick_slot(injector *in, kind what)
{
    switch (what) {
    case KILL_PREFILL:
    case STOP_PREFILL:
        return (unsigned)bt_rng_below(&in->rng, in->fleet->n_prefill);
    case KILL_PROXY:
    case STOP_PROXY:
        return in->fleet->proxy;
    case LOSE_FRAMES:
    case CUT_CONNECTIONS:
        return CHAOS_SLOTS; /* the relays */
    default:
        return in->fleet->n_prefill + (unsigned)bt_rng_below(&in->rng, in->fleet->n_decode);
    }
}

static bool is_disturbed(const injector *in, unsigned slot)
{
    for (unsigned i = 0; i < MOST_AT_ONCE; i++)
        if (in->now[i].is_on && in->now[i].slot == slot)
            return true;
    return false;
}

static void disturb_frames(injector *in, unsigned per_mille)
{
    bt_relay_disturb(in->fleet->init_relay, per_mille);
    bt_relay_disturb(in->fleet->alloc_relay, per_mille);
}

static void begin(injector *in, fault *f)
{
    bt_child *child = f->slot < CHAOS_SLOTS ? in->fleet->slots[f->slot].node.child : NULL;
    chaos_journal_begin(in->journal, kinds[f->what].text, f->slot);
    in->n_done[f->what]++;
    switch (f->what) {
    case KILL_PREFILL:
    case KILL_DECODE:
    case KILL_PROXY:
        bt_child_kill(child);
        break;
    case STOP_PREFILL:
    case STOP_DECODE:
    case STOP_PROXY:
        bt_child_signal(child, SIGSTOP);
        break;
    case RESIZE_POOL:
        bt_child_signal(child, SIGTERM);
        break;
    case LOSE_FRAMES:
        disturb_frames(in, f->per_mille);
        break;
    case CUT_CONNECTIONS:
    default:
        bt_relay_cut(in->fleet->init_relay);
        bt_relay_cut(in->fleet->alloc_relay);
        break;
    }
}

static bool may_end(const injector *in, const fault *f)
{
    return chaos_now_ms() >= f->until_ms &&
           (f->what != RESIZE_POOL || bt_child_has_ended(in->fleet->slots[f->slot].node.child));
}

static void end(injector *in, fault *f)
{
    chaos_slot *slot = f->slot < CHAOS_SLOTS ? &in->fleet->slots[f->slot] : NULL;
    switch (f->what) {
    case KILL_PREFILL:
    case KILL_DECODE:
    case KILL_PROXY:
        chaos_slot_start(in->fleet, f->slot);
        break;
    case STOP_PREFILL:
    case STOP_DECODE:
    case STOP_PROXY:
        bt_child_signal(slot->node.child, SIGCONT);
        break;
    case RESIZE_POOL:
        if (bt_child_wait(slot->node.child) != 0)
            fail_msg("%s, asked to stop, did not end well", slot->name);
        slot->is_small = !slot->is_small;
        chaos_slot_start(in->fleet, f->slot);
        break;
    case LOSE_FRAMES:
        disturb_frames(in, 0);
        break;
    default:
        break;
    }
    chaos_journal_end(in->journal);
    f->is_on = false;
}

static void maybe_begin(injector *in)
{
    fault *free_place = NULL;
    if (chaos_now_ms() < in->next_ms)
        return;
    in->next_ms = chaos_now_ms() + between(in, 200, 2000);
    for (unsigned i = 0; i < MOST_AT_ONCE; i++)
        free_place = in->now[i].is_on ? free_place : &in->now[i];
    kind what = pick_kind(in);
    unsigned slot = pick_slot(in, what);
    uint64_t ms = between(in, kinds[what].shortest_ms, kinds[what].longest_ms);
    unsigned per_mille = (unsigned)between(in, 20, 200);
    if (free_place == NULL || is_disturbed(in, slot))
        return;
    *free_place = (fault){true, what, slot, chaos_now_ms() + ms, per_mille};
    begin(in, free_place);
}

/* A process that ended by itself is started again, as a supervisor would; the run counts it. */
static void replace_dead(injector *in)
{
    for (unsigned i = 0; i <= in->fleet->proxy; i++)
        if (!is_disturbed(in, i) && chaos_slot_has_died(in->fleet, i)) {
            chaos_journal_begin(in->journal, "ended by itself, started again", i);
            chaos_slot_start(in->fleet, i);
            chaos_journal_end(in->journal);
        }
}

static void end_all(injector *in)
{
    bool is_on = true;
    while (is_on) {
        is_on = false;
        for (unsigned i = 0; i < MOST_AT_ONCE; i++) {
            if (in->now[i].is_on && may_end(in, &in->now[i]))
                end(in, &in->now[i]);
            is_on = is_on || in->now[i].is_on;
        }
        nanosleep(&(struct timespec){.tv_nsec = TICK_MS * 1000000}, NULL);
    }
}

static void print_table(const injector *in)
{
    bt_relay_counts init, alloc;
    bt_relay_count(in->fleet->init_relay, &init);
    bt_relay_count(in->fleet->alloc_relay, &alloc);
    print_message("\n%-54s %8s\n", "fault", "times");
    for (int i = 0; i < N_KINDS; i++)
        print_message("%-54s %8llu\n", kinds[i].text, (unsigned long long)in->n_done[i]);
    print_message("control frames: %llu passed, %llu lost, %llu repeated, %llu swapped\n",
                  (unsigned long long)(init.passed + alloc.passed),
                  (unsigned long long)(init.lost + alloc.lost),
                  (unsigned long long)(init.repeated + alloc.repeated),
                  (unsigned long long)(init.swapped + alloc.swapped));
}

void chaos_faults_run(chaos_fleet *fleet, chaos_journal *journal, uint64_t seed, uint64_t end_ms,
                      void (*progress)(void *ctx), void *ctx)
{
    injector in = {.fleet = fleet, .journal = journal, .rng = {seed}};
    uint64_t shown_ms = 0;
    while (chaos_now_ms() < end_ms) {
        for (unsigned i = 0; i < MOST_AT_ONCE; i++)
            if (in.now[i].is_on && may_end(&in, &in.now[i]))
                end(&in, &in.now[i]);
        replace_dead(&in);
        maybe_begin(&in);
        if (chaos_now_ms() - shown_ms >= 1000) {
            shown_ms = chaos_now_ms();
            progress(ctx);
        }
        nanosleep(&(struct timespec){.tv_nsec = TICK_MS * 1000000}, NULL);
    }
    end_all(&in);
    replace_dead(&in);
    print_table(&in);
}
