/* SPDX-License-Identifier: Apache-2.0 */
/* Servers that run out of descriptors or of address space: whom they have goes on, who comes is
 * refused with an error that names the limit, and when there are descriptors again, everything
 * works. */
#include "rawpeer.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
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

static void open_system(void)
{
    bt_node_start(&alone, "both", NULL);
    bt_node_start(&prefill, "prefill", NULL);
    bt_node_start(&decode, "decode", NULL);
    bt_proxy_start(&proxy, &prefill, 1, &decode, 1, NULL);
}

static void close_system(void)
{
    bt_check_idle_prefill(&prefill);
    bt_check_idle_decode(&decode);
    bt_child_stop(proxy.child);
    bt_child_stop(prefill.child);
    bt_child_stop(decode.child);
    bt_child_stop(alone.child);
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

static void a_receiver_without_descriptors_refuses_new_senders(void **state)
{
    (void)state;
    static const unsigned rooms[] = {1, 6, 10, 30};
    for (unsigned i = 0; i < sizeof(rooms) / sizeof(rooms[0]); i++) {
        open_system();
        leave(&decode, rooms[i]);
        check_refused(1);
        if (rooms[i] >= 6) /* a connection of control messages finds room, a worker does not */
            bt_child_wait_log(decode.child, "of RLIMIT_NOFILE");
        limit_to(&decode, ENOUGH);
        check_served_again(2);
        close_system();
    }
}

static void a_sender_without_descriptors_says_so_and_lives(void **state)
{
    (void)state;
    static const unsigned rooms[] = {2, 5, 12, 20};
    for (unsigned i = 0; i < sizeof(rooms) / sizeof(rooms[0]); i++) {
        open_system();
        leave(&prefill, rooms[i]);
        check_refused(1);
        bt_child_wait_log(prefill.child, "of RLIMIT_NOFILE");
        limit_to(&prefill, ENOUGH);
        check_served_again(2);
        close_system();
    }
}

static void a_flood_of_connections_leaves_those_that_are_there_alone(void **state)
{
    (void)state;
    int fds[N_FLOOD];
    open_system();
    bt_check_completion(&proxy, &alone, 1, N_TOKENS);
    leave(&decode, 8);
    flood(decode.alloc_ports[0], fds);
    bt_child_wait_log(decode.child, "connections turned away");
    bt_check_completion(&proxy, &alone, 2, N_TOKENS);
    close_flood(fds);
    flood(decode.port, fds); /* HTTP: libuv's turn */
    bt_check_completion(&proxy, &alone, 3, N_TOKENS);
    close_flood(fds);
    limit_to(&decode, ENOUGH);
    bt_check_completion(&proxy, &alone, 4, N_TOKENS);
    close_system();
}

static void a_proxy_without_descriptors_recovers(void **state)
{
    (void)state;
    int fds[N_FLOOD];
    open_system();
    bt_check_completion(&proxy, &alone, 1, N_TOKENS);
    leave(&proxy, 0);
    flood(proxy.port, fds);
    limit_to(&proxy, ENOUGH);
    close_flood(fds);
    check_served_again(2);
    close_system();
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
    for (int i = 0; i < 2; i++) {
        open_system();
        const bt_node *poor = i == 0 ? &decode : &prefill;
        leave_memory(poor, MEMORY_LEFT);
        check_refused(1);
        bt_child_wait_log(poor->child, "of address space");
        set_limit(poor, RLIMIT_AS, RLIM_INFINITY);
        check_served_again(2);
        close_system();
    }
}

/* Nothing is wrong with a request that an engine has no memory for: what the client hears is not
 * that it should ask for something else. */
static void without_any_memory_left_no_request_is_called_bad(void **state)
{
    (void)state;
    if (BT_HAS_SANITIZER) {
        print_message("limits: the sanitizer's own memory is in the way: not tested here\n");
        return;
    }
    static const uint32_t n_tokens[] = {64, 500, 64, 1000, 10, 1000};
    open_system();
    leave_memory(&prefill, 0);
    for (size_t i = 0; i < sizeof(n_tokens) / sizeof(n_tokens[0]); i++) {
        bt_strbuf body = bt_completion(i, n_tokens[i], 4, false);
        bt_http_answer answer;
        bt_http_call(proxy.port, "POST", "/v1/completions", bt_strbuf_text(&body), &answer);
        if (answer.status != 200)
            bt_check_error(&answer, answer.status >= 500 ? answer.status : 503, NULL);
        else
            bt_http_answer_clear(&answer);
        bt_strbuf_free(&body);
    }
    set_limit(&prefill, RLIMIT_AS, RLIM_INFINITY);
    check_served_again(100);
    close_system();
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
