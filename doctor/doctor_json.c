/* SPDX-License-Identifier: Apache-2.0 */
#include "doctor/doctor_json.h"

#include "core/fail.h"
#include "doctor/doctor_routes.h"

#include <jansson.h>
#include <stdlib.h>

/* Objects that could not be made are NULL, and so is everything around them: asked once, at the
 * end. `o` in json_pack takes them over, also when it fails. */

static json_t *number_or_null(double value, bool is_known)
{
    return is_known ? json_real(value) : json_null();
}

static json_t *count_or_null(uint64_t value, bool is_known)
{
    bool fits = value <= INT64_MAX;
    return is_known && fits ? json_integer((json_int_t)value) : json_null();
}

/* What comes from elsewhere may be no UTF-8: then without what is not plain. */
static json_t *text_of(const char *text)
{
    json_t *string = json_string(text);
    if (string != NULL)
        return string;
    char plain[BT_DOCTOR_TEXT_BYTES];
    size_t n = 0;
    for (; text[n] != '\0' && n + 1 < sizeof(plain); n++)
        plain[n] = text[n] >= ' ' && text[n] <= '~' ? text[n] : '?';
    plain[n] = '\0';
    return json_string(plain);
}

static json_t *text_or_null(const char *text)
{
    return text[0] != '\0' ? text_of(text) : json_null();
}

static json_t *place_of(const bt_pci_place *place)
{
    char address[BT_PCI_ADDRESS_BYTES] = "";
    if (place->path.n > 0)
        bt_pci_format(bt_pci_leaf(&place->path), address);
    return json_pack("{s:o, s:o, s:o, s:o}", "address", text_or_null(address), "numa_node",
                     count_or_null((uint64_t)place->numa_node, place->numa_node >= 0), "gbps",
                     number_or_null(place->gbps, place->gbps > 0), "max_gbps",
                     number_or_null(place->max_gbps, place->max_gbps > 0));
}

static json_t *ucx_of(const bt_doctor_facts *facts)
{
    json_t *offers = json_array(), *variables = json_object();
    for (uint32_t i = 0; i < facts->offers.n_offers; i++)
        json_array_append_new(offers, json_pack("{s:s, s:s}", "transport",
                                                facts->offers.offers[i].transport, "device",
                                                facts->offers.offers[i].device));
    for (uint32_t i = 0; i < facts->n_variables; i++)
        json_object_set_new(variables, facts->variables[i].name,
                            json_string(facts->variables[i].value));
    return json_pack("{s:s, s:s, s:b, s:b, s:o, s:o}", "version", facts->offers.runtime_version,
                     "built_with", facts->offers.header_version, "opens",
                     facts->ucx_status == BATON_OK, "cuda", facts->offers.has_cuda, "transports",
                     offers, "environment", variables);
}

static json_t *port_of(const bt_rdma_device *device, const bt_rdma_port *port)
{
    json_t *gids = json_array();
    char name[BT_NIC_NAME_BYTES];
    snprintf(name, sizeof(name), "%s:%u", device->name, port->number);
    for (uint32_t i = 0; i < port->n_kept; i++)
        json_array_append_new(gids, json_pack("{s:i, s:s, s:o, s:o}", "index",
                                              (int)port->gids[i].index, "gid", port->gids[i].text,
                                              "type", text_or_null(port->gids[i].type), "net",
                                              text_or_null(port->gids[i].net)));
    return json_pack(
        "{s:s, s:o, s:o, s:o, s:o, s:i, s:o}", "name", name, "state", text_or_null(port->state),
        "physical", text_or_null(port->physical), "link", text_or_null(port->link_layer), "gbps",
        number_or_null(port->gbps, port->gbps > 0), "n_gids", (int)port->n_gids, "gids", gids);
}

static json_t *rdma_of(const bt_topology *topology)
{
    static const char *const states[] = {"there", "missing", "forbidden"};
    json_t *all = json_array();
    for (uint32_t d = 0; d < topology->n_rdma; d++) {
        const bt_rdma_device *device = &topology->rdma[d];
        json_t *ports = json_array();
        for (uint32_t i = 0; i < device->n_ports; i++)
            json_array_append_new(ports, port_of(device, &device->ports[i]));
        json_array_append_new(all, json_pack("{s:s, s:o, s:o, s:o, s:o, s:s, s:o, s:o}", "name",
                                             device->name, "guid", text_or_null(device->node_guid),
                                             "firmware", text_or_null(device->firmware), "board",
                                             text_or_null(device->board), "node",
                                             text_or_null(device->node), "node_state",
                                             states[device->node_state], "pci",
                                             place_of(&device->place), "ports", ports));
    }
    return all;
}

