/* SPDX-License-Identifier: Apache-2.0 */
/* How a family of engines wants to be told about a hand-off, as data. The table is dialects.c: who
 * is asked first, what each leg's body and headers hold besides the client's, what of the prefill
 * engine's answer goes on to the decode engine, what must be known of the engine beforehand, and
 * how a hand-off that nobody will use is given back. Nothing else in the proxy knows a dialect by
 * its name.
 *
 * Templates are text with slots: ${x} is replaced by a JSON value, $(x) by bare text.
 *
 *   req_id  uuid  hex  notice_addr  traceparent  kv_wait_ms      of the attempt
 *   p.host  p.port  p.url_host  p.zmq  p.handshake  p.notify  p.bootstrap  p.tp  p.dp
 *   d.host  ...  d.init_ports  d.alloc_ports      of its prefill and its decode engine
 *   answer          what the prefill engine's answer has under answer_key, byte for byte
 *   answer.NAME     one member of it; null where there is none
 *   learnt.NAME     a member of what was learnt of the prefill engine before
 *   rank.NAME       a member of what was learnt of the rank that the attempt uses there
 *   rank            its number, when the engine has several; else nothing
 *   dp_rank_member  likewise, as a further member: ,"remote_dp_rank":N
 *   room            a random number of 63 bits that leaves rank when divided by p.dp
 *
 * ${x|TEXT} is TEXT where x would be null. ${x[]} is an array with one x for each of the body's
 * sequences when it has several.
 *
 * Thread rule: any thread (constant data). */
#ifndef BT_PROXY_DIALECT_H
#define BT_PROXY_DIALECT_H
#include "core/strbuf.h"
#include "http/jsonscan.h"
#include "proxy/worker.h"

#include <stdbool.h>

typedef enum { BT_MODE_EARLY_FIRST_TOKEN, BT_MODE_DECODE_FIRST, BT_N_MODES } bt_mode;
typedef enum { BT_ENGINES_BATON, BT_ENGINES_LMCACHE, BT_N_ENGINES } bt_engines;
typedef enum { BT_LEG_PREFILL, BT_LEG_DECODE, BT_N_LEGS } bt_leg;

typedef enum {
    BT_DIALECT_LMCACHE_PD,
    BT_DIALECT_NIXL_PULL,
    BT_DIALECT_NIXL_PUSH,
    BT_DIALECT_MOONCAKE,
    BT_DIALECT_MOONCAKE_BOOTSTRAP,
    BT_DIALECT_MOONCAKE_WHEEL,
    BT_DIALECT_MORIIO_READ,
    BT_DIALECT_MORIIO_WRITE,
    BT_DIALECT_MORIIO_PORTS_READ,
    BT_DIALECT_MORIIO_PORTS_WRITE,
    BT_DIALECT_P2P_NCCL,
    BT_DIALECT_SGLANG,
    BT_DIALECT_SHARED_STORE,
    BT_DIALECT_TRTLLM,
    BT_N_DIALECTS
} bt_dialect_id;
_Static_assert((int)BT_N_DIALECTS <= (int)BT_MAX_DIALECTS, "a pool has a mask for each");

typedef enum {
    BT_SIGNAL_NONE,   /* the decode leg follows the prefill leg's answer */
    BT_SIGNAL_NOTICES /* the decode leg waits for a notice of every rank */
} bt_signal;

typedef enum {
    BT_ORDER_SERIAL,   /* the prefill leg's answer comes first */
    BT_ORDER_TOGETHER, /* both legs at once: the engines wait for each other */
} bt_order;

/* How what templates call `learnt` becomes known. It is forgotten when an attempt fails, since an
 * engine that has been restarted is another one. */
typedef enum {
    BT_LEARN_NOTHING,
    BT_LEARN_QUERY,  /* GET /query at the bootstrap port: an object per data-parallel rank */
    BT_LEARN_ANSWER, /* from any answer of the engine: until there is one, legs are serial */
} bt_learn;

/* What becomes of a body that makes several sequences. */
typedef enum {
    BT_SEVERAL_CHOICES, /* several choices of one prompt are handed over, several prompts are not */
    BT_SEVERAL_PROMPTS, /* the other way round, and a decode engine alone cannot do it either */
    BT_SEVERAL_NEVER,   /* one hand-off, one sequence: the rest goes to a decode engine alone */
    BT_SEVERAL_ALWAYS,  /* handed over as any other */
} bt_several;

/* One member that a leg's body gets: replaces the client's, or is added at the end. */
typedef struct {
    const char *key;    /* one of bodyplan.c's */
    const char *value;  /* template */
    bool only_if_there; /* only where the client's body has the key */
} bt_dialect_member;

