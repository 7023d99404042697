/* SPDX-License-Identifier: Apache-2.0 */
/* Peers that flood, guess and claim, at the ports of a live decode engine: good hand-offs end well
 * meanwhile, nobody's pages are touched, and nothing stays behind. Bounded in count; what must not
 * take long has no time limit but the guard against hanging. */
#include "rawpeer.h"

#include "wire/curve.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

typedef struct {
    bt_node prefill, decode;
    raw_hello hello;
} hostile_test;

static void open_test(hostile_test *t, const char *const *more)
{
    bt_node_start(&t->prefill, "prefill", (const char *const[]){"--set", "connect_ms=5s", NULL});
    bt_node_start(&t->decode, "decode", more);
    raw_hello_hear(&t->hello, &t->prefill);
}

static void close_test(hostile_test *t)
{
    bt_check_hand_off(&t->prefill, &t->decode, 99, "last");
    bt_check_idle_prefill(&t->prefill);
    bt_check_idle_decode(&t->decode);
    raw_hello_close(&t->hello);
    bt_child_stop(t->prefill.child);
    bt_child_stop(t->decode.child);
}

/* It holds little more than before a flood: what its allocators keep, its limits allow, and a
 * worker for each new peer. */
enum { FLOOD_MIB = 24, WORKER_MIB = 8 };
static void check_memory(const bt_child *child, long before_kib, long more_mib)
{
    if (!BT_HAS_SANITIZER)
        assert_in_range(bt_child_rss_kib(child), 1, before_kib + more_mib * 1024);
}

/* A thread that bothers the decode engine until it is told to stop, and so often at least. */
typedef struct flood flood;
struct flood {
    void (*once)(flood *f, unsigned i);
    unsigned at_least;
    const bt_node *decode;
    const char *until;  /* a metric that it changes; NULL: none */
    raw_sender *sender; /* the thread's while it runs */
    bt_blob frame;
    _Atomic bool must_stop; /* relaxed: the join orders the rest */
};

static void *run_flood(void *ctx)
{
    flood *f = ctx;
    for (unsigned i = 0;
         i < f->at_least || !atomic_load_explicit(&f->must_stop, memory_order_relaxed); i++)
        f->once(f, i);
    return NULL;
}

/* Good hand-offs end well while f goes on, and it costs the receiver no memory to speak of. */
static void check_beside(hostile_test *t, flood *f)
{
    enum { N_HAND_OFFS = 4 };
    pthread_t thread;
    f->decode = &t->decode;
    bt_check_hand_off(&t->prefill, &t->decode, 10, "before");
    const long before = bt_child_rss_kib(t->decode.child);
    assert_int_equal(pthread_create(&thread, NULL, run_flood, f), 0);
    for (unsigned i = 0; i < N_HAND_OFFS; i++) {
        char attempt[32];
        snprintf(attempt, sizeof(attempt), "meanwhile %u", i);
        bt_check_hand_off(&t->prefill, &t->decode, 11 + i, attempt);
    }
    if (f->until != NULL)
        bt_wait_metric(&t->decode, f->until, 1);
    atomic_store_explicit(&f->must_stop, true, memory_order_relaxed);
    assert_int_equal(pthread_join(thread, NULL), 0);
    check_memory(t->decode.child, before, FLOOD_MIB);
}

static int dial(uint16_t port)
{
    const struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&at, sizeof(at)), 0);
    return fd;
}

/* Without TIME_WAIT, which would use the ports up. */
static void hang_up(int fd)
{
    const struct linger reset = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    close(fd);
}

/* No asserts: not the test's thread. */
static void connect_once(flood *f, unsigned i)
{
    const uint16_t port = i % 2 == 0 ? f->decode->init_ports[0] : f->decode->alloc_ports[0];
    const struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)!connect(fd, (const struct sockaddr *)&at, sizeof(at));
    hang_up(fd);
}

