/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/proxyflags.h"
#include "core/fail.h"
#include "http/httpmsg.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Clients. */
#define LMCACHE "As LMCache's proxy has it: "
static const bt_args_option flags[] = {
    {"Clients", "host", "ADDRESS", "localhost", "Where to listen for HTTP.", false},
    {NULL, "port", "PORT", "8000", "Port to listen on; 0 takes a free one.", false},
    {NULL, "threads", "N", "0", "Event loops; 0: one per core, at most 8.", false},
    {NULL, "max-inflight", "N", "4096", "Requests at once; above, 503 and Retry-After.", false},
    {NULL, "max-body", "MIB", "64", "Largest request body, in MiB; above, 413.", false},
    {NULL, "api-keys", "FILE", NULL,
     "Keys, one a line: a request must show one (Authorization: Bearer KEY), or gets 401.", false},
    {NULL, "tls-certificate", "FILE", NULL, "Speak TLS: a certificate chain (PEM).", false},
    {NULL, "tls-key", "FILE", NULL, "Its key [in the same file].", false},
    {NULL, "tls-client-ca", "FILE", NULL,
     "Clients must show a certificate that one of these authorities signed.", false},
    {"Engines", "prefill", "URL", NULL,
     "A prefill engine, http://host:port[,OPTION...] or https://...: dialect=NAME [--dialect], and "
     "what that "
     "needs "
     "(docs/proxy.md, Dialects): zmq=HOST:PORT, bootstrap=PORT, handshake=PORT, notify=PORT, tp=N, "
     "dp=N, "
     "kv_host=HOST (said to the other engine instead of the host that this one's answers name).",
     true},
    {NULL, "decode", "URL", NULL,
     "A decode engine, likewise, or http://host:port[,init=PORT...][,alloc=PORT...]: its "
     "receivers' ports, one per rank. Without them no notice is waited for.",
     true},
    {NULL, "dialect", "NAME", "lmcache-pd",
     "How engines that name no own one are told about a hand-off: lmcache-pd, nixl-pull, "
     "nixl-push, mooncake, mooncake-bootstrap, mooncake-wheel, moriio-read, moriio-write, "
     "moriio-ports-read, moriio-ports-write, p2p-nccl, sglang, shared-store or trtllm.",
     false},
    {NULL, "prefiller-host", "HOST,...", "localhost", LMCACHE "hosts of the prefill engines.",
     false},
    {NULL, "prefiller-port", "PORT,...", "8100", LMCACHE "one port is the first's, +1 each.",
     false},
    {NULL, "num-prefillers", "N", "1", LMCACHE "how many, for one host and one port.", false},
    {NULL, "decoder-host", "HOST,...", "localhost", LMCACHE "hosts of the decode engines.", false},
    {NULL, "decoder-port", "PORT,...", "8200", LMCACHE "one port is the first's, +1 each.", false},
    {NULL, "num-decoders", "N", "1", LMCACHE "how many, for one host and one port.", false},
    {NULL, "decoder-init-port", "PORT,...", "8300",
     LMCACHE "receivers' init ports, one per rank; +1 for each next engine of num-decoders.",
     false},
    {NULL, "decoder-alloc-port", "PORT,...", "8400", LMCACHE "likewise, alloc ports.", false},
    {NULL, "engine-ca", "FILE", NULL,
     "Who may have signed the certificates of engines with https [the system's authorities].",
     false},
    {NULL, "engine-certificate", "FILE", NULL, "Shown to engines with https that ask.", false},
    {NULL, "engine-key", "FILE", NULL, "Its key [in the same file].", false},
    {"Hand-off", "mode", "MODE", "early-first-token",
     "Who makes the first token: early-first-token (the prefill engine, sent at once) or "
     "decode-first (the decode engine makes all; bodies that need it get it in both modes).",
     false},
    {NULL, "chat-mode", "MODE", NULL, "The same for chat [as --mode].", false},
    {NULL, "engines", "KIND", "baton",
     "baton, or lmcache: engines that know no notice_addr, STATUS and RELEASE.", false},
    {NULL, "prefill-policy", "POLICY", "round_robin",
     "Which prefill engine: round_robin, random, power_of_two (the less loaded of two drawn), "
     "least_loaded (by prompt tokens queued there), consistent_hash (a session stays at an engine) "
     "or prefix_aware (as least_loaded, less what the engine has seen of the prompt).",
     false},
    {NULL, "decode-policy", "POLICY", "round_robin",
     "Which decode engine; the same (by tokens whose KV is held there).", false},
    {NULL, "prefiller-header", "NAME", NULL,
     "The header in which a front end (llm-d: x-prefiller-host-port) names the prefill engine, or "
     "several to choose from, host:port,...; a request without it goes to a decode engine alone.",
     false},
    {NULL, "session-header", "NAME", "X-Session-Id",
     "consistent_hash: the request header that names the session; without it, least_loaded.",
     false},
    {NULL, "prefix-memory", "MIB", "16",
     "prefix_aware: most memory for what engines have seen, in MiB, for each role.", false},
    {NULL, "prefix-window", "TOKENS", "16384",
     "prefix_aware: an engine busier than the least busy one by more is not preferred.", false},
    {NULL, "decode-room", "TOKENS", "0",
     "Tokens of KV that one decode engine can hold; a request for which none has room waits, "
     "before "
     "prefill begins (--room-ms). 0: not known, nothing waits.",
     false},
    {NULL, "cold-pair", "TOKENS", "0",
     "What the first hand-off of a prefill and a decode engine costs, as tokens of load: where "
     "load "
     "is compared, a prefill engine that the decode engine knows is preferred for as much.",
     false},
    {NULL, "local-below", "TOKENS", "0",
     "A prompt of which a decode engine would compute fewer tokens than this (prefix_aware: those "
     "that it has not seen) goes to it alone; 0: none.",
     false},
    {NULL, "local-queue", "TOKENS", "8192",
     "... while a decode engine has no more than this to compute, the prompt included.", false},
    {NULL, "explain", NULL, NULL,
     "A request with X-Baton-Explain: 1 is told, in X-Baton-Route of its answer, which engines it "
     "got, why, and how busy they were. Names engines: not for clients who must not know them.",
     false},
    {NULL, "notices", "N|auto", "auto",
     "How many notices make a hand-off ready; auto: one of every rank; 0: do not wait.", false},
    {NULL, "proxy-host", "ADDRESS", "localhost", "Where to listen for notices (ZMQ).", false},
    {NULL, "proxy-port", "PORT", "8500", "Port for notices; 0 takes a free one.", false},
    {NULL, "notice-address", "URL", NULL,
     "Where engines reach that, tcp://host:port [tcp://proxy-host:proxy-port].", false},
    {NULL, "key-file", "FILE", NULL,
     "The proxy's secret key (baton-keygen), with the next two. Receivers must let it in.", false},
    {NULL, "receiver-key", "FILE", NULL, "The receivers' public key.", false},
    {NULL, "clients-path", "FOLDER", NULL,
     "Public keys (*.pub) of the senders and receivers whose notices are heard.", false},
    {NULL, "allow-unauthenticated", NULL, NULL,
     "Without keys, listen for notices at other addresses than loopback: whoever reaches the port "
     "may then end requests.",
     false},
    {NULL, "retries", "N", "1", "Attempts after the first, before any byte of decode's answer.",
     false},
    {"Deadlines", "connect-ms", "MS", "1000", "Connecting to an engine (connect_timeout).", false},
    {NULL, "tokenize-ms", "MS", "2000", "/tokenize (tokenize_timeout).", false},
    {NULL, "room-ms", "MS", "30000", "Until a decode engine has --decode-room (overloaded).",
     false},
    {NULL, "prefill-ms", "MS", "300000", "Prefill, queue included (prefill_timeout).", false},
    {NULL, "kv-wait-ms", "MS", "30000", "From its answer to the last notice (kv_timeout).", false},
    {NULL, "first-byte-ms", "MS", "60000", "Decode's first byte (first_byte_timeout).", false},
    {NULL, "gap-ms", "MS", "60000", "Between two reads of its answer (gap_timeout).", false},
    {NULL, "total-ms", "MS", "3600000", "The whole request (total_timeout).", false},
    {NULL, "status-after-ms", "MS", "1000", "A notice this late is asked for, repeatedly.", false},
    {NULL, "probe-ms", "MS", "1000",
     "An unreachable engine is avoided, and asked for /health this often, until it answers.",
     false},
    {NULL, "silent-ms", "MS", "5000",
     "An engine that owes an answer and has said nothing for --probe-ms is asked for /health; "
     "without any answer in this time it is taken for stopped (prefill_silent, decode_silent).",
     false},
    {NULL, "drain-ms", "MS", "180000", "Running requests may take this long after SIGTERM.", false},
    {"Other", "admin", "WHERE", "auto",
     "Where baton-ctl asks what goes on: auto (a Unix socket of this user's in "
     "$XDG_RUNTIME_DIR/baton, else /tmp/baton-UID), off, unix:PATH, or 127.0.0.1:PORT.",
     false},
    {NULL, "log-level", "LEVEL", "info", "error, warn, info, debug or trace.", false},
};

