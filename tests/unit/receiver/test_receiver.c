/* SPDX-License-Identifier: Apache-2.0 */
/* The receiver on real sockets: a raw DEALER talks the protocol over loopback. */
#include "rxkit.h"

#include "core/alloc.h"
#include "receiver/rxshell.h"
#include "support/test.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { HANG_GUARD_MS = 60000 };

typedef struct {
    bt_loop_net *net;
    baton_receiver *receiver;
    void *context;
    void *dealers[BT_RX_N_PORTS];
    uint64_t epoch, next_id;
    bt_zmq_message answer_frame;
    bool has_frame;
    bt_message answer;
} shell_test;

static baton_receiver_options loop_options(bt_loop_net *net, baton_progress_mode progress)
{
    baton_receiver_options options = rx_kit_options(8);
    options.data = (baton_data_path){.transport = "loop", .loop_net = net};
    options.progress = progress;
    options.notice = NULL;
    return options;
}

static void open_dealers(shell_test *t)
{
    uint16_t ports[BT_RX_N_PORTS];
    baton_receiver_ports(t->receiver, &ports[BT_RX_INIT_PORT], &ports[BT_RX_ALLOC_PORT]);
    assert_ok(bt_zmq_context_create(&t->context));
    for (int i = 0; i < BT_RX_N_PORTS; i++) {
        const bt_zmq_options options = {.type = ZMQ_DEALER, .queue_unconnected = true};
        assert_ok(bt_zmq_open(t->context, &options, &t->dealers[i]));
        assert_ok(bt_zmq_connect(t->dealers[i], "127.0.0.1", ports[i]));
    }
}

static void open_shell(shell_test *t, baton_progress_mode progress)
{
    *t = (shell_test){.next_id = 1};
    assert_ok(bt_loop_net_create(1, NULL, &t->net));
    const baton_receiver_options options = loop_options(t->net, progress);
    assert_ok(baton_receiver_create(&options, &t->receiver));
    open_dealers(t);
}

static void close_shell(shell_test *t)
{
    if (t->has_frame)
        bt_zmq_message_close(&t->answer_frame);
    for (int i = 0; i < BT_RX_N_PORTS; i++)
        bt_zmq_close(t->dealers[i]);
    bt_zmq_context_destroy(t->context);
    baton_receiver_destroy(t->receiver);
    bt_loop_net_destroy(t->net);
}

/* Sends, progresses a manual receiver, and waits for the one answer. */
static const bt_message *ask(shell_test *t, bt_rx_port port, bt_message *message)
{
    bt_packwriter writer;
    message->v = BT_PROTOCOL_VERSION;
    message->epoch = 77;
    message->peer_epoch = t->epoch;
    message->id = t->next_id++;
    bt_pack_init(&writer, BT_FRAME_BYTES_MAX);
    assert_ok(bt_message_encode(message, &writer));
    const bt_blob part = bt_blob_of(writer.bytes, writer.n);
    assert_ok(bt_zmq_send(t->dealers[port], &part, 1));
    bt_pack_release(&writer);
    if (t->has_frame)
        bt_zmq_message_close(&t->answer_frame);
    t->has_frame = false;
    bool is_manual = t->receiver->options.progress == BATON_PROGRESS_MANUAL;
    while (bt_zmq_recv(t->dealers[port], &t->answer_frame) != BATON_OK) {
        struct pollfd fds[] = {{.fd = baton_receiver_progress_fd(t->receiver), .events = POLLIN},
                               {.events = POLLIN}};
        bool readable, writable;
        assert_ok(bt_zmq_fd(t->dealers[port], &fds[1].fd));
        assert_ok(bt_zmq_events(t->dealers[port], &readable, &writable));
        if (readable || (is_manual && baton_receiver_progress(t->receiver) == 0))
            continue;
        struct pollfd *first = is_manual ? &fds[0] : &fds[1];
        if (poll(first, is_manual ? 2 : 1, HANG_GUARD_MS) == 0)
            fail_msg("no answer to %s", bt_message_type_name(message->type));
    }
    t->has_frame = true;
    bt_blob frame = bt_zmq_part(&t->answer_frame, 0);
    assert_ok(bt_message_decode(frame.data, frame.bytes, &t->answer));
    assert_int_equal(t->answer.id, message->id);
    return &t->answer;
}

