/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/kvcontrol.h"
#include "core/alloc.h"
#include "core/fail.h"
#include "core/log.h"
#include "core/ring.h"
#include "core/thread.h"
#include "wire/messages.h"
#include "wire/notice.h"
#include "wire/security.h"
#include "wire/zmqgate.h"
#include "wire/zmqguard.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum {
    RING_RECORDS = 4096,
    N_QUESTIONS = 1024, /* STATUS questions whose answers are still recognised */
    MAX_FRAME_BYTES = 64 << 10,
    NOTICE_FRAME_BYTES = 4 * BT_NOTICE_BYTES_MAX, /* ours fit BT_NOTICE_BYTES_MAX */
    NOTICES_AHEAD = 1024,     /* of one connection, read before they are looked at: 4 MiB at most */
    N_POLLED = 3,             /* besides the dealers */
    GATE_MS = 100,            /* until a gate that could do nothing is looked at again */
    ANSWERS_PER_WAKEUP = 256, /* so that one loud peer does not keep the rest waiting */
};

typedef struct {
    bt_ask ask;
    uint32_t decoder;
    char id[BT_ATTEMPT_ID_BYTES];
} command;

typedef struct {
    uint64_t id; /* of the message; 0: free */
    char attempt[BT_ATTEMPT_ID_BYTES];
} question;

typedef struct {
    void *socket;
    uint32_t decoder, rank;
} dealer;

struct bt_kvcontrol {
    bt_kvcontrol_options options;
    uint16_t port;
    void *context, *pull;
    bt_zmq_guard *guard;         /* of pull */
    bt_zmq_gate gate;            /* of it, too */
    bt_security asking, hearing; /* of the dealers; of the PULL socket */
    bool gate_is_stuck;
    bt_ring *ring;
    dealer *dealers; /* [n_dealers], opened when first asked */
    uint32_t n_dealers, cap_dealers;
    zmq_pollitem_t *polled; /* [N_POLLED + n_dealers]: pull, ring, gate, dealers */
    uint64_t last_id;
    question questions[N_QUESTIONS]; /* by id % N_QUESTIONS */
    bt_kvcontrol_metrics metrics;
    pthread_t thread;
    bool has_thread;
    _Atomic bool is_stopping;
};

static void ask_rank(bt_kvcontrol *control, const command *order, uint32_t rank);

/* Notices in. */

/* A former life of this proxy asked for it, and nobody decodes it any more: without a word it would
 * keep its pages for a lease, and whoever waits for them waiting. At which decode engine it is, is
 * not known any more. */
static void release_former(bt_kvcontrol *control, const bt_kv_notice *notice)
{
    command order = {.ask = BT_ASK_RELEASE};
    memcpy(order.id, notice->id, sizeof(order.id));
    const bt_worker_pool *decoders = control->options.decoders;
    for (order.decoder = 0; order.decoder < decoders->n_workers; order.decoder++) {
        for (uint32_t rank = 0; rank < decoders->workers[order.decoder].at.n_ranks; rank++)
            ask_rank(control, &order, rank);
    }
    bt_count(&control->metrics.former);
}

static void copy_text(char *out, size_t cap, bt_blob text)
{
    size_t n = text.bytes < cap - 1 ? text.bytes : cap - 1;
    if (n > 0)
        memcpy(out, text.data, n);
    out[n] = 0;
}

static void deliver(bt_kvcontrol *control, const bt_kv_notice *notice)
{
    int thread = bt_kvwait_thread_of(notice->id, control->options.epoch);
    if (thread < 0 || (uint32_t)thread >= control->options.n_threads) {
        bt_count(&control->metrics.foreign);
        bool is_former =
            thread < 0 && control->options.releases_former && bt_kvwait_is_id(notice->id);
        if (is_former && !notice->failed)
            release_former(control, notice);
    } else {
        control->options.deliver(control->options.ctx, (uint32_t)thread, notice);
    }
}

