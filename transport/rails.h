/* SPDX-License-Identifier: Apache-2.0 */
/* Several connections as one transport: every rail is a transport of its own, with one device, and
 * what is put is spread over them. Rails are several devices, or several lanes over the same. A
 * flush is done when every rail's is, and so is a message behind the data; each rail proves arrival
 * on its own queue pair (docs/architecture.md). One rail's failure is the endpoint's.
 *
 *   rails worker ---- rail 0: worker ---- endpoint ----> peer's rail 0
 *             \------ rail 1: worker ---- endpoint ----> peer's rail 1
 *
 * Two ends use as many rails as both have, paired in the order of their data_devices; an end
 * without rails uses the other's first. Addresses and keys are those of the rails, sealed together
 * (seal.h): u32 count, then for each u32 length, bytes.
 *
 * Thread rule: as transport.h. */
#ifndef BT_TRANSPORT_RAILS_H
#define BT_TRANSPORT_RAILS_H
#include "transport/transport.h"

enum { BT_RAILS_MAX = 8 };

/* Takes over rails[n], 1 <= n <= BT_RAILS_MAX, also when it fails: they go with the transport.
 * Errors: NO_MEMORY. */
baton_status bt_rails_join(bt_transport *const *rails, uint32_t n, bt_transport **transport_p);
/* Narrows an address or key that a peer with rails has sealed to the part of its first rail, for a
 * transport without. Everything else stays as it is. Errors: INVALID_ARG, VERSION_MISMATCH. */
baton_status bt_rails_take_first(const bt_transport *transport, bool is_key, const void **bytes_p,
                                 size_t *n_bytes);
/* More than one RDMA device is named, or more than one lane is asked for. */
bool bt_rails_are_wanted(const bt_transport_options *options);
/* A ucx transport for each lane over each RDMA device, where there are several; net devices go to
 * all. Errors: as bt_transport_create, TOO_LARGE. */
baton_status bt_rails_create(const bt_transport_options *options, bt_transport **transport_p);

#endif
