/* SPDX-License-Identifier: Apache-2.0 */
#include "doctor/doctor_routes.h"

#include "sender/txpath.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* What this machine has, in the words of the rules. */
typedef struct {
    const bt_doctor_facts *facts;
    const char *shm;                   /* "posix", "sysv"; NULL: no mapping */
    char rdma[BT_NIC_NAME_BYTES];      /* the first port that can be used; "" none */
    char net[BT_DEVICE_NAME_BYTES];    /* the first net device for tcp; "" none */
    char remote[BT_DEVICE_NAME_BYTES]; /* the first of those that leads elsewhere; "" none */
    bool knows_device;                 /* UCX can tell device memory apart */
} means;

static means find_means(const bt_doctor_facts *facts)
{
    const bt_ucx_offers *ucx = &facts->offers;
    means m = {.facts = facts, .knows_device = ucx->has_cuda};
    if (facts->limits.has_shm && bt_ucx_offers_has(ucx, "posix"))
        m.shm = "posix";
    else if (bt_ucx_offers_has(ucx, "sysv"))
        m.shm = "sysv";
    for (uint32_t i = 0; i < facts->n_devices; i++) {
        const bt_rdma_device *device;
        const bt_rdma_port *port;
        const char *name = facts->devices[i];
        const bt_net_device *net = bt_doctor_find_net(facts, name);
        bool is_port = bt_doctor_find_port(facts, name, &device, &port);
        bool is_usable = is_port && bt_rdma_port_is_active(port) &&
                         device->node_state == BT_NODE_THERE && bt_doctor_has_verbs(ucx);
        if (is_usable && m.rdma[0] == '\0')
            snprintf(m.rdma, sizeof(m.rdma), "%s", name);
        if (net == NULL || facts->no_tcp || !bt_ucx_offers_has(ucx, "tcp"))
            continue;
        if (m.net[0] == '\0')
            snprintf(m.net, sizeof(m.net), "%s", net->name);
        if (!net->is_loopback && m.remote[0] == '\0')
            snprintf(m.remote, sizeof(m.remote), "%s", net->name);
    }
    return m;
}

__attribute__((format(printf, 2, 3))) static void add_why(bt_doctor_route *route,
                                                          const char *format, ...)
{
    size_t n = strlen(route->why);
    va_list args;
    if (n > 0 && n + 2 < sizeof(route->why)) {
        memcpy(route->why + n, "; ", 3);
        n += 2;
    }
    va_start(args, format);
    vsnprintf(route->why + n, sizeof(route->why) - n, format, args);
    va_end(args);
}

/* The pool's pages are a GPU's themselves; otherwise pinned pages lie beside them. */
static bool is_device_pool(const means *m, const bt_doctor_route *route)
{
    return route->pool == BATON_MEMORY_CUDA_DEVICE && m->knows_device;
}

/* What a sender would choose that has measured nothing. */
static const char *choose(const means *m, bool can_map, bool without_copy)
{
    const bt_tx_path_question question = {
        .can_map = can_map, .has_registered = without_copy, .require_rdma = m->facts->require_rdma};
    return bt_tx_path_name(bt_tx_path_choose(&question, &(bt_tx_figures){0}));
}

static void take_mapped(const means *m, bt_doctor_route *route)
{
    bool from_device = route->from == BATON_MEMORY_CUDA_DEVICE;
    snprintf(route->how, sizeof(route->how), "stores through %s%s%s", m->shm,
             from_device ? ", behind a copy to pinned memory" : "",
             route->pool == BATON_MEMORY_CUDA_DEVICE ? ", and the receiver copies to its GPU" : "");
    if (route->pool == BATON_MEMORY_CUDA_DEVICE)
        add_why(route, "this UCX knows no CUDA memory");
}

static void add_why_not_mapped(const means *m, bt_doctor_route *route)
{
    if (!route->same_host)
        return;
    if (is_device_pool(m, route))
        add_why(route, "no mapping: a GPU's memory is not shared memory");
    else if (m->shm == NULL)
        add_why(route, "no mapping: UCX offers no shared memory here");
    else
        add_why(route, "no mapping: require_rdma");
}

static void add_why_not_rdma(const means *m, bt_doctor_route *route)
{
    const bt_rdma_device *device;
    const bt_rdma_port *port;
    bool names_port = false;
    for (uint32_t i = 0; i < m->facts->n_devices; i++)
        names_port =
            names_port || bt_doctor_find_port(m->facts, m->facts->devices[i], &device, &port);
    if (m->facts->topology->n_rdma == 0)
        add_why(route, "no RDMA: there is no device");
    else if (!names_port)
        add_why(route, "no RDMA: data_devices names no port");
    else if (!bt_doctor_has_verbs(&m->facts->offers))
        add_why(route, "no RDMA: this UCX has no verbs");
    else
        add_why(route, "no RDMA: the port is not active, or cannot be opened");
}

