/* SPDX-License-Identifier: Apache-2.0 */
/* Until the libraries read their files. */
#include <baton/receiver.h>

#include "core/fail.h"

__attribute__((weak)) baton_status
baton_sender_create_from_file(const char *path, const baton_sender_options *options,
                              const char *const *overrides, uint32_t n_overrides,
                              baton_sender **sender_p)
{
    (void)overrides, (void)options, (void)sender_p, (void)n_overrides;
    return bt_fail(BATON_ERR_UNSUPPORTED, "sender: cannot read '%s' yet", path);
}

__attribute__((weak)) baton_status
baton_receiver_create_from_file(const char *path, const baton_receiver_options *options,
                                const char *const *overrides, uint32_t n_overrides,
                                baton_receiver **receiver_p)
{
    (void)overrides, (void)options, (void)receiver_p, (void)n_overrides;
    return bt_fail(BATON_ERR_UNSUPPORTED, "receiver: cannot read '%s' yet", path);
}