typedef struct {
    const bt_child *child;
    long n;
} fd_limit;

static bool has_few_fds(void *ctx)
{
    const fd_limit *limit = ctx;
    return bt_child_n_fds(limit->child) <= limit->n;
}

/* Some say nothing, some half a greeting, some a greeting and no more: handshakes end after 5 s. */
static void connections_that_say_nothing_stall_nobody(void **state)
{
    (void)state;
    enum { N_OPEN = 300, N_FAST = 10000 };
    static const uint8_t greeting[64] = {0xff, [9] = 0x7f, 3, 0, 'N', 'U', 'L', 'L'};
    hostile_test t;
    int fds[N_OPEN];
    open_test(&t, NULL);
    bt_check_hand_off(&t.prefill, &t.decode, 2, "before");
    const fd_limit steady = {t.decode.child, bt_child_n_fds(t.decode.child) + 4};
    for (int i = 0; i < N_OPEN; i++) {
        const size_t said[] = {0, 5, sizeof(greeting)};
        fds[i] = dial(i % 2 == 0 ? t.decode.init_ports[0] : t.decode.alloc_ports[0]);
        assert_true(send(fds[i], greeting, said[i % 3], MSG_NOSIGNAL) >= 0);
    }
    bt_check_hand_off(&t.prefill, &t.decode, 3, "beside slow handshakes");
    check_beside(&t, &(flood){.once = connect_once, .at_least = N_FAST});
    bt_wait_until(has_few_fds, (void *)&steady, "descriptors closed by the receiver itself");
    for (int i = 0; i < N_OPEN; i++)
        close(fds[i]);
    close_test(&t);
}

/* Says hello, then that a frame of so many bytes comes; ZeroMQ's framing. */
static int dial_and_claim(uint16_t port, uint64_t bytes)
{
    static const uint8_t greeting[64] = {0xff, [9] = 0x7f, 3, 0, 'N', 'U', 'L', 'L'};
    static const uint8_t ready[] = "\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06"
                                   "DEALER";
    uint8_t claim[9] = {2}; /* a long frame, the last of its message */
    for (int i = 0; i < 8; i++)
        claim[1 + i] = (uint8_t)(bytes >> (56 - 8 * i));
    int fd = dial(port);
    assert_true(send(fd, greeting, sizeof(greeting), MSG_NOSIGNAL) > 0);
    assert_true(send(fd, ready, sizeof(ready) - 1, MSG_NOSIGNAL) > 0);
    assert_true(send(fd, claim, sizeof(claim), MSG_NOSIGNAL) > 0);
    return fd;
}

/* What the connection says until it is closed by the other side; waits for that. */
static void hear_out(int fd)
{
    const struct timeval guard = {.tv_sec = BT_GUARD_SECONDS};
    uint8_t heard[256];
    ssize_t n;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &guard, sizeof(guard));
    while ((n = recv(fd, heard, sizeof(heard), 0)) > 0) {
    }
    assert_true(n == 0 || errno == ECONNRESET);
    close(fd);
}

