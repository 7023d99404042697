/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/curve.h"

#include "core/fail.h"
#include "core/secretfile.h"
#include "wire/zmqsocket.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { KEY_FILE_BYTES_MAX = 4096, PATH_BYTES = 4096 };

baton_status bt_curve_generate(bt_curve_keys *keys)
{
    if (zmq_curve_keypair(keys->public_key, keys->secret_key) != 0)
        return bt_fail(BATON_ERR_UNSUPPORTED, "curve: this libzmq was built without it");
    return BATON_OK;
}

void bt_curve_forget(bt_curve_keys *keys)
{
    sodium_memzero(keys, sizeof(*keys));
}

/* The first line that is neither empty nor a comment; it must be a key. */
static bool find_key(char *text, char key[BT_CURVE_KEY_CHARS + 1])
{
    uint8_t binary[BT_CURVE_KEY_CHARS / 5 * 4];
    char *rest = NULL;
    for (char *line = strtok_r(text, "\r\n", &rest); line != NULL;
         line = strtok_r(NULL, "\r\n", &rest)) {
        if (line[0] == '#')
            continue;
        bool ok = strlen(line) == BT_CURVE_KEY_CHARS && zmq_z85_decode(binary, line) != NULL;
        if (ok)
            memcpy(key, line, BT_CURVE_KEY_CHARS + 1);
        sodium_memzero(binary, sizeof(binary));
        return ok;
    }
    return false;
}

static baton_status read_key(int fd, const char *path, char key[BT_CURVE_KEY_CHARS + 1])
{
    char text[KEY_FILE_BYTES_MAX + 1];
    size_t n = 0;
    ssize_t got = 0;
    while (n < KEY_FILE_BYTES_MAX && (got = read(fd, text + n, KEY_FILE_BYTES_MAX - n)) > 0)
        n += (size_t)got;
    int err = errno;
    text[n] = 0;
    bool found = got >= 0 && find_key(text, key);
    sodium_memzero(text, sizeof(text));
    if (got < 0)
        return bt_fail_errno(bt_status_from_errno(err), err, "key file %s", path);
    if (!found)
        return bt_fail(BATON_ERR_CORRUPT, "key file %s: wanted a line of %d Z85 characters", path,
                       BT_CURVE_KEY_CHARS);
    return BATON_OK;
}

static baton_status load_key(const char *path, bool is_secret, char key[BT_CURVE_KEY_CHARS + 1])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return bt_fail_errno(bt_status_from_errno(errno), errno, "key file %s", path);
    baton_status status = is_secret ? bt_secret_file_check(fd, "key file", path) : BATON_OK;
    if (status == BATON_OK)
        status = read_key(fd, path, key);
    close(fd);
    return status;
}

baton_status bt_curve_load_secret(const char *path, bt_curve_keys *keys)
{
    bt_curve_keys loaded;
    BATON_TRY(load_key(path, true, loaded.secret_key));
    if (zmq_curve_public(loaded.public_key, loaded.secret_key) != 0)
        return bt_zmq_fail(errno, "key file %s: public key", path);
    *keys = loaded;
    bt_curve_forget(&loaded);
    return BATON_OK;
}

baton_status bt_curve_load_public(const char *path, char key[BT_CURVE_KEY_CHARS + 1])
{
    return load_key(path, false, key);
}

static baton_status write_file(const char *path, mode_t mode, const char *comment, const char *key)
{
    char text[256];
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0) {
        baton_status status = errno == EEXIST ? BATON_ERR_BUSY : bt_status_from_errno(errno);
        return bt_fail_errno(status, errno, "key file %s", path);
    }
    int n = snprintf(text, sizeof(text), "# %s\n%s\n", comment, key);
    bool written = write(fd, text, (size_t)n) == n && fsync(fd) == 0;
    int err = errno;
    sodium_memzero(text, sizeof(text));
    close(fd);
    if (written)
        return BATON_OK;
    unlink(path);
    return bt_fail_errno(BATON_ERR_IO, err, "key file %s: write", path);
}

baton_status bt_curve_save(const char *prefix, const bt_curve_keys *keys)
{
    char secret[PATH_BYTES], public[PATH_BYTES];
    if (strlen(prefix) + sizeof(".key") > PATH_BYTES)
        return bt_fail(BATON_ERR_TOO_LARGE, "key file: path of %zu bytes", strlen(prefix));
    snprintf(secret, sizeof(secret), "%s.key", prefix);
    snprintf(public, sizeof(public), "%s.pub", prefix);
    BATON_TRY(
        write_file(public, 0644, "Baton public key (CURVE): give it to peers", keys->public_key));
    baton_status status =
        write_file(secret, 0600, "Baton secret key (CURVE): keep it here", keys->secret_key);
    if (status < 0)
        unlink(public);
    return status;
}

static baton_status set_key(void *socket, int option, const char *key, const char *name)
{
    if (strlen(key) != BT_CURVE_KEY_CHARS)
        return bt_fail(BATON_ERR_INVALID_ARG, "curve: %s: wanted %d characters, found %zu", name,
                       BT_CURVE_KEY_CHARS, strlen(key));
    if (zmq_setsockopt(socket, option, key, BT_CURVE_KEY_CHARS + 1) != 0)
        return bt_zmq_fail(errno, "curve: %s", name);
    return BATON_OK;
}

baton_status bt_curve_apply_server(void *socket, const bt_curve_keys *keys, const bt_zap *zap)
{
    const int on = 1;
    if (zap == NULL)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "curve: a server needs a handler that says which clients are allowed");
    if (zmq_setsockopt(socket, ZMQ_ZAP_DOMAIN, "baton", 5) != 0 ||
        zmq_setsockopt(socket, ZMQ_CURVE_SERVER, &on, sizeof(on)) != 0)
        return bt_zmq_fail(errno, "curve: server");
    return set_key(socket, ZMQ_CURVE_SECRETKEY, keys->secret_key, "secret key");
}

baton_status bt_curve_apply_client(void *socket, const bt_curve_keys *keys,
                                   const char *server_public)
{
    if (server_public == NULL)
        return bt_fail(BATON_ERR_INVALID_ARG, "curve: the server's public key is missing");
    BATON_TRY(set_key(socket, ZMQ_CURVE_SERVERKEY, server_public, "server's public key"));
    BATON_TRY(set_key(socket, ZMQ_CURVE_PUBLICKEY, keys->public_key, "public key"));
    return set_key(socket, ZMQ_CURVE_SECRETKEY, keys->secret_key, "secret key");
}
