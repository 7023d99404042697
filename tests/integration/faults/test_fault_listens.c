/* SPDX-License-Identifier: Apache-2.0 */
/* Where a decode engine listens, and a prefill engine after a hand-off, as the kernel has it: in a
 * network namespace with a second device, on loopback and on the devices of data_devices, and with
 * data_tcp: off nowhere but at their own ports. */
#include "rawpeer.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <unistd.h>

#define DEVICE "baton0"
#define DEVICE_ADDRESS "10.97.83.1"
enum { SOCKETS_MAX = 256, TCP_LISTEN_STATE = 0x0a };

typedef struct {
    uint32_t n;
    unsigned long inodes[SOCKETS_MAX];
} socket_list;

typedef struct {
    uint32_t n_loopback, n_device, n_other;
} listeners;

static void list_sockets(const bt_child *child, socket_list *list)
{
    char path[512], target[64];
    const struct dirent *entry;
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)child->pid);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    list->n = 0;
    while ((entry = readdir(dir)) != NULL) {
        snprintf(path, sizeof(path), "/proc/%d/fd/%s", (int)child->pid, entry->d_name);
        ssize_t n = readlink(path, target, sizeof(target) - 1);
        target[n > 0 ? n : 0] = 0;
        assert_true(list->n < SOCKETS_MAX);
        if (sscanf(target, "socket:[%lu]", &list->inodes[list->n]) == 1)
            list->n++;
    }
    closedir(dir);
}

static bool has_socket(const socket_list *list, unsigned long inode)
{
    for (uint32_t i = 0; i < list->n; i++) {
        if (list->inodes[i] == inode)
            return true;
    }
    return false;
}

/* Addresses of /proc are in the byte order of the machine, as s_addr is. */
static void count_one(listeners *found, const char *address)
{
    uint32_t words[4] = {0};
    size_t n = strlen(address) / 8;
    for (size_t i = 0; i < n && i < 4; i++)
        sscanf(address + 8 * i, "%8x", &words[i]);
    bool is_v6 = n == 4;
    bool is_loopback = is_v6
                           ? words[0] == 0 && words[1] == 0 && words[2] == 0 && words[3] == htonl(1)
                           : ntohl(words[0]) >> 24 == 127;
    if (is_loopback)
        found->n_loopback++;
    else if (!is_v6 && words[0] == inet_addr(DEVICE_ADDRESS))
        found->n_device++;
    else
        found->n_other++;
}

static void count_in(const bt_child *child, const char *table, const socket_list *sockets,
                     listeners *found)
{
    char path[64], line[512], address[64];
    snprintf(path, sizeof(path), "/proc/%d/net/%s", (int)child->pid, table);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return; /* a kernel without IPv6 */
    while (fgets(line, sizeof(line), file) != NULL) {
        unsigned state;
        unsigned long inode;
        if (sscanf(line, " %*d: %63[0-9A-F]:%*x %*[0-9A-F]:%*x %x %*s %*s %*s %*d %*d %lu", address,
                   &state, &inode) == 3 &&
            state == TCP_LISTEN_STATE && has_socket(sockets, inode))
            count_one(found, address);
    }
    fclose(file);
}

static listeners listeners_of(const bt_child *child)
{
    socket_list sockets;
    listeners found = {0};
    list_sockets(child, &sockets);
    count_in(child, "tcp", &sockets, &found);
    count_in(child, "tcp6", &sockets, &found);
    return found;
}

static void start_node(bt_node *node, const char *role, const char *device, bool data_tcp)
{
    char devices[64];
    snprintf(devices, sizeof(devices), "data_devices=%s", device);
    bt_node_start(node, role,
                  (const char *const[]){"--set", devices, "--set",
                                        data_tcp ? "data_tcp=on" : "data_tcp=off", NULL});
}

