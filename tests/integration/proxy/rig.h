/* SPDX-License-Identifier: Apache-2.0 */
/* A proxy between fake engines, a blocking client, and fake receivers for its questions.
 * Thread rule: the test's thread. */
#ifndef BT_TESTS_RIG_H
#define BT_TESTS_RIG_H
#include "enginebrains.h"
#include "fakeengine.h"
#include "proxy/proxy.h"
#include "support/test.h"
#include "wire/security.h"

enum { RIG_MAX = 4 };

/* Fields of options that are zero are filled in; engines and ports always are. */
typedef struct {
    unsigned n_prefill, n_decode; /* 0: one */
    unsigned n_ranks;             /* 0: one */
    bool no_ports;                /* the receivers' ports are not known to the proxy */
    fake_notices notices;
    const baton_security *security; /* of the receivers; NULL: no keys */
    /* What the proxy is told of every engine of a role besides where it is; NULL: nothing. */
    const bt_worker_address *as_prefill, *as_decode;
    bt_proxy_options options;
} rig_options;

typedef struct {
    bt_proxy *proxy;
    fake *prefill[RIG_MAX], *decode[RIG_MAX];
    void *zmq;
    bt_security security;
    void *receivers[RIG_MAX]; /* ROUTER of decode engine i's rank 0 */
    uint16_t port;
    char notice_url[64];
} rig;

void rig_open(rig *r, const rig_options *options);
void rig_close(rig *r);

/* One answer. body is de-chunked and 0-terminated. */
typedef struct {
    unsigned status;
    char head[8192]; /* status line and headers */
    char *body;
    size_t n;
    bool is_cut; /* closed before its proper end */
} reply;

/* A request whose answer is read piece by piece. */
typedef struct {
    int fd;
    char *raw; /* [n_raw], 0-terminated */
    size_t n_raw;
} conversation;

/* headers: "Name: value\r\n"... or "". Sends, and reads the whole answer. */
reply rig_post(rig *r, const char *path, const char *headers, const char *body);
reply rig_get(rig *r, const char *path);
void reply_free(reply *answer);
/* The request is answered whole, with 200, and the body has `wanted` in it. */
void rig_expect_answer(rig *r, const char *path, const char *body, const char *wanted);
/* What n hand-offs computed has been fetched, all of it, and nothing was computed twice. */
void rig_expect_handed_over(const brain_kv *kv, int n);
/* Sends bytes as they are and reads the answer. */
reply rig_raw(rig *r, const char *bytes, size_t n);

conversation rig_begin(rig *r, const char *path, const char *body);
conversation rig_begin_get(rig *r, const char *path);
/* Reads until text has come; fails the test when the answer ends before. */
void rig_read_until(conversation *c, const char *text);
/* Reads the rest. */
reply rig_finish(conversation *c);
/* Closes the socket without reading. */
void rig_leave(conversation *c);

/* Value of a metric line that begins with name ("baton_proxy_x{a=\"b\"}"); 0 when there is none. */
double rig_metric(rig *r, const char *name);
/* Asks for it until it is at least value. */
void rig_wait_metric(rig *r, const char *name, double value);

/* The next question at decode engine i's receiver: "STATUS" or "RELEASE"; id[64] gets the attempt.
 * answer_state: sent back as STATUS_ANSWER (a bt_request_state), -1: no answer. */
const char *rig_question(rig *r, unsigned i, char *id, int answer_state);

#endif
