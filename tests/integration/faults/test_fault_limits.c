/* SPDX-License-Identifier: Apache-2.0 */
/* Servers that run out of descriptors or of address space: whom they have goes on, who comes is
 * refused with an error that names the limit, and when there are descriptors again, everything
 * works. */
#include "rawpeer.h"

#include "wire/curve.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { N_TOKENS = 64, N_FLOOD = 80, ENOUGH = 1024 };

static bt_node prefill, decode, alone, proxy;

static void set_limit(const bt_node *node, int kind, rlim_t value)
{
    struct rlimit limit;
    assert_int_equal(prlimit(node->child->pid, (enum __rlimit_resource)kind, NULL, &limit), 0);
    limit.rlim_cur = value < limit.rlim_max ? value : limit.rlim_max;
    assert_int_equal(prlimit(node->child->pid, (enum __rlimit_resource)kind, &limit, NULL), 0);
}

static void limit_to(const bt_node *node, unsigned n)
{
    set_limit(node, RLIMIT_NOFILE, n);
}

static void leave(const bt_node *node, unsigned n)
{
    limit_to(node, (unsigned)bt_child_n_fds(node->child) + n);
}

enum { PATH_BYTES = 128 };
static char folder[] = "/tmp/baton-limits-XXXXXX"; /* of keys */

static const char *file(char path[PATH_BYTES], const char *before, const char *name)
{
    snprintf(path, PATH_BYTES, "%s%s/%s", before, folder, name);
    return path;
}

/* folder/allowed/{receiver,sender,proxy}.{key,pub}. */
static void save_keys(void)
{
    static const char *const names[] = {"allowed/receiver", "allowed/sender", "allowed/proxy"};
    char path[PATH_BYTES];
    strcpy(folder + strlen(folder) - 6, "XXXXXX");
    assert_non_null(mkdtemp(folder));
    assert_int_equal(mkdir(file(path, "", "allowed"), 0700), 0);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        bt_curve_keys keys;
        assert_ok(bt_curve_generate(&keys));
        assert_ok(bt_curve_save(file(path, "", names[i]), &keys));
    }
}

static void remove_keys(void)
{
    char command[PATH_BYTES];
    assert_int_equal(system(file(command, "rm -r ", "")), 0);
}

static void open_with_keys(void)
{
    char paths[9][PATH_BYTES];
    save_keys();
    bt_node_start(&alone, "both", NULL);
    bt_node_start(
        &prefill, "prefill",
        (const char *const[]){"--set", file(paths[0], "key_file=", "allowed/sender.key"), "--set",
                              file(paths[1], "server_key=", "allowed/receiver.pub"), "--set",
                              file(paths[2], "proxy_key=", "allowed/proxy.pub"), NULL});
    bt_node_start(
        &decode, "decode",
        (const char *const[]){"--set", file(paths[3], "key_file=", "allowed/receiver.key"), "--set",
                              file(paths[4], "clients_path=", "allowed"), "--set",
                              file(paths[5], "proxy_key=", "allowed/proxy.pub"), NULL});
    bt_proxy_start(&proxy, &prefill, 1, &decode, 1,
                   (const char *const[]){"--key-file", file(paths[6], "", "allowed/proxy.key"),
                                         "--receiver-key",
                                         file(paths[7], "", "allowed/receiver.pub"),
                                         "--clients-path", file(paths[8], "", "allowed"), NULL});
}

static void open_system(bool has_keys)
{
    if (has_keys) {
        open_with_keys();
        return;
    }
    bt_node_start(&alone, "both", NULL);
    bt_node_start(&prefill, "prefill", NULL);
    bt_node_start(&decode, "decode", NULL);
    bt_proxy_start(&proxy, &prefill, 1, &decode, 1, NULL);
}

static void close_system(void)
{
    bt_check_idle_prefill(&prefill);
    bt_check_idle_decode(&decode);
    bt_child *const children[] = {proxy.child, prefill.child, decode.child, alone.child};
    for (size_t i = 0; i < sizeof(children) / sizeof(children[0]); i++) {
        bt_child_stop(children[i]);
        bt_child_forget(children[i]);
    }
    if (folder[strlen(folder) - 1] != 'X') {
        remove_keys();
        strcpy(folder + strlen(folder) - 6, "XXXXXX");
    }
}

