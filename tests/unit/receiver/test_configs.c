/* SPDX-License-Identifier: Apache-2.0 */
/* Senders and receivers from files: every file in configs/, precedence, and what is refused. The
 * reference is compared with the tables; `test_configs --write` writes it. */
#include <baton/receiver.h>
#include <baton/sender.h>

#include "core/fileoptions.h"
#include "receiver/rxshell.h"
#include "rxkit.h"
#include "sender/txshell.h"
#include "support/fakecuda.h"
#include "support/test.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char header[] = "# SPDX-License-Identifier: Apache-2.0\n"
                             "# Every key that a sender's or a receiver's file can have, with its "
                             "default.\n# Made from the tables by test_configs --write.\n\n";

static bt_loop_net *net;

static int make_net(void **state)
{
    (void)state;
    return bt_loop_net_create(1, NULL, &net) == BATON_OK ? 0 : -1;
}

static int free_net(void **state)
{
    (void)state;
    bt_loop_net_destroy(net);
    return 0;
}

/* Small pools and free ports, whatever the file says: tests run side by side. */
static const char *const everywhere[] = {"transport=loop", "pool_bytes=1MiB", "progress=manual",
                                         "host=127.0.0.1", "init_port=0",     "alloc_port=0"};
enum { N_EVERYWHERE = sizeof(everywhere) / sizeof(everywhere[0]) };

static baton_receiver_options receiver_defaults(void)
{
    return (baton_receiver_options){.layout = rx_kit_layout(), .data = {.loop_net = net}};
}

static baton_sender_options sender_defaults(void)
{
    return (baton_sender_options){.layout = rx_kit_layout(), .data = {.loop_net = net}};
}

static baton_status start_receiver(const char *path, baton_receiver **receiver_p)
{
    const baton_receiver_options options = receiver_defaults();
    return baton_receiver_create_from_file(path, &options, everywhere, N_EVERYWHERE, receiver_p);
}

static baton_status start_sender(const char *path, baton_sender **sender_p)
{
    const baton_sender_options options = sender_defaults();
    return baton_sender_create_from_file(path, &options, everywhere, N_EVERYWHERE, sender_p);
}

static void every_file_in_configs_starts_its_side(void **state)
{
    (void)state;
    uint32_t n_senders = 0, n_receivers = 0;
    bt_expect_log("ignored");
    bt_fakecuda_open(); /* some want a GPU */
    DIR *folder = opendir(CONFIGS);
    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char path[4096];
        const char *dot = strrchr(entry->d_name, '.');
        if (dot == NULL || strcmp(dot, ".yaml") != 0)
            continue;
        snprintf(path, sizeof(path), "%s/%s", CONFIGS, entry->d_name);
        baton_receiver *receiver = NULL;
        baton_sender *sender = NULL;
        baton_status as_receiver = start_receiver(path, &receiver);
        baton_status as_sender = start_sender(path, &sender);
        if (as_receiver != BATON_OK && as_sender != BATON_OK)
            fail_msg("%s starts neither side: %s", path, baton_last_error());
        n_receivers += as_receiver == BATON_OK;
        n_senders += as_sender == BATON_OK;
        baton_receiver_destroy(receiver);
        baton_sender_destroy(sender);
    }
    closedir(folder);
    assert_true(n_receivers >= 4 && n_senders >= 3);
}

static void the_reference_is_up_to_date(void **state)
{
    (void)state;
    char path[4096], found[65536];
    bt_strbuf wanted = {0};
    bt_strbuf_puts(&wanted, header);
    bt_config_reference(bt_file_tables, BT_N_FILE_TABLES, &wanted);
    snprintf(path, sizeof(path), "%s/reference.yaml", CONFIGS);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t n = fread(found, 1, sizeof(found) - 1, file);
    fclose(file);
    found[n] = 0;
    if (strcmp(bt_strbuf_text(&wanted), found) != 0)
        fail_msg("%s is out of date: run test_configs --write", path);
    bt_strbuf_free(&wanted);
}

