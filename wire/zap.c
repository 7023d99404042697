/* SPDX-License-Identifier: Apache-2.0 */
/* The authentication handler of wire/curve.h: one thread answers ZAP requests of the context.
 *
 *   libzmq's I/O thread --REQ--> inproc://zeromq.zap.01 --REP--> our thread: allow or deny
 *
 * The folder is read for every question: who has been taken out of it is not let in again. Only our
 * thread uses the keys after it has started, so they need no lock. */
#include "wire/curve.h"

#include "core/alloc.h"
#include "core/fail.h"
#include "core/log.h"
#include "wire/zmqsocket.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    KEY_BYTES = 32,
    REQUEST_PARTS_MAX = 16, /* ZAP has 6 and the mechanism's credentials */
    PART_BYTES_MAX = 256,
    PATH_BYTES = 4096
};

typedef struct {
    uint8_t bytes[KEY_BYTES];
} client_key;

struct bt_zap {
    void *socket; /* the thread's, between its start and its end */
    int stop_fd;  /* eventfd: readable when the thread must end */
    bool started;
    bool is_stale; /* the folder could not be read the last time, which was logged */
    pthread_t thread;
    char folder[PATH_BYTES];
    uint32_t n_keys;
    client_key *keys;                 /* [n_keys], sorted */
    _Atomic uint64_t allowed, denied; /* relaxed: statistics */
};

static int compare_keys(const void *a, const void *b)
{
    return memcmp(a, b, KEY_BYTES);
}

static bool ends_with_pub(const char *name)
{
    size_t n = strlen(name);
    return n > 4 && name[0] != '.' && strcmp(name + n - 4, ".pub") == 0;
}

typedef struct {
    uint32_t n;
    client_key *keys; /* [n] */
} key_list;

static baton_status add_key(key_list *list, const char *folder, const char *name)
{
    char path[2 * PATH_BYTES], text[BT_CURVE_KEY_CHARS + 1];
    if (list->n == BT_CURVE_CLIENTS_MAX)
        return bt_fail(BATON_ERR_TOO_LARGE, "allowed keys in %s: more than %d", folder,
                       BT_CURVE_CLIENTS_MAX);
    snprintf(path, sizeof(path), "%s/%s", folder, name); /* NAME_MAX is 255 */
    BATON_TRY(bt_curve_load_public(path, text));
    client_key *keys = bt_realloc(list->keys, list->n + 1, sizeof(*keys));
    if (keys == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "allowed keys: %u", list->n + 1);
    list->keys = keys;
    zmq_z85_decode(keys[list->n++].bytes, text); /* bt_curve_load_public has checked it */
    return BATON_OK;
}

static baton_status list_keys(key_list *list, const char *folder)
{
    DIR *dir = opendir(folder);
    if (dir == NULL)
        return bt_fail_errno(bt_status_from_errno(errno), errno, "allowed keys: folder %s", folder);
    baton_status status = BATON_OK;
    struct dirent *entry;
    while (status == BATON_OK && (entry = readdir(dir)) != NULL) {
        if (ends_with_pub(entry->d_name))
            status = add_key(list, folder, entry->d_name);
    }
    closedir(dir);
    return status;
}

/* All of the folder, or the keys stay as they were. */
static baton_status load_keys(bt_zap *zap)
{
    key_list list = {0};
    baton_status status = list_keys(&list, zap->folder);
    if (status != BATON_OK) {
        bt_free(list.keys);
        return status;
    }
    if (list.n > 0)
        qsort(list.keys, list.n, sizeof(*list.keys), compare_keys);
    bt_free(zap->keys);
    zap->keys = list.keys;
    zap->n_keys = list.n;
    return BATON_OK;
}

/* A file may be there in half just now, and is whole when the client tries again. */
static void refresh_keys(bt_zap *zap)
{
    bool failed = load_keys(zap) != BATON_OK;
    if (failed && !zap->is_stale)
        bt_warn("allowed keys stay as they were read before: %s", baton_last_error());
    zap->is_stale = failed;
}

typedef struct {
    uint32_t n_parts;
    size_t n_bytes[REQUEST_PARTS_MAX];
    uint8_t parts[REQUEST_PARTS_MAX][PART_BYTES_MAX];
} zap_request;

/* Takes one request whole. Parts that are too long or too many make it invalid (n_parts 0), but
 * still get an answer, since REP must give one. False: there was none. */
static bool take_request(void *socket, zap_request *request)
{
    bool valid = true;
    int more = 1;
    *request = (zap_request){0};
    for (uint32_t i = 0; more; i++) {
        uint8_t spare[PART_BYTES_MAX];
        uint8_t *part = i < REQUEST_PARTS_MAX ? request->parts[i] : spare;
        int n = zmq_recv(socket, part, PART_BYTES_MAX, i == 0 ? ZMQ_DONTWAIT : 0);
        if (n < 0)
            return false;
        if (i >= REQUEST_PARTS_MAX || n > PART_BYTES_MAX)
            valid = false;
        else
            request->n_bytes[request->n_parts++] = (size_t)n;
        size_t size = sizeof(more);
        zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &size);
    }
    if (!valid)
        request->n_parts = 0;
    return true;
}