static void flood(uint16_t port, int fds[N_FLOOD])
{
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (int i = 0; i < N_FLOOD; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        assert_true(fds[i] >= 0);
        (void)!connect(fds[i], (const struct sockaddr *)&address, sizeof(address));
    }
}

static void close_flood(const int fds[N_FLOOD])
{
    for (int i = 0; i < N_FLOOD; i++)
        close(fds[i]);
}

/* A completion fails, with a status of the server's and whatever is said. */
static void check_refused(uint64_t seed)
{
    bt_strbuf body = bt_completion(seed, N_TOKENS, 4, false);
    bt_http_answer answer;
    bt_http_call(proxy.port, "POST", "/v1/completions", bt_strbuf_text(&body), &answer);
    bt_check_error(&answer, answer.status >= 500 ? answer.status : 502, NULL);
    bt_strbuf_free(&body);
}

static bool is_served(void *ctx)
{
    bt_strbuf body = bt_completion(*(uint64_t *)ctx, N_TOKENS, 4, false);
    bt_http_answer answer;
    bt_http_call(proxy.port, "POST", "/v1/completions", bt_strbuf_text(&body), &answer);
    bool is_good = answer.status == 200;
    bt_http_answer_clear(&answer);
    bt_strbuf_free(&body);
    return is_good;
}

/* Whoever was refused waits a little before it tries again. */
static void check_served_again(uint64_t seed)
{
    bt_wait_until(is_served, &seed, "a hand-off after the limit was raised");
    bt_check_completion(&proxy, &alone, seed + 1, N_TOKENS);
}

/* room: descriptors that are left to it. */
static void starve_receiver(bool has_keys, unsigned room)
{
    open_system(has_keys);
    leave(&decode, room);
    check_refused(1);
    if (room >= 6) /* a connection of control messages finds room, a worker does not */
        bt_child_wait_log(decode.child, "of RLIMIT_NOFILE");
    limit_to(&decode, ENOUGH);
    check_served_again(2);
    close_system();
}

static void a_receiver_without_descriptors_refuses_new_senders(void **state)
{
    (void)state;
    static const unsigned rooms[] = {1, 6, 10, 30};
    for (unsigned i = 0; i < sizeof(rooms) / sizeof(rooms[0]); i++)
        starve_receiver(false, rooms[i]);
    starve_receiver(true, 1);
    starve_receiver(true, 10);
}

static void starve_sender(bool has_keys, unsigned room)
{
    open_system(has_keys);
    leave(&prefill, room);
    check_refused(1);
    bt_child_wait_log(prefill.child, "of RLIMIT_NOFILE");
    limit_to(&prefill, ENOUGH);
    check_served_again(2);
    close_system();
}

static void a_sender_without_descriptors_says_so_and_lives(void **state)
{
    (void)state;
    static const unsigned rooms[] = {2, 5, 12, 20};
    for (unsigned i = 0; i < sizeof(rooms) / sizeof(rooms[0]); i++)
        starve_sender(false, rooms[i]);
    starve_sender(true, 5);
}

static void flood_all(bool has_keys)
{
    int fds[N_FLOOD];
    open_system(has_keys);
    bt_check_completion(&proxy, &alone, 1, N_TOKENS);
    leave(&decode, 8);
    flood(decode.alloc_ports[0], fds);
    bt_child_wait_log(decode.child, "connections turned away");
    bt_check_completion(&proxy, &alone, 2, N_TOKENS);
    close_flood(fds);
    flood(decode.port, fds); /* HTTP */
    bt_check_completion(&proxy, &alone, 3, N_TOKENS);
    close_flood(fds);
    limit_to(&decode, ENOUGH);
    bt_check_completion(&proxy, &alone, 4, N_TOKENS);
    close_system();
}