static void who_claims_too_much_is_cut_off(void **state)
{
    (void)state;
    enum { N_CLAIMS = 200 };
    static const uint8_t some[1024];
    hostile_test t;
    int fds[N_CLAIMS];
    open_test(&t, NULL);
    bt_check_hand_off(&t.prefill, &t.decode, 2, "before");
    const long before = bt_child_rss_kib(t.decode.child);
    hear_out(dial_and_claim(t.decode.init_ports[0], BT_GREETING_BYTES_MAX + 1));
    hear_out(dial_and_claim(t.decode.alloc_ports[0], BT_FRAME_BYTES_MAX + 1));
    hear_out(dial_and_claim(t.decode.init_ports[0], UINT64_MAX));
    hear_out(dial_and_claim(t.decode.alloc_ports[0], UINT64_MAX));
    for (int i = 0; i < N_CLAIMS; i++) { /* the most that is allowed, and some of it */
        fds[i] = i % 2 == 0 ? dial_and_claim(t.decode.init_ports[0], BT_GREETING_BYTES_MAX)
                            : dial_and_claim(t.decode.alloc_ports[0], BT_FRAME_BYTES_MAX);
        assert_int_equal(send(fds[i], some, sizeof(some), MSG_NOSIGNAL), sizeof(some));
    }
    for (unsigned n = 1; n < BT_GREETING_BYTES_MAX / sizeof(some); n++)
        assert_int_equal(send(fds[0], some, sizeof(some), MSG_NOSIGNAL), sizeof(some));
    bt_wait_metric_is(&t.decode, "baton_receiver_messages_dropped_total", 1); /* it came whole */
    bt_check_hand_off(&t.prefill, &t.decode, 3, "beside claims");
    check_memory(t.decode.child, before, FLOOD_MIB);
    for (int i = 0; i < N_CLAIMS; i++)
        hang_up(fds[i]);
    close_test(&t);
}

/* Whole, or without its last byte; a full queue drops it. */
static void send_once(flood *f, unsigned i)
{
    const bt_blob part = bt_blob_of(f->frame.data, f->frame.bytes - (i % 2 == 0 ? 1 : 0));
    if (bt_zmq_send(f->sender->dealers[i / 2 % RAW_N_PORTS], &part, 1) == BATON_IN_PROGRESS)
        sched_yield();
}

static void floods_of_frames_stall_nobody(void **state)
{
    (void)state;
    enum { N_FRAMES = 60000 };
    hostile_test t;
    raw_sender s;
    open_test(&t, NULL);
    raw_sender_open(&s, &t.decode, 77);
    raw_hello_say(&t.hello, &s, NULL);
    check_beside(&t, &(flood){.once = send_once,
                              .at_least = N_FRAMES,
                              .sender = &s,
                              .frame = bt_zmq_part(&t.hello.frame, 1)});
    assert_true(bt_metric(&t.decode, "baton_receiver_messages_dropped_total") > 0);
    raw_sender_close(&s);
    close_test(&t);
}

/* Asks for what has a long answer, and reads none. */
static void ask_once(flood *f, unsigned i)
{
    (void)i;
    bt_message memreg = {.type = BT_MSG_MEMREG};
    if (!raw_say(f->sender, RAW_INIT, &memreg))
        sched_yield();
}

static void who_does_not_read_answers_costs_little(void **state)
{
    (void)state;
    hostile_test t;
    raw_sender s;
    open_test(&t, NULL);
    raw_sender_open(&s, &t.decode, 77);
    raw_hello_say(&t.hello, &s, NULL);
    check_beside(
        &t, &(flood){.once = ask_once, .until = "baton_receiver_peers_deaf_total", .sender = &s});
    assert_true(bt_child_has_logged(t.decode.child, "does not read what it is told"));
    assert_true(bt_metric(&t.decode, "baton_receiver_answers_dropped_total") > 0);
    raw_sender_close(&s);
    close_test(&t);
}

static void thousands_of_epochs_get_a_few_workers(void **state)
{
    (void)state;
    enum { N_EPOCHS = 2000 };
    hostile_test t;
    raw_sender s;
    open_test(&t, NULL);
    bt_check_hand_off(&t.prefill, &t.decode, 2, "before");
    const long before = bt_child_n_fds(t.decode.child);
    const long before_kib = bt_child_rss_kib(t.decode.child);
    raw_sender_open(&s, &t.decode, 1000);
    for (unsigned i = 0; i < N_EPOCHS; i++, s.epoch++) {
        bt_message init = t.hello.init;
        bt_message answer = raw_ask(&s, RAW_INIT, &init, NULL);
        assert_true(answer.status == BATON_OK || answer.status == BATON_ERR_OVERLOADED);
    }
    assert_true(bt_metric(&t.decode, "baton_receiver_peers") <= 9);
    assert_true(bt_child_n_fds(t.decode.child) < before + 500);
    bt_check_hand_off(&t.prefill, &t.decode, 3, "beside many epochs");
    check_memory(t.decode.child, before_kib, FLOOD_MIB + 8 * WORKER_MIB);
    raw_sender_close(&s);
    close_test(&t);
}

