/* SPDX-License-Identifier: Apache-2.0 */
#include "doctor/doctor_facts.h"

#include "transport/verbs.h"

#include "core/fail.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Cuts, and makes printable: neither the environment nor a file is trusted with a terminal. */
static void copy_text(char *to, size_t bytes, const char *from, size_t n)
{
    n = n < bytes - 1 ? n : bytes - 1;
    for (size_t i = 0; i < n; i++)
        to[i] = from[i] >= ' ' && from[i] <= '~' ? from[i] : '?';
    to[n] = '\0';
}

static void read_variables(char *const *environment, bt_doctor_facts *facts)
{
    for (char *const *at = environment; at != NULL && *at != NULL; at++) {
        const char *equals = strchr(*at, '=');
        if (strncmp(*at, "UCX_", 4) != 0 || equals == NULL ||
            facts->n_variables == BT_DOCTOR_VARIABLES_MAX)
            continue;
        bt_doctor_variable *variable = &facts->variables[facts->n_variables++];
        copy_text(variable->name, sizeof(variable->name), *at, (size_t)(equals - *at));
        copy_text(variable->value, sizeof(variable->value), equals + 1, strlen(equals + 1));
    }
}

const char *bt_doctor_variable_value(const bt_doctor_facts *facts, const char *name)
{
    for (uint32_t i = 0; i < facts->n_variables; i++)
        if (strcmp(facts->variables[i].name, name) == 0)
            return facts->variables[i].value;
    return NULL;
}

static void add_device(bt_doctor_facts *facts, const char *name, size_t n)
{
    if (n > 0 && facts->n_devices < BT_DOCTOR_DEVICES_MAX)
        copy_text(facts->devices[facts->n_devices++], BT_NIC_NAME_BYTES, name, n);
}

static void read_devices(const char *root, const bt_file_options *file, bt_doctor_facts *facts)
{
    const char *users = bt_doctor_variable_value(facts, "UCX_NET_DEVICES");
    facts->devices_from_environment = users != NULL;
    for (const char *at = users; at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        add_device(facts, at, strcspn(at, ","));
    }
    bool is_auto =
        file->data.n_data_devices == 1 && strcmp(file->data.data_devices[0], "auto") == 0;
    for (uint32_t i = 0; users == NULL && !is_auto && i < file->data.n_data_devices; i++)
        add_device(facts, file->data.data_devices[i], strlen(file->data.data_devices[i]));
    char names[BT_VERBS_AUTO_MAX][BT_NIC_NAME_BYTES];
    uint32_t n_auto = users == NULL && is_auto
                          ? bt_verbs_auto(root, (baton_memory_kind)file->memory_kind, names)
                          : 0;
    for (uint32_t i = 0; i < n_auto; i++)
        add_device(facts, names[i], strlen(names[i]));
    if (facts->n_devices == 0)
        add_device(facts, "lo", 2);
}

baton_status bt_doctor_facts_read(const char *root, char *const *environment,
                                  const bt_file_options *file, bt_doctor_facts *facts)
{
    *facts = (bt_doctor_facts){0};
    BATON_TRY(bt_topology_read(root, &facts->topology));
    bt_host_limits_read(root, &facts->limits);
    facts->ucx_status = bt_ucx_offers_read(&facts->offers);
    if (facts->ucx_status != BATON_OK)
        snprintf(facts->ucx_text, sizeof(facts->ucx_text), "%s", baton_last_error());
    read_variables(environment, facts);
    read_devices(root, file, facts);
    facts->no_tcp = file->data.no_tcp;
    facts->require_rdma = file->data.require_rdma;
    facts->allow_unauthenticated = file->security.allow_unauthenticated;
    facts->has_keys = file->security.key_file != NULL;
    facts->pool_bytes = file->pool_bytes != 0 ? file->pool_bytes : BT_DOCTOR_POOL_BYTES;
    return BATON_OK;
}

void bt_doctor_facts_free(bt_doctor_facts *facts)
{
    bt_topology_free(facts->topology);
    *facts = (bt_doctor_facts){0};
}

bool bt_doctor_find_port(const bt_doctor_facts *facts, const char *name,
                         const bt_rdma_device **device, const bt_rdma_port **port)
{
    size_t n = strcspn(name, ":");
    unsigned long number = name[n] == ':' ? strtoul(name + n + 1, NULL, 10) : 0;
    for (uint32_t d = 0; d < facts->topology->n_rdma; d++) {
        const bt_rdma_device *at = &facts->topology->rdma[d];
        if (strlen(at->name) != n || memcmp(at->name, name, n) != 0)
            continue;
        for (uint32_t p = 0; p < at->n_ports; p++) {
            if (number != 0 && at->ports[p].number != number)
                continue;
            *device = at;
            *port = &at->ports[p];
            return true;
        }
    }
    return false;
}

const bt_net_device *bt_doctor_find_net(const bt_doctor_facts *facts, const char *name)
{
    for (uint32_t i = 0; i < facts->topology->n_nets; i++)
        if (strcmp(facts->topology->nets[i].name, name) == 0)
            return &facts->topology->nets[i];
    return NULL;
}

bool bt_doctor_is_verbs(const char *transport)
{
    return strncmp(transport, "rc_", 3) == 0 || strncmp(transport, "ud_", 3) == 0 ||
           strncmp(transport, "dc_", 3) == 0;
}

bool bt_doctor_has_verbs(const bt_ucx_offers *offers)
{
    for (uint32_t i = 0; i < offers->n_offers; i++)
        if (bt_doctor_is_verbs(offers->offers[i].transport))
            return true;
    return false;
}