static void a_flood_of_connections_leaves_those_that_are_there_alone(void **state)
{
    (void)state;
    flood_all(false);
    flood_all(true);
}

/* The first hand-off comes while there is nothing: neither engines nor receivers can be asked. */
static void a_proxy_without_descriptors_recovers(void **state)
{
    (void)state;
    int fds[N_FLOOD];
    for (int has_keys = 0; has_keys < 2; has_keys++) {
        open_system(has_keys);
        leave(&proxy, 1); /* the client's */
        check_refused(1);
        limit_to(&proxy, ENOUGH);
        check_served_again(2);
        leave(&proxy, 0);
        flood(proxy.port, fds);
        limit_to(&proxy, ENOUGH);
        close_flood(fds);
        check_served_again(10);
        close_system();
    }
}

enum { MEMORY_LEFT = 16 << 20 };

static void leave_memory(const bt_node *node, size_t bytes)
{
    char path[64];
    unsigned long n_pages = 0;
    snprintf(path, sizeof(path), "/proc/%d/statm", (int)node->child->pid);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%lu", &n_pages), 1);
    fclose(file);
    set_limit(node, RLIMIT_AS, n_pages * (rlim_t)sysconf(_SC_PAGESIZE) + bytes);
}

static void without_address_space_new_peers_are_refused(void **state)
{
    (void)state;
    if (BT_HAS_SANITIZER) {
        print_message("limits: the sanitizer's own memory is in the way: not tested here\n");
        return;
    }
    for (int i = 0; i < 4; i++) {
        open_system(i >= 2);
        const bt_node *poor = i % 2 == 0 ? &decode : &prefill;
        leave_memory(poor, MEMORY_LEFT);
        check_refused(1);
        bt_child_wait_log(poor->child, "of address space");
        set_limit(poor, RLIMIT_AS, RLIM_INFINITY);
        check_served_again(2);
        close_system();
    }
}

/* Each answer is good, or an error that does not blame the client. */
static void check_without_memory(void)
{
    static const uint32_t n_tokens[] = {64, 500, 64, 1000, 10, 1000};
    for (size_t i = 0; i < sizeof(n_tokens) / sizeof(n_tokens[0]); i++) {
        bt_strbuf body = bt_completion(i, n_tokens[i], 4, false);
        bt_http_answer answer;
        bt_http_call(proxy.port, "POST", "/v1/completions", bt_strbuf_text(&body), &answer);
        if (answer.status == 200)
            bt_check_same_tokens(&answer, &alone, bt_strbuf_text(&body));
        else if (answer.status != 0)
            bt_check_error(&answer, answer.status >= 500 ? answer.status : 503, NULL);
        bt_http_answer_clear(&answer);
        bt_strbuf_free(&body);
    }
}

/* Nothing is wrong with a request that an engine or the proxy has no memory for: what the client
 * hears is not that it should ask for something else. */
static void without_any_memory_left_no_request_is_called_bad(void **state)
{
    (void)state;
    if (BT_HAS_SANITIZER) {
        print_message("limits: the sanitizer's own memory is in the way: not tested here\n");
        return;
    }
    const bt_node *const nodes[] = {&prefill, &decode, &proxy, &proxy};
    for (int i = 0; i < 4; i++) { /* the engines with keys: libzmq ends a process that has no memory
                                     for a handshake */
        const bt_node *poor = nodes[i];
        open_system(i == 3);
        leave_memory(poor, 0);
        check_without_memory();
        set_limit(poor, RLIMIT_AS, RLIM_INFINITY);
        check_served_again(100);
        close_system();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_child_test(a_receiver_without_descriptors_refuses_new_senders),
        bt_child_test(a_sender_without_descriptors_says_so_and_lives),
        bt_child_test(a_flood_of_connections_leaves_those_that_are_there_alone),
        bt_child_test(a_proxy_without_descriptors_recovers),
        bt_child_test(without_address_space_new_peers_are_refused),
        bt_child_test(without_any_memory_left_no_request_is_called_bad),
    };
    return bt_run_tests(tests);
}
