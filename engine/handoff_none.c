/* SPDX-License-Identifier: Apache-2.0 */
/* Until the sender and receiver libraries are there. */
#include "core/fail.h"
#include "engine/handoffrole.h"

baton_status bt_handoff_sender_create(const bt_handoff_options *options,
                                      bt_handoff_sender **sender_p)
{
    (void)options, (void)sender_p;
    return bt_fail(BATON_ERR_UNSUPPORTED, "hand-off: no sender library yet");
}
void bt_handoff_sender_ops(bt_handoff_sender *sender, bt_handoff_ops *ops)
{
    (void)sender, (void)ops;
}
void bt_handoff_sender_metrics(void *sender, bt_strbuf *out)
{
    (void)sender, (void)out;
}
void bt_handoff_sender_destroy(bt_handoff_sender *sender)
{
    (void)sender;
}
baton_status bt_handoff_receiver_create(const bt_handoff_options *options,
                                        bt_handoff_receiver **receiver_p)
{
    (void)options, (void)receiver_p;
    return bt_fail(BATON_ERR_UNSUPPORTED, "hand-off: no receiver library yet");
}
void bt_handoff_receiver_ops(bt_handoff_receiver *receiver, bt_handoff_ops *ops)
{
    (void)receiver, (void)ops;
}
void bt_handoff_receiver_metrics(void *receiver, bt_strbuf *out)
{
    (void)receiver, (void)out;
}
void bt_handoff_receiver_describe(bt_handoff_receiver *receiver, bt_strbuf *out)
{
    (void)receiver, (void)out;
}
void bt_handoff_receiver_destroy(bt_handoff_receiver *receiver)
{
    (void)receiver;
}
