/* SPDX-License-Identifier: Apache-2.0 */
#include "chaos.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

/* Below the range that the kernel gives to outgoing connections, so that nobody takes a port while
 * its process is away. */
enum { FIRST_PORT = 20000, LAST_PORT = 32000 };

static bool is_free(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    bool ok = bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
    close(fd);
    return ok;
}

static uint16_t next_free(uint16_t *at)
{
    while (*at < LAST_PORT && !is_free(*at))
        ++*at;
    assert_true(*at < LAST_PORT);
    return (*at)++;
}

/* Leases and deadlines are short: what a killed proxy leaves behind holds pages of a small pool for
 * so long, and the requests behind it wait. */
static void start_engine(chaos_fleet *fleet, unsigned i)
{
    enum { TEXT = 32 };
    const uint16_t *ports = fleet->ports[i];
    char port[TEXT], init[TEXT], alloc[TEXT];
    chaos_slot *slot = &fleet->slots[i];
    bool is_relayed = i == fleet->relayed;
    snprintf(port, sizeof(port), "%u", ports[0]);
    snprintf(init, sizeof(init), "init_port=%u", ports[1]);
    snprintf(alloc, sizeof(alloc), "alloc_port=%u", ports[2]);
    if (i < fleet->n_prefill) {
        bt_node_start(&slot->node, "prefill",
                      (const char *const[]){"--kv-bytes", "4MiB", "--log-level", "info",
                                            "--drain-ms", "5s", "--port", port, "--set",
                                            i == 1 ? "path=put" : "path=auto", "--set",
                                            "request_ms=60s", NULL});
        return;
    }
    bt_node_start(
        &slot->node, "decode",
        (const char *const[]){"--kv-bytes", "4MiB", "--log-level", "info", "--drain-ms", "5s",
                              "--port", port, "--set", init, "--set", alloc, "--set",
                              slot->is_small ? "pool_bytes=256KiB" : "pool_bytes=2MiB", "--set",
                              "lease_ms=4s", "--set",
                              is_relayed ? "control_ring=false" : "control_ring=true", NULL});
}

/* Every deadline is short enough that a request which takes longer than CHAOS_HUNG_MS hangs. */
static void start_proxy(chaos_fleet *fleet)
{
    char port[16], notices[16];
    bt_node prefill[CHAOS_MOST], decode[CHAOS_MOST];
    for (unsigned i = 0; i < fleet->n_prefill; i++)
        prefill[i] = (bt_node){.port = fleet->ports[i][0]};
    for (unsigned i = 0; i < fleet->n_decode; i++) {
        unsigned slot = fleet->n_prefill + i;
        bool is_relayed = slot == fleet->relayed;
        uint16_t shift = is_relayed ? 1 : 0; /* a relay listens on the port behind its receiver's */
        decode[i] = (bt_node){.port = fleet->ports[slot][0],
                              .n_ranks = 1,
                              .init_ports = {(uint16_t)(fleet->ports[slot][1] + shift)},
                              .alloc_ports = {(uint16_t)(fleet->ports[slot][2] + shift)}};
    }
    snprintf(port, sizeof(port), "%u", fleet->ports[fleet->proxy][0]);
    snprintf(notices, sizeof(notices), "%u", fleet->ports[fleet->proxy][1]);
    bt_proxy_start(&fleet->slots[fleet->proxy].node, prefill, fleet->n_prefill, decode,
                   fleet->n_decode,
                   (const char *const[]){"--port", port, "--proxy-port", notices, "--log-level",
                                         "warn", "--prefill-ms", "15000", "--kv-wait-ms", "10000",
                                         "--first-byte-ms", "15000", "--gap-ms", "15000",
                                         "--total-ms", "40000", "--drain-ms", "5000", NULL});
}

void chaos_slot_start(chaos_fleet *fleet, unsigned i)
{
    chaos_slot *slot = &fleet->slots[i];
    if (slot->node.child != NULL)
        bt_child_forget(slot->node.child);
    if (i == fleet->proxy)
        start_proxy(fleet);
    else
        start_engine(fleet, i);
    slot->lives++;
}

/* README, Limits: UCX 1.13 aborts a process whose peer goes while they connect. Nothing else may
 * end one, and no sanitizer. */
static bool is_known_abort(const bt_child *child)
{
    return bt_child_has_logged(child, "ucp_request.c:684") ||
           bt_child_has_logged(child, "got REP message");
}

bool chaos_slot_has_died(chaos_fleet *fleet, unsigned i)
{
    bt_child *child = fleet->slots[i].node.child;
    if (child->pid == 0 || !bt_child_has_ended(child))
        return false;
    int status = bt_child_wait(child);
    fleet->died++;
    fleet->aborted_by_ucx += is_known_abort(child);
    print_message("\n%s ended by itself with %d:\n", fleet->slots[i].name, status);
    bt_child_print_tail(child);
    return true;
}

static void start_relays(chaos_fleet *fleet, uint64_t seed)
{
    const uint16_t *ports = fleet->ports[fleet->relayed];
    fleet->init_relay = bt_relay_start((uint16_t)(ports[1] + 1), ports[1], 2 * seed + 1);
    fleet->alloc_relay = bt_relay_start((uint16_t)(ports[2] + 1), ports[2], 2 * seed + 2);
    assert_non_null(fleet->init_relay);
    assert_non_null(fleet->alloc_relay);
}

void chaos_fleet_start(chaos_fleet *fleet, unsigned n_prefill, unsigned n_decode, uint64_t seed)
{
    uint16_t at = (uint16_t)(FIRST_PORT + (unsigned)getpid() % 500 * 20);
    *fleet = (chaos_fleet){.n_prefill = n_prefill,
                           .n_decode = n_decode,
                           .proxy = n_prefill + n_decode,
                           .relayed = n_prefill + n_decode - 1};
    for (unsigned i = 0; i <= fleet->proxy; i++) {
        const char *role = i < n_prefill ? "prefill" : i < fleet->proxy ? "decode" : "proxy";
        snprintf(fleet->slots[i].name, sizeof(fleet->slots[i].name), "%s-%u", role, i + 1);
        for (unsigned k = 0; k < 3; k++) {
            fleet->ports[i][k] = next_free(&at);
            at++; /* a relay's */
        }
    }
    bt_node_start(&fleet->alone, "both",
                  (const char *const[]){"--kv-bytes", "4MiB", "--log-level", "info", NULL});
    start_relays(fleet, seed);
    for (unsigned i = 0; i <= fleet->proxy; i++)
        chaos_slot_start(fleet, i);
}

void chaos_fleet_stop(chaos_fleet *fleet)
{
    for (unsigned i = fleet->proxy + 1; i-- > 0;)
        bt_child_stop(fleet->slots[i].node.child);
    bt_relay_stop(fleet->init_relay);
    bt_relay_stop(fleet->alloc_relay);
    bt_child_stop(fleet->alone.child);
}

uint16_t chaos_proxy_port(const chaos_fleet *fleet)
{
    return fleet->ports[fleet->proxy][0];
}