enum { BT_LEG_MAX_MEMBERS = 6, BT_MAX_NEEDED = 4 };
typedef struct {
    bt_dialect_member members[BT_LEG_MAX_MEMBERS]; /* up to the first without a key */
    bool is_whole;   /* the client's body as it is, not limited to one token */
    bool names_rank; /* header X-data-parallel-rank, where the engine has several */
} bt_dialect_leg;

typedef struct {
    bt_dialect_id id;
    const char *name;
    bt_mode mode; /* EARLY: the prefill engine's token can be sent at once */
    bt_engines engines;
    bt_order order;
    bt_signal signal;
    bt_learn learn;
    bt_several several;
    bt_dialect_leg legs[BT_N_LEGS];
    const char *params_no_ports; /* instead of the prefill leg's first member, where the decode
                                    engine's receiver ports are not known; "": none */
    const char *request_id;      /* template of both legs' X-Request-Id; NULL: the client's own */
    /* What the prefill engine's answer gives to the decode leg. */
    const char *answer_key;              /* NULL: nothing */
    bool is_in_choice;                   /* in choices[0], not beside choices */
    const char *needed[BT_MAX_NEEDED];   /* members that may not be missing, null or empty */
    const char *set_key, *set_value;     /* a member of it that is changed */
    const char *host_key;                /* a member that a worker's kv_host replaces */
    const char *abort_path, *abort_body; /* POST to end a leg whose connection is closed */
    bool is_over_at_stop;      /* an answer that has ended already (EOS) hands nothing over */
    bool answers_questions;    /* receivers understand STATUS and RELEASE (docs/protocol.md) */
    bool decode_needs_prefill; /* a decode engine cannot compute a prompt itself */
    bool needs_zmq;            /* both engines' zmq= must be given */
    bool needs_side_ports;     /* likewise handshake= and notify= */
} bt_dialect;

/* The dialect in the form that serves mode, if it has one, and engines. Never NULL. */
const bt_dialect *bt_dialect_find(bt_dialect_id id, bt_mode mode, bt_engines engines);
/* "nixl-pull", ... Errors: NOT_FOUND, which names all. */
baton_status bt_dialect_parse(const char *name, bt_dialect_id *id);
/* The engine's options are what its dialect needs. Errors: INVALID_ARG. */
baton_status bt_dialect_check(const bt_worker_address *engine, const char *text);

enum { BT_UUID_CHARS = 36 };
/* A random UUID (version 4) into out[BT_UUID_CHARS + 1]. */
void bt_uuid_make(char *out);

typedef struct {
    const char *req_id; /* of the attempt */
    const char *uuid;   /* [BT_UUID_CHARS], of the attempt */
    const bt_worker_address *prefill, *decode;
    const char *notice_addr;
    const char *traceparent; /* W3C Trace Context */
    uint32_t kv_wait_ms; /* from the end of the prompt's computing on; then nobody waits any more */
    bt_json_value answer; /* ABSENT: not yet, or nothing */
    bt_json_value learnt; /* likewise */
    const char *rank;     /* decimal; NULL or "": the prefill engine has one only */
    uint64_t room;
    uint32_t n_sequences; /* 0: one, and not in a list */
} bt_dialect_values;

/* The members of one leg's body, filled in. Zeroed before its first use. */
typedef struct {
    bt_strbuf text; /* all values */
    size_t n;
    struct {
        const char *key;
        size_t at, n; /* in text */
        bool only_if_there;
    } values[BT_LEG_MAX_MEMBERS];
} bt_leg_members;

/* Replaces *out. Members whose value is empty, and those of an answer that gave nothing, are left
 * out. Errors: NO_MEMORY. */
baton_status bt_dialect_fill(const bt_dialect *dialect, bt_leg leg, const bt_dialect_values *values,
                             bt_leg_members *out);
/* A number for `room`. */
uint64_t bt_room_make(uint32_t rank, uint32_t n_ranks);
/* What an engine said when asked (BT_LEARN_QUERY): one object per rank, each with an engine_id.
 * Errors: BAD_MESSAGE. */
baton_status bt_dialect_check_query(const char *json, size_t n, bt_json_value *ranks);
/* Appends one template, filled in. */
void bt_dialect_put(const char *text, const bt_dialect_values *values, bt_strbuf *out);
/* What the prefill engine's answer json[n] hands on, into *out, which *value borrows: type ABSENT
 * when it is missing or something that is needed is missing in it. kv_host NULL or "": the answer's
 * own. False: it lacks what it should have. */
bool bt_dialect_take_answer(const bt_dialect *dialect, const char *json, size_t n,
                            const char *kv_host, bt_strbuf *out, bt_json_value *value);

#endif