static bool part_is(const zap_request *request, uint32_t i, const char *text)
{
    return bt_blob_is_text(bt_blob_of(request->parts[i], request->n_bytes[i]), text);
}

/* Parts: version, request id, domain, address, identity, mechanism, client's public key. */
static bool is_allowed(const bt_zap *zap, const zap_request *request)
{
    return request->n_parts == 7 && part_is(request, 0, "1.0") && part_is(request, 5, "CURVE") &&
           request->n_bytes[6] == KEY_BYTES && zap->n_keys > 0 &&
           bsearch(request->parts[6], zap->keys, zap->n_keys, sizeof(*zap->keys), compare_keys) !=
               NULL;
}

/* The user id is the client's key: what is said later is known to be of the same peer. */
static void answer(bt_zap *zap, const zap_request *request)
{
    char user[BT_CURVE_KEY_CHARS + 1] = "";
    refresh_keys(zap);
    bool allowed = is_allowed(zap, request);
    const char *code = allowed ? "200" : "400";
    const char *text = allowed ? "OK" : "no such key";
    size_t n_id = request->n_parts > 1 ? request->n_bytes[1] : 0;
    atomic_fetch_add_explicit(allowed ? &zap->allowed : &zap->denied, 1, memory_order_relaxed);
    zmq_send(zap->socket, "1.0", 3, ZMQ_SNDMORE);
    zmq_send(zap->socket, request->parts[1], n_id, ZMQ_SNDMORE);
    zmq_send(zap->socket, code, strlen(code), ZMQ_SNDMORE);
    zmq_send(zap->socket, text, strlen(text), ZMQ_SNDMORE);
    if (allowed)
        zmq_z85_encode(user, request->parts[6], KEY_BYTES);
    zmq_send(zap->socket, user, strlen(user), ZMQ_SNDMORE);
    zmq_send(zap->socket, "", 0, 0); /* metadata */
}

static void *serve(void *context)
{
    bt_zap *zap = context;
    zmq_pollitem_t items[] = {
        {.socket = zap->socket, .events = ZMQ_POLLIN},
        {.fd = zap->stop_fd, .events = ZMQ_POLLIN},
    };
    zap_request request;
    while (zmq_poll(items, 2, -1) >= 0 || errno == EINTR) {
        if (items[1].revents != 0)
            break;
        while (take_request(zap->socket, &request))
            answer(zap, &request);
    }
    return NULL;
}

static baton_status start(bt_zap *zap, void *context)
{
    zap->socket = zmq_socket(context, ZMQ_REP);
    if (zap->socket == NULL)
        return bt_zmq_fail(errno, "zap: socket");
    const int no_linger = 0;
    zmq_setsockopt(zap->socket, ZMQ_LINGER, &no_linger, sizeof(no_linger));
    if (zmq_bind(zap->socket, "inproc://zeromq.zap.01") != 0)
        return errno == EADDRINUSE
                   ? bt_fail(BATON_ERR_STATE, "zap: the context has a handler already")
                   : bt_zmq_fail(errno, "zap: bind");
    zap->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (zap->stop_fd < 0)
        return bt_fail_errno(bt_status_from_errno(errno), errno, "zap: eventfd");
    int err = pthread_create(&zap->thread, NULL, serve, zap);
    if (err != 0)
        return bt_fail_errno(bt_status_from_errno(err), err, "zap: thread");
    zap->started = true;
    return BATON_OK;
}

baton_status bt_zap_create(void *context, const char *allowed_folder, bt_zap **zap_p)
{
    bt_zap *zap = bt_calloc(1, sizeof(*zap));
    if (zap == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "zap: handler");
    zap->stop_fd = -1;
    int n = snprintf(zap->folder, sizeof(zap->folder), "%s", allowed_folder);
    baton_status status = BATON_OK;
    if ((size_t)n >= sizeof(zap->folder))
        status = bt_fail(BATON_ERR_TOO_LARGE, "allowed keys: folder of %d bytes", n);
    if (status == BATON_OK)
        status = load_keys(zap);
    if (status == BATON_OK)
        status = start(zap, context);
    if (status < 0) {
        bt_zap_destroy(zap);
        return status;
    }
    *zap_p = zap;
    return BATON_OK;
}

void bt_zap_destroy(bt_zap *zap)
{
    if (zap == NULL)
        return;
    if (zap->started) {
        /* Fails only when the counter is full, and then it is readable anyway. */
        (void)!eventfd_write(zap->stop_fd, 1);
        pthread_join(zap->thread, NULL);
    }
    /* Closing alone gives the name back some time later. */
    if (zap->socket != NULL)
        zmq_unbind(zap->socket, "inproc://zeromq.zap.01");
    bt_zmq_close(zap->socket);
    if (zap->stop_fd >= 0)
        close(zap->stop_fd);
    bt_free(zap->keys);
    bt_free(zap);
}

void bt_zap_get_stats(const bt_zap *zap, bt_zap_stats *out)
{
    out->allowed_total = atomic_load_explicit(&zap->allowed, memory_order_relaxed);
    out->denied_total = atomic_load_explicit(&zap->denied, memory_order_relaxed);
}