static void say_init_of(shell_test *t, const bt_process *process)
{
    const baton_layout layout = rx_kit_layout();
    baton_key_chain chain;
    assert_ok(baton_key_chain_init(&layout, 1, 0, NULL, &chain));
    bt_message init = {.type = BT_MSG_INIT,
                       .u.init = {.name = bt_blob_of_text("raw"),
                                  .world = 1,
                                  .layout = layout,
                                  .seed = bt_blob_of(chain.last.bytes, BATON_KEY_BYTES),
                                  .connection = 1,
                                  .process = {.boot = bt_blob_of_text(process->boot),
                                              .pid_ns = process->pid_ns,
                                              .start = process->start,
                                              .pid = process->pid}}};
    const bt_message *answer = ask(t, BT_RX_INIT_PORT, &init);
    assert_int_equal(answer->status, BATON_OK);
    t->epoch = answer->epoch;
}

static void say_init(shell_test *t)
{
    bt_process self;
    bt_process_self(&self);
    say_init_of(t, &self);
}

/* Lands one prompt over the sockets, writing its pages as a mapped sender would. */
static void hand_over(shell_test *t, rx_kit_request *request)
{
    bt_message memreg = {.type = BT_MSG_MEMREG};
    uint64_t bases[BT_REGIONS_MAX] = {0};
    const bt_message *answer = ask(t, BT_RX_INIT_PORT, &memreg);
    for (uint32_t i = 0; i < answer->u.memreg_answer.n_regions; i++) {
        const bt_msg_region *region = &answer->u.memreg_answer.regions[i];
        bases[region->region] = region->base;
    }
    bt_message alloc = {
        .type = BT_MSG_ALLOC,
        .u.alloc = {.request = bt_blob_of_text(request->request),
                    .keys = bt_blob_of(request->keys, (size_t)request->n_keys * BATON_KEY_BYTES),
                    .last_tokens = request->last_tokens,
                    .deadline_ms = 60000,
                    .may_queue = 1,
                    .notice = bt_blob_of_text("")}};
    request->alloc_id = t->next_id;
    rx_kit_read_alloc_answer(request, ask(t, BT_RX_ALLOC_PORT, &alloc));
    assert_int_equal(request->outcome, BT_ALLOC_GRANTED);
    for (uint32_t i = 0; i < request->n_runs; i++) {
        const bt_page_run *run = &request->runs[i];
        size_t page_bytes = (size_t)t->receiver->rx->page_bytes;
        uint8_t *page = (uint8_t *)(uintptr_t)bases[run->region] + run->page * page_bytes;
        for (uint32_t k = 0; k < run->count; k++)
            memset(page + k * page_bytes, rx_kit_byte(request, run->first + k), page_bytes);
    }
    const bt_chunk_range range = {.count = request->n_keys};
    bt_message commit = {
        .type = BT_MSG_COMMIT,
        .u.commit = {.name = request->name, .ranges = &range, .n_ranges = 1, .final = 1}};
    answer = ask(t, BT_RX_ALLOC_PORT, &commit);
    assert_int_equal(answer->status, BATON_OK);
    assert_int_equal(answer->u.commit_answer.final, 1);
}

static void take_event(shell_test *t, baton_receiver_event *event)
{
    struct pollfd fd = {.fd = baton_receiver_event_fd(t->receiver), .events = POLLIN};
    assert_int_equal(poll(&fd, 1, HANG_GUARD_MS), 1);
    assert_int_equal(baton_receiver_poll(t->receiver, event, 1), 1);
}

static void hand_over_and_look_up(baton_progress_mode progress)
{
    static rx_kit_request request;
    shell_test t;
    open_shell(&t, progress);
    say_init(&t);
    rx_kit_prompt(&request, 1, 0, 19);
    hand_over(&t, &request);
    baton_receiver_event event;
    take_event(&t, &event);
    assert_int_equal(event.kind, BATON_RECEIVER_READY);
    assert_string_equal(event.request, "request-1");

    baton_pin *pin;
    baton_pinned_chunk chunk;
    uint32_t matched;
    assert_ok(baton_receiver_lookup(t.receiver, request.tokens, 19, &pin, &matched));
    assert_int_equal(matched, 19);
    assert_int_equal(baton_pin_chunks(pin), 3);
    for (uint32_t i = 0; i < 3; i++) {
        assert_ok(baton_pin_chunk(pin, i, &chunk));
        assert_int_equal(chunk.n_tokens, i < 2 ? 8 : 3);
        assert_int_equal(((const uint8_t *)chunk.page)[chunk.bytes - 1], rx_kit_byte(&request, i));
    }
    assert_ok(baton_receiver_unpin(t.receiver, pin));
    close_shell(&t);
}

