/* SPDX-License-Identifier: Apache-2.0 */
/* What is wrong with the way to a receiver. */
#include "doctor/doctor_checks.h"

#include <stdio.h>
#include <string.h>

/* Below this share of what a link or a copy could do, something is in the way. */
static const double fair_share = 0.5;

typedef struct {
    baton_status status;
    const char *id, *advice;
} peer_failure;

static const peer_failure failures[] = {
    {BATON_ERR_UNREACHABLE, "peer-unreachable",
     "check host and port, that the receiver runs, and that it binds to more than loopback (host)"},
    {BATON_ERR_CONNECT_TIMEOUT, "peer-unreachable",
     "check that the receiver runs, the port, and firewalls"},
    {BATON_ERR_INIT_TIMEOUT, "peer-silent",
     "baton-engine's ready line names its receivers' ports (init_ports)"},
    {BATON_ERR_BAD_MESSAGE, "peer-not-baton",
     "baton-engine's ready line names its receivers' ports (init_ports)"},
    {BATON_ERR_CLOSED, "peer-not-baton",
     "baton-engine's ready line names its receivers' ports (init_ports)"},
    {BATON_ERR_AUTH, "peer-keys", "docs/configuration.md, Security"},
    {BATON_ERR_PATH, "peer-path-refused", "docs/configuration.md, The path to a receiver"},
    {BATON_ERR_VERSION_MISMATCH, "peer-version", "use one version of Baton on both ends"},
};

static void check_failure(const bt_doctor_peer *peer, bt_doctor_findings *out)
{
    const char *id = "peer-failed", *advice = "";
    for (size_t i = 0; i < sizeof(failures) / sizeof(failures[0]); i++) {
        if (failures[i].status == peer->status) {
            id = failures[i].id;
            advice = failures[i].advice;
        }
    }
    bt_doctor_advise(bt_doctor_find(out, BT_DOCTOR_BROKEN, id, "%s: %s", peer->address, peer->text),
                     "%s", advice);
}

/* Of the first device of a list: Gbit/s, 0 unknown. */
static double link_gbps(const bt_doctor_facts *facts, const char *devices)
{
    char name[BT_NIC_NAME_BYTES];
    const bt_rdma_device *device;
    const bt_rdma_port *port;
    snprintf(name, sizeof(name), "%.*s", (int)strcspn(devices, ","), devices);
    if (bt_doctor_find_port(facts, name, &device, &port))
        return port->gbps;
    const bt_net_device *net = bt_doctor_find_net(facts, name);
    return net != NULL ? net->gbps : 0;
}

static void check_mapping(const bt_doctor_peer *peer, bt_doctor_findings *out)
{
    const char *why = peer->found.why_not_mapped;
    bool is_elsewhere = strcmp(why, "another host") == 0;
    if (peer->found.path == BATON_PATH_MAPPED || why[0] == '\0' || is_elsewhere)
        return;
    bt_doctor_advise(bt_doctor_find(out, BT_DOCTOR_WARNING, "peer-not-mapped",
                                    "%s is on this host, but its memory cannot be mapped: %s",
                                    peer->address, why),
                     "run both as one user, in one IPC and PID namespace (containers: --ipc and "
                     "--pid), with a /dev/shm that is large enough");
}

static bool goes_by_tcp(const baton_sender_peer *found)
{
    return found->path != BATON_PATH_MAPPED && strncmp(found->transport, "tcp", 3) == 0;
}

static void check_speed(const bt_doctor_facts *facts, const bt_doctor_peer *peer,
                        bt_doctor_findings *out)
{
    const baton_sender_peer *found = &peer->found;
    double gbps = bt_doctor_peer_gbps(peer);
    bool is_mapped = found->path == BATON_PATH_MAPPED;
    double could = is_mapped ? found->stage_gbps : link_gbps(facts, found->device) / 8;
    if (!(gbps > 0))
        bt_doctor_find(out, BT_DOCTOR_WARNING, "peer-not-measured",
                       "%s: nothing was measured: the receiver offers no scratch area, or nothing "
                       "arrived in time",
                       peer->address);
    else if (could > 0 && gbps < fair_share * could)
        bt_doctor_find(out, BT_DOCTOR_WARNING, "peer-slow",
                       "%s: %.3g GB/s measured, %.3g GB/s is what %s could do", peer->address, gbps,
                       could, is_mapped ? "a copy within this process" : found->device);
}

void bt_doctor_check_peer(const bt_doctor_facts *facts, bt_doctor_findings *out)
{
    const bt_doctor_peer *peer = &facts->peer;
    const baton_sender_peer *found = &peer->found;
    if (!peer->was_asked)
        return;
    if (peer->status != BATON_OK) {
        check_failure(peer, out);
        return;
    }
    bt_doctor_find(out, BT_DOCTOR_FINE, "peer-path", "%s: %s, %.3g GB/s measured%s%s",
                   peer->address, bt_doctor_peer_path(peer), bt_doctor_peer_gbps(peer),
                   found->path == BATON_PATH_MAPPED ? "" : " by put over ",
                   found->path == BATON_PATH_MAPPED ? "" : found->transport);
    bt_ranked_nic best;
    const bt_memory_place anywhere = {.numa_node = -1};
    if (goes_by_tcp(found) && bt_topology_rank(facts->topology, &anywhere, &best, 1) == 1)
        bt_doctor_advise(bt_doctor_find(out, BT_DOCTOR_WARNING, "peer-over-tcp",
                                        "%s: bytes go by tcp on %s, though %s is active here",
                                        peer->address, found->device, best.name),
                         "name RDMA ports in data_devices on both ends, and check that they reach "
                         "each other; require_rdma makes this an error");
    check_mapping(peer, out);
    check_speed(facts, peer, out);
    if (strcmp(peer->greeting.mechanism, "CURVE") != 0 && strncmp(peer->greeting.host, "127.", 4) &&
        strcmp(peer->greeting.host, "::1") != 0)
        bt_doctor_advise(bt_doctor_find(out, BT_DOCTOR_WARNING, "peer-unauthenticated",
                                        "%s lets in everybody who reaches it: it has no keys",
                                        peer->address),
                         "make keys with baton-keygen (docs/configuration.md, Security)");
}