const bt_args_spec bt_proxy_args_spec = {
    .program = "baton-proxy",
    .summary =
        "Answers OpenAI requests from prefill and decode engines that hand the KV cache over.",
    .options = flags,
    .n_options = sizeof(flags) / sizeof(flags[0]),
};

static baton_status read_number(const bt_args *args, const char *name, uint64_t min, uint64_t max,
                                uint64_t *out)
{
    const char *text = bt_args_value(args, name);
    char *end;
    unsigned long long value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != 0 || value < min || value > max)
        return bt_fail(BATON_ERR_OUT_OF_RANGE, "--%s: wanted %llu to %llu, found \"%s\"", name,
                       (unsigned long long)min, (unsigned long long)max, text);
    *out = value;
    return BATON_OK;
}

static baton_status read_u32(const bt_args *args, const char *name, uint32_t min, uint32_t max,
                             uint32_t *out)
{
    uint64_t value;
    BATON_TRY(read_number(args, name, min, max, &value));
    *out = (uint32_t)value;
    return BATON_OK;
}

static baton_status read_u16(const bt_args *args, const char *name, uint16_t *out)
{
    uint64_t value;
    BATON_TRY(read_number(args, name, 0, UINT16_MAX, &value));
    *out = (uint16_t)value;
    return BATON_OK;
}