static bt_message alloc_of(const char *request, const uint8_t *keys, uint32_t n_keys)
{
    return (bt_message){.type = BT_MSG_ALLOC,
                        .u.alloc = {.request = bt_blob_of_text(request),
                                    .keys = bt_blob_of(keys, (size_t)n_keys * BATON_KEY_BYTES),
                                    .last_tokens = 1,
                                    .deadline_ms = UINT32_MAX,
                                    .may_queue = 1,
                                    .notice = bt_blob_of_text("")}};
}

/* Asks for n pages that nobody else has asked for. */
static bt_message ask_pages(raw_sender *s, const char *request, uint32_t n)
{
    static uint32_t serial;
    uint8_t *keys = calloc(n, BATON_KEY_BYTES);
    assert_non_null(keys);
    for (uint32_t i = 0; i < n; i++) {
        serial++;
        memcpy(&keys[i * BATON_KEY_BYTES], &serial, sizeof(serial));
    }
    bt_message alloc = alloc_of(request, keys, n);
    bt_message answer = raw_ask(s, RAW_ALLOC, &alloc, NULL);
    free(keys);
    return answer;
}

/* One peer has all pages and fills the queue: another's request has a place there all the same. */
static void who_fills_the_queue_keeps_nobody_out(void **state)
{
    (void)state;
    enum { N_QUEUE = 8 };
    hostile_test t;
    raw_sender s;
    bt_http_answer answer;
    open_test(&t, (const char *const[]){"--set", "max_queued=8", "--set", "pool_bytes=1MiB",
                                        "--set", "n_regions=1", NULL});
    raw_sender_open(&s, &t.decode, 77);
    raw_hello_say(&t.hello, &s, NULL);
    uint32_t n_pages = (uint32_t)bt_metric(&t.decode, "baton_receiver_pages_total");
    assert_true(n_pages >= N_QUEUE + 4);
    assert_int_equal(ask_pages(&s, "all", n_pages).u.alloc_answer.outcome, BT_ALLOC_GRANTED);
    assert_int_equal(ask_pages(&s, "more than all", n_pages + 1).status, BATON_ERR_TOO_LARGE);
    for (uint32_t i = 0; i < N_QUEUE; i++)
        assert_int_equal(ask_pages(&s, "one", 1).u.alloc_answer.outcome, BT_ALLOC_QUEUED);
    assert_int_equal(ask_pages(&s, "one", 1).status, BATON_ERR_OVERLOADED);
    double refused = bt_metric(&t.decode, "baton_receiver_tickets_refused_total");
    int fd = bt_prefill_open(&t.prefill, 5, 40, &t.decode, "good", NULL);
    bt_wait_metric(&t.decode, "baton_receiver_tickets_refused_total", refused + 1);
    assert_int_equal(raw_hear(&s, RAW_ALLOC).status, BATON_ERR_OVERLOADED); /* the last of its */
    t.hello.init.u.init.connection++; /* ends all that it has */
    raw_hello_say(&t.hello, &s, NULL);
    bt_http_finish(fd, &answer);
    assert_int_equal(answer.status, 200);
    bt_http_answer_clear(&answer);
    bt_wait_metric_is(&t.prefill, "baton_engine_transfers_total{result=\"done\"}", 1);
    raw_sender_close(&s);
    close_test(&t);
}