static json_t *nets_of(const bt_topology *topology)
{
    json_t *all = json_array();
    for (uint32_t i = 0; i < topology->n_nets; i++) {
        const bt_net_device *net = &topology->nets[i];
        json_array_append_new(
            all, json_pack("{s:s, s:o, s:b, s:b, s:i, s:o, s:o}", "name", net->name, "state",
                           text_or_null(net->state), "loopback", net->is_loopback, "virtual",
                           net->is_virtual, "mtu", (int)net->mtu, "gbps",
                           number_or_null(net->gbps, net->gbps > 0), "pci", place_of(&net->place)));
    }
    return all;
}

static json_t *ranked_of(const bt_topology *topology, const bt_memory_place *memory)
{
    bt_ranked_nic nics[BT_TOPOLOGY_RDMA_MAX];
    uint32_t n = bt_topology_rank(topology, memory, nics, BT_TOPOLOGY_RDMA_MAX);
    json_t *all = json_array();
    for (uint32_t i = 0; i < n; i++)
        json_array_append_new(all,
                              json_pack("{s:s, s:s, s:f}", "port", nics[i].name, "distance",
                                        bt_distance_name(nics[i].distance), "gbps", nics[i].gbps));
    return all;
}

static json_t *gpus_of(const bt_topology *topology)
{
    json_t *all = json_array();
    for (uint32_t i = 0; i < topology->n_gpus; i++) {
        const bt_gpu_device *gpu = &topology->gpus[i];
        const bt_memory_place memory = {.numa_node = -1, .gpu = &gpu->place};
        json_t *distances = json_object();
        for (uint32_t d = 0; d < topology->n_rdma; d++)
            json_object_set_new(distances, topology->rdma[d].name,
                                json_string(bt_distance_name(bt_topology_distance(
                                    topology, &gpu->place, &topology->rdma[d].place))));
        json_array_append_new(
            all, json_pack("{s:o, s:i, s:o, s:o, s:o}", "model", text_or_null(gpu->model),
                           "device_id", (int)gpu->device_id, "pci", place_of(&gpu->place),
                           "distances", distances, "nearest", ranked_of(topology, &memory)));
    }
    return all;
}

static json_t *numa_of(const bt_topology *topology)
{
    json_t *all = json_array();
    for (uint32_t node = 0; node < topology->n_numa_nodes; node++)
        json_array_append_new(
            all, json_pack("{s:i, s:o}", "node", (int)node, "nearest",
                           ranked_of(topology, &(bt_memory_place){.numa_node = (int)node})));
    return all;
}

static json_t *huge_of(const bt_host_limits *limits)
{
    json_t *all = json_array();
    for (uint32_t i = 0; i < limits->n_huge; i++)
        json_array_append_new(all, json_pack("{s:o, s:o, s:o}", "page_bytes",
                                             count_or_null(limits->huge[i].page_bytes, true),
                                             "total", count_or_null(limits->huge[i].n_total, true),
                                             "free", count_or_null(limits->huge[i].n_free, true)));
    return all;
}

/* Limits that are not there are null. */
static json_t *limits_of(const bt_host_limits *limits)
{
    bool has_memlock = limits->has_memlock && limits->memlock_bytes != BT_NO_LIMIT;
    return json_pack(
        "{s:o, s:o, s:o, s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "memory_bytes",
        count_or_null(limits->memory_bytes, limits->memory_bytes > 0), "cgroup_memory_bytes",
        count_or_null(limits->cgroup_memory_bytes, limits->cgroup_memory_bytes != BT_NO_LIMIT),
        "memlock_bytes", count_or_null(limits->memlock_bytes, has_memlock), "may_lock_all",
        limits->may_lock_all, "shm_bytes", count_or_null(limits->shm_bytes, limits->has_shm),
        "shm_free_bytes", count_or_null(limits->shm_free_bytes, limits->has_shm), "huge_pages",
        huge_of(limits), "transparent_huge_pages", text_or_null(limits->thp),
        "transparent_huge_shm", text_or_null(limits->thp_shmem), "cgroup_cpus",
        number_or_null(limits->cgroup_cpus, limits->cgroup_cpus > 0), "cgroup_rdma",
        text_or_null(limits->cgroup_rdma), "ptrace_scope",
        count_or_null((uint64_t)limits->ptrace_scope, limits->ptrace_scope >= 0));
}

static json_t *gpudirect_of(const bt_host_limits *limits)
{
    return json_pack("{s:o, s:b, s:o, s:b, s:b}", "driver", text_or_null(limits->nvidia_driver),
                     "driver_is_open", limits->nvidia_driver_is_open, "peermem",
                     text_or_null(limits->peermem), "dmabuf",
                     limits->nvidia_driver_is_open && limits->kernel_has_dmabuf_rdma, "usable",
                     bt_host_has_gpudirect(limits));
}

