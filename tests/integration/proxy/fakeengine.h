/* SPDX-License-Identifier: Apache-2.0 */
/* Engines that do as told: in-process HTTP servers on free ports, all on one loop thread. They
 * record every request they get, answer with fixed bytes, and misbehave on demand. A prefill engine
 * sends notices over a real ZMQ PUSH socket before it answers.
 *
 * Thread rule: all calls from the test's thread. */
#ifndef BT_TESTS_FAKEENGINE_H
#define BT_TESTS_FAKEENGINE_H
#include <stdbool.h>
#include <stdint.h>

typedef struct fake fake;

typedef enum {
    FAKE_ANSWERS,
    FAKE_HOLDS,           /* never answers, until fake_release */
    FAKE_COMPUTES,        /* likewise, but for /health */
    FAKE_CUTS_HEAD,       /* closes the connection instead of answering */
    FAKE_CUTS_BODY,       /* closes it behind the body or the events, without a proper end */
    FAKE_HOLDS_BODY,      /* sends body or events, and then nothing more */
    FAKE_HOLDS_WHOLE_HEAD /* the head alone, and then nothing more */
} fake_way;

/* How one kind of request is answered. Zero: 200 with the default body. Strings are borrowed. */
typedef struct {
    fake_way way;
    unsigned status;
    const char *body;          /* NULL: the default */
    const char *const *events; /* decode streams: pieces, each written by itself; ends with NULL */
    const char *retry_after;
    unsigned only_first; /* what is said here holds for the first n requests; 0: for all */
} fake_script;

typedef enum {
    FAKE_NOTICE_READY,  /* of every rank */
    FAKE_NOTICE_NONE,   /* the test sends them itself */
    FAKE_NOTICE_LEGACY, /* NixlProxyNotif, one per rank */
    FAKE_NOTICE_FAILED, /* rank 0 ready, the last failed */
} fake_notices;

/* Starts the loop thread; stop ends it with all fakes. */
void fakes_start(void);
void fakes_stop(void);
fake *fake_open(bool is_prefill);
uint16_t fake_port(const fake *engine);
/* Closes the listener and all connections: from now on connections are refused. */
void fake_die(fake *engine);
/* Listens again, on the same port. */
void fake_revive(fake *engine);
/* How /tokenize is answered, and how everything else is. */
void fake_set_tokenize(fake *engine, const fake_script *script);
void fake_set(fake *engine, const fake_script *script);
/* What a prefill engine says, of how many ranks, and where. */
void fake_set_notices(fake *engine, fake_notices notices, unsigned n_ranks, const char *url);
/* How many of its first hand-offs get these notices; later ones are ready. */
void fake_set_notices_only_first(fake *engine, unsigned n);
/* Answers what is held, as if it had not been. */
void fake_release(fake *engine);

typedef struct {
    char path[64];
    char headers[4096]; /* "name: value\n" */
    char body[65536];
    char attempt[64]; /* req_id in disagg_spec; "" when there is none */
} fake_request;

/* An engine that reads what it gets, as a real one does: where the script says nothing, it fills
 * the answer in, on the fakes' thread. False: the default answer. */
typedef struct {
    bool waits;      /* not yet: it is asked again when any engine has got another request */
    unsigned status; /* 200 unless changed */
    char body[4096]; /* of a decode stream: all of its events */
} fake_answer;
typedef bool (*fake_brain)(void *ctx, const fake_request *request, fake_answer *answer);
void fake_set_brain(fake *engine, fake_brain brain, void *ctx);

/* Requests recorded so far. */
unsigned fake_count(fake *engine);
/* The nth request (from 0); waits for it. Borrowed until fakes_stop. */
const fake_request *fake_nth(fake *engine, unsigned n);
/* Waits until the proxy has closed n requests' connections before they were answered. */
void fake_wait_gone(fake *engine, unsigned n);

/* Sends one frame to a notice port, from the test's thread. */
void notice_send_bytes(const char *url, const void *frame, unsigned long n);
void notice_send(const char *url, const char *id, unsigned rank, unsigned world, int status);
/* A failure, with when to try again. */
void notice_send_refused(const char *url, const char *id, int status, unsigned retry_ms);
void notice_send_legacy(const char *url, const char *type, const char *id);

#endif
