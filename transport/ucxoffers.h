/* SPDX-License-Identifier: Apache-2.0 */
/* What the UCX that this process runs with offers here: its version and the transports that it
 * finds on this machine, before any setting of ours, but with the user's UCX_* environment.
 *
 * Thread rule: any thread, one at a time. */
#ifndef BT_TRANSPORT_UCXOFFERS_H
#define BT_TRANSPORT_UCXOFFERS_H
#include <baton/status.h>
#include <stdbool.h>

enum { BT_UCX_OFFERS_MAX = 256, BT_UCX_NAME_BYTES = 32 };

typedef struct {
    char transport[BT_UCX_NAME_BYTES]; /* "tcp", "rc_mlx5", "posix" */
    char device[BT_UCX_NAME_BYTES];    /* "lo", "mlx5_0:1", "memory" */
} bt_ucx_offer;

typedef struct {
    char header_version[16];  /* the API that Baton was built with, "1.13" */
    char runtime_version[32]; /* "1.13.1" */
    uint32_t runtime_major, runtime_minor;
    bool has_cuda;     /* it can tell CUDA device memory apart */
    uint32_t n_offers; /* each pair once */
    bool is_cut;       /* there are more */
    bt_ucx_offer offers[BT_UCX_OFFERS_MAX];
} bt_ucx_offers;

/* Versions are filled in also on failure. Errors: TRANSPORT (UCX finds nothing to use, or refuses
 * the environment), NO_MEMORY. */
baton_status bt_ucx_offers_read(bt_ucx_offers *offers);
/* Takes the resources from what ucp_context_print_info writes; they go behind those there are. */
void bt_ucx_offers_parse(const char *text, bt_ucx_offers *offers);
/* Whether Baton makes this setting itself ("UCX_TLS"), so that a user's value wins over ours. */
bool bt_ucx_sets(const char *variable);
bool bt_ucx_offers_has(const bt_ucx_offers *offers, const char *transport);

#endif
