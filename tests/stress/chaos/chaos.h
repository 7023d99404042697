/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the chaos test share: the fleet, the journal of faults, the clients.
 *
 *   chaos.c    the run: warm up, disturb, calm down, account
 *   fleet.c    engines and proxy on ports that stay theirs, so that they can be started again
 *   clients.c  threads that ask, compare every token with one engine alone, and hang up
 *   faults.c   what goes wrong, when, for how long: all from one seed
 *   relay.c    between proxy, senders and one receiver: loses, repeats and swaps ZeroMQ messages
 */
#ifndef BT_TESTS_CHAOS_H
#define BT_TESTS_CHAOS_H
#include <pthread.h>

#include "relay.h"
#include "support/cluster.h"

enum {
    CHAOS_MOST = 4, /* engines of a role; at least 2, so that there is one to go to */
    CHAOS_SLOTS = 2 * CHAOS_MOST + 1,
    CHAOS_CLIENTS = 10,
    CHAOS_PROMPTS = 48,
    CHAOS_HUNG_MS = 55000, /* the proxy ends a request after 40 s, and may itself be stopped */
};

/* ---- fleet ---- */

typedef struct {
    bt_node node;
    char name[16];
    bool is_small;  /* runs with the shrunken pool */
    unsigned lives; /* started so often */
} chaos_slot;

typedef struct {
    unsigned n_prefill, n_decode;
    unsigned proxy, relayed;       /* slots: the last; the one that is reached through relays */
    chaos_slot slots[CHAOS_SLOTS]; /* prefill, decode, proxy */
    bt_node alone;                 /* the engine that knows the right tokens; never disturbed */
    bt_relay *init_relay, *alloc_relay;
    uint16_t ports[CHAOS_SLOTS][3]; /* HTTP, init, alloc; of the proxy: HTTP, notices */
    /* Processes that ended by themselves, each printed; of them, by what UCX 1.13 is known for. */
    unsigned died, aborted_by_ucx;
} chaos_fleet;

void chaos_fleet_start(chaos_fleet *fleet, unsigned n_prefill, unsigned n_decode, uint64_t seed);
void chaos_fleet_stop(chaos_fleet *fleet);
/* Starts slot i on its ports; it must have ended. Waits until it is ready. */
void chaos_slot_start(chaos_fleet *fleet, unsigned i);
/* Whether slot i has ended although nobody killed it; collects it and prints the end of its log. */
bool chaos_slot_has_died(chaos_fleet *fleet, unsigned i);
uint16_t chaos_proxy_port(const chaos_fleet *fleet);

/* ---- journal: when something was wrong ---- */

typedef struct {
    uint64_t begun_ms;
    const char *text; /* a literal */
    unsigned slot;
} chaos_entry;

typedef struct {
    pthread_mutex_t lock;
    chaos_entry *entries; /* [n], rising */
    size_t n, capacity;
    unsigned n_on; /* faults that last */
} chaos_journal;

uint64_t chaos_now_ms(void);
void chaos_journal_begin(chaos_journal *journal, const char *text, unsigned slot);
void chaos_journal_end(chaos_journal *journal);
bool chaos_journal_is_disturbed(chaos_journal *journal);
/* When the first fault at or after from_ms began; 0: there was none. */
uint64_t chaos_journal_first(chaos_journal *journal, uint64_t from_ms);
/* What began at or after from_ms, a line each: to text, as much as has room. */
void chaos_journal_tell(chaos_journal *journal, uint64_t from_ms, char *text, size_t room);

/* ---- clients ---- */

typedef struct {
    uint64_t sent, right, failed, wrong, hung, left; /* left: hung up by the client */
    /* From the first fault in a request's time to its error; where one lasted already when the
     * request began, from then on. */
    uint64_t slowest_error_ms;
    char slowest[2048]; /* what the client was told then, and what had gone wrong */
} chaos_counts;

typedef struct chaos_clients chaos_clients;
/* Learns the right tokens from the engine alone, then starts the threads. */
chaos_clients *chaos_clients_start(const chaos_fleet *fleet, chaos_journal *journal, uint64_t seed);
void chaos_clients_count(chaos_clients *clients, chaos_counts *out);
/* Lets every request end, joins the threads, frees. */
void chaos_clients_stop(chaos_clients *clients, chaos_counts *out);

/* ---- faults ---- */

/* Disturbs the fleet until end_ms (chaos_now_ms), then undoes what lasts, and prints a table of
 * what was done. progress is called once a second or so. */
void chaos_faults_run(chaos_fleet *fleet, chaos_journal *journal, uint64_t seed, uint64_t end_ms,
                      void (*progress)(void *ctx), void *ctx);

#endif