static void take_notice(bt_kvcontrol *control, bt_blob frame)
{
    bt_notice read;
    bt_kv_notice notice = {.rank = 0};
    bt_count(&control->metrics.frames);
    if (bt_notice_decode(frame.data, frame.bytes, &read) != BATON_OK) {
        bt_count(&control->metrics.malformed);
        bt_debug("notice dropped: %s", baton_last_error());
        return;
    }
    if (read.id.bytes >= sizeof(notice.id)) {
        bt_count(&control->metrics.foreign); /* longer than any id of ours */
        return;
    }
    copy_text(notice.id, sizeof(notice.id), read.id);
    notice.has_rank = !read.legacy;
    notice.rank = read.rank;
    notice.world = read.world;
    notice.failed = read.status < 0;
    notice.status = read.status;
    notice.retry_ms = read.retry_ms;
    if (notice.failed) {
        int n = snprintf(notice.text, sizeof(notice.text),
                         "%s: ", baton_status_name((baton_status)read.status));
        copy_text(notice.text + n, sizeof(notice.text) - (size_t)n, read.text);
    }
    deliver(control, &notice);
}

static void take_notices(bt_kvcontrol *control)
{
    bt_zmq_message message;
    for (int i = 0; i < ANSWERS_PER_WAKEUP; i++) {
        baton_status status = bt_zmq_guard_recv(control->guard, control->pull, &message);
        if (status == BATON_ERR_BAD_MESSAGE) {
            bt_count(&control->metrics.frames);
            bt_count(&control->metrics.malformed);
            continue;
        }
        if (status != BATON_OK)
            return;
        if (message.n_parts == 1) {
            take_notice(control, bt_zmq_part(&message, 0));
        } else {
            bt_count(&control->metrics.frames);
            bt_count(&control->metrics.malformed);
        }
        bt_zmq_message_close(&message);
    }
}

/* Questions out, answers in. */

static baton_status grow_dealers(bt_kvcontrol *control)
{
    if (control->n_dealers < control->cap_dealers)
        return BATON_OK;
    uint32_t cap = control->cap_dealers == 0 ? 8 : 2 * control->cap_dealers;
    dealer *dealers = bt_realloc(control->dealers, cap, sizeof(*dealers));
    if (dealers == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "control: %u receivers", cap);
    control->dealers = dealers;
    zmq_pollitem_t *polled = bt_realloc(control->polled, cap + N_POLLED, sizeof(*polled));
    if (polled == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "control: %u receivers", cap);
    control->polled = polled;
    control->cap_dealers = cap;
    return BATON_OK;
}

/* The socket to a receiver rank; NULL when it cannot be had. */
static void *dealer_to(bt_kvcontrol *control, uint32_t decoder, uint32_t rank)
{
    for (uint32_t i = 0; i < control->n_dealers; i++) {
        if (control->dealers[i].decoder == decoder && control->dealers[i].rank == rank)
            return control->dealers[i].socket;
    }
    const bt_worker_address *at = &control->options.decoders->workers[decoder].at;
    bt_zmq_options options = {
        .type = ZMQ_DEALER, .max_part_bytes = MAX_FRAME_BYTES, .queue_unconnected = true};
    bt_security_apply(&control->asking, &options);
    void *socket = NULL;
    if (grow_dealers(control) != BATON_OK ||
        bt_zmq_open(control->context, &options, &socket) != BATON_OK)
        return NULL;
    if (bt_zmq_connect(socket, at->host, at->alloc_ports[rank]) != BATON_OK) {
        bt_zmq_close(socket);
        return NULL;
    }
    control->dealers[control->n_dealers++] = (dealer){socket, decoder, rank};
    return socket;
}

static void ask_rank(bt_kvcontrol *control, const command *order, uint32_t rank)
{
    uint8_t frame[512];
    bt_packwriter writer;
    bt_message message = {
        .type = order->ask == BT_ASK_STATUS ? BT_MSG_STATUS : BT_MSG_RELEASE,
        .v = BT_PROTOCOL_VERSION,
        .epoch = control->options.epoch,
        .id = ++control->last_id,
        .u.request = bt_blob_of_text(order->id),
    };
    void *socket = dealer_to(control, order->decoder, rank);
    bt_pack_init_fixed(&writer, frame, sizeof(frame));
    if (socket == NULL || bt_message_encode(&message, &writer) != BATON_OK) {
        bt_count(&control->metrics.dropped);
        bt_debug("receiver not asked: %s", baton_last_error());
        return;
    }
    if (order->ask == BT_ASK_STATUS) {
        question *asked = &control->questions[message.id % N_QUESTIONS];
        asked->id = message.id;
        memcpy(asked->attempt, order->id, sizeof(asked->attempt));
    }
    bt_blob part = bt_blob_of(writer.bytes, writer.n);
    if (bt_zmq_send(socket, &part, 1) == BATON_OK)
        bt_count(&control->metrics.questions);
    else
        bt_count(&control->metrics.dropped);
}