/* Index of the value among the words, which end with NULL. */
static baton_status read_word(const bt_args *args, const char *name, const char *const *words,
                              unsigned *out)
{
    const char *text = bt_args_value(args, name);
    for (unsigned i = 0; words[i] != NULL; i++) {
        if (strcmp(words[i], text) == 0) {
            *out = i;
            return BATON_OK;
        }
    }
    return bt_fail(BATON_ERR_INVALID_ARG, "--%s: wanted %s or %s, found \"%s\"", name, words[0],
                   words[1], text);
}

static baton_status read_policy(const bt_args *args, const char *name, bt_policy *out)
{
    const char *text = bt_args_value(args, name);
    char known[256] = "";
    size_t n = 0;
    for (unsigned i = 0; bt_policy_name(i) != NULL; i++) {
        if (strcmp(bt_policy_name(i), text) == 0) {
            *out = (bt_policy)i;
            return BATON_OK;
        }
        n += (size_t)snprintf(known + n, sizeof(known) - n, "%s%s", i == 0 ? "" : ", ",
                              bt_policy_name(i));
    }
    return bt_fail(BATON_ERR_INVALID_ARG, "--%s: wanted one of %s, found \"%s\"", name, known,
                   text);
}

/* Lists. */

/* Copies the next comma-separated piece; false at the end. Pieces that do not fit come out cut. */
static bool next_piece(const char **at, char *piece, size_t cap)
{
    if (**at == 0)
        return false;
    size_t n = strcspn(*at, ",");
    snprintf(piece, cap, "%.*s", (int)n, *at);
    *at += n;
    if (**at == ',')
        (*at)++;
    return true;
}

static bool is_port(const char *text, uint16_t *port)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    *port = (uint16_t)value;
    return text[0] >= '0' && text[0] <= '9' && *end == 0 && value > 0 && value <= UINT16_MAX;
}

static baton_status read_ports(const bt_args *args, const char *name, uint16_t *ports, uint32_t *n)
{
    const char *at = bt_args_value(args, name);
    char piece[64];
    *n = 0;
    while (next_piece(&at, piece, sizeof(piece))) {
        if (*n == BT_MAX_RANKS || !is_port(piece, &ports[*n]))
            return bt_fail(BATON_ERR_INVALID_ARG, "--%s: wanted 1 to %d ports, found \"%s\"", name,
                           BT_MAX_RANKS, piece);
        ++*n;
    }
    if (*n == 0)
        return bt_fail(BATON_ERR_INVALID_ARG, "--%s: wanted a port, found none", name);
    return BATON_OK;
}

