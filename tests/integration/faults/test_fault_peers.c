/* SPDX-License-Identifier: Apache-2.0 */
/* Peers that cannot be reached, do not fit, or speak another version; ports that are taken. The
 * prefill leg is answered before its hand-off has ended, so what became of that comes as a notice.
 */
#include "rawpeer.h"

#include <stdio.h>
#include <stdlib.h>

enum { SHORT_PROMPT = 40 };

/* A hand-off to decode fails with a status and a text, and only it. */
static void check_fails(const bt_node *prefill, const bt_node *decode, baton_status status,
                        const char *text)
{
    raw_notices notices;
    bt_http_answer answer;
    char found[BT_TEXT_BYTES_MAX + 1];
    raw_notices_open(&notices);
    bt_http_finish(bt_prefill_open(prefill, 1, SHORT_PROMPT, decode, "bad", notices.url), &answer);
    bt_http_answer_clear(&answer);
    bt_notice notice = raw_notices_next(&notices);
    bt_blob_to_text(notice.text, found, sizeof(found));
    if (notice.status != status || strstr(found, text) == NULL)
        fail_msg("wanted %s with '%s', found %s: %s", baton_status_name(status), text,
                 baton_status_name(notice.status), found);
    assert_true(bt_blob_is_text(notice.id, "bad"));
    raw_notices_close(&notices);
    bt_check_idle_prefill(prefill);
}

static void an_unreachable_peer_is_named_in_time(void **state)
{
    (void)state;
    bt_node prefill, decode;
    raw_receiver deaf;
    bt_node_start(&prefill, "prefill", (const char *const[]){"--set", "connect_ms=300ms", NULL});
    bt_node_start(&decode, "decode", NULL);
    raw_receiver_open(&deaf);
    check_fails(&prefill, &deaf.node, BATON_ERR_CONNECT_TIMEOUT, "INIT"); /* listens, is silent */
    raw_receiver_close(&deaf);
    check_fails(&prefill, &deaf.node, BATON_ERR_CONNECT_TIMEOUT, "INIT"); /* nobody there */
    bt_check_hand_off(&prefill, &decode, 2, "good");
    bt_child_stop(prefill.child);
    bt_child_stop(decode.child);
}

typedef struct {
    const char *option, *value, *field;
} difference;

static void check_mismatch(const bt_node *prefill, const difference *d)
{
    bt_node decode;
    bt_node_start(&decode, "decode", (const char *const[]){d->option, d->value, NULL});
    check_fails(prefill, &decode, BATON_ERR_LAYOUT_MISMATCH, d->field);
    assert_true(bt_child_has_logged(decode.child, d->field));
    assert_true(bt_child_has_logged(prefill->child, d->field));
    assert_true(bt_metric(&decode, "baton_receiver_peers") == 0);
    bt_check_idle_decode(&decode);
    bt_child_stop(decode.child);
}

static void another_layout_is_refused_with_the_field(void **state)
{
    (void)state;
    static const difference differences[] = {
        {"--random-weights", "8", "model ours"},
        {"--kv-dtype", "f32", "dtype ours"},
        {"--chunk-tokens", "32", "chunk_tokens ours"},
        {"--hash-seed", "other", "key_seed ours"},
    };
    bt_node prefill;
    bt_node_start(&prefill, "prefill", NULL);
    for (size_t i = 0; i < sizeof(differences) / sizeof(differences[0]); i++)
        check_mismatch(&prefill, &differences[i]);
    bt_child_stop(prefill.child);
}

/* The receiver answers in its own version; what it is asked in another one changes nothing. */
static void a_sender_of_another_version_is_answered(void **state)
{
    (void)state;
    bt_node prefill, decode;
    raw_sender s;
    bt_node_start(&prefill, "prefill", NULL);
    bt_node_start(&decode, "decode", NULL);
    raw_sender_open(&s, &decode, 77);
    bt_message init = {.type = BT_MSG_INIT,
                       .v = 99,
                       .u.init = {.name = bt_blob_of_text("newer"),
                                  .connection = 1,
                                  .world = 1,
                                  .seed = bt_blob_of("01234567890123456789012345678901", 32),
                                  .layout = {.model = "m",
                                             .dtype = 1,
                                             .n_layers = 1,
                                             .n_planes = 1,
                                             .n_kv_heads = 1,
                                             .head_dim = 1,
                                             .chunk_tokens = 1,
                                             .block_tokens = 1,
                                             .tp_size = 1,
                                             .pp_size = 1}}};
    bt_message answer = raw_ask(&s, RAW_INIT, &init, NULL);
    assert_int_equal(answer.v, BT_PROTOCOL_VERSION);
    assert_int_equal(answer.status, BATON_ERR_VERSION_MISMATCH);
    assert_true(bt_metric(&decode, "baton_receiver_peers") == 0);
    raw_sender_close(&s);
    bt_check_hand_off(&prefill, &decode, 2, "good");
    bt_child_stop(prefill.child);
    bt_child_stop(decode.child);
}