/* Device memory is read by NICs where it is; over tcp it is copied to pinned memory first, chunk by
 * chunk, and so it is where UCX does not know it. */
static void take_put(const means *m, const char *over, const char *device, bt_doctor_route *route)
{
    bool is_rdma = strcmp(over, "RDMA") == 0;
    bool from_device = route->from == BATON_MEMORY_CUDA_DEVICE;
    bool is_direct = from_device && is_rdma && m->knows_device;
    bool is_copied_there = route->pool == BATON_MEMORY_CUDA_DEVICE && !m->knows_device;
    route->path = choose(m, false, is_direct);
    snprintf(route->how, sizeof(route->how), "%s on %s%s%s", over, device,
             !from_device ? ""
             : is_direct  ? ", from the GPU's memory"
                          : ", behind a copy to pinned memory",
             is_copied_there ? ", and the receiver copies to its GPU" : "");
    bool touches_device = from_device || route->pool == BATON_MEMORY_CUDA_DEVICE;
    if (touches_device && !m->knows_device)
        add_why(route, "this UCX knows no CUDA memory");
    else if (touches_device && is_rdma && !bt_host_has_gpudirect(&m->facts->limits))
        add_why(route, "no GPUDirect: neither peermem nor dma-buf");
}

static void take_none(const means *m, bt_doctor_route *route)
{
    route->path = "";
    snprintf(route->how, sizeof(route->how), "no way");
    if (!route->same_host && m->net[0] != '\0')
        add_why(route, "data_devices names loopback only");
    else if (m->facts->no_tcp)
        add_why(route, "data_tcp is off");
    else
        add_why(route, "data_devices names nothing that can be used");
}

static void find_route(const means *m, bt_doctor_route *route)
{
    bool from_device = route->from == BATON_MEMORY_CUDA_DEVICE;
    bool needs_gpu = from_device || route->pool != BATON_MEMORY_HOST;
    const char *net = route->same_host ? m->net : m->remote;
    route->why[0] = '\0';
    if (needs_gpu && m->facts->limits.nvidia_driver[0] == '\0') {
        route->path = "";
        snprintf(route->how, sizeof(route->how), "no way");
        add_why(route, "there is no NVIDIA driver");
        return;
    }
    bool can_map = route->same_host && m->shm != NULL && !is_device_pool(m, route);
    route->path = choose(m, can_map, false);
    if (strcmp(route->path, "mapped") == 0) {
        take_mapped(m, route);
        return;
    }
    route->path = "";
    if (route->same_host && from_device && is_device_pool(m, route) &&
        bt_ucx_offers_has(&m->facts->offers, "cuda_ipc")) {
        route->path = choose(m, false, true);
        snprintf(route->how, sizeof(route->how), "cuda_ipc, from GPU to GPU");
        return;
    }
    add_why_not_mapped(m, route);
    if (m->rdma[0] != '\0') {
        take_put(m, "RDMA", m->rdma, route);
        return;
    }
    add_why_not_rdma(m, route);
    if (net[0] != '\0' && !m->facts->require_rdma)
        take_put(m, "tcp", net, route);
    else if (m->facts->require_rdma)
        snprintf(route->how, sizeof(route->how), "no way: require_rdma");
    else
        take_none(m, route);
}

uint32_t bt_doctor_routes(const bt_doctor_facts *facts,
                          bt_doctor_route routes[BT_DOCTOR_ROUTES_MAX])
{
    static const baton_memory_kind sources[] = {BATON_MEMORY_HOST, BATON_MEMORY_CUDA_DEVICE};
    static const baton_memory_kind pools[] = {BATON_MEMORY_HOST, BATON_MEMORY_CUDA_HOST,
                                              BATON_MEMORY_CUDA_DEVICE};
    const means m = find_means(facts);
    bool has_gpus = facts->topology->n_gpus > 0;
    uint32_t n = 0;
    for (uint32_t s = 0; s < (has_gpus ? 2 : 1); s++) {
        for (uint32_t p = 0; p < (has_gpus ? 3 : 1); p++) {
            for (int same_host = 1; same_host >= 0; same_host--) {
                bt_doctor_route *route = &routes[n++];
                *route = (bt_doctor_route){
                    .from = sources[s], .pool = pools[p], .same_host = same_host != 0, .path = ""};
                find_route(&m, route);
            }
        }
    }
    return n;
}

const char *bt_doctor_memory_name(baton_memory_kind kind)
{
    static const char *const names[] = {"host", "cuda", "cuda_host"};
    return names[kind];
}
