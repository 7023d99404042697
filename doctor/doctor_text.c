/* SPDX-License-Identifier: Apache-2.0 */
#include "doctor/doctor_text.h"

#include "doctor/doctor_checks.h"
#include "doctor/doctor_routes.h"
#include "core/texttable.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { INDENT = 2, WRAP_COLUMN = 100 };

typedef struct {
    const bt_doctor_facts *facts;
    bool in_color;
    bt_strbuf *out;
} page;

typedef enum { PLAIN, BOLD, GREEN, YELLOW, RED } style;

static void put_styled(const page *p, style look, const char *text)
{
    static const char *const codes[] = {"", "\033[1m", "\033[32m", "\033[33m", "\033[31m"};
    bt_strbuf_puts(p->out, p->in_color ? codes[look] : "");
    bt_strbuf_puts(p->out, text);
    bt_strbuf_puts(p->out, p->in_color && look != PLAIN ? "\033[0m" : "");
}

static void put_title(const page *p, const char *title)
{
    bt_strbuf_putc(p->out, '\n');
    put_styled(p, BOLD, title);
    bt_strbuf_putc(p->out, '\n');
}

static const char *or_dash(const char *text)
{
    return text[0] != '\0' ? text : "-";
}

static void cell_numa(bt_table *table, const bt_pci_place *place)
{
    if (place->numa_node < 0)
        bt_table_cell(table, "-");
    else
        bt_table_cell(table, "%d", place->numa_node);
}

static void cell_pci(bt_table *table, const bt_pci_path *path)
{
    char address[BT_PCI_ADDRESS_BYTES] = "-";
    if (path->n > 0)
        bt_pci_format(bt_pci_leaf(path), address);
    bt_table_cell(table, "%s", address);
}

static void cell_gbps(bt_table *table, double gbps)
{
    if (gbps > 0)
        bt_table_cell(table, "%.0f Gbit/s", gbps);
    else
        bt_table_cell(table, "-");
}

static void row(bt_table *table, const char *name)
{
    bt_table_row(table);
    bt_table_cell(table, "%s", name);
}

/* One line for each transport: the devices it is offered on. */
static void put_transports(const page *p)
{
    const bt_ucx_offers *ucx = &p->facts->offers;
    bt_table table = {0};
    for (uint32_t i = 0; i < ucx->n_offers; i++) {
        const char *transport = ucx->offers[i].transport;
        bool is_known = false;
        for (uint32_t before = 0; before < i; before++)
            is_known = is_known || strcmp(ucx->offers[before].transport, transport) == 0;
        if (is_known)
            continue;
        bt_strbuf devices = {0};
        for (uint32_t j = i; j < ucx->n_offers; j++)
            if (strcmp(ucx->offers[j].transport, transport) == 0)
                bt_strbuf_printf(&devices, "%s%s", j == i ? "" : " ", ucx->offers[j].device);
        row(&table, transport);
        bt_table_cell(&table, "%s", bt_strbuf_text(&devices));
        bt_strbuf_free(&devices);
    }
    bt_table_print(&table, INDENT, p->out);
}

static void put_ucx(const page *p)
{
    const bt_doctor_facts *facts = p->facts;
    char title[128];
    snprintf(title, sizeof(title), "UCX %s (Baton was built with the headers of %s)",
             facts->offers.runtime_version, facts->offers.header_version);
    put_title(p, title);
    put_transports(p);
    for (uint32_t i = 0; i < facts->n_variables; i++)
        bt_strbuf_printf(p->out, "%*s%s=%s (environment)\n", INDENT, "", facts->variables[i].name,
                         facts->variables[i].value);
}

/* The one that UCX is likely to take: of RoCE v2 where there is one. */
static const bt_rdma_gid *best_gid(const bt_rdma_port *port)
{
    for (uint32_t i = 0; i < port->n_kept; i++)
        if (strcmp(port->gids[i].type, "RoCE v2") == 0)
            return &port->gids[i];
    return port->n_kept > 0 ? &port->gids[0] : NULL;
}

static void cell_gid(bt_table *table, const bt_rdma_port *port)
{
    const bt_rdma_gid *gid = best_gid(port);
    bool is_ethernet = strcmp(port->link_layer, "Ethernet") == 0;
    if (gid == NULL)
        bt_table_cell(table, "none");
    else
        bt_table_cell(table, "%u: %s%s%s", gid->index, gid->text, is_ethernet ? " " : "",
                      is_ethernet ? gid->type : "");
}