/* What stands behind an engine's URL. */
typedef struct {
    bt_worker_address *at;
    const char *text; /* the whole, for errors */
    uint32_t n_init, n_alloc;
    uint16_t *ports; /* the list that goes on with a bare number; NULL: none does */
    uint32_t *n;
} engine_reader;

static baton_status bad_option(const engine_reader *reader, const char *wanted, const char *piece)
{
    return bt_fail(BATON_ERR_INVALID_ARG, "engine: wanted %s, found \"%s\" in \"%s\"", wanted,
                   piece, reader->text);
}

static baton_status add_port(const engine_reader *reader, const char *piece)
{
    if (*reader->n == BT_MAX_RANKS || !is_port(piece, &reader->ports[*reader->n]))
        return bad_option(reader, "a port", piece);
    ++*reader->n;
    return BATON_OK;
}

static baton_status read_host(const engine_reader *reader, const char *value, char *out)
{
    size_t n = strlen(value);
    /* It becomes part of a header and of JSON, and other engines take it apart. */
    if (n == 0 || n >= BT_HOST_BYTES ||
        strspn(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:-_[]") != n)
        return bad_option(reader, "a host", value);
    memcpy(out, value, n + 1);
    return BATON_OK;
}

/* Commas separate options, so that ';' stands for those of an address in several parts. */
static baton_status read_zmq(const engine_reader *reader, const char *value, char *out)
{
    char plain[BT_HOST_BYTES];
    if (snprintf(plain, sizeof(plain), "%s", value) >= (int)sizeof(plain))
        return bad_option(reader, "a shorter address", value);
    for (char *at = plain; (at = strchr(at, ';')) != NULL;)
        *at = '-';
    BATON_TRY(read_host(reader, plain, out));
    for (size_t i = 0; value[i] != 0; i++)
        out[i] = value[i] == ';' ? ',' : value[i];
    return BATON_OK;
}

static baton_status read_count(const engine_reader *reader, const char *value, uint32_t *out)
{
    uint16_t count;
    if (!is_port(value, &count) || count > 1024)
        return bad_option(reader, "1 to 1024 ranks", value);
    *out = count;
    return BATON_OK;
}

static baton_status read_port(const engine_reader *reader, const char *value, uint16_t *out)
{
    return is_port(value, out) ? BATON_OK : bad_option(reader, "a port", value);
}

static baton_status read_dialect(const char *value, unsigned *out)
{
    bt_dialect_id id;
    BATON_TRY(bt_dialect_parse(value, &id));
    *out = id;
    return BATON_OK;
}

/* One "name=value", or a further port of the list before it. */
static baton_status read_option(engine_reader *reader, const char *piece)
{
    bt_worker_address *at = reader->at;
    const char *equals = strchr(piece, '=');
    bt_slice name = {piece, equals == NULL ? 0 : (size_t)(equals - piece)};
    const char *value = equals == NULL ? piece : equals + 1;
    if (equals == NULL && reader->n != NULL)
        return add_port(reader, value);
    reader->n = NULL;
    if (bt_slice_equals(name, "init"))
        reader->ports = at->init_ports, reader->n = &reader->n_init;
    else if (bt_slice_equals(name, "alloc"))
        reader->ports = at->alloc_ports, reader->n = &reader->n_alloc;
    if (reader->n != NULL)
        return add_port(reader, value);
    if (bt_slice_equals(name, "dialect"))
        return read_dialect(value, &at->dialect);
    if (bt_slice_equals(name, "zmq"))
        return read_zmq(reader, value, at->zmq);
    if (bt_slice_equals(name, "kv_host"))
        return read_host(reader, value, at->kv_host);
    if (bt_slice_equals(name, "bootstrap"))
        return read_port(reader, value, &at->bootstrap_port);
    if (bt_slice_equals(name, "handshake"))
        return read_port(reader, value, &at->handshake_port);
    if (bt_slice_equals(name, "notify"))
        return read_port(reader, value, &at->notify_port);
    if (bt_slice_equals(name, "tp"))
        return read_count(reader, value, &at->tp);
    if (bt_slice_equals(name, "dp"))
        return read_count(reader, value, &at->dp);
    return bad_option(
        reader,
        "init=, alloc=, dialect=, zmq=, kv_host=, bootstrap=, handshake=, notify=, tp= or dp=",
        piece);
}

/* One --prefill or --decode value, "http://host:8200,init=8300,8301,alloc=8400,8401" (ports per
 * rank). Errors: INVALID_ARG, NOT_FOUND. */
static baton_status parse_engine(const char *text, unsigned dialect, bt_worker_address *at)
{
    const char *rest = text;
    char piece[BT_HOST_BYTES + 32];
    engine_reader reader = {.at = at, .text = text};
    memset(at, 0, sizeof(*at));
    at->dialect = dialect;
    if (!next_piece(&rest, piece, sizeof(piece)))
        return bt_fail(BATON_ERR_INVALID_ARG, "engine: wanted a URL, found nothing");
    BATON_TRY(bt_http_parse_origin(piece, 80, at->host, sizeof(at->host), &at->port, &at->is_tls));
    while (next_piece(&rest, piece, sizeof(piece)))
        BATON_TRY(read_option(&reader, piece));
    if (reader.n_init != reader.n_alloc)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "engine: wanted as many init as alloc ports, found %u and %u in \"%s\"",
                       reader.n_init, reader.n_alloc, text);
    at->n_ranks = reader.n_init;
    return bt_dialect_check(at, text);
}

/* Engines, given by URL. */
static baton_status read_urls(const bt_args *args, const char *name, bt_worker_address *engines,
                              uint32_t *n)
{
    size_t count = bt_args_count(args, name);
    if (count > BT_MAX_WORKERS)
        return bt_fail(BATON_ERR_TOO_LARGE, "--%s: wanted at most %d, found %zu", name,
                       BT_MAX_WORKERS, count);
    unsigned dialect;
    BATON_TRY(read_dialect(bt_args_value(args, "dialect"), &dialect));
    for (size_t i = 0; i < count; i++)
        BATON_TRY(parse_engine(bt_args_nth(args, name, i), dialect, &engines[i]));
    *n = (uint32_t)count;
    return BATON_OK;
}

/* Hosts and ports as LMCache pairs them: one of each and a count: ports go up; one host: a port
 * each; one port: the same for every host; else pairwise. */
static baton_status pair(const bt_args *args, const char *const names[3],
                         bt_worker_address *engines, uint32_t *n_out, bool *is_counted)
{
    uint16_t ports[BT_MAX_RANKS];
    uint32_t n_ports, n_hosts = 0, count;
    char host[BT_HOST_BYTES], first_host[BT_HOST_BYTES] = "";
    const char *hosts = bt_args_value(args, names[0]);
    BATON_TRY(read_ports(args, names[1], ports, &n_ports));
    BATON_TRY(read_u32(args, names[2], 1, BT_MAX_WORKERS, &count));
    for (const char *at = hosts; next_piece(&at, host, sizeof(host)); n_hosts++) {
        if (n_hosts == 0)
            memcpy(first_host, host, sizeof(host));
        if (n_hosts < BT_MAX_WORKERS)
            memcpy(engines[n_hosts].host, host, sizeof(host));
    }
    *is_counted = n_hosts == 1 && n_ports == 1 && count > 1;
    uint32_t n = *is_counted ? count : n_hosts > n_ports ? n_hosts : n_ports;
    if (n_hosts == 0 || n > BT_MAX_WORKERS || (n_hosts > 1 && n_ports > 1 && n_hosts != n_ports))
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "--%s, --%s: wanted as many hosts as ports, or one of either, found %u and "
                       "%u",
                       names[0], names[1], n_hosts, n_ports);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t port = n_ports == 1 ? ports[0] + (*is_counted ? i : 0) : ports[i];
        if (port > UINT16_MAX)
            return bt_fail(BATON_ERR_OUT_OF_RANGE, "--%s: port %u of engine %u is too high",
                           names[1], port, i);
        if (n_hosts == 1)
            memcpy(engines[i].host, first_host, sizeof(first_host));
        engines[i].port = (uint16_t)port;
    }
    *n_out = n;
    return BATON_OK;
}

