/* SPDX-License-Identifier: Apache-2.0 */
#include "doctor/doctor_checks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const bt_doctor_facts *facts;
    bt_doctor_findings *out;
} check;

const char *bt_doctor_size(uint64_t bytes, char text[BT_DOCTOR_SIZE_BYTES])
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1024;
        unit++;
    }
    bool is_whole = value < (double)(uint64_t)value + 0.05;
    if (bytes == BT_NO_LIMIT)
        snprintf(text, BT_DOCTOR_SIZE_BYTES, "no limit");
    else
        snprintf(text, BT_DOCTOR_SIZE_BYTES, "%.*f %s", is_whole ? 0 : 1, value, units[unit]);
    return text;
}

static bool has_active_port(const bt_doctor_facts *facts)
{
    bt_ranked_nic best;
    const bt_memory_place anywhere = {.numa_node = -1};
    return bt_topology_rank(facts->topology, &anywhere, &best, 1) > 0;
}

/* The data path is configured to use a port of this RDMA device; NULL: of any. */
static bool wants_rdma(const bt_doctor_facts *facts, const bt_rdma_device *wanted)
{
    const bt_rdma_device *device;
    const bt_rdma_port *port;
    for (uint32_t i = 0; i < facts->n_devices; i++)
        if (bt_doctor_find_port(facts, facts->devices[i], &device, &port) &&
            (wanted == NULL || device == wanted))
            return true;
    return false;
}

static bool is_open(const bt_doctor_facts *facts, const char *name)
{
    const bt_rdma_device *device;
    const bt_rdma_port *port;
    const bt_net_device *net = bt_doctor_find_net(facts, name);
    return (net != NULL && !net->is_loopback) || strcmp(name, "all") == 0 ||
           bt_doctor_find_port(facts, name, &device, &port);
}

/* Peers on other hosts can be had, and lost. */
static bool leaves_host(const bt_doctor_facts *facts)
{
    for (uint32_t i = 0; i < facts->n_devices; i++)
        if (is_open(facts, facts->devices[i]))
            return true;
    return false;
}

static void check_ucx_version(check *c)
{
    const bt_ucx_offers *ucx = &c->facts->offers;
    unsigned built_major = 0, built_minor = 0;
    sscanf(ucx->header_version, "%4u.%4u", &built_major, &built_minor);
    uint32_t built = built_major * 1000 + built_minor;
    uint32_t runs = ucx->runtime_major * 1000 + ucx->runtime_minor;
    if (runs < 1013)
        bt_doctor_advise(bt_doctor_find(c->out, BT_DOCTOR_BROKEN, "ucx-too-old",
                                        "UCX %s is older than 1.13, the first that Baton supports",
                                        ucx->runtime_version),
                         "install UCX 1.13 or newer, or build with UCX_ROOT");
    else if (runs < built)
        bt_doctor_advise(bt_doctor_find(c->out, BT_DOCTOR_BROKEN, "ucx-older-than-built",
                                        "UCX %s runs, but Baton was built with the headers of %s",
                                        ucx->runtime_version, ucx->header_version),
                         "check LD_LIBRARY_PATH, or build against the UCX that is installed");
    else if (runs < 1014)
        bt_doctor_advise(
            bt_doctor_find(c->out, leaves_host(c->facts) ? BT_DOCTOR_WARNING : BT_DOCTOR_FINE,
                           "ucx-old",
                           "UCX %s aborts the process when a peer is killed while it connects over "
                           "tcp, and when an RDMA device of its own goes away",
                           ucx->runtime_version),
            "run engines under a supervisor, or build against a newer UCX (UCX_ROOT)");
}

static void check_ucx_transports(check *c)
{
    const bt_doctor_facts *facts = c->facts;
    const bt_ucx_offers *ucx = &facts->offers;
    if (facts->ucx_status != BATON_OK) {
        bt_doctor_advise(bt_doctor_find(c->out, BT_DOCTOR_BROKEN, "ucx-does-not-open", "%.300s",
                                        facts->ucx_text),
                         "check the UCX_* variables of the environment");
        return;
    }
    if (!bt_ucx_offers_has(ucx, "posix") && !bt_ucx_offers_has(ucx, "sysv"))
        bt_doctor_advise(bt_doctor_find(c->out, BT_DOCTOR_WARNING, "no-shared-memory",
                                        "UCX offers no shared memory here: peers on this host are "
                                        "reached over the network only"),
                         "let UCX_TLS contain sm, or posix");
    if (has_active_port(facts) && !bt_doctor_has_verbs(ucx))
        bt_doctor_advise(bt_doctor_find(c->out, BT_DOCTOR_WARNING, "ucx-without-verbs",
                                        "there are RDMA ports, but this UCX offers no verbs "
                                        "transport (rc, dc, ud)"),
                         "use a UCX built with verbs: the distribution's or the vendor's; the "
                         "wheel from PyPI has none. Check that rdma-core's provider libraries are "
                         "installed, too");
    if (facts->topology->n_gpus > 0 && !ucx->has_cuda)
        bt_doctor_advise(bt_doctor_find(c->out, BT_DOCTOR_WARNING, "ucx-without-cuda",
                                        "there are GPUs, but this UCX knows no CUDA memory: KV in "
                                        "device memory is staged through host memory"),
                         "use a UCX built with CUDA: a vendor's, or the wheel libucx-cu13 of PyPI");
}