static json_t *data_path_of(const bt_doctor_facts *facts)
{
    json_t *devices = json_array();
    for (uint32_t i = 0; i < facts->n_devices; i++)
        json_array_append_new(devices, json_string(facts->devices[i]));
    return json_pack("{s:o, s:b, s:b, s:o, s:b}", "devices", devices, "devices_from_environment",
                     facts->devices_from_environment, "tcp", !facts->no_tcp, "pool_bytes",
                     count_or_null(facts->pool_bytes, true), "keys", facts->has_keys);
}

static json_t *routes_of(const bt_doctor_facts *facts)
{
    bt_doctor_route routes[BT_DOCTOR_ROUTES_MAX];
    uint32_t n = bt_doctor_routes(facts, routes);
    json_t *all = json_array();
    for (uint32_t i = 0; i < n; i++)
        json_array_append_new(all,
                              json_pack("{s:s, s:s, s:b, s:o, s:s, s:o}", "from",
                                        bt_doctor_memory_name(routes[i].from), "pool",
                                        bt_doctor_memory_name(routes[i].pool), "same_host",
                                        routes[i].same_host, "path", text_or_null(routes[i].path),
                                        "how", routes[i].how, "why", text_or_null(routes[i].why)));
    return all;
}

static json_t *peer_of(const bt_doctor_peer *peer)
{
    static const char *const memories[] = {"host", "cuda", "cuda_host"};
    const baton_sender_peer *found = &peer->found;
    bool is_connected = peer->status == BATON_OK && found->connected;
    double gbps = bt_doctor_peer_gbps(peer);
    if (!peer->was_asked)
        return json_null();
    return json_pack(
        "{s:o, s:b, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, "
        "s:o}",
        "address", text_of(peer->address), "connected", is_connected, "status",
        baton_status_name(peer->status), "text", text_or_null(peer->text), "mechanism",
        text_or_null(peer->greeting.mechanism), "connect_ms",
        number_or_null(peer->greeting.connect_ms, peer->greeting.mechanism[0] != '\0'), "path",
        text_or_null(bt_doctor_peer_path(peer)), "memory",
        text_or_null(is_connected ? memories[found->memory] : ""), "transport",
        text_or_null(found->transport), "device", text_or_null(found->device), "lanes",
        count_or_null(found->n_rails, is_connected), "gbytes_per_s", number_or_null(gbps, gbps > 0),
        "copy_gbytes_per_s", number_or_null(found->copy_gbps, found->copy_gbps > 0),
        "stage_gbytes_per_s", number_or_null(found->stage_gbps, found->stage_gbps > 0),
        "wire_gbytes_per_s", number_or_null(found->wire_gbps, found->wire_gbps > 0), "post_us",
        number_or_null(found->post_us, found->post_us > 0), "flush_us",
        number_or_null(found->flush_us, found->flush_us > 0), "why_not_mapped",
        text_or_null(found->why_not_mapped));
}

static json_t *findings_of(const bt_doctor_findings *findings)
{
    json_t *all = json_array();
    for (uint32_t i = 0; i < findings->n; i++) {
        const bt_doctor_finding *finding = &findings->items[i];
        json_array_append_new(all, json_pack("{s:s, s:s, s:o, s:o}", "id", finding->id, "severity",
                                             bt_doctor_severity_name(finding->severity), "text",
                                             text_of(finding->text), "advice",
                                             text_or_null(finding->advice)));
    }
    return all;
}

static json_t *report_of(const bt_doctor_facts *facts, const bt_doctor_findings *findings)
{
    const bt_topology *topology = facts->topology;
    bt_doctor_severity worst = bt_doctor_worst(findings);
    return json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:s, s:i}",
                     "version", baton_version(), "kernel", text_or_null(facts->limits.kernel),
                     "ucx", ucx_of(facts), "rdma", rdma_of(topology), "net", nets_of(topology),
                     "gpus", gpus_of(topology), "numa_nodes", numa_of(topology), "limits",
                     limits_of(&facts->limits), "gpudirect", gpudirect_of(&facts->limits),
                     "data_path", data_path_of(facts), "ways", routes_of(facts), "peer",
                     peer_of(&facts->peer), "findings", findings_of(findings), "verdict",
                     bt_doctor_severity_name(worst), "exit_status", (int)worst);
}

baton_status bt_doctor_json(const bt_doctor_facts *facts, const bt_doctor_findings *findings,
                            bt_strbuf *out)
{
    json_t *report = report_of(facts, findings);
    char *text = report != NULL ? json_dumps(report, JSON_INDENT(2)) : NULL;
    json_decref(report);
    if (text == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "doctor: the report as JSON");
    bt_strbuf_puts(out, text);
    bt_strbuf_putc(out, '\n');
    free(text); /* jansson's, so not ours to count */
    return bt_strbuf_status(out);
}