/* The receivers' ports: the same for every engine, or one higher for each. */
static baton_status give_ports(const bt_args *args, bt_worker_address *engines, uint32_t n,
                               bool is_counted)
{
    uint16_t init[BT_MAX_RANKS], alloc[BT_MAX_RANKS];
    uint32_t n_init, n_alloc;
    BATON_TRY(read_ports(args, "decoder-init-port", init, &n_init));
    BATON_TRY(read_ports(args, "decoder-alloc-port", alloc, &n_alloc));
    if (n_init != n_alloc)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "--decoder-init-port, --decoder-alloc-port: wanted as many of both, found "
                       "%u and %u",
                       n_init, n_alloc);
    for (uint32_t i = 0; i < n; i++) {
        engines[i].n_ranks = n_init;
        for (uint32_t rank = 0; rank < n_init; rank++) {
            uint32_t up = is_counted ? i : 0;
            if (init[rank] + up > UINT16_MAX || alloc[rank] + up > UINT16_MAX)
                return bt_fail(BATON_ERR_OUT_OF_RANGE,
                               "--decoder-init-port: ports of engine %u are too high", i);
            engines[i].init_ports[rank] = (uint16_t)(init[rank] + up);
            engines[i].alloc_ports[rank] = (uint16_t)(alloc[rank] + up);
        }
    }
    return BATON_OK;
}