/* A file that goes away with the test. */
static void write_file(char path[64], const char *text)
{
    strcpy(path, "/tmp/baton-test-configs-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static void the_file_goes_over_options_and_overrides_over_the_file(void **state)
{
    (void)state;
    char path[64];
    write_file(path, "name: from-file\npool_bytes: 2MiB\nlease_ms: 7s\nmax_peers: 9\n"
                     "max_deadline_ms: 2m\n"
                     "init_port: [0, 0]\nalloc_port: \"0,0\"\nproxy_host: \"::1\"\n"
                     "proxy_port: 81\ndata_tcp: off\nnotice_allow: [\"tcp://10.0.0.1:5\"]\n");
    baton_receiver_options options = receiver_defaults();
    options.name = "from-options";
    options.max_queued = 77;
    options.timeouts.lease_ms = 5;
    options.rank = 1;
    options.world = 2;
    const char *const overrides[] = {"transport=loop", "max_peers=11"};
    baton_receiver *receiver;
    setenv("BATON_MAX_PEERS", "10", 1);
    setenv("BATON_PIN_MS", "123", 1);
    assert_ok(baton_receiver_create_from_file(path, &options, overrides, 2, &receiver));
    unsetenv("BATON_MAX_PEERS");
    unsetenv("BATON_PIN_MS");
    const baton_receiver_options *found = &receiver->options;
    assert_string_equal(found->name, "from-file");
    assert_int_equal(found->pool_bytes, 2 << 20);
    assert_int_equal(found->timeouts.lease_ms, 7000);
    assert_int_equal(found->timeouts.pin_ms, 123);
    assert_int_equal(found->max_peers, 11);
    assert_int_equal(found->max_queued, 77);
    assert_int_equal(found->max_deadline_ms, 120000);
    assert_string_equal(found->notice, "tcp://[::1]:81");
    assert_int_equal(found->n_notice_allow, 1);
    assert_string_equal(found->notice_allow[0], "tcp://10.0.0.1:5");
    baton_receiver_destroy(receiver);
    unlink(path);
}

static void existing_deployments_ports_are_taken_by_rank(void **state)
{
    (void)state;
    char path[64], text[256];
    baton_receiver *first, *second;
    uint16_t init_port, alloc_port;
    baton_receiver_options options = receiver_defaults();
    const char *const overrides[] = {"transport=loop", "pool_bytes=1MiB"};
    /* Two ports that are free just now. */
    const char *const any[] = {"transport=loop", "pool_bytes=1MiB", "init_port=0", "alloc_port=0"};
    assert_ok(baton_receiver_create_from_file(NULL, &options, any, 4, &first));
    baton_receiver_ports(first, &init_port, &alloc_port);
    baton_receiver_destroy(first);
    snprintf(text, sizeof(text),
             "nixl_role: receiver\nnixl_peer_host: localhost\nnixl_peer_init_port: [1, %u]\n"
             "nixl_peer_alloc_port: \"1,%u\"\nnixl_buffer_size: 1048576\n",
             init_port, alloc_port);
    write_file(path, text);
    options.rank = 1;
    options.world = 2;
    assert_ok(baton_receiver_create_from_file(path, &options, overrides, 1, &second));
    uint16_t init_found, alloc_found;
    baton_receiver_ports(second, &init_found, &alloc_found);
    assert_int_equal(init_found, init_port);
    assert_int_equal(alloc_found, alloc_port);
    baton_receiver_destroy(second);
    options.rank = 2;
    options.world = 3;
    assert_fails(baton_receiver_create_from_file(path, &options, overrides, 1, &second),
                 BATON_ERR_CONFIG, ":3: init_port: wanted a port for each rank up to 2, found 2");
    unlink(path);
}

static void refuse(const char *text, const char *error)
{
    char path[64];
    baton_receiver *receiver = NULL;
    write_file(path, text);
    assert_fails(start_receiver(path, &receiver), BATON_ERR_CONFIG, error);
    assert_null(receiver);
    unlink(path);
}

static void what_is_wrong_is_named_with_file_and_line(void **state)
{
    (void)state;
    refuse("name: a\nmax_peer: 4\n", ":2: max_peer: wanted a known key");
    refuse("max_peers: many\n", ":1: max_peers: wanted");
    refuse("max_peers: 0\n", ":1: max_peers: wanted");
    refuse("\nrole: sender\n", ":2: role: wanted receiver, found sender");
    refuse("chunk_tokens: 9\n", ":1: chunk_tokens: wanted 8");
    refuse("hash_seed: pepper\n", ":1: hash_seed: wanted the engine's");
    refuse("proxy_host: somewhere\n", ":1: proxy_host: wanted a proxy_port");
}

static void a_senders_file_connects_it_ahead(void **state)
{
    (void)state;
    bt_expect_log("cannot be mapped");
    char path[64], text[128];
    baton_receiver *receiver;
    baton_sender *sender;
    uint16_t init_port, alloc_port;
    const baton_receiver_options to = receiver_defaults();
    const baton_sender_options from = sender_defaults();
    const char *const overrides[] = {"transport=loop", "pool_bytes=1MiB"};
    assert_ok(baton_receiver_create_from_file(NULL, &to, overrides, 2, &receiver));
    baton_receiver_ports(receiver, &init_port, &alloc_port);
    snprintf(text, sizeof(text), "role: sender\nhost: localhost\ninit_port: %u\nalloc_port: %u\n",
             init_port, alloc_port);
    write_file(path, text);
    assert_ok(baton_sender_create_from_file(path, &from, overrides, 1, &sender));
    baton_sender_stats stats = {0};
    for (int i = 0; i < 60000 && stats.peers_ready == 0; i++) {
        baton_sender_get_stats(sender, &stats);
        usleep(1000);
    }
    assert_int_equal(stats.peers_ready, 1);
    baton_sender_destroy(sender);
    baton_receiver_destroy(receiver);
    unlink(path);
}

static int write_reference(void)
{
    bt_strbuf text = {0};
    bt_strbuf_puts(&text, header);
    bt_config_reference(bt_file_tables, BT_N_FILE_TABLES, &text);
    FILE *file = fopen(CONFIGS "/reference.yaml", "w");
    if (file == NULL || fputs(bt_strbuf_text(&text), file) < 0 || fclose(file) != 0) {
        perror(CONFIGS "/reference.yaml");
        return 1;
    }
    bt_strbuf_free(&text);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--write") == 0)
        return write_reference();
    const struct CMUnitTest tests[] = {
        bt_test(every_file_in_configs_starts_its_side),
        bt_test(the_reference_is_up_to_date),
        bt_test(the_file_goes_over_options_and_overrides_over_the_file),
        bt_test(existing_deployments_ports_are_taken_by_rank),
        bt_test(what_is_wrong_is_named_with_file_and_line),
        bt_test(a_senders_file_connects_it_ahead),
    };
    return cmocka_run_group_tests(tests, make_net, free_net);
}