static void answer_in_version(raw_receiver *r, uint8_t v)
{
    bt_zmq_message question;
    bt_message init, answer = {.type = BT_MSG_INIT_ANSWER, .epoch = 5};
    bt_packwriter writer;
    raw_receiver_hear(r, &question);
    bt_blob frame = bt_zmq_part(&question, 1);
    assert_ok(bt_message_decode(frame.data, frame.bytes, &init));
    answer.id = init.id;
    answer.peer_epoch = init.epoch;
    answer.status = BATON_ERR_REFUSED; /* its own number for it */
    bt_pack_init(&writer, BT_FRAME_BYTES_MAX);
    assert_ok(bt_message_encode(&answer, &writer));
    raw_set_version(&writer, v);
    const bt_blob parts[] = {bt_zmq_part(&question, 0), bt_blob_of(writer.bytes, writer.n)};
    assert_ok(bt_zmq_send(r->routers[RAW_INIT], parts, 2));
    bt_pack_release(&writer);
    bt_zmq_message_close(&question);
}

static void a_receiver_of_another_version_is_named(void **state)
{
    (void)state;
    bt_node prefill;
    raw_receiver newer;
    raw_notices notices;
    bt_node_start(&prefill, "prefill", NULL);
    raw_receiver_open(&newer);
    raw_notices_open(&notices);
    bt_http_answer answer;
    int fd = bt_prefill_open(&prefill, 1, SHORT_PROMPT, &newer.node, "bad", notices.url);
    answer_in_version(&newer, 99);
    bt_notice notice = raw_notices_next(&notices);
    assert_int_equal(notice.status, BATON_ERR_VERSION_MISMATCH);
    assert_true(bt_blob_is_text(notice.text, "INIT_ANSWER: protocol version: ours 1 theirs 99"));
    bt_http_finish(fd, &answer);
    bt_http_answer_clear(&answer);
    bt_check_idle_prefill(&prefill);
    raw_notices_close(&notices);
    raw_receiver_close(&newer);
    bt_child_stop(prefill.child);
}

static void check_port_in_use(const char *program, const char *const *args, uint16_t port)
{
    char wanted[32];
    bt_child *child = bt_child_start(program, args);
    int status = bt_child_wait(child);
    snprintf(wanted, sizeof(wanted), "%u", port);
    char *log = bt_child_text(child->log);
    if (status == 0 || strstr(log, "in use") == NULL || strstr(log, wanted) == NULL)
        fail_msg("%s: exit %d, wanted port %s in use: %s", program, status, wanted, log);
    free(log);
}

static void a_port_in_use_is_named(void **state)
{
    (void)state;
    bt_node prefill, decode, proxy;
    char text[3][32];
    bt_node_start(&prefill, "prefill", NULL);
    bt_node_start(&decode, "decode", NULL);
    bt_proxy_start(&proxy, &prefill, 1, &decode, 1, NULL);
    uint16_t notices = bt_child_port(proxy.child, "notices=127.0.0.1:", 0);
    snprintf(text[0], sizeof(text[0]), "init_port=%u", decode.init_ports[0]);
    snprintf(text[1], sizeof(text[1]), "alloc_port=%u", decode.alloc_ports[0]);
    for (int i = 0; i < 2; i++)
        check_port_in_use("baton-engine",
                          (const char *const[]){"--role", "decode", "--random-weights", "7",
                                                "--kv-bytes", "1MiB", "--set", text[i], NULL},
                          i == 0 ? decode.init_ports[0] : decode.alloc_ports[0]);
    snprintf(text[0], sizeof(text[0]), "%u", decode.port);
    snprintf(text[1], sizeof(text[1]), "%u", notices);
    snprintf(text[2], sizeof(text[2]), "http://127.0.0.1:%u", prefill.port);
    check_port_in_use("baton-proxy",
                      (const char *const[]){"--host", "127.0.0.1", "--port", text[0],
                                            "--proxy-port", "0", "--prefill", text[2], "--decode",
                                            text[2], NULL},
                      decode.port);
    check_port_in_use("baton-proxy",
                      (const char *const[]){"--host", "127.0.0.1", "--port", "0", "--proxy-host",
                                            "127.0.0.1", "--proxy-port", text[1], "--prefill",
                                            text[2], "--decode", text[2], NULL},
                      notices);
    bt_child_stop(proxy.child);
    bt_child_stop(prefill.child);
    bt_child_stop(decode.child);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_child_test(an_unreachable_peer_is_named_in_time),
        bt_child_test(another_layout_is_refused_with_the_field),
        bt_child_test(a_sender_of_another_version_is_answered),
        bt_child_test(a_receiver_of_another_version_is_named),
        bt_child_test(a_port_in_use_is_named),
    };
    return bt_run_tests(tests);
}