/* Engines that were given without URLs have --dialect's. */
static baton_status set_dialect(const bt_args *args, bt_worker_address *engines, uint32_t n)
{
    unsigned dialect;
    BATON_TRY(read_dialect(bt_args_value(args, "dialect"), &dialect));
    for (uint32_t i = 0; i < n; i++) {
        engines[i].dialect = dialect;
        BATON_TRY(bt_dialect_check(&engines[i], engines[i].host));
    }
    return BATON_OK;
}

static baton_status read_engines(const bt_args *args, bt_proxy_flag_room *room,
                                 bt_proxy_options *options)
{
    static const char *const prefill[] = {"prefiller-host", "prefiller-port", "num-prefillers"};
    static const char *const decode[] = {"decoder-host", "decoder-port", "num-decoders"};
    bool is_counted;
    memset(room, 0, sizeof(*room));
    if (bt_args_count(args, "prefill") > 0) {
        BATON_TRY(read_urls(args, "prefill", room->prefill, &options->n_prefill));
    } else {
        BATON_TRY(pair(args, prefill, room->prefill, &options->n_prefill, &is_counted));
        BATON_TRY(set_dialect(args, room->prefill, options->n_prefill));
    }
    if (bt_args_count(args, "decode") > 0) {
        BATON_TRY(read_urls(args, "decode", room->decode, &options->n_decode));
    } else {
        BATON_TRY(pair(args, decode, room->decode, &options->n_decode, &is_counted));
        BATON_TRY(give_ports(args, room->decode, options->n_decode, is_counted));
        BATON_TRY(set_dialect(args, room->decode, options->n_decode));
    }
    options->prefill = room->prefill;
    options->decode = room->decode;
    return BATON_OK;
}

static baton_status read_policies(const bt_args *args, bt_proxy_options *options)
{
    uint32_t mib;
    BATON_TRY(read_policy(args, "prefill-policy", &options->prefill_policy));
    BATON_TRY(read_policy(args, "decode-policy", &options->decode_policy));
    options->session_header = bt_args_value(args, "session-header");
    options->prefiller_header = bt_args_value(args, "prefiller-header");
    BATON_TRY(read_u32(args, "prefix-memory", 1, 65536, &mib));
    options->prefix_bytes = (size_t)mib << 20;
    BATON_TRY(read_number(args, "decode-room", 0, UINT64_C(1) << 40, &options->decode_room));
    BATON_TRY(read_number(args, "cold-pair", 0, UINT64_C(1) << 40, &options->cold_pair));
    BATON_TRY(read_number(args, "local-below", 0, UINT64_C(1) << 40, &options->local_below));
    BATON_TRY(read_number(args, "local-queue", 1, UINT64_C(1) << 40, &options->local_queue));
    return read_number(args, "prefix-window", 1, UINT64_C(1) << 40, &options->prefix_window);
}