/* A good hand-off; how many chunks it landed. */
static double check_one_more(const hostile_test *t, uint64_t seed, const char *attempt)
{
    const char *landed = "baton_receiver_chunks_landed_total";
    double before = bt_metric(&t->decode, landed);
    bt_check_hand_off(&t->prefill, &t->decode, seed, attempt);
    return bt_metric(&t->decode, landed) - before;
}

/* 1,000 guesses each: the nonce, the generation, or all but who asks. */
static void tickets_of_others_are_out_of_reach(void **state)
{
    (void)state;
    enum { N_GUESSES = 1000 };
    hostile_test t;
    raw_sender owner, thief;
    open_test(&t, (const char *const[]){"--set", "peer_silent_ms=5m", NULL}); /* nobody says more */
    raw_sender_open(&owner, &t.decode, 77);
    raw_hello_say(&t.hello, &owner, NULL);
    raw_sender_open(&thief, &t.decode, 78);
    raw_hello_say(&t.hello, &thief, NULL);
    const bt_msg_alloc_answer granted = ask_pages(&owner, "owned", 1).u.alloc_answer;
    uint8_t nonce[BT_NONCE_BYTES];
    memcpy(nonce, granted.nonce.data, sizeof(nonce));
    const bt_ticket_name name = {granted.ticket, granted.generation,
                                 bt_blob_of(nonce, sizeof(nonce))};
    const bt_chunk_range range = {.count = 1};
    bt_check_hand_off(&t.prefill, &t.decode, 2, "before");
    const long before = bt_child_rss_kib(t.decode.child);
    double landed = bt_metric(&t.decode, "baton_receiver_chunks_landed_total");
    for (uint32_t i = 0; i < N_GUESSES; i++) {
        if (i == N_GUESSES / 2)
            landed += check_one_more(&t, 3, "beside guesses");
        uint8_t guess[BT_NONCE_BYTES];
        memcpy(guess, nonce, sizeof(guess));
        guess[i % BT_NONCE_BYTES] ^= (uint8_t)(1 + i % 255);
        bt_ticket_name wrong = name;
        raw_sender *who = i % 3 == 0 ? &thief : &owner; /* the thief has even the right name */
        if (i % 3 == 1)
            wrong.nonce = bt_blob_of(guess, sizeof(guess));
        else if (i % 3 == 2)
            wrong.generation += i;
        bt_message commit = {
            .type = BT_MSG_COMMIT,
            .u.commit = {.name = wrong, .ranges = &range, .n_ranges = 1, .final = 1}};
        bt_message cancel = {.type = BT_MSG_CANCEL,
                             .u.end = {.name = wrong, .drained = 1, .reason = BATON_ERR_CANCELED}};
        assert_int_equal(raw_ask(who, RAW_ALLOC, &commit, NULL).status, BATON_ERR_STALE);
        assert_int_equal(raw_ask(who, RAW_ALLOC, &cancel, NULL).status, BATON_ERR_STALE);
    }
    const bt_ticket_progress named = {.ticket = name.ticket};
    bt_message heartbeat = {.type = BT_MSG_HEARTBEAT,
                            .u.heartbeat = {.tickets = &named, .n_tickets = 1}};
    assert_int_equal(raw_ask(&thief, RAW_ALLOC, &heartbeat, NULL).u.heartbeat.n_tickets, 1);
    assert_true(bt_metric(&t.decode, "baton_receiver_pages_reserved") == 1);
    assert_true(bt_metric(&t.decode, "baton_receiver_chunks_landed_total") == landed);
    check_memory(t.decode.child, before, FLOOD_MIB);
    bt_message cancel = {.type = BT_MSG_CANCEL,
                         .u.end = {.name = name, .drained = 1, .reason = BATON_ERR_CANCELED}};
    assert_int_equal(raw_ask(&owner, RAW_ALLOC, &cancel, NULL).status, BATON_OK);
    raw_sender_close(&thief);
    raw_sender_close(&owner);
    close_test(&t);
}