static const char *node_text(const bt_rdma_device *device)
{
    if (device->node_state == BT_NODE_THERE)
        return device->node;
    return device->node_state == BT_NODE_MISSING ? "MISSING" : "FORBIDDEN";
}

static void put_rdma(const page *p)
{
    const bt_topology *topology = p->facts->topology;
    put_title(p, "RDMA devices");
    if (topology->n_rdma == 0) {
        bt_strbuf_printf(p->out, "%*snone\n", INDENT, "");
        return;
    }
    static const char *const heads[] = {"PORT", "STATE", "LINK", "RATE",
                                        "NUMA", "PCI",   "NODE", "GID"};
    bt_table table = {0};
    bt_table_row(&table);
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++)
        bt_table_cell(&table, "%s", heads[i]);
    for (uint32_t d = 0; d < topology->n_rdma; d++) {
        const bt_rdma_device *device = &topology->rdma[d];
        for (uint32_t i = 0; i < device->n_ports; i++) {
            const bt_rdma_port *port = &device->ports[i];
            bt_table_row(&table);
            bt_table_cell(&table, "%s:%u", device->name, port->number);
            bt_table_cell(&table, "%s", or_dash(port->state));
            bt_table_cell(&table, "%s", or_dash(port->link_layer));
            cell_gbps(&table, port->gbps);
            cell_numa(&table, &device->place);
            cell_pci(&table, &device->place.path);
            bt_table_cell(&table, "%s", node_text(device));
            cell_gid(&table, port);
        }
    }
    bt_table_print(&table, INDENT, p->out);
}

static void put_nets(const page *p)
{
    const bt_topology *topology = p->facts->topology;
    put_title(p, "Network devices");
    bt_table table = {0};
    row(&table, "NAME");
    bt_table_cell(&table, "STATE");
    bt_table_cell(&table, "RATE");
    bt_table_cell(&table, "MTU");
    bt_table_cell(&table, "NUMA");
    bt_table_cell(&table, "PCI");
    for (uint32_t i = 0; i < topology->n_nets; i++) {
        const bt_net_device *net = &topology->nets[i];
        row(&table, net->name);
        bt_table_cell(&table, "%s", net->is_loopback ? "loopback" : or_dash(net->state));
        cell_gbps(&table, net->gbps);
        bt_table_cell(&table, "%u", net->mtu);
        cell_numa(&table, &net->place);
        cell_pci(&table, &net->place.path);
    }
    bt_table_print(&table, INDENT, p->out);
}

/* "mlx5_0:1 (same switch, 400 Gbit/s), mlx5_1:1 ..." */
static void cell_nics(bt_table *table, const bt_topology *topology, const bt_memory_place *memory)
{
    bt_ranked_nic nics[BT_TOPOLOGY_RDMA_MAX];
    uint32_t n = bt_topology_rank(topology, memory, nics, BT_TOPOLOGY_RDMA_MAX);
    uint32_t rails = bt_topology_rails(nics, n);
    bt_strbuf text = {0};
    for (uint32_t i = 0; i < rails; i++)
        bt_strbuf_printf(&text, "%s%s", i == 0 ? "" : " ", nics[i].name);
    bt_table_cell(table, "%s", n > 0 ? bt_strbuf_text(&text) : "none");
    bt_table_cell(table, "%s", n > 0 ? bt_distance_name(nics[0].distance) : "-");
    cell_gbps(table, n > 0 ? nics[0].gbps : 0);
    bt_strbuf_free(&text);
}

static void put_nearest(const page *p)
{
    const bt_topology *topology = p->facts->topology;
    bt_table table = {0};
    put_title(p, "Nearest RDMA ports");
    row(&table, "MEMORY");
    bt_table_cell(&table, "PORTS");
    bt_table_cell(&table, "DISTANCE");
    bt_table_cell(&table, "RATE OF EACH THERE");
    for (uint32_t node = 0; node < topology->n_numa_nodes; node++) {
        bt_table_row(&table);
        bt_table_cell(&table, "host, NUMA node %u", node);
        cell_nics(&table, topology, &(bt_memory_place){.numa_node = (int)node});
    }
    for (uint32_t g = 0; g < topology->n_gpus; g++) {
        char address[BT_PCI_ADDRESS_BYTES];
        bt_pci_format(&topology->gpus[g].address, address);
        bt_table_row(&table);
        bt_table_cell(&table, "GPU %s", address);
        cell_nics(&table, topology,
                  &(bt_memory_place){.numa_node = -1, .gpu = &topology->gpus[g].place});
    }
    bt_table_print(&table, INDENT, p->out);
}

