/* SPDX-License-Identifier: Apache-2.0 */
/* One request from arrival to answer.
 *
 *   NEW --text or chat, early--> TOKENIZE --.
 *    |--ids, or decode-first----------------+-> PREFILL --answer--> KV_WAIT --ready--> DECODE
 *    |                                             `--a dialect without notices-------->^
 *    `--several prompts in one body, /tokenize, ...------------------------------------>^
 *
 * Before PREFILL a request may be in ROOM_WAIT, until a decode engine has room for its KV. PREFILL,
 * KV_WAIT and DECODE go back to PREFILL for another attempt.
 * Every state but NEW may go to ENDED: by a failure, or because the client left. An attempt is one
 * pass through PREFILL, KV_WAIT and DECODE with one id, one prefill and one decode engine. A failed
 * attempt is made again with a fresh id, on other engines where there are any, as long as nothing
 * of the decode engine's answer has gone out. A first token that went out stays: the next attempt
 * hands the prompt's KV over again, and its decode leg goes on behind that token.
 *
 * Thread rule: owner thread (the loop's). */
#ifndef BT_PROXY_PROXYREQUEST_H
#define BT_PROXY_PROXYREQUEST_H
#include "proxy/answermerge.h"
#include "proxy/proxyloop.h"
#include "proxy/proxytrace.h"

typedef enum {
    BT_REQ_NEW,
    BT_REQ_TOKENIZE,
    BT_REQ_ROOM_WAIT,
    BT_REQ_PREFILL,
    BT_REQ_KV_WAIT,
    BT_REQ_DECODE,
    BT_REQ_ENDED,
    BT_N_REQ_STATES
} bt_req_state;

/* Why an attempt ends. The code is contract (docs/proxy.md), the text is for people. */
typedef struct {
    unsigned status;      /* HTTP status for the client, if this is the end */
    const char *code;     /* "prefill_timeout" */
    const char *text;     /* no addresses: clients read it */
    bt_leg leg;           /* at fault */
    bool may_retry;       /* another attempt could do better */
    bool is_engine_fault; /* counts against the engine */
    bool is_unreachable;  /* ... which is then avoided until it is healthy */
    bool is_kv;           /* the hand-off failed: nobody knows which side is at fault */
    bool is_free;         /* another attempt is none of --retries: this one was refused at once */
    unsigned retry_after; /* seconds for the client; 0: none */
} bt_req_failure;

/* Why an engine was chosen, and how busy it was then. */
typedef struct {
    const char *why; /* NULL: none chosen yet */
    uint32_t n_candidates, legs;
    bt_burden load;
    uint64_t matched_tokens;
    bool is_warm; /* with the decode engine chosen */
} bt_explained;

/* The prefill leg where it runs beside the decode leg (besideleg.c). */
typedef struct {
    bt_http_call *call; /* NULL: not under way */
    bt_leg_body *body;  /* NULL: never */
    unsigned status;
    char type[64], retry_after[16];
    bt_strbuf collected;
    bool is_cut;
    uint64_t heard_ms;
} bt_beside;

enum { BT_REQ_MAX_COLLECTED_BYTES = 16 << 20 };

