/* SPDX-License-Identifier: Apache-2.0 */
/* Which digests two sides agree on: INIT's `digests`.
 * Thread rule: any thread. */
#ifndef BT_WIRE_DIGESTS_H
#define BT_WIRE_DIGESTS_H
#include "wire/messages.h"

#include <baton/options.h>

/* BT_DIGESTS_* of what is wanted. */
uint32_t bt_digests_of(baton_digests wanted);
/* Off, sampled, full: the stronger of two that are spoken. */
uint32_t bt_digests_stronger(uint32_t a, uint32_t b);
/* They are spoken here. Errors: VERSION_MISMATCH. */
baton_status bt_digests_check(uint32_t theirs);

#endif