static void put_distances(const page *p)
{
    const bt_topology *topology = p->facts->topology;
    bt_table table = {0};
    put_title(p, "From GPU to RDMA device");
    row(&table, "GPU");
    for (uint32_t d = 0; d < topology->n_rdma; d++)
        bt_table_cell(&table, "%s", topology->rdma[d].name);
    for (uint32_t g = 0; g < topology->n_gpus; g++) {
        char address[BT_PCI_ADDRESS_BYTES];
        bt_pci_format(&topology->gpus[g].address, address);
        row(&table, address);
        for (uint32_t d = 0; d < topology->n_rdma; d++)
            bt_table_cell(&table, "%s",
                          bt_distance_name(bt_topology_distance(topology, &topology->gpus[g].place,
                                                                &topology->rdma[d].place)));
    }
    bt_table_print(&table, INDENT, p->out);
}

static void put_gpus(const page *p)
{
    const bt_host_limits *limits = &p->facts->limits;
    const bt_topology *topology = p->facts->topology;
    put_title(p, "GPUs");
    if (topology->n_gpus == 0) {
        bt_strbuf_printf(p->out, "%*snone\n", INDENT, "");
        return;
    }
    bt_table table = {0};
    row(&table, "GPU");
    bt_table_cell(&table, "MODEL");
    bt_table_cell(&table, "NUMA");
    for (uint32_t g = 0; g < topology->n_gpus; g++) {
        char address[BT_PCI_ADDRESS_BYTES];
        const bt_gpu_device *gpu = &topology->gpus[g];
        bt_pci_format(&gpu->address, address);
        row(&table, address);
        bt_table_cell(&table, "%s", or_dash(gpu->model));
        cell_numa(&table, &gpu->place);
    }
    bt_table_print(&table, INDENT, p->out);
    bool has_dmabuf = limits->nvidia_driver_is_open && limits->kernel_has_dmabuf_rdma;
    bt_strbuf_printf(
        p->out, "%*sdriver %s, %s kernel modules; for NICs: peermem %s, dma-buf %s\n", INDENT, "",
        or_dash(limits->nvidia_driver), limits->nvidia_driver_is_open ? "open" : "closed",
        limits->peermem[0] != '\0' ? limits->peermem : "no", has_dmabuf ? "yes" : "no");
    if (topology->n_rdma > 0 && topology->n_rdma < BT_TABLE_COLUMNS_MAX)
        put_distances(p);
}

static void put_huge_pages(bt_table *table, const bt_host_limits *limits)
{
    char size[BT_DOCTOR_SIZE_BYTES];
    for (uint32_t i = 0; i < limits->n_huge; i++) {
        const bt_huge_pages *huge = &limits->huge[i];
        row(table, "huge pages");
        bt_table_cell(table, "%s: %" PRIu64 " of %" PRIu64 " free",
                      bt_doctor_size(huge->page_bytes, size), huge->n_free, huge->n_total);
    }
    row(table, "transparent ones");
    bt_table_cell(table, "%s; shared memory: %s", or_dash(limits->thp), or_dash(limits->thp_shmem));
}

static void put_limits(const page *p)
{
    const bt_host_limits *limits = &p->facts->limits;
    char a[BT_DOCTOR_SIZE_BYTES], b[BT_DOCTOR_SIZE_BYTES];
    bt_table table = {0};
    put_title(p, "Memory and limits");
    row(&table, "memory");
    bt_table_cell(&table, "%s; cgroup: %s", bt_doctor_size(limits->memory_bytes, a),
                  bt_doctor_size(limits->cgroup_memory_bytes, b));
    row(&table, "locked memory");
    bt_table_cell(&table, "%s%s",
                  limits->has_memlock ? bt_doctor_size(limits->memlock_bytes, a) : "unknown",
                  limits->may_lock_all ? ", but CAP_IPC_LOCK lifts it" : "");
    row(&table, "/dev/shm");
    if (limits->has_shm)
        bt_table_cell(&table, "%s, %s free", bt_doctor_size(limits->shm_bytes, a),
                      bt_doctor_size(limits->shm_free_bytes, b));
    else
        bt_table_cell(&table, "missing");
    put_huge_pages(&table, limits);
    if (limits->cgroup_cpus > 0) {
        row(&table, "CPUs");
        bt_table_cell(&table, "%.1f (cgroup)", limits->cgroup_cpus);
    }
    if (limits->ptrace_scope >= 0) {
        row(&table, "Yama");
        bt_table_cell(&table, "ptrace_scope %d", limits->ptrace_scope);
    }
    bt_table_print(&table, INDENT, p->out);
}

