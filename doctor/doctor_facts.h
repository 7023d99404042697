/* SPDX-License-Identifier: Apache-2.0 */
/* Everything that baton-doctor looks at, gathered once; checks and reports only read it.
 * Thread rule: owner thread. */
#ifndef BT_DOCTOR_FACTS_H
#define BT_DOCTOR_FACTS_H
#include "core/fileoptions.h"
#include "doctor/doctor_peer.h"
#include "transport/hostlimits.h"
#include "transport/topology.h"
#include "transport/ucxoffers.h"

enum {
    BT_DOCTOR_VARIABLES_MAX = 64,
    BT_DOCTOR_DEVICES_MAX = 32,
    BT_DOCTOR_TEXT_BYTES = 512,
    BT_DOCTOR_POOL_BYTES = 256 << 20, /* where nobody says otherwise; as a receiver's */
};

/* A UCX_* variable of the environment. */
typedef struct {
    char name[64];   /* "UCX_TLS" */
    char value[128]; /* cut to fit; printable */
} bt_doctor_variable;

typedef struct {
    bt_topology *topology;
    bt_host_limits limits;
    bt_ucx_offers offers;
    baton_status ucx_status; /* why offers is empty */
    char ucx_text[BT_DOCTOR_TEXT_BYTES];
    uint32_t n_variables;
    bt_doctor_variable variables[BT_DOCTOR_VARIABLES_MAX]; /* [n_variables] */

    /* The hand-off as it is configured. */
    uint32_t n_devices;
    char devices[BT_DOCTOR_DEVICES_MAX][BT_NIC_NAME_BYTES]; /* [n_devices] of the data path */
    bool devices_from_environment;                          /* UCX_NET_DEVICES says so */
    bool no_tcp, require_rdma, allow_unauthenticated, has_keys;
    uint64_t pool_bytes;

    bt_doctor_peer peer; /* filled in by the caller, with bt_doctor_ask_peer */
} bt_doctor_facts;

/* environment: of the process, ends with NULL. What cannot be found out is left unknown. Freed with
 * bt_doctor_facts_free. Errors: NO_MEMORY. */
baton_status bt_doctor_facts_read(const char *root, char *const *environment,
                                  const bt_file_options *file, bt_doctor_facts *facts);
void bt_doctor_facts_free(bt_doctor_facts *facts);

/* The value of a UCX_* variable, NULL: not set. */
const char *bt_doctor_variable_value(const bt_doctor_facts *facts, const char *name);
/* A port of an RDMA device by the name that data_devices gives it ("mlx5_0:1", "mlx5_0"), and its
 * device; false: there is none. */
bool bt_doctor_find_port(const bt_doctor_facts *facts, const char *name,
                         const bt_rdma_device **device, const bt_rdma_port **port);
const bt_net_device *bt_doctor_find_net(const bt_doctor_facts *facts, const char *name);
/* UCX offers RDMA here: rc, dc or ud on any device. */
bool bt_doctor_has_verbs(const bt_ucx_offers *offers);
bool bt_doctor_is_verbs(const char *transport);

#endif