static baton_status read_handoff(const bt_args *args, bt_proxy_options *options)
{
    static const char *const modes[] = {"early-first-token", "decode-first", NULL};
    static const char *const kinds[] = {"baton", "lmcache", NULL};
    unsigned mode, chat_mode, engines;
    BATON_TRY(read_word(args, "mode", modes, &mode));
    chat_mode = mode;
    if (bt_args_count(args, "chat-mode") > 0)
        BATON_TRY(read_word(args, "chat-mode", modes, &chat_mode));
    BATON_TRY(read_word(args, "engines", kinds, &engines));
    BATON_TRY(read_policies(args, options));
    options->mode = (bt_mode)mode;
    options->chat_mode = (bt_mode)chat_mode;
    options->engines = (bt_engines)engines;
    uint32_t notices = 0;
    bool is_auto = strcmp(bt_args_value(args, "notices"), "auto") == 0;
    if (!is_auto)
        BATON_TRY(read_u32(args, "notices", 0, BT_MAX_RANKS, &notices));
    options->explain = bt_args_count(args, "explain") > 0;
    options->notices = is_auto ? BT_NOTICES_AUTO : (int)notices;
    return read_u32(args, "retries", 0, 16, &options->retries);
}

static baton_status read_deadlines(const bt_args *args, bt_proxy_deadlines *ms)
{
    const struct {
        const char *name;
        uint32_t *value;
    } all[] = {{"connect-ms", &ms->connect},
               {"tokenize-ms", &ms->tokenize},
               {"room-ms", &ms->room},
               {"prefill-ms", &ms->prefill},
               {"kv-wait-ms", &ms->kv_wait},
               {"first-byte-ms", &ms->first_byte},
               {"gap-ms", &ms->gap},
               {"total-ms", &ms->total},
               {"status-after-ms", &ms->status_after},
               {"probe-ms", &ms->probe},
               {"silent-ms", &ms->silent},
               {"drain-ms", &ms->drain}};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        BATON_TRY(read_u32(args, all[i].name, 1, 86400000, all[i].value));
    return BATON_OK;
}

/* The HTTP server binds numeric addresses only. */
static const char *numeric(const char *host, char *room)
{
    snprintf(room, BT_HOST_BYTES, "%s", strcmp(host, "localhost") == 0 ? "127.0.0.1" : host);
    return room;
}

baton_status bt_proxy_flags_read(const bt_args *args, bt_proxy_flag_room *room,
                                 bt_proxy_options *options)
{
    uint32_t max_body_mib;
    memset(options, 0, sizeof(*options));
    BATON_TRY(read_engines(args, room, options));
    BATON_TRY(read_handoff(args, options));
    BATON_TRY(read_deadlines(args, &options->ms));
    BATON_TRY(read_u16(args, "port", &options->port));
    BATON_TRY(read_u16(args, "proxy-port", &options->notice_port));
    BATON_TRY(read_u32(args, "threads", 0, BT_PROXY_MAX_THREADS, &options->threads));
    BATON_TRY(read_u32(args, "max-inflight", 1, 1 << 20, &options->max_inflight));
    BATON_TRY(read_u32(args, "max-body", 1, 4096, &max_body_mib));
    options->max_body_bytes = (size_t)max_body_mib << 20;
    options->host = numeric(bt_args_value(args, "host"), room->host);
    options->notice_host = numeric(bt_args_value(args, "proxy-host"), room->notice_host);
    options->notice_address = bt_args_value(args, "notice-address");
    options->admin = bt_args_value(args, "admin");
    options->key_file = bt_args_value(args, "key-file");
    options->receiver_key = bt_args_value(args, "receiver-key");
    options->clients_path = bt_args_value(args, "clients-path");
    options->doors = (bt_door_files){
        .tls_certificate = bt_args_value(args, "tls-certificate"),
        .tls_key = bt_args_value(args, "tls-key"),
        .tls_client_ca = bt_args_value(args, "tls-client-ca"),
        .api_keys = bt_args_value(args, "api-keys"),
        .engine_ca = bt_args_value(args, "engine-ca"),
        .engine_certificate = bt_args_value(args, "engine-certificate"),
        .engine_key = bt_args_value(args, "engine-key"),
    };
    options->allow_unauthenticated = bt_args_count(args, "allow-unauthenticated") > 0;
    return BATON_OK;
}