/* Keys of every part in files, as docs/security.md makes them. */
enum { KEY_RECEIVER, KEY_SENDER, KEY_PROXY, N_KEYS };
typedef struct {
    char folder[64], allowed[96];
    char secret_of[N_KEYS][BT_CURVE_KEY_CHARS + 1];
    char key_file[N_KEYS][128], public_file[N_KEYS][128]; /* as key=value of --set */
    char clients_path[128];
} key_files;

static void make_keys(key_files *k)
{
    static const char *const names[] = {"receiver", "sender", "proxy"};
    char prefix[160], folder[] = "/tmp/baton-hostile-XXXXXX";
    assert_non_null(mkdtemp(folder));
    snprintf(k->folder, sizeof(k->folder), "%s", folder);
    snprintf(k->allowed, sizeof(k->allowed), "%s/allowed", folder);
    snprintf(k->clients_path, sizeof(k->clients_path), "clients_path=%s/allowed", folder);
    assert_int_equal(mkdir(k->allowed, 0700), 0);
    for (int i = 0; i < N_KEYS; i++) {
        bt_curve_keys keys;
        assert_ok(bt_curve_generate(&keys));
        snprintf(prefix, sizeof(prefix), "%s/allowed/%s", folder, names[i]);
        assert_ok(bt_curve_save(prefix, &keys));
        memcpy(k->secret_of[i], keys.secret_key, sizeof(k->secret_of[i]));
        snprintf(k->key_file[i], sizeof(k->key_file[i]), "key_file=%s/allowed/%s.key", folder,
                 names[i]);
        snprintf(k->public_file[i], sizeof(k->public_file[i]), "%s/allowed/%s.pub", folder,
                 names[i]);
    }
}

static void remove_keys(const key_files *k)
{
    char command[96];
    snprintf(command, sizeof(command), "rm -rf %s", k->folder);
    assert_int_equal(system(command), 0);
}

/* What a port without a key says to a stranger who says INIT: at most the 64 bytes in which every
 * ZeroMQ socket says what it is. */
static void check_tells_nothing(uint16_t port, bt_blob init)
{
    static const uint8_t greeting[64] = {0xff, [9] = 0x7f, 3, 0, 'N', 'U', 'L', 'L'};
    static const uint8_t ready[] = "\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06"
                                   "DEALER";
    uint8_t heard[4096];
    size_t n = 0;
    ssize_t got;
    int fd = dial(port);
    send(fd, greeting, sizeof(greeting), MSG_NOSIGNAL);
    send(fd, ready, sizeof(ready) - 1, MSG_NOSIGNAL);
    send(fd, init.data, init.bytes, MSG_NOSIGNAL);
    while (n < sizeof(heard) && (got = recv(fd, heard + n, sizeof(heard) - n, 0)) > 0)
        n += (size_t)got;
    close(fd);
    assert_true(n <= sizeof(greeting));
}

static void check_keeps_secrets(const bt_child *child, const key_files *k)
{
    char *said = bt_child_text(child->out);
    for (int i = 0; i < N_KEYS; i++) {
        assert_false(bt_child_has_logged(child, k->secret_of[i]));
        assert_null(strstr(said, k->secret_of[i]));
    }
    free(said);
}

