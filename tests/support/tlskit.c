/* SPDX-License-Identifier: Apache-2.0 */
#include "support/tlskit.h"

#include "support/certificates.h"
#include "support/test.h"

#include <dirent.h>
#include <errno.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_FDS = 1024, PATH_BYTES = 256 };

static char folder[64];
static bt_tls_context *server_context, *client_context;
static SSL_CTX *raw_context;
static SSL *sessions[MAX_FDS];

static void clear(void)
{
    for (size_t i = 0; i < MAX_FDS; i++)
        SSL_free(sessions[i]);
    SSL_CTX_free(raw_context);
    bt_tls_context_destroy(server_context);
    bt_tls_context_destroy(client_context);
    DIR *entries = opendir(folder);
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        char path[PATH_BYTES];
        snprintf(path, sizeof(path), "%s/%.100s", folder, entry->d_name);
        unlink(path);
    }
    closedir(entries);
    rmdir(folder);
}

const char *tlskit_folder(void)
{
    if (folder[0] != '\0')
        return folder;
    snprintf(folder, sizeof(folder), "/tmp/baton-tls-XXXXXX");
    assert_non_null(mkdtemp(folder));
    const char *hosts = "DNS:localhost,IP:127.0.0.1,IP:::1";
    bt_certificate_make(folder, &(bt_certificate_wish){.name = "ca"});
    bt_certificate_make(folder, &(bt_certificate_wish){"server", "ca", hosts, false});
    bt_certificate_make(folder, &(bt_certificate_wish){"client", "ca", NULL, false});
    atexit(clear);
    return folder;
}

char *tlskit_path(char *path, const char *name)
{
    snprintf(path, PATH_BYTES, "%s/%s", tlskit_folder(), name);
    return path;
}

static bool is_on(void)
{
    return getenv("BATON_TEST_TLS") != NULL;
}

bt_tls_context *tlskit_server(void)
{
    char certificate[PATH_BYTES], key[PATH_BYTES];
    const bt_tls_options options = {.is_server = true,
                                    .certificate_file = tlskit_path(certificate, "server.pem"),
                                    .key_file = tlskit_path(key, "server.key")};
    if (is_on() && server_context == NULL)
        assert_ok(bt_tls_context_create(&options, &server_context));
    return server_context;
}

bt_tls_context *tlskit_client(void)
{
    char ca[PATH_BYTES];
    const bt_tls_options options = {.ca_file = tlskit_path(ca, "ca.pem")};
    if (is_on() && client_context == NULL)
        assert_ok(bt_tls_context_create(&options, &client_context));
    return client_context;
}

void tlskit_forget(int fd)
{
    assert_true(fd < MAX_FDS);
    SSL_free(sessions[fd]);
    sessions[fd] = NULL;
}

void tlskit_connect(int fd)
{
    char ca[PATH_BYTES];
    tlskit_forget(fd);
    if (!is_on())
        return;
    if (raw_context == NULL) {
        raw_context = SSL_CTX_new(TLS_client_method());
        assert_int_equal(SSL_CTX_load_verify_file(raw_context, tlskit_path(ca, "ca.pem")), 1);
        SSL_CTX_set_verify(raw_context, SSL_VERIFY_PEER, NULL);
    }
    sessions[fd] = SSL_new(raw_context);
    SSL_set_fd(sessions[fd], fd);
    int done;
    do
        done = SSL_connect(sessions[fd]);
    while (done != 1 && errno == EINTR);
    assert_int_equal(done, 1);
}

/* Calls are tried again when they are interrupted: where libuv uses io_uring, the kernel interrupts
 * calls of the thread that made the loop. */
void tlskit_send(int fd, const char *bytes, size_t n)
{
    while (n > 0) {
        long sent = sessions[fd] != NULL
                        ? SSL_write(sessions[fd], bytes, n < INT32_MAX ? (int)n : INT32_MAX)
                        : send(fd, bytes, n, MSG_NOSIGNAL);
        if (sent <= 0 && errno == EINTR)
            continue;
        if (sent <= 0) /* the peer may have had enough: what it answered tells */
            return;
        bytes += sent;
        n -= (size_t)sent;
    }
}

long tlskit_recv(int fd, char *out, size_t room)
{
    if (sessions[fd] == NULL)
        return TEMP_FAILURE_RETRY(recv(fd, out, room, 0));
    for (;;) {
        errno = 0;
        int got = SSL_read(sessions[fd], out, room < INT32_MAX ? (int)room : INT32_MAX);
        if (got > 0)
            return got;
        if (SSL_get_error(sessions[fd], got) != SSL_ERROR_WANT_READ)
            return 0; /* the end, or a reset */
        if (errno != EINTR)
            return -1;
    }
}