static void check_environment(check *c)
{
    for (uint32_t i = 0; i < c->facts->n_variables; i++) {
        const bt_doctor_variable *variable = &c->facts->variables[i];
        if (bt_ucx_sets(variable->name))
            bt_doctor_advise(bt_doctor_find(c->out, BT_DOCTOR_WARNING, "ucx-environment",
                                            "%s=%s in the environment wins over what Baton would "
                                            "set",
                                            variable->name, variable->value),
                             "unset it, unless it is meant; keep it equal on both ends");
    }
}

static void check_node(check *c, const bt_rdma_device *device)
{
    bool is_wanted = wants_rdma(c->facts, device);
    bt_doctor_severity severity = is_wanted ? BT_DOCTOR_BROKEN : BT_DOCTOR_WARNING;
    if (device->node_state == BT_NODE_MISSING)
        bt_doctor_advise(bt_doctor_find(c->out, severity, "rdma-node-missing",
                                        "%s is in /sys, but /dev/infiniband/%s is not there: it "
                                        "cannot be used",
                                        device->name,
                                        device->node[0] != '\0' ? device->node : "uverbsN"),
                         "containers: start with --device /dev/infiniband (Kubernetes: the RDMA "
                         "device plugin); hosts: load ib_uverbs");
    else if (device->node_state == BT_NODE_FORBIDDEN)
        bt_doctor_advise(bt_doctor_find(c->out, severity, "rdma-node-forbidden",
                                        "%s: this user may not open /dev/infiniband/%s",
                                        device->name, device->node),
                         "give the user read and write permission (rdma-core's udev rules do)");
}

static bool has_roce_v2(const bt_rdma_port *port)
{
    for (uint32_t i = 0; i < port->n_kept; i++)
        if (strcmp(port->gids[i].type, "RoCE v2") == 0)
            return true;
    return port->n_gids > port->n_kept; /* perhaps among those not kept */
}

static void check_port(check *c, const bt_rdma_device *device, const bt_rdma_port *port)
{
    if (!bt_rdma_port_is_active(port))
        bt_doctor_advise(bt_doctor_find(c->out, BT_DOCTOR_WARNING, "rdma-port-inactive",
                                        "%s:%u is %s (%s), not ACTIVE", device->name, port->number,
                                        port->state[0] != '\0' ? port->state : "unknown",
                                        port->physical[0] != '\0' ? port->physical : "unknown"),
                         "check cable and switch; for InfiniBand that a subnet manager runs, for "
                         "Ethernet that the interface is up");
    else if (port->n_gids == 0)
        bt_doctor_find(c->out, BT_DOCTOR_WARNING, "rdma-no-gid",
                       "%s:%u is active but has no GID: no peer can reach it", device->name,
                       port->number);
    else if (strcmp(port->link_layer, "Ethernet") == 0 && !has_roce_v2(port))
        bt_doctor_advise(bt_doctor_find(c->out, BT_DOCTOR_WARNING, "rdma-no-roce-v2",
                                        "%s:%u is Ethernet and has no RoCE v2 GID: it cannot be "
                                        "routed",
                                        device->name, port->number),
                         "give its interface an IP address; set the mode with cma_roce_mode");
}

static void check_rdma(check *c)
{
    for (uint32_t d = 0; d < c->facts->topology->n_rdma; d++) {
        const bt_rdma_device *device = &c->facts->topology->rdma[d];
        const bt_pci_place *place = &device->place;
        check_node(c, device);
        for (uint32_t p = 0; p < device->n_ports; p++)
            check_port(c, device, &device->ports[p]);
        if (place->gbps > 0 && place->gbps < 0.9 * place->max_gbps)
            bt_doctor_advise(bt_doctor_find(c->out, BT_DOCTOR_WARNING, "pcie-degraded",
                                            "%s: its PCIe link runs at %.0f of %.0f Gbit/s",
                                            device->name, place->gbps, place->max_gbps),
                             "another slot, or reseat it; a riser or the BIOS may limit it");
    }
}