static void with_keys_strangers_hear_nothing(void **state)
{
    (void)state;
    key_files k;
    bt_node prefill, decode, proxy;
    raw_sender stranger;
    bt_zmq_message answer;
    char server_key[160], proxy_key[160];
    make_keys(&k);
    snprintf(server_key, sizeof(server_key), "server_key=%s", k.public_file[KEY_RECEIVER]);
    snprintf(proxy_key, sizeof(proxy_key), "proxy_key=%s", k.public_file[KEY_PROXY]);
    bt_node_start(&prefill, "prefill",
                  (const char *const[]){"--set", k.key_file[KEY_SENDER], "--set", server_key,
                                        "--set", proxy_key, NULL});
    bt_node_start(&decode, "decode",
                  (const char *const[]){"--set", k.key_file[KEY_RECEIVER], "--set", k.clients_path,
                                        "--set", proxy_key, NULL});
    bt_proxy_start(&proxy, &prefill, 1, &decode, 1,
                   (const char *const[]){"--key-file", strchr(k.key_file[KEY_PROXY], '=') + 1,
                                         "--receiver-key", k.public_file[KEY_RECEIVER],
                                         "--clients-path", k.allowed, NULL});
    bt_check_completion(&proxy, &decode, 7, 40);
    assert_true(bt_metric(&proxy, "baton_proxy_kv_notices_total{result=\"ready\"}") == 1);

    const bt_message init = {.type = BT_MSG_STATUS, .epoch = 5, .u.request = bt_blob_of_text("x")};
    bt_packwriter frame;
    bt_pack_init(&frame, BT_FRAME_BYTES_MAX);
    assert_ok(bt_message_encode(&init, &frame));
    const bt_blob said = bt_blob_of(frame.bytes, frame.n);
    double messages = bt_metric(&decode, "baton_receiver_messages_dropped_total");
    check_tells_nothing(decode.init_ports[0], said);
    check_tells_nothing(decode.alloc_ports[0], said);
    check_tells_nothing(bt_child_port(proxy.child, "notices=127.0.0.1:", 0), said);
    raw_sender_open(&stranger, &decode, 5);
    raw_send(&stranger, RAW_INIT, frame.bytes, frame.n);
    raw_send(&stranger, RAW_ALLOC, frame.bytes, frame.n);
    bt_check_completion(&proxy, &decode, 8, 40);
    for (int port = 0; port < RAW_N_PORTS; port++)
        assert_int_equal(bt_zmq_recv(stranger.dealers[port], &answer), BATON_IN_PROGRESS);
    raw_sender_close(&stranger);
    assert_true(bt_metric(&decode, "baton_receiver_messages_dropped_total") == messages);
    assert_true(bt_metric(&decode, "baton_receiver_peers") == 1);
    bt_pack_release(&frame);
    check_keeps_secrets(prefill.child, &k);
    check_keeps_secrets(decode.child, &k);
    check_keeps_secrets(proxy.child, &k);
    bt_child_stop(proxy.child);
    bt_child_stop(prefill.child);
    bt_child_stop(decode.child);
    remove_keys(&k);
}

/* A node that is to refuse, and why. */
static void check_refuses(const char *program, const char *const *args, const char *text)
{
    bt_child *child = bt_child_start(program, args);
    assert_int_not_equal(bt_child_wait(child), 0);
    assert_true(bt_child_has_logged(child, text));
    bt_child_forget(child);
}

static void without_keys_programs_stay_on_loopback(void **state)
{
    (void)state;
    static const char *const hosts[] = {"host=0.0.0.0", "host=*", "host=::", "host=example.org"};
    for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++)
        check_refuses("baton-engine",
                      (const char *const[]){"--role", "decode", "--random-weights", "7", "--port",
                                            "0", "--set", hosts[i], NULL},
                      "set allow_unauthenticated");
    check_refuses("baton-proxy",
                  (const char *const[]){"--port", "0", "--proxy-host", "0.0.0.0", NULL},
                  "set allow_unauthenticated");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_child_test(connections_that_say_nothing_stall_nobody),
        bt_child_test(who_claims_too_much_is_cut_off),
        bt_child_test(floods_of_frames_stall_nobody),
        bt_child_test(who_does_not_read_answers_costs_little),
        bt_child_test(thousands_of_epochs_get_a_few_workers),
        bt_child_test(who_fills_the_queue_keeps_nobody_out),
        bt_child_test(tickets_of_others_are_out_of_reach),
        bt_child_test(with_keys_strangers_hear_nothing),
        bt_child_test(without_keys_programs_stay_on_loopback),
    };
    return bt_run_tests(tests);
}
