/* SPDX-License-Identifier: Apache-2.0 */
#include "rawpeer.h"

#include <stdio.h>
#include <unistd.h>

typedef struct {
    void *socket;
    bt_zmq_message *message;
} receive_call;

static bool has_received(void *ctx)
{
    receive_call *call = ctx;
    return bt_zmq_recv(call->socket, call->message) == BATON_OK;
}

static void receive(void *socket, bt_zmq_message *message, const char *what)
{
    receive_call call = {socket, message};
    bt_wait_until(has_received, &call, what);
}

void raw_sender_open(raw_sender *s, const bt_node *decode, uint64_t epoch)
{
    const bt_zmq_options options = {.type = ZMQ_DEALER, .queue_unconnected = true};
    *s = (raw_sender){.epoch = epoch, .next_id = 1};
    assert_ok(bt_zmq_context_create(&s->context));
    for (int i = 0; i < RAW_N_PORTS; i++) {
        assert_ok(bt_zmq_open(s->context, &options, &s->dealers[i]));
        assert_ok(bt_zmq_connect(s->dealers[i], "127.0.0.1",
                                 i == RAW_INIT ? decode->init_ports[0] : decode->alloc_ports[0]));
    }
}

void raw_sender_close(raw_sender *s)
{
    if (s->has_frame)
        bt_zmq_message_close(&s->frame);
    for (int i = 0; i < RAW_N_PORTS; i++)
        bt_zmq_close(s->dealers[i]);
    bt_zmq_context_destroy(s->context);
}

void raw_send(raw_sender *s, int port, const void *bytes, size_t n)
{
    const bt_blob part = bt_blob_of(bytes, n);
    assert_ok(bt_zmq_send(s->dealers[port], &part, 1));
}

bool raw_say(raw_sender *s, int port, bt_message *message)
{
    bt_packwriter writer;
    message->epoch = s->epoch;
    message->peer_epoch = s->peer_epoch;
    message->id = s->next_id++;
    bt_pack_init(&writer, BT_FRAME_BYTES_MAX);
    assert_ok(bt_message_encode(message, &writer));
    const bt_blob part = bt_blob_of(writer.bytes, writer.n);
    baton_status status = bt_zmq_send(s->dealers[port], &part, 1);
    bt_pack_release(&writer);
    return status == BATON_OK;
}

bt_message raw_hear(raw_sender *s, int port)
{
    bt_message answer;
    if (s->has_frame)
        bt_zmq_message_close(&s->frame);
    s->has_frame = false;
    receive(s->dealers[port], &s->frame, "an answer of the receiver");
    s->has_frame = true;
    bt_blob frame = bt_zmq_part(&s->frame, 0);
    assert_ok(bt_message_decode(frame.data, frame.bytes, &answer));
    return answer;
}

void raw_set_version(bt_packwriter *frame, uint8_t v)
{
    static const uint8_t ours[] = {0xa1, 'v', BT_PROTOCOL_VERSION};
    uint8_t *at = memmem(frame->bytes, frame->n, ours, sizeof(ours));
    assert_non_null(at);
    at[2] = v;
}

bt_message raw_ask(raw_sender *s, int port, bt_message *message, bt_packwriter *sent)
{
    bt_packwriter writer;
    message->epoch = s->epoch;
    message->peer_epoch = s->peer_epoch;
    message->id = s->next_id++;
    bt_pack_init(&writer, BT_FRAME_BYTES_MAX);
    assert_ok(bt_message_encode(message, &writer));
    if (message->v != 0)
        raw_set_version(&writer, (uint8_t)message->v);
    raw_send(s, port, writer.bytes, writer.n);
    bt_message answer = raw_hear(s, port);
    assert_int_equal(answer.id, message->id);
    if (sent != NULL)
        *sent = writer;
    else
        bt_pack_release(&writer);
    return answer;
}

/* A receiver that never answers hears it. */
void raw_hello_hear(raw_hello *hello, const bt_node *prefill)
{
    raw_receiver deaf;
    raw_receiver_open(&deaf);
    int fd = bt_prefill_open(prefill, 1, 40, &deaf.node, "nowhere", NULL);
    raw_receiver_hear(&deaf, &hello->frame);
    bt_blob frame = bt_zmq_part(&hello->frame, 1);
    assert_ok(bt_message_decode(frame.data, frame.bytes, &hello->init));
    assert_int_equal(hello->init.type, BT_MSG_INIT);
    close(fd);
    bt_wait_metric_is(prefill, "baton_sender_transfers_failed_total", 1);
    raw_receiver_close(&deaf);
}

void raw_hello_close(raw_hello *hello)
{
    bt_zmq_message_close(&hello->frame);
}

void raw_hello_say(const raw_hello *hello, raw_sender *s, bt_packwriter *sent)
{
    bt_message init = hello->init;
    bt_message answer = raw_ask(s, RAW_INIT, &init, sent);
    assert_int_equal(answer.status, BATON_OK);
    s->peer_epoch = answer.epoch;
}

void raw_receiver_open(raw_receiver *r)
{
    const bt_zmq_options options = {.type = ZMQ_ROUTER};
    *r = (raw_receiver){.node = {.n_ranks = 1}};
    assert_ok(bt_zmq_context_create(&r->context));
    for (int i = 0; i < RAW_N_PORTS; i++) {
        assert_ok(bt_zmq_open(r->context, &options, &r->routers[i]));
        assert_ok(bt_zmq_bind(r->routers[i], "127.0.0.1", 0,
                              i == RAW_INIT ? &r->node.init_ports[0] : &r->node.alloc_ports[0]));
    }
}

void raw_receiver_close(raw_receiver *r)
{
    for (int i = 0; i < RAW_N_PORTS; i++)
        bt_zmq_close(r->routers[i]);
    bt_zmq_context_destroy(r->context);
}

void raw_receiver_hear(raw_receiver *r, bt_zmq_message *message)
{
    receive(r->routers[RAW_INIT], message, "a message of the sender");
    assert_int_equal(message->n_parts, 2);
}

void raw_notices_open(raw_notices *n)
{
    const bt_zmq_options options = {.type = ZMQ_PULL};
    uint16_t port;
    *n = (raw_notices){0};
    assert_ok(bt_zmq_context_create(&n->context));
    assert_ok(bt_zmq_open(n->context, &options, &n->pull));
    assert_ok(bt_zmq_bind(n->pull, "127.0.0.1", 0, &port));
    snprintf(n->url, sizeof(n->url), "tcp://127.0.0.1:%u", port);
}

void raw_notices_close(raw_notices *n)
{
    if (n->has_frame)
        bt_zmq_message_close(&n->frame);
    bt_zmq_close(n->pull);
    bt_zmq_context_destroy(n->context);
}

static bt_notice read_notice(raw_notices *n)
{
    bt_notice notice;
    n->has_frame = true;
    bt_blob frame = bt_zmq_part(&n->frame, 0);
    assert_ok(bt_notice_decode(frame.data, frame.bytes, &notice));
    return notice;
}

static void drop_frame(raw_notices *n)
{
    if (n->has_frame)
        bt_zmq_message_close(&n->frame);
    n->has_frame = false;
}

bt_notice raw_notices_next(raw_notices *n)
{
    drop_frame(n);
    receive(n->pull, &n->frame, "a notice");
    return read_notice(n);
}

bool raw_notices_poll(raw_notices *n, bt_notice *notice)
{
    drop_frame(n);
    if (bt_zmq_recv(n->pull, &n->frame) != BATON_OK)
        return false;
    *notice = read_notice(n);
    return true;
}