static void check_memlock(check *c)
{
    const bt_doctor_facts *facts = c->facts;
    const bt_host_limits *limits = &facts->limits;
    bool is_small = limits->has_memlock && limits->memlock_bytes < facts->pool_bytes;
    if (!is_small || limits->may_lock_all || facts->topology->n_rdma == 0)
        return;
    char limit[BT_DOCTOR_SIZE_BYTES], pool[BT_DOCTOR_SIZE_BYTES];
    bt_doctor_severity severity = wants_rdma(facts, NULL) ? BT_DOCTOR_BROKEN : BT_DOCTOR_WARNING;
    bt_doctor_advise(bt_doctor_find(c->out, severity, "memlock-small",
                                    "locked memory is limited to %s: a pool of %s cannot be "
                                    "registered for RDMA",
                                    bt_doctor_size(limits->memlock_bytes, limit),
                                    bt_doctor_size(facts->pool_bytes, pool)),
                     "ulimit -l unlimited; systemd: LimitMEMLOCK=infinity; containers: --ulimit "
                     "memlock=-1");
}

static void check_shm(check *c)
{
    const bt_host_limits *limits = &c->facts->limits;
    char have[BT_DOCTOR_SIZE_BYTES], pool[BT_DOCTOR_SIZE_BYTES];
    bt_doctor_size(c->facts->pool_bytes, pool);
    if (!limits->has_shm)
        bt_doctor_advise(bt_doctor_find(c->out, BT_DOCTOR_WARNING, "shm-missing",
                                        "there is no /dev/shm: senders on this host cannot map the "
                                        "pool"),
                         "mount a tmpfs there; containers: --shm-size, or --ipc=host");
    else if (limits->shm_free_bytes < c->facts->pool_bytes)
        bt_doctor_advise(bt_doctor_find(c->out, BT_DOCTOR_WARNING, "shm-small",
                                        "/dev/shm has %s free: a pool of %s does not fit, and may "
                                        "end in memory that senders on this host cannot map",
                                        bt_doctor_size(limits->shm_free_bytes, have), pool),
                         "containers: --shm-size larger than pool_bytes, or --ipc=host; hosts: "
                         "mount -o remount,size=");
}

static void check_memory(check *c)
{
    const bt_doctor_facts *facts = c->facts;
    const bt_host_limits *limits = &facts->limits;
    char have[BT_DOCTOR_SIZE_BYTES], pool[BT_DOCTOR_SIZE_BYTES];
    bt_doctor_size(facts->pool_bytes, pool);
    uint64_t bytes = limits->cgroup_memory_bytes;
    if (bytes < facts->pool_bytes)
        bt_doctor_advise(bt_doctor_find(c->out, BT_DOCTOR_BROKEN, "cgroup-memory",
                                        "this cgroup may use %s of memory: a pool of %s gets the "
                                        "process killed",
                                        bt_doctor_size(bytes, have), pool),
                         "raise the limit, or lower pool_bytes");
    else if (limits->memory_bytes != 0 && limits->memory_bytes < facts->pool_bytes)
        bt_doctor_advise(bt_doctor_find(c->out, BT_DOCTOR_BROKEN, "memory-small",
                                        "this machine has %s of memory, the pool wants %s",
                                        bt_doctor_size(limits->memory_bytes, have), pool),
                         "lower pool_bytes");
    if (limits->cgroup_rdma[0] != '\0')
        bt_doctor_advise(bt_doctor_find(c->out, BT_DOCTOR_WARNING, "cgroup-rdma",
                                        "this cgroup limits RDMA resources: %s",
                                        limits->cgroup_rdma),
                         "raise rdma.max: every peer takes queue pairs");
}