static void carry_out(bt_kvcontrol *control)
{
    command order;
    while (bt_ring_pop(control->ring, &order)) {
        if (order.id[0] == 0)
            continue; /* it only rang */
        uint32_t n_ranks = control->options.decoders->workers[order.decoder].at.n_ranks;
        for (uint32_t rank = 0; rank < n_ranks; rank++)
            ask_rank(control, &order, rank);
    }
}

/* Makes a notice of a receiver's answer, when it says how the request ended. */
static void take_answer(bt_kvcontrol *control, const dealer *from, bt_blob frame)
{
    bt_message message;
    if (bt_message_decode(frame.data, frame.bytes, &message) != BATON_OK) {
        bt_count(&control->metrics.malformed);
        return;
    }
    bt_count(&control->metrics.status_answers);
    question *asked = &control->questions[message.id % N_QUESTIONS];
    if (message.type != BT_MSG_STATUS_ANSWER || message.status != 0 || asked->id != message.id)
        return;
    asked->id = 0;
    const bt_msg_status_answer *answer = &message.u.status_answer;
    bool is_ready = answer->state == BT_REQUEST_READY || answer->state == BT_REQUEST_PINNED;
    bool is_failed = answer->state == BT_REQUEST_FAILED || answer->state == BT_REQUEST_EXPIRED;
    if (!is_ready && !is_failed)
        return;
    bt_kv_notice notice = {
        .has_rank = true, .rank = from->rank, .failed = is_failed, .status = answer->reason};
    memcpy(notice.id, asked->attempt, sizeof(notice.id));
    if (is_failed)
        snprintf(notice.text, sizeof(notice.text), "%s: the receiver says so",
                 baton_status_name((baton_status)answer->reason));
    deliver(control, &notice);
}

static void take_answers(bt_kvcontrol *control, const dealer *from)
{
    bt_zmq_message message;
    for (int i = 0; i < ANSWERS_PER_WAKEUP; i++) {
        if (bt_zmq_recv(from->socket, &message) != BATON_OK)
            return;
        take_answer(control, from, bt_zmq_part(&message, message.n_parts - 1));
        bt_zmq_message_close(&message);
    }
}

/* The thread. */

static void sleep_until_something(bt_kvcontrol *control)
{
    int n = (int)control->n_dealers + N_POLLED;
    control->polled[0] = (zmq_pollitem_t){.socket = control->pull, .events = ZMQ_POLLIN};
    control->polled[1] = (zmq_pollitem_t){.fd = bt_ring_fd(control->ring), .events = ZMQ_POLLIN};
    bool is_watched = control->gate.is_open && !control->gate_is_stuck;
    control->polled[2] = (zmq_pollitem_t){.fd = is_watched ? control->gate.fd : -1,
                                          .events = is_watched ? ZMQ_POLLIN : 0};
    for (uint32_t i = 0; i < control->n_dealers; i++)
        control->polled[N_POLLED + i] =
            (zmq_pollitem_t){.socket = control->dealers[i].socket, .events = ZMQ_POLLIN};
    if (!bt_ring_announce_sleep(control->ring))
        return;
    zmq_poll(control->polled, n, control->gate_is_stuck ? GATE_MS : -1);
    bool is_called = (control->polled[2].revents & ZMQ_POLLIN) != 0;
    control->gate_is_stuck = is_called && !bt_zmq_gate_turn(&control->gate);
    bt_ring_end_sleep(control->ring);
}

static void *run(void *arg)
{
    bt_kvcontrol *control = arg;
    for (;;) {
        carry_out(control);
        /* Behind carry_out, which may have swallowed the command that rang for the end: the flag
         * was set before it. Acquire pairs with the release in bt_kvcontrol_stop. */
        if (atomic_load_explicit(&control->is_stopping, memory_order_acquire))
            return NULL;
        take_notices(control);
        for (uint32_t i = 0; i < control->n_dealers; i++)
            take_answers(control, &control->dealers[i]);
        sleep_until_something(control);
    }
}