static void put_data_path(const page *p)
{
    const bt_doctor_facts *facts = p->facts;
    char pool[BT_DOCTOR_SIZE_BYTES];
    bt_table table = {0};
    bt_strbuf devices = {0};
    put_title(p, "Data path as configured");
    for (uint32_t i = 0; i < facts->n_devices; i++)
        bt_strbuf_printf(&devices, "%s%s", i == 0 ? "" : " ", facts->devices[i]);
    row(&table, "devices");
    bt_table_cell(&table, "%s%s", bt_strbuf_text(&devices),
                  facts->devices_from_environment ? " (UCX_NET_DEVICES)" : "");
    row(&table, "tcp");
    bt_table_cell(&table, "%s", facts->no_tcp ? "off" : "allowed");
    row(&table, "pool");
    bt_table_cell(&table, "%s", bt_doctor_size(facts->pool_bytes, pool));
    row(&table, "control");
    bt_table_cell(&table, "%s", facts->has_keys ? "CURVE keys" : "no keys: loopback only");
    bt_table_print(&table, INDENT, p->out);
    bt_strbuf_free(&devices);
}

/* Words from column `indent` on, the first line being there already. */
static void put_wrapped(const page *p, const char *text, size_t indent)
{
    size_t column = indent;
    for (const char *at = text + strspn(text, " "); *at != '\0'; at += strspn(at, " ")) {
        size_t word = strcspn(at, " ");
        if (column > indent && column + 1 + word > WRAP_COLUMN) {
            bt_strbuf_putc(p->out, '\n');
            bt_strbuf_fill(p->out, ' ', indent);
            column = indent;
        } else if (column > indent) {
            bt_strbuf_putc(p->out, ' ');
            column++;
        }
        bt_strbuf_append(p->out, at, word);
        column += word;
        at += word;
    }
    bt_strbuf_putc(p->out, '\n');
}

/* Which way for which pair of memory kinds. */
static void put_routes(const page *p)
{
    bt_doctor_route routes[BT_DOCTOR_ROUTES_MAX];
    uint32_t n = bt_doctor_routes(p->facts, routes);
    bt_table table = {0};
    put_title(p, "Ways from here to a receiver on a machine like this one");
    row(&table, "FROM");
    bt_table_cell(&table, "POOL");
    bt_table_cell(&table, "ON");
    bt_table_cell(&table, "PATH");
    bt_table_cell(&table, "HOW");
    for (uint32_t i = 0; i < n; i++) {
        const bt_doctor_route *route = &routes[i];
        row(&table, bt_doctor_memory_name(route->from));
        bt_table_cell(&table, "%s", bt_doctor_memory_name(route->pool));
        bt_table_cell(&table, "%s", route->same_host ? "this host" : "another");
        bt_table_cell(&table, "%s", or_dash(route->path));
        bt_table_cell(&table, "%s%s%s%s", route->how, route->why[0] != '\0' ? " (" : "", route->why,
                      route->why[0] != '\0' ? ")" : "");
    }
    bt_table_print(&table, INDENT, p->out);
}

static void cell_rate(bt_table *table, double gbytes)
{
    if (gbytes > 0)
        bt_table_cell(table, "%.3g GB/s", gbytes);
    else
        bt_table_cell(table, "not measured");
}

static void put_connection(bt_table *table, const baton_sender_peer *found)
{
    static const char *const memories[] = {"host", "cuda", "cuda_host"};
    row(table, "transport of puts");
    bt_table_cell(table, "%.24s on %.24s, %u lane%s", or_dash(found->transport),
                  or_dash(found->device), found->n_rails, found->n_rails == 1 ? "" : "s");
    row(table, "its memory");
    bt_table_cell(table, "%s", memories[found->memory]);
    row(table, "stores into it");
    cell_rate(table, found->copy_gbps);
    row(table, "copies here");
    cell_rate(table, found->stage_gbps);
    row(table, "puts");
    cell_rate(table, found->wire_gbps);
    row(table, "a put");
    bt_table_cell(table, "%.2f us to post, %.1f us there and back", found->post_us,
                  found->flush_us);
}

