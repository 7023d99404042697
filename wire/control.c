/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/control.h"

#include "core/fail.h"

/* Read ahead per connection, of at most max_frame_bytes each: a peer that sends faster than we read
 * waits in its own memory. */
enum { RECV_MESSAGES = 32 };

baton_status bt_control_open_server(const baton_security *security, const char *host,
                                    bt_control *control)
{
    *control = (bt_control){0};
    BATON_TRY(bt_zmq_context_create(&control->context));
    baton_status status =
        bt_security_open_server(control->context, security, host, &control->security);
    if (status != BATON_OK)
        bt_control_close(control);
    return status;
}

baton_status bt_control_open_client(const baton_security *security, bt_control *control)
{
    *control = (bt_control){0};
    BATON_TRY(bt_zmq_context_create(&control->context));
    baton_status status = bt_security_open_client(security, &control->security);
    if (status != BATON_OK)
        bt_control_close(control);
    return status;
}

baton_status bt_control_socket(bt_control *control, int type, uint32_t send_messages,
                               uint32_t max_frame_bytes, void **socket_p)
{
    bt_zmq_options options = {.type = type,
                              .send_messages = send_messages,
                              .recv_messages = RECV_MESSAGES,
                              .max_part_bytes = max_frame_bytes,
                              .queue_unconnected = true};
    bt_security_apply(&control->security, &options);
    return bt_zmq_open(control->context, &options, socket_p);
}

void bt_control_socket_close(void *socket, uint32_t linger_ms)
{
    if (socket == NULL)
        return;
    int linger = (int)linger_ms;
    zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof(linger));
    bt_zmq_close(socket);
}

void bt_control_close(bt_control *control)
{
    bt_security_close(&control->security);
    bt_zmq_context_destroy(control->context);
    *control = (bt_control){0};
}