/* About nothing: it only rings. A full ring's consumer is awake anyway. */
static void ring_control(void *ctx)
{
    bt_kvcontrol *control = ctx;
    const command order = {.ask = BT_ASK_STATUS};
    (void)bt_ring_push(control->ring, &order);
}

/* Whoever can say "ready" or "failed" decides about requests, so notices are as closed as the
 * receivers' ports are. */
static baton_status open_pull(bt_kvcontrol *control)
{
    bt_zmq_options options = {
        .type = ZMQ_PULL, .recv_messages = NOTICES_AHEAD, .max_part_bytes = NOTICE_FRAME_BYTES};
    BATON_TRY(bt_security_open_server(control->context, &control->options.security,
                                      control->options.host, &control->hearing));
    bt_security_apply(&control->hearing, &options);
    BATON_TRY(bt_zmq_open(control->context, &options, &control->pull));
    const bt_zmq_guard_options guard = {
        .what = "proxy's notice port", .wake = ring_control, .ctx = control};
    BATON_TRY(bt_zmq_guard_create(&guard, &control->guard));
    BATON_TRY(bt_zmq_guard_watch(control->guard, control->context, control->pull));
    BATON_TRY(bt_zmq_gate_bind(control->pull, control->options.host, control->options.port,
                               &control->port, &control->gate));
    return bt_zmq_guard_start(control->guard);
}

static baton_status open_all(bt_kvcontrol *control)
{
    BATON_TRY(bt_ring_create(RING_RECORDS, sizeof(command), &control->ring));
    BATON_TRY(grow_dealers(control));
    BATON_TRY(bt_zmq_context_create(&control->context));
    BATON_TRY(bt_security_open_client(&control->options.security, &control->asking));
    BATON_TRY(open_pull(control));
    BATON_TRY(bt_thread_start(&control->thread, "baton-control", run, control));
    control->has_thread = true;
    return BATON_OK;
}

baton_status bt_kvcontrol_start(const bt_kvcontrol_options *options, bt_kvcontrol **control_p)
{
    bt_kvcontrol *control = bt_calloc(1, sizeof(*control));
    if (control == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "control: thread");
    control->options = *options;
    baton_status status = open_all(control);
    if (status != BATON_OK) {
        bt_kvcontrol_destroy(control);
        return status;
    }
    *control_p = control;
    return BATON_OK;
}

uint64_t bt_kvcontrol_cut_total(const bt_kvcontrol *control)
{
    return bt_zmq_guard_cut_total(control->guard);
}

uint16_t bt_kvcontrol_port(const bt_kvcontrol *control)
{
    return control->port;
}

void bt_kvcontrol_ask(bt_kvcontrol *control, bt_ask ask, uint32_t decoder, const char *id)
{
    command order = {.ask = ask, .decoder = decoder};
    snprintf(order.id, sizeof(order.id), "%s", id);
    if (bt_ring_push(control->ring, &order) != BATON_OK)
        atomic_fetch_add_explicit(&control->metrics.dropped, 1, memory_order_relaxed);
}

const bt_kvcontrol_metrics *bt_kvcontrol_counters(const bt_kvcontrol *control)
{
    return &control->metrics;
}

void bt_kvcontrol_stop(bt_kvcontrol *control)
{
    if (control == NULL || !control->has_thread)
        return;
    atomic_store_explicit(&control->is_stopping, true, memory_order_release);
    ring_control(control);
    pthread_join(control->thread, NULL);
    control->has_thread = false;
}

void bt_kvcontrol_destroy(bt_kvcontrol *control)
{
    if (control == NULL)
        return;
    bt_kvcontrol_stop(control);
    for (uint32_t i = 0; i < control->n_dealers; i++)
        bt_zmq_close(control->dealers[i].socket);
    bt_zmq_guard_destroy(control->guard);
    bt_zmq_gate_close(&control->gate);
    bt_zmq_close(control->pull);
    bt_security_close(&control->asking);
    bt_security_close(&control->hearing);
    bt_zmq_context_destroy(control->context);
    bt_ring_destroy(control->ring);
    bt_free(control->dealers);
    bt_free(control->polled);
    bt_free(control);
}