static void a_request_is_handed_over_with_the_librarys_thread(void **state)
{
    (void)state;
    hand_over_and_look_up(BATON_PROGRESS_THREAD);
}

static void a_request_is_handed_over_with_manual_progress(void **state)
{
    (void)state;
    hand_over_and_look_up(BATON_PROGRESS_MANUAL);
}

/* Its thread is asleep as long as nothing comes: after the time that a hundred heartbeats of a
 * connected receiver take, it has not run once. */
static void a_receiver_without_peers_never_wakes(void **state)
{
    (void)state;
    bt_loop_net *net;
    baton_receiver *receiver, *busy;
    assert_ok(bt_loop_net_create(1, NULL, &net));
    baton_receiver_options options = loop_options(net, BATON_PROGRESS_THREAD);
    assert_ok(baton_receiver_create(&options, &receiver));
    options.timeouts.heartbeat_ms = 1;
    assert_ok(baton_receiver_create(&options, &busy));
    shell_test t = {.receiver = busy, .net = net, .next_id = 1};
    open_dealers(&t);
    say_init(&t);
    uint64_t busy_before = atomic_load(&busy->n_steps);
    while (atomic_load(&busy->n_steps) < busy_before + 100)
        poll(NULL, 0, 1);
    uint64_t before = atomic_load(&receiver->n_steps);
    while (atomic_load(&busy->n_steps) < busy_before + 300)
        poll(NULL, 0, 1);
    assert_int_equal(atomic_load(&receiver->n_steps), before);
    baton_receiver_destroy(receiver);
    close_shell(&t);
}

/* A process that lives until it is killed, and who it is. */
static pid_t start_process(bt_process *process)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        bt_process_self(process);
        ssize_t n = write(ends[1], process, sizeof(*process));
        while (n > 0)
            pause();
        _exit(1);
    }
    assert_int_equal(read(ends[0], process, sizeof(*process)), sizeof(*process));
    close(ends[0]);
    close(ends[1]);
    return pid;
}

/* Rings that always have something must not hide what the poll set knows. */
static void a_peers_exit_is_noticed_while_a_ring_is_never_empty(void **state)
{
    (void)state;
    enum { TURNS = 1000 };
    shell_test t;
    bt_process process;
    bt_wakesocket *doorbell;
    size_t n;
    bool must_ring;
    open_shell(&t, BATON_PROGRESS_MANUAL);
    assert_ok(bt_wakesocket_create(&doorbell));
    pid_t pid = start_process(&process);
    say_init_of(&t, &process);
    const char *name = bt_wakesocket_name(doorbell, &n);
    bt_message memreg = {.type = BT_MSG_MEMREG, .u.doorbell = bt_blob_of(name, n)};
    assert_true(ask(&t, BT_RX_INIT_PORT, &memreg)->u.memreg_answer.ring.to_receiver_bytes > 0);
    bt_framering ring;
    bt_framering_open(&ring, t.receiver->rx->peers->from_sender.memory, BT_RX_RING_IN_BYTES);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    for (uint32_t i = 0; i < TURNS && t.receiver->rx->n_peers > 0; i++) {
        assert_ok(bt_framering_write(&ring, "garbage", 7, &must_ring));
        baton_receiver_progress(t.receiver);
    }
    assert_int_equal(t.receiver->rx->n_peers, 0);
    bt_wakesocket_destroy(doorbell);
    close_shell(&t);
}

static bool can_be_read(int fd)
{
    struct pollfd item = {.fd = fd, .events = POLLIN};
    return poll(&item, 1, 0) == 1;
}

static void progress_until(shell_test *t, bt_rx_rest wanted)
{
    enum { TURNS = 1000 };
    for (uint32_t i = 0; i < TURNS && t->receiver->user.rest != wanted; i++)
        baton_receiver_progress(t->receiver);
    assert_int_equal(t->receiver->user.rest, wanted);
}