typedef struct bt_req {
    bt_proxy_loop *pl;
    bt_http_request *http;
    struct bt_req *prev, *next;
    bt_req_state state;
    bt_route_id route;
    const char *path;          /* of the decode leg, when its body is the client's own */
    const bt_dialect *dialect; /* NULL: one leg only, relayed */
    bt_body_plan *plan;        /* NULL: one leg only */
    bool is_early;             /* the prefill engine's token comes first */
    bool has_emitted;          /* ... and has been sent */
    bool has_begun, is_sse;    /* the answer to the client */
    bool has_relayed;          /* some of the decode engine's answer has gone out */
    bool is_done_seen;         /* [DONE] of the decode engine */
    bool is_merging;           /* its events are being merged */
    bool is_paused;
    bool is_kv_at_risk; /* receivers may hold KV for the attempt */
    bool is_retry_of_kv;
    uint32_t retries_left;
    uint64_t arrived_ns; /* also once http is finished */
    uint64_t phase_start_ns;
    uint64_t allowed[BT_N_LEGS];          /* bit per engine: of the request's dialect */
    uint64_t tried_prefill, tried_decode; /* likewise, of those */
    uint64_t too_small;                   /* decode engines whose pool the prompt's KV never fits */
    int prefill_idx, decode_idx;          /* this attempt's engines, -1: none */
    bool is_on_prefill, is_on_decode;     /* counted in their load */
    bt_burden burden[BT_N_LEGS];          /* ... as this */
    bool is_explained;                    /* the client asked why they were chosen */
    bt_explained explained[BT_N_LEGS];    /* this is why, if so */
    uint64_t limit;                       /* tokens to make in all; 0: none said */
    bt_timer *room_timer; /* NULL: not in the loop's line for room at a decode engine */
    struct bt_req *line_prev, *line_next;
    uint64_t line_number;
    bool has_turn; /* was the first in line, and there is room */
    bt_timer *timer;
    uint64_t kv_deadline_ms;
    bt_http_call *call; /* the leg under way */
    bt_leg call_leg;
    uint64_t heard_ms; /* of the loop's clock: when the call began, or bytes came */
    unsigned call_status;
    char call_type[64]; /* its content type, for relayed errors */
    char retry_after[16];
    char request_id[40];
    bt_traceparent trace;
    bool is_trace_given; /* by the client, and valid */
    char traceparent[BT_TRACEPARENT_CHARS + 1];
    uint64_t at_ns[BT_N_AT]; /* of this attempt; 0: not yet */
    bool is_trace_ended;     /* this attempt's */
    bt_kv_entry kv;
    bt_leg_body *leg;             /* body of the leg under way */
    bt_leg_members members;       /* what the dialect adds to it */
    bt_strbuf leg_id;             /* X-Request-Id of the attempt's legs; empty: the client's */
    char uuid[BT_UUID_CHARS + 1]; /* of the attempt */
    bt_json_value answer;         /* what the prefill engine hands on; borrows answer_json */
    bt_strbuf answer_json;
    bool is_together;  /* the attempt's legs run at once */
    bool is_head_held; /* the decode engine's events have not begun: nothing is sent before them */
    bt_beside beside;
    bt_leg_members decode_members; /* what the dialect adds to the decode leg */
    bt_strbuf authorization;       /* the client's, where it is needed after its request is gone */
    char rank[8];                  /* of the prefill engine, decimal; "": it has one only */
    uint32_t rank_number;
    uint64_t room;
    bt_strbuf ids;        /* the prompt as a JSON array; one more number once the first is known */
    size_t n_open_ids;    /* bytes of it without first token and closing bracket */
    bt_strbuf collected;  /* body of an answer that is looked at as a whole */
    bool is_cut;          /* collected was longer than allowed */
    bt_strbuf first_json; /* the prefill engine's answer */
    bt_prefill_answer first;
    bt_merge merge;
    bt_strbuf out; /* events being written */
    bt_sse *sse;
    char tail[16]; /* last bytes relayed, to see [DONE] and open events */
    size_t n_tail;
} bt_req;

/* Takes a completion or chat request over, or answers it when it cannot be read. */
void bt_req_start(bt_proxy_loop *pl, bt_http_request *http, bt_route_id route);
/* Relays a request as it is to one prefill engine (/tokenize, /detokenize). */
void bt_req_start_single(bt_proxy_loop *pl, bt_http_request *http, bt_route_id route);
/* What a notice that was matched with the entry makes of its request. */
void bt_req_on_notice(bt_kv_entry *entry, bt_heard result);
/* Ends all of the loop's requests, for shutdown. */
void bt_req_end_all(bt_proxy_loop *pl);

/* Between the files that make up a request. */
void bt_req_set_state(bt_req *req, bt_req_state state);
bt_worker *bt_req_worker(const bt_req *req, bt_leg leg);
bt_worker_pool *bt_req_pool(const bt_req *req, bt_leg leg);
/* Picks an engine for that leg and counts the request in its load, until bt_req_leave_worker.
 * False: none is left, and the request has ended. */
bool bt_req_enter_worker(bt_req *req, bt_leg leg);
/* The same, but the request goes on. */
bool bt_req_choose_worker(bt_req *req, bt_leg leg);
/* What the leg brings to an engine that has seen so much of the prompt. */
bt_burden bt_req_burden(const bt_req *req, bt_leg leg, uint64_t matched_tokens);
/* room.c: a decode engine has room for the request's KV. False: it waits, and is attempted again
 * when there is some, or it has ended. */
bool bt_req_has_room(bt_req *req);
/* Bits of the decode engines that have none, while another has; must_wait: none has. */
uint64_t bt_req_full_engines(const bt_req *req, uint64_t tried, bool *must_wait);
/* A leg has left a decode engine: who waits may look. */
void bt_req_free_room(const bt_req *req);
/* It does not wait for room any more, if it did. */
void bt_req_leave_line(bt_req *req);
/* The decode side may as well compute the prompt itself: little of it is new there. */
bool bt_req_is_local(const bt_req *req, bt_bypass_reason *reason);
bool bt_req_wants_explanation(const bt_req *req);
void bt_req_leave_worker(bt_req *req, bt_leg leg);
/* The engine of that leg answers: no token of the prompt is to be computed there any more, and a
 * decode engine has the KV of its prefill engine. */
void bt_req_note_answers(bt_req *req, bt_leg leg);
/* Some engine of that leg has not failed the request yet. */
bool bt_req_has_untried(const bt_req *req, bt_leg leg);
/* Tells engines that would go on with a leg although its connection is closed. Before that. */
void bt_req_tell_engines(const bt_req *req);
/* Drops what is under way, and gives back what is held for the attempt. */
void bt_req_leave_attempt(bt_req *req);
/* Starts a call to the attempt's engine of that leg, with the client's headers. path, slices and
 * ops are borrowed until its end. A failure to start ends the request. */