/* A worker is made for each peer: one that only measures is enough. */
static listeners with_a_peer(const char *device, bool data_tcp)
{
    bt_node decode;
    raw_sender s;
    start_node(&decode, "decode", device, data_tcp);
    raw_sender_open(&s, &decode, 77);
    bt_message init = {
        .type = BT_MSG_INIT,
        .u.init = {.name = bt_blob_of_text("probe"),
                   .world = 1,
                   .layout = {.model = "probe",
                              .dtype = BATON_DTYPE_BF16,
                              .n_layers = 1,
                              .n_planes = 2,
                              .n_kv_heads = 1,
                              .head_dim = 8,
                              .chunk_tokens = 16,
                              .block_tokens = 16,
                              .tp_size = 1,
                              .pp_size = 1},
                   .seed = bt_blob_of((const uint8_t[BATON_KEY_BYTES]){1}, BATON_KEY_BYTES),
                   .connection = 1,
                   .probe = 1,
                   .process = {.boot = bt_blob_of_text("elsewhere")}}};
    assert_int_equal(raw_ask(&s, RAW_INIT, &init, NULL).status, BATON_OK);
    listeners found = listeners_of(decode.child);
    raw_sender_close(&s);
    bt_child_stop(decode.child);
    return found;
}

/* Of the sender. */
static listeners after_a_hand_off(const char *device, bool data_tcp)
{
    bt_node prefill, decode;
    start_node(&prefill, "prefill", device, data_tcp);
    start_node(&decode, "decode", device, data_tcp);
    bt_check_hand_off(&prefill, &decode, 1, "attempt");
    listeners found = listeners_of(prefill.child);
    bt_child_stop(prefill.child);
    bt_child_stop(decode.child);
    return found;
}

enum { OWN_PORTS = 3, SENDERS_PORTS = 1 }; /* HTTP, init, alloc; HTTP */

static void data_listens_on_loopback_by_default(void **state)
{
    (void)state;
    listeners found = with_a_peer("lo", true);
    assert_true(found.n_loopback > OWN_PORTS);
    assert_int_equal(found.n_device + found.n_other, 0);
}

static void data_listens_on_the_devices_that_are_named(void **state)
{
    (void)state;
    listeners found = with_a_peer(DEVICE, true);
    assert_int_equal(found.n_loopback, OWN_PORTS);
    assert_true(found.n_device > 0);
    assert_int_equal(found.n_other, 0);
}

static void without_tcp_data_listens_nowhere(void **state)
{
    (void)state;
    const char *const devices[] = {"lo", DEVICE};
    for (int i = 0; i < 2; i++) {
        listeners found = with_a_peer(devices[i], false);
        assert_int_equal(found.n_loopback, OWN_PORTS);
        assert_int_equal(found.n_device + found.n_other, 0);
    }
}

static void after_a_hand_off_a_sender_listens_where_it_may(void **state)
{
    (void)state;
    listeners found = after_a_hand_off("lo", true);
    assert_true(found.n_loopback > SENDERS_PORTS); /* it is looked at in the right place */
    assert_int_equal(found.n_device + found.n_other, 0);
    found = after_a_hand_off(DEVICE, true);
    assert_int_equal(found.n_loopback, SENDERS_PORTS);
    assert_true(found.n_device > 0);
    assert_int_equal(found.n_other, 0);
}

static void after_a_hand_off_without_tcp_a_sender_listens_nowhere(void **state)
{
    (void)state;
    const char *const devices[] = {"lo", DEVICE};
    for (int i = 0; i < 2; i++) {
        listeners found = after_a_hand_off(devices[i], false);
        assert_int_equal(found.n_loopback, SENDERS_PORTS);
        assert_int_equal(found.n_device + found.n_other, 0);
    }
}

int main(void)
{
    /* UCX finds devices in /sys, which shows the namespace that it was mounted in. */
    if (unshare(CLONE_NEWNET | CLONE_NEWNS) != 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("sysfs", "/sys", "sysfs", 0, NULL) != 0)
        bt_test_skip("a network namespace of its own is not permitted here");
    if (system("ip link set lo up && ip link add " DEVICE " type veth peer name baton1 && "
               "ip addr add " DEVICE_ADDRESS "/24 dev " DEVICE " && ip link set " DEVICE " up && "
               "ip link set baton1 up") != 0)
        bt_test_skip("no second network device can be made here (ip, veth)");
    const struct CMUnitTest tests[] = {
        bt_child_test(data_listens_on_loopback_by_default),
        bt_child_test(data_listens_on_the_devices_that_are_named),
        bt_child_test(without_tcp_data_listens_nowhere),
        bt_child_test(after_a_hand_off_a_sender_listens_where_it_may),
        bt_child_test(after_a_hand_off_without_tcp_a_sender_listens_nowhere),
    };
    return bt_run_tests(tests);
}