/* No system call is spent on waking who does not sleep; as soon as he may, he is woken. */
static void a_user_who_polls_is_woken_only_when_he_sleeps_again(void **state)
{
    (void)state;
    shell_test t;
    open_shell(&t, BATON_PROGRESS_MANUAL);
    int fd = baton_receiver_progress_fd(t.receiver);
    progress_until(&t, BT_RX_ASLEEP);
    bt_doorbell_ring(t.receiver->bell);
    assert_true(can_be_read(fd));

    t.receiver->user.habit.until_ns = UINT64_MAX;
    progress_until(&t, BT_RX_POLLED);
    bt_doorbell_ring(t.receiver->bell);
    /* Of the bell alone: a socket may have something of its own. */
    assert_false(can_be_read(bt_doorbell_fd(t.receiver->bell)));
    uint64_t n_steps = atomic_load(&t.receiver->n_steps);
    assert_int_equal(baton_receiver_progress(t.receiver), 0);
    assert_int_equal(atomic_load(&t.receiver->n_steps), n_steps + 1);

    progress_until(&t, BT_RX_POLLED);
    t.receiver->user.habit = (bt_pollhabit){0};
    progress_until(&t, BT_RX_ASLEEP);
    bt_doorbell_ring(t.receiver->bell);
    assert_true(can_be_read(fd));
    close_shell(&t);
}

static void answers_that_wait_keep_their_order(void **state)
{
    (void)state;
    enum { N = BT_RX_LATER_MAX + 3 };
    shell_test t;
    open_shell(&t, BATON_PROGRESS_MANUAL);
    say_init(&t);
    const bt_rx_out *out = &t.receiver->rx->out;
    const bt_rx_route *route = &t.receiver->rx->peers->routes[BT_RX_INIT_PORT];
    bt_zmq_message message;
    t.receiver->user.answers_later = true;
    for (uint8_t i = 0; i < BT_RX_LATER_MAX; i++)
        out->send(out->ctx, BT_RX_INIT_PORT, route, &i, 1);
    assert_int_equal(t.receiver->user.n_later, BT_RX_LATER_MAX);
    for (uint8_t i = BT_RX_LATER_MAX; i < N; i++)
        out->send(out->ctx, BT_RX_INIT_PORT, route, &i, 1);
    assert_int_equal(t.receiver->user.n_later, N - BT_RX_LATER_MAX - 1);
    t.receiver->user.answers_later = false;
    bt_rxshell_answer(t.receiver);
    for (uint8_t i = 0; i < N; i++) {
        while (bt_zmq_recv(t.dealers[BT_RX_INIT_PORT], &message) == BATON_IN_PROGRESS)
            poll(NULL, 0, 1);
        bt_blob frame = bt_zmq_part(&message, 0);
        assert_int_equal(frame.bytes, 1);
        assert_int_equal(frame.data[0], i);
        bt_zmq_message_close(&message);
    }
    close_shell(&t);
}

static void a_port_in_use_is_named(void **state)
{
    (void)state;
    shell_test t;
    uint16_t init_port, alloc_port;
    char text[32];
    baton_receiver *second = NULL;
    open_shell(&t, BATON_PROGRESS_MANUAL);
    baton_receiver_ports(t.receiver, &init_port, &alloc_port);
    baton_receiver_options options = loop_options(t.net, BATON_PROGRESS_MANUAL);
    options.alloc_port = alloc_port;
    snprintf(text, sizeof(text), "port %u", alloc_port);
    assert_fails(baton_receiver_create(&options, &second), BATON_ERR_ADDRESS_IN_USE, text);
    assert_null(second);
    close_shell(&t);
}

static void without_keys_only_loopback_is_bound(void **state)
{
    (void)state;
    bt_loop_net *net;
    baton_receiver *receiver;
    assert_ok(bt_loop_net_create(1, NULL, &net));
    baton_receiver_options options = loop_options(net, BATON_PROGRESS_MANUAL);
    options.host = "0.0.0.0";
    assert_fails(baton_receiver_create(&options, &receiver), BATON_ERR_PERMISSION,
                 "allow_unauthenticated");
    options.security.allow_unauthenticated = true;
    assert_ok(baton_receiver_create(&options, &receiver));
    baton_receiver_destroy(receiver);
    bt_loop_net_destroy(net);
}