static void put_peer(const page *p)
{
    const bt_doctor_peer *peer = &p->facts->peer;
    const char *mechanism = peer->greeting.mechanism;
    char title[BATON_EVENT_TEXT_BYTES + 16];
    bt_table table = {0};
    snprintf(title, sizeof(title), "Peer %s", peer->address);
    put_title(p, title);
    row(&table, "control");
    if (mechanism[0] != '\0')
        bt_table_cell(&table, "%s, connected in %.1f ms",
                      strcmp(mechanism, "NULL") == 0 ? "no keys" : mechanism,
                      peer->greeting.connect_ms);
    else
        bt_table_cell(&table, "not reached");
    row(&table, "path");
    if (peer->status == BATON_OK) {
        bt_table_cell(&table, "%s, %.3g GB/s", bt_doctor_peer_path(peer),
                      bt_doctor_peer_gbps(peer));
        put_connection(&table, &peer->found);
    } else {
        bt_table_cell(&table, "none: %s (%s)", baton_strerror(peer->status),
                      baton_status_name(peer->status));
    }
    bt_table_print(&table, INDENT, p->out);
    if (peer->found.why_not_mapped[0] != '\0') {
        bt_strbuf_printf(p->out, "%*snot mapped: ", INDENT, "");
        put_wrapped(p, peer->found.why_not_mapped, INDENT + 12);
    }
}

static void put_findings(const page *p, const bt_doctor_findings *findings)
{
    static const style looks[] = {GREEN, YELLOW, RED};
    enum { TEXT_COLUMN = INDENT + 9 }; /* behind "warning" */
    put_title(p, "Findings");
    for (int severity = BT_DOCTOR_BROKEN; severity >= BT_DOCTOR_FINE; severity--) {
        for (uint32_t i = 0; i < findings->n; i++) {
            const bt_doctor_finding *finding = &findings->items[i];
            const char *name = bt_doctor_severity_name(finding->severity);
            if ((int)finding->severity != severity)
                continue;
            bt_strbuf_fill(p->out, ' ', INDENT);
            put_styled(p, looks[severity], name);
            bt_strbuf_fill(p->out, ' ', TEXT_COLUMN - INDENT - strlen(name));
            put_wrapped(p, finding->text, TEXT_COLUMN);
            if (finding->advice[0] != '\0') {
                bt_strbuf_fill(p->out, ' ', TEXT_COLUMN);
                bt_strbuf_puts(p->out, "-> ");
                put_wrapped(p, finding->advice, TEXT_COLUMN + 3);
            }
        }
    }
    if (findings->n == 0)
        bt_strbuf_printf(p->out, "%*snone\n", INDENT, "");
    if (findings->n_left_out > 0)
        bt_strbuf_printf(p->out, "%*sand %u more\n", INDENT, "", findings->n_left_out);
}

static void put_verdict(const page *p, const bt_doctor_findings *findings)
{
    static const style looks[] = {GREEN, YELLOW, RED};
    bt_doctor_severity worst = bt_doctor_worst(findings);
    char text[128];
    uint32_t n_warnings = findings->counts[BT_DOCTOR_WARNING];
    snprintf(text, sizeof(text), "%s (%u broken, %u warning%s)", bt_doctor_severity_name(worst),
             findings->counts[BT_DOCTOR_BROKEN], n_warnings, n_warnings == 1 ? "" : "s");
    bt_strbuf_puts(p->out, "\nverdict: ");
    put_styled(p, looks[worst], text);
    bt_strbuf_putc(p->out, '\n');
}

baton_status bt_doctor_text(const bt_doctor_facts *facts, const bt_doctor_findings *findings,
                            bool in_color, bt_strbuf *out)
{
    const page p = {.facts = facts, .in_color = in_color, .out = out};
    bt_strbuf_printf(out, "baton-doctor %s, Linux %s\n", baton_version(),
                     or_dash(facts->limits.kernel));
    put_ucx(&p);
    put_rdma(&p);
    put_nets(&p);
    put_gpus(&p);
    if (facts->topology->n_rdma > 0)
        put_nearest(&p);
    put_limits(&p);
    put_data_path(&p);
    put_routes(&p);
    if (facts->peer.was_asked)
        put_peer(&p);
    put_findings(&p, findings);
    put_verdict(&p, findings);
    return bt_strbuf_status(out);
}
