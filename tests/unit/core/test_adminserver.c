/* SPDX-License-Identifier: Apache-2.0 */
#include "support/adminask.h"

#include "core/adminserver.h"
#include "core/alloc.h"
#include "core/doorbell.h"
#include "core/pollset.h"

#include <dirent.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* An owner with a thread: answers every question with its name, and "big" with many bytes. */
typedef struct {
    bt_admin *admin;
    bt_doorbell *bell;
    pthread_t thread;
    _Atomic bool stopping, is_stuck;
    _Atomic uint32_t n_asked;
} owner;

enum { BIG_BYTES = 3 << 20 };

static void ring(void *ctx)
{
    owner *o = ctx;
    bt_doorbell_ring(o->bell);
}

static void answer(owner *o)
{
    const bt_admin_query *query = bt_admin_pending(o->admin);
    if (query == NULL || atomic_load(&o->is_stuck))
        return;
    atomic_fetch_add(&o->n_asked, 1);
    bt_strbuf *text = bt_admin_text(o->admin);
    if (strcmp(query->name, "big") == 0)
        bt_strbuf_fill(text, 'x', BIG_BYTES);
    else
        bt_strbuf_printf(text, "{\"name\":\"%s\"}", query->name);
    bt_admin_answered(o->admin, strcmp(query->name, "none") == 0 ? 404 : 200);
}

static void *run_owner(void *ctx)
{
    owner *o = ctx;
    while (!atomic_load(&o->stopping)) {
        answer(o);
        if (!bt_doorbell_sleep(o->bell))
            continue;
        struct pollfd fd = {.fd = bt_doorbell_fd(o->bell), .events = POLLIN};
        poll(&fd, 1, -1);
        bt_doorbell_wake(o->bell);
    }
    return NULL;
}

static void open_owner(owner *o, const char *where)
{
    *o = (owner){0};
    const bt_admin_options options = {
        .where = where, .role = "tester", .name = "a/b", .rank = 3, .ring = ring, .ctx = o};
    assert_ok(bt_doorbell_create(&o->bell));
    assert_ok(bt_admin_open(&options, &o->admin));
    assert_int_equal(pthread_create(&o->thread, NULL, run_owner, o), 0);
}

static void close_owner(owner *o)
{
    atomic_store(&o->stopping, true);
    bt_doorbell_ring(o->bell);
    pthread_join(o->thread, NULL);
    bt_admin_close(o->admin);
    bt_doorbell_destroy(o->bell);
}

static void asks(const char *address, const char *target, unsigned status, const char *wanted)
{
    char *body = bt_admin_ask(address, target, status);
    if (strstr(body, wanted) == NULL)
        fail_msg("%s: wanted %s, found %s", target, wanted, body);
    free(body);
}

static void questions_reach_the_owner_and_answers_come_back(void **state)
{
    (void)state;
    owner o;
    open_owner(&o, NULL);
    const char *address = bt_admin_address(o.admin);
    assert_non_null(strstr(address, "/baton/tester-a_b-3-"));
    asks(address, "/", 200, "{\"name\":\"\"}");
    asks(address, "/pages?limit=3", 200, "{\"name\":\"pages\"}");
    asks(address, "/none", 404, "{\"name\":\"none\"}");
    asks(address, "/pages?other=3", 400, "{\"error\":\"wanted /NAME");
    char *big = bt_admin_ask(address, "/big", 200);
    assert_int_equal(strlen(big), BIG_BYTES);
    free(big);
    assert_int_equal(atomic_load(&o.n_asked), 4);
    close_owner(&o);
}

static void the_file_is_the_users_alone_and_goes_with_the_server(void **state)
{
    (void)state;
    owner o;
    struct stat facts;
    char path[256];
    open_owner(&o, "auto");
    snprintf(path, sizeof(path), "%s", bt_admin_address(o.admin) + strlen("unix:"));
    assert_int_equal(stat(path, &facts), 0);
    assert_int_equal(facts.st_mode & 07777, 0600);
    char folder[256];
    assert_ok(bt_admin_folder(folder, sizeof(folder)));
    assert_int_equal(stat(folder, &facts), 0);
    assert_int_equal(facts.st_mode & 07777, 0700);
    close_owner(&o);
    assert_int_equal(stat(path, &facts), -1);
}