static void check_gpus(check *c)
{
    const bt_topology *topology = c->facts->topology;
    bool has_nics = has_active_port(c->facts);
    if (topology->n_gpus == 0)
        return;
    if (c->facts->limits.nvidia_driver[0] == '\0')
        bt_doctor_advise(bt_doctor_find(c->out, BT_DOCTOR_WARNING, "gpu-without-driver",
                                        "there are %u GPUs, but no NVIDIA driver",
                                        topology->n_gpus),
                         "install the driver; containers: --gpus all");
    else if (has_nics && !bt_host_has_gpudirect(&c->facts->limits))
        bt_doctor_advise(bt_doctor_find(c->out, BT_DOCTOR_WARNING, "no-gpudirect",
                                        "NICs cannot reach GPU memory: no nvidia_peermem, and no "
                                        "dma-buf (open kernel modules, Linux 5.12)"),
                         "modprobe nvidia_peermem, or install the driver's open kernel modules");
    for (uint32_t g = 0; g < topology->n_gpus && has_nics; g++) {
        const bt_gpu_device *gpu = &topology->gpus[g];
        const bt_memory_place memory = {.numa_node = -1, .gpu = &gpu->place};
        bt_ranked_nic best;
        char address[BT_PCI_ADDRESS_BYTES];
        bt_pci_format(&gpu->address, address);
        if (bt_topology_rank(topology, &memory, &best, 1) == 1 &&
            best.distance == BT_DISTANCE_CROSS)
            bt_doctor_find(c->out, BT_DOCTOR_WARNING, "gpu-nic-far",
                           "GPU %s: its best NIC, %s, is on another NUMA node: about half of its "
                           "rate is left",
                           address, best.name);
    }
}

static void check_rdma_device(check *c, const char *name, const bt_rdma_port *port)
{
    if (!bt_rdma_port_is_active(port))
        bt_doctor_find(c->out, BT_DOCTOR_BROKEN, "data-device-down",
                       "data_devices names %s, which is not ACTIVE", name);
    else if (c->facts->ucx_status == BATON_OK && !bt_doctor_has_verbs(&c->facts->offers))
        bt_doctor_find(c->out, BT_DOCTOR_BROKEN, "data-device-unusable",
                       "data_devices names %s, which this UCX cannot use", name);
}

static void check_net_device(check *c, const char *name, const bt_net_device *net)
{
    bool is_down = strcmp(net->state, "down") == 0 || strcmp(net->state, "lowerlayerdown") == 0;
    if (is_down)
        bt_doctor_find(c->out, BT_DOCTOR_BROKEN, "data-device-down",
                       "data_devices names %s, which is down", name);
    else if (has_active_port(c->facts) && !wants_rdma(c->facts, NULL))
        bt_doctor_advise(
            bt_doctor_find(c->out, net->is_loopback ? BT_DOCTOR_FINE : BT_DOCTOR_WARNING,
                           "rdma-unused",
                           "data_devices names %s, though there are active RDMA ports", name),
            "name RDMA ports in data_devices, as in mlx5_0:1");
}

static void check_devices(check *c)
{
    const bt_doctor_facts *facts = c->facts;
    for (uint32_t i = 0; i < facts->n_devices; i++) {
        const char *name = facts->devices[i];
        const bt_rdma_device *device;
        const bt_rdma_port *port;
        const bt_net_device *net = bt_doctor_find_net(facts, name);
        bool is_port = bt_doctor_find_port(facts, name, &device, &port);
        if (is_port)
            check_rdma_device(c, name, port);
        else if (net != NULL)
            check_net_device(c, name, net);
        else if (strcmp(name, "all") != 0)
            bt_doctor_advise(bt_doctor_find(c->out, BT_DOCTOR_BROKEN, "data-device-unknown",
                                            "data_devices names %s, which this machine has not",
                                            name),
                             "take one of the devices listed above");
        if (is_open(facts, name))
            bt_doctor_advise(bt_doctor_find(c->out, BT_DOCTOR_WARNING, "data-network-open",
                                            "data ports listen on %s: UCX has no authentication "
                                            "of its own, and whoever reaches them may write the "
                                            "pool",
                                            name),
                             "close this network to everybody but the engines");
    }
}

static void check_keys(check *c)
{
    if (c->facts->allow_unauthenticated && !c->facts->has_keys)
        bt_doctor_advise(bt_doctor_find(c->out, BT_DOCTOR_WARNING, "unauthenticated",
                                        "allow_unauthenticated is set and there are no keys: "
                                        "whoever reaches the control ports may write the pool"),
                         "make keys with baton-keygen: key_file, clients_path, server_key");
}

void bt_doctor_check(const bt_doctor_facts *facts, bt_doctor_findings *findings)
{
    check c = {.facts = facts, .out = findings};
    check_ucx_version(&c);
    check_ucx_transports(&c);
    check_environment(&c);
    check_rdma(&c);
    check_gpus(&c);
    check_memlock(&c);
    check_shm(&c);
    check_memory(&c);
    check_devices(&c);
    check_keys(&c);
    bt_doctor_check_peer(facts, findings);
    if (facts->topology->n_left_out > 0)
        bt_doctor_find(findings, BT_DOCTOR_FINE, "left-out",
                       "%u devices or ports more than can be shown", facts->topology->n_left_out);
}