typedef struct {
    bt_leg leg;
    const char *method; /* NULL: POST */
    uint16_t port;      /* 0: the engine's */
    const char *path;
    const bt_slice *body;
    size_t n_body;
    uint32_t first_byte_ms, gap_ms, total_ms; /* 0: no own limit */
    const bt_http_call_ops *ops;
} bt_req_call;
void bt_req_call_start(bt_req *req, const bt_req_call *call);
/* The same for a call that is not the leg under way; *call_p is it. Errors: as
 * bt_http_client_start. */
baton_status bt_req_call_open(bt_req *req, const bt_req_call *call, bt_http_call **call_p);
/* Drops the call under way; its on_done finds that it is not the request's any more. */
void bt_req_call_drop(bt_req *req);
/* Collects bytes up to the cap. */
void bt_req_collect(bt_req *req, const char *bytes, size_t n);
/* Notes status, content type and retry-after of an answer's head. */
void bt_req_note_head(bt_req *req, unsigned status, bt_http_headers headers);

/* What a front end says of the prefill engine (--prefiller-header): which may have the request, and
 * what then speaks their dialect. */
typedef enum { BT_FRONT_NONE, BT_FRONT_NAMED, BT_FRONT_DECODE_ALONE, BT_FRONT_UNKNOWN } bt_front;
bt_front bt_req_front(const bt_req *req, uint64_t *named);

/* Ends the attempt: tries again when that is allowed, or tells the client and ends the request. */
void bt_req_fail(bt_req *req, const bt_req_failure *failure);
/* The failure that a call's result stands for; its text lives as long as result. */
bt_req_failure bt_req_failure_of(const bt_req *req, bt_leg leg, const bt_http_result *result);
/* Handles an answer that is no 200: passes a 4xx on, else fails the attempt. */
void bt_req_bad_answer(bt_req *req, bt_leg leg);
/* Ends the request after its answer has been sent; code is what the client saw. */
void bt_req_finish(bt_req *req, unsigned code);
/* Milliseconds of the total deadline that are left, at least 1. */
uint32_t bt_req_left_ms(const bt_req *req);
/* First byte to the client: notes the time once. */
void bt_req_note_begun(bt_req *req);

/* Names a fresh attempt on the engines that were entered, and fills in what its dialect adds to the
 * prefill leg. Errors: NO_MEMORY. */
baton_status bt_req_name_attempt(bt_req *req);
/* Takes what the prefill engine's whole answer hands on, for the decode leg's body. Errors:
 * NO_MEMORY. */
baton_status bt_req_take_answer(bt_req *req);

/* What the attempt's templates are filled in with. */
bt_dialect_values bt_req_values(const bt_req *req);

/* Learning about the attempt's prefill engine. False: it is being asked, and bt_req_attempt_legs or
 * a failure follows. */
bool bt_req_learn(bt_req *req);
/* What is known of it; ABSENT: nothing. Borrowed until the next answer. */
bt_json_value bt_req_learnt(const bt_req *req);
/* Takes constants from its answer, if the dialect wants some. False: they have changed. */
bool bt_req_learn_from_answer(bt_req *req, const bt_strbuf *answer, bool is_cut);
void bt_req_unlearn(bt_req *req);
/* Picks the data-parallel rank that the attempt uses there. */
void bt_req_pick_rank(bt_req *req);

/* The prefill leg beside the decode leg. Errors: NO_MEMORY, and those of a call. */
baton_status bt_req_beside_start(bt_req *req);
void bt_req_beside_drop(bt_req *req);
void bt_req_beside_free(bt_req *req);

/* Legs. */
void bt_req_tokenize(bt_req *req);
void bt_req_attempt(bt_req *req);
/* The same, with the engines entered and known. */
void bt_req_attempt_legs(bt_req *req);
/* The prefill engine is done, so that the decode engine's first byte is due. */
void bt_req_await_first_byte(bt_req *req);
/* It did not come. */
void bt_req_fail_first_byte(bt_req *req);
void bt_req_decode(bt_req *req);
/* The prompt's ids and the first token, as a JSON array. */
bt_slice bt_req_ids_with_first(bt_req *req);
/* The prefill engine has answered and the KV may be there: decode, or wait for notices. */
void bt_req_await_kv(bt_req *req);
/* The prompt's KV never fits the pool of the attempt's decode engine, which says so in text. */
void bt_req_fail_too_large(bt_req *req, const char *text);
/* Writes to the client and pauses the call when the client is slow. False: the request has ended.
 */
bool bt_req_write(bt_req *req, const char *bytes, size_t n);
bool bt_req_begin_events(bt_req *req);

#endif