static void a_port_of_loopback_can_be_asked_too(void **state)
{
    (void)state;
    owner o;
    open_owner(&o, "127.0.0.1:0");
    asks(bt_admin_address(o.admin), "/peers", 200, "peers");
    int fd = bt_admin_connect(bt_admin_address(o.admin));
    bt_admin_send(fd, "GET /peers HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    char *refused = bt_admin_receive(fd);
    assert_non_null(strstr(refused, "HTTP/1.1 403 "));
    free(refused);
    close_owner(&o);
}

/* More than there are places: none of them keeps others out, and none costs the owner anything. */
static void clients_that_stall_keep_nobody_out(void **state)
{
    (void)state;
    enum { N_SLOW = 40 };
    owner o;
    int fds[N_SLOW], unread;
    open_owner(&o, NULL);
    const char *address = bt_admin_address(o.admin);
    unread = bt_admin_connect(address);
    bt_admin_send(unread, "GET /big HTTP/1.1\r\n\r\n"); /* and never reads */
    for (int i = 0; i < N_SLOW; i++) {
        fds[i] = bt_admin_connect(address);
        bt_admin_send(fds[i], "GET /pages HTT");
        asks(address, "/pages", 200, "pages");
    }
    assert_int_equal(atomic_load(&o.n_asked), N_SLOW + 1);
    /* The oldest had to go, one for each who came, and nobody waited for their time to be over. */
    unsigned n_open = 0;
    char byte;
    for (int i = 0; i < N_SLOW; i++)
        n_open += recv(fds[i], &byte, 1, MSG_DONTWAIT) < 0;
    assert_true(n_open >= 14);
    for (int i = 0; i < N_SLOW; i++)
        close(fds[i]);
    close(unread);
    asks(address, "/pages", 200, "pages");
    close_owner(&o);
}

static void heads_without_end_are_cut_off(void **state)
{
    (void)state;
    owner o;
    open_owner(&o, NULL);
    const char *address = bt_admin_address(o.admin);
    char junk[BT_ADMIN_HEAD_BYTES_MAX + 1];
    memset(junk, 'x', BT_ADMIN_HEAD_BYTES_MAX);
    junk[BT_ADMIN_HEAD_BYTES_MAX] = 0;
    int fd = bt_admin_connect(address);
    bt_admin_send(fd, junk);
    char *refused = bt_admin_receive(fd);
    assert_non_null(strstr(refused, "HTTP/1.1 400 "));
    free(refused);
    fd = bt_admin_connect(address);
    bt_admin_send(fd, "GET / HTTP/1.1\r\n");
    shutdown(fd, SHUT_WR);
    char *nothing = bt_admin_receive(fd);
    assert_string_equal(nothing, "");
    free(nothing);
    assert_int_equal(atomic_load(&o.n_asked), 0);
    close_owner(&o);
}

static void an_owner_that_does_not_answer_is_named_and_may_come_back(void **state)
{
    (void)state;
    owner o;
    open_owner(&o, NULL);
    const char *address = bt_admin_address(o.admin);
    atomic_store(&o.is_stuck, true);
    asks(address, "/pages", 503, "it is stuck");
    asks(address, "/peers", 503, "it is stuck"); /* and the old question is still there */
    atomic_store(&o.is_stuck, false);
    bt_doorbell_ring(o.bell);
    while (bt_admin_pending(o.admin) != NULL) /* the old question: until it is answered */
        sched_yield();
    asks(address, "/counters", 200, "counters");
    close_owner(&o);
}

static void closing_with_a_question_under_way_loses_nothing(void **state)
{
    (void)state;
    owner o;
    open_owner(&o, NULL);
    atomic_store(&o.is_stuck, true);
    int fd = bt_admin_connect(bt_admin_address(o.admin));
    bt_admin_send(fd, "GET /pages HTTP/1.1\r\n\r\n");
    while (bt_admin_pending(o.admin) == NULL)
        sched_yield();
    close_owner(&o);
    char *nothing = bt_admin_receive(fd);
    assert_string_equal(nothing, "");
    free(nothing);
}

static bt_admin_options options_of(const char *where)
{
    return (bt_admin_options){.where = where, .role = "r", .name = "n", .ring = ring};
}

static void off_is_off_and_other_words_are_refused(void **state)
{
    (void)state;
    bt_admin *admin = (bt_admin *)1;
    bt_admin_options options = options_of("off");
    assert_ok(bt_admin_open(&options, &admin));
    assert_null(admin);
    assert_null(bt_admin_pending(NULL));
    assert_string_equal(bt_admin_address(NULL), "off");
    bt_admin_close(NULL);
    options = options_of("yes");
    assert_fails(bt_admin_open(&options, &admin), BATON_ERR_INVALID_ARG, "wanted auto, off, unix:");
    options = options_of("0.0.0.0:7400");
    assert_fails(bt_admin_open(&options, &admin), BATON_ERR_PERMISSION, "loopback");
    options = options_of("unix:");
    assert_fails(bt_admin_open(&options, &admin), BATON_ERR_INVALID_ARG, "path");
    options = options_of("127.0.0.1:99999");
    assert_fails(bt_admin_open(&options, &admin), BATON_ERR_INVALID_ARG, "PORT");
    options = options_of("unix:/no/such/folder/x.sock");
    assert_true(bt_admin_open(&options, &admin) < 0);
}

static void a_file_that_is_no_socket_is_left_alone(void **state)
{
    (void)state;
    char path[] = "/tmp/baton-test-file-XXXXXX", where[64];
    bt_admin *admin;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    snprintf(where, sizeof(where), "unix:%s", path);
    bt_admin_options options = options_of(where);
    assert_fails(bt_admin_open(&options, &admin), BATON_ERR_ADDRESS_IN_USE, path);
    assert_int_equal(unlink(path), 0);
}

/* As a process leaves it that was killed: nobody listens behind the file any more. */
static void make_stale(const char *path)
{
    struct stat facts;
    bt_admin *admin;
    char where[300], kept[300];
    snprintf(where, sizeof(where), "unix:%s", path);
    snprintf(kept, sizeof(kept), "%s.kept", path);
    bt_admin_options options = options_of(where);
    assert_ok(bt_admin_open(&options, &admin));
    assert_int_equal(rename(path, kept), 0); /* out of the way of close */
    bt_admin_close(admin);
    assert_int_equal(rename(kept, path), 0);
    assert_int_equal(stat(path, &facts), 0);
}

static void what_a_killed_process_left_is_replaced(void **state)
{
    (void)state;
    char folder[256], path[300], where[300];
    struct stat facts;
    bt_admin *admin, *again;
    assert_ok(bt_admin_folder(folder, sizeof(folder)));
    snprintf(path, sizeof(path), "%s/r-n-0-2000000000-0.sock", folder); /* no pid is so high */
    make_stale(path);
    bt_admin_options options = options_of("auto");
    assert_ok(bt_admin_open(&options, &admin));
    assert_int_equal(stat(path, &facts), -1);
    bt_admin_close(admin);
    snprintf(path, sizeof(path), "%s/named.sock", folder);
    snprintf(where, sizeof(where), "unix:%s", path);
    make_stale(path);
    options = options_of(where);
    assert_ok(bt_admin_open(&options, &admin));
    assert_fails(bt_admin_open(&options, &again), BATON_ERR_ADDRESS_IN_USE, "named.sock");
    bt_admin_close(admin);
}

static void a_folder_that_others_may_write_is_not_used(void **state)
{
    (void)state;
    char folder[256];
    bt_admin *admin;
    assert_ok(bt_admin_folder(folder, sizeof(folder)));
    assert_int_equal(chmod(folder, 0777), 0);
    bt_admin_options options = options_of("auto");
    assert_ok(bt_admin_open(&options, &admin)); /* nobody asked for it by name */
    assert_null(admin);
    assert_int_equal(bt_log_seen("no admin socket: admin: folder"), 1);
    assert_int_equal(chmod(folder, 0700), 0);
}

static void without_memory_opening_fails(void **state)
{
    (void)state;
    bt_admin *admin;
    bt_admin_options options = options_of("auto");
    bt_alloc_fail_at(1);
    assert_fails(bt_admin_open(&options, &admin), BATON_ERR_NO_MEMORY, "admin");
    bt_alloc_fail_at(0);
    assert_null(admin);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(questions_reach_the_owner_and_answers_come_back),
        bt_test(the_file_is_the_users_alone_and_goes_with_the_server),
        bt_test(a_port_of_loopback_can_be_asked_too),
        bt_test(clients_that_stall_keep_nobody_out),
        bt_test(heads_without_end_are_cut_off),
        bt_test(an_owner_that_does_not_answer_is_named_and_may_come_back),
        bt_test(closing_with_a_question_under_way_loses_nothing),
        bt_test(off_is_off_and_other_words_are_refused),
        bt_test(a_file_that_is_no_socket_is_left_alone),
        bt_test(what_a_killed_process_left_is_replaced),
        bt_test(a_folder_that_others_may_write_is_not_used),
        bt_test(without_memory_opening_fails),
    };
    bt_admin_own_folder();
    int n_failed = bt_run_tests(tests);
    bt_admin_remove_folder();
    return n_failed;
}