static void every_failing_allocation_leaves_nothing(void **state)
{
    (void)state;
    bt_loop_net *net;
    assert_ok(bt_loop_net_create(1, NULL, &net));
    const baton_receiver_options options = loop_options(net, BATON_PROGRESS_MANUAL);
    baton_status status = BATON_ERR_NO_MEMORY;
    uint64_t nth = 0;
    while (status != BATON_OK) {
        baton_receiver *receiver = NULL;
        assert_true(++nth < 1000);
        bt_alloc_fail_at(nth);
        status = baton_receiver_create(&options, &receiver);
        bt_alloc_fail_at(0);
        if (status != BATON_OK)
            assert_int_equal(status, BATON_ERR_NO_MEMORY);
        baton_receiver_destroy(receiver);
    }
    assert_true(nth > 10);
    bt_loop_net_destroy(net);
}

static void garbage_frames_are_counted_and_the_connection_lives(void **state)
{
    (void)state;
    shell_test t;
    open_shell(&t, BATON_PROGRESS_MANUAL);
    const bt_blob three[] = {bt_blob_of_text("a"), bt_blob_of_text("b"), bt_blob_of_text("c")};
    const bt_blob junk = bt_blob_of_text("\xc1 no message");
    assert_ok(bt_zmq_send(t.dealers[BT_RX_INIT_PORT], three, 3));
    assert_ok(bt_zmq_send(t.dealers[BT_RX_INIT_PORT], &junk, 1));
    say_init(&t);
    baton_receiver_stats stats;
    baton_receiver_get_stats(t.receiver, &stats);
    assert_int_equal(stats.messages_dropped_total, 2);
    assert_int_equal(stats.messages_total, 3);
    assert_int_equal(stats.peers, 1);
    close_shell(&t);
}

/* The user never polls: the newest events stay, the others are counted. */
static void events_are_bounded(void **state)
{
    (void)state;
    shell_test t;
    open_shell(&t, BATON_PROGRESS_MANUAL);
    const bt_rx_out out = bt_rxshell_out(t.receiver);
    baton_receiver_event event = {.kind = BATON_RECEIVER_READY};
    for (uint32_t i = 0; i < BT_RX_EVENTS_MAX + 10; i++) {
        event.n_chunks = i;
        out.event(out.ctx, &event);
    }
    baton_receiver_stats stats;
    baton_receiver_get_stats(t.receiver, &stats);
    assert_int_equal(stats.events_dropped_total, 10);
    for (uint32_t i = 10; i < BT_RX_EVENTS_MAX + 10; i++) {
        assert_int_equal(baton_receiver_poll(t.receiver, &event, 1), 1);
        assert_int_equal(event.n_chunks, i);
    }
    assert_int_equal(baton_receiver_poll(t.receiver, &event, 1), 0);
    close_shell(&t);
}

static void release_names_what_is_not_there(void **state)
{
    (void)state;
    static rx_kit_request request;
    static char too_long[BT_REQUEST_ID_BYTES_MAX + 2];
    shell_test t;
    baton_receiver_stats stats;
    open_shell(&t, BATON_PROGRESS_MANUAL);
    memset(too_long, 'x', sizeof(too_long) - 1);
    assert_fails(baton_receiver_release(t.receiver, "nobody"), BATON_ERR_NOT_FOUND, "nobody");
    assert_fails(baton_receiver_release(t.receiver, ""), BATON_ERR_INVALID_ARG, NULL);
    assert_fails(baton_receiver_release(t.receiver, too_long), BATON_ERR_INVALID_ARG, NULL);
    say_init(&t);
    rx_kit_prompt(&request, 1, 0, 10);
    hand_over(&t, &request);
    baton_receiver_get_stats(t.receiver, &stats);
    assert_int_equal(stats.holds_live, 1);
    assert_ok(baton_receiver_release(t.receiver, "request-1"));
    baton_receiver_progress(t.receiver);
    baton_receiver_get_stats(t.receiver, &stats);
    assert_int_equal(stats.holds_live, 0);
    close_shell(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(a_request_is_handed_over_with_the_librarys_thread),
        bt_test(a_request_is_handed_over_with_manual_progress),
        bt_test(a_receiver_without_peers_never_wakes),
        bt_test(a_peers_exit_is_noticed_while_a_ring_is_never_empty),
        bt_test(a_user_who_polls_is_woken_only_when_he_sleeps_again),
        bt_test(answers_that_wait_keep_their_order),
        bt_test(a_port_in_use_is_named),
        bt_test(without_keys_only_loopback_is_bound),
        bt_test(every_failing_allocation_leaves_nothing),
        bt_test(garbage_frames_are_counted_and_the_connection_lives),
        bt_test(events_are_bounded),
        bt_test(release_names_what_is_not_there),
    };
    return bt_run_tests(tests);
}
