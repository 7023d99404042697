/* SPDX-License-Identifier: Apache-2.0 */
#include "chaos.h"

#include <jansson.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_TOKENS = 16,
    MAX_PROMPT = 400,
    SHARED_BY = 4,
    HANG_UP_PERCENT = 8,
    TOLD_BYTES = 400,
    LOOK_BACK_MS = 8000, /* as long as a fault lasts */
};

typedef struct {
    char *bodies[2]; /* as one document, as a stream */
    int wanted[MAX_TOKENS];
    unsigned n_wanted;
} prompt;

typedef struct {
    chaos_clients *all;
    pthread_t thread;
    bt_rng rng;
} client;

struct chaos_clients {
    chaos_journal *journal;
    uint16_t port;
    atomic_bool stop;
    pthread_mutex_t lock; /* guards counts */
    chaos_counts counts;
    prompt prompts[CHAOS_PROMPTS];
    client list[CHAOS_CLIENTS];
};

typedef enum { RIGHT, FAILED, WRONG, LEFT } verdict;

/* ---- prompts and their right answers ---- */

/* Every SHARED_BY prompts begin alike, so that chunks are found that others sent. */
static char *make_body(uint64_t seed, unsigned i, bool stream)
{
    bt_rng shared = {seed + 1000 + i / SHARED_BY}, own = {seed + i};
    uint32_t n_shared = (uint32_t)bt_rng_below(&shared, MAX_PROMPT / 2);
    uint32_t n = n_shared + 1 + (uint32_t)bt_rng_below(&own, MAX_PROMPT / 2);
    bt_strbuf body = {0};
    bt_strbuf_puts(&body, "{\"prompt\":");
    for (uint32_t k = 0; k < n; k++)
        bt_strbuf_printf(&body, "%c%u", k == 0 ? '[' : ',',
                         32 + (unsigned)bt_rng_below(k < n_shared ? &shared : &own, 90));
    bt_strbuf_printf(&body,
                     "],\"max_tokens\":%u,\"temperature\":%s,\"seed\":%u,\"ignore_eos\":true,"
                     "\"return_token_ids\":true,\"stream\":%s}",
                     1 + (unsigned)bt_rng_below(&own, MAX_TOKENS), i % 2 == 0 ? "0" : "0.8", i,
                     stream ? "true" : "false");
    return body.data;
}

/* Appends choices[0].token_ids; false: there are none, or too many. */
static bool add_tokens(const json_t *root, int *tokens, unsigned *n)
{
    const json_t *choice = json_array_get(json_object_get(root, "choices"), 0), *id;
    const json_t *ids = json_object_get(choice, "token_ids");
    size_t i;
    if (!json_is_array(ids) || json_array_size(ids) > MAX_TOKENS - *n)
        return false;
    json_array_foreach(ids, i, id) tokens[(*n)++] = (int)json_integer_value(id);
    return true;
}

static void learn(prompt *p, const chaos_fleet *fleet, uint64_t seed, unsigned i)
{
    bt_http_answer answer;
    for (int k = 0; k < 2; k++)
        assert_non_null(p->bodies[k] = make_body(seed, i, k == 1));
    bt_http_call(fleet->alone.port, "POST", "/v1/completions", p->bodies[0], &answer);
    assert_int_equal(answer.status, 200);
    json_t *root = json_loads(bt_strbuf_text(&answer.body), 0, NULL);
    assert_true(add_tokens(root, p->wanted, &p->n_wanted) && p->n_wanted > 0);
    json_decref(root);
    bt_http_answer_clear(&answer);
}

/* ---- what an answer is worth ---- */

static bool begins_right(const prompt *p, const int *tokens, unsigned n)
{
    return n <= p->n_wanted && memcmp(tokens, p->wanted, n * sizeof(*tokens)) == 0;
}

static verdict judge_document(const prompt *p, const bt_http_answer *answer)
{
    int tokens[MAX_TOKENS];
    unsigned n = 0;
    if (!answer->complete)
        return FAILED;
    json_t *root = json_loads(bt_strbuf_text(&answer->body), 0, NULL);
    bool ok = add_tokens(root, tokens, &n) && n == p->n_wanted && begins_right(p, tokens, n);
    json_decref(root);
    return ok ? RIGHT : WRONG;
}

/* A stream may break off or end in an error; what came before must be right all the same, and one
 * that says it is done must be whole. */
static verdict judge_stream(const prompt *p, const bt_http_answer *answer)
{
    int tokens[MAX_TOKENS];
    unsigned n = 0;
    bool is_done = false, has_error = false;
    for (const char *at = strstr(bt_strbuf_text(&answer->body), "data: "); at != NULL;
         at = strstr(at, "\ndata: ")) {
        at += *at == '\n' ? 7 : 6;
        size_t length = strcspn(at, "\n");
        if (strncmp(at, "[DONE]", 6) == 0) {
            is_done = true;
            break;
        }
        json_t *root = json_loadb(at, length, 0, NULL);
        if (root == NULL)
            break; /* broken off in the middle of an event */
        has_error = has_error || json_object_get(root, "error") != NULL;
        bool ok = has_error || json_object_get(root, "choices") == NULL ||
                  json_array_size(json_object_get(root, "choices")) == 0 ||
                  add_tokens(root, tokens, &n);
        json_decref(root);
        if (!ok)
            return WRONG;
    }
    if (!begins_right(p, tokens, n) || (is_done && !has_error && n != p->n_wanted))
        return WRONG;
    return is_done && !has_error && answer->complete ? RIGHT : FAILED;
}

static void show_wrong(const prompt *p, const bt_http_answer *answer)
{
    print_message("\nWRONG ANSWER to %.300s...\nwanted:", p->bodies[0]);
    for (unsigned i = 0; i < p->n_wanted; i++)
        print_message(" %d", p->wanted[i]);
    print_message("\nfound: %s\n%s\n", bt_strbuf_text(&answer->head),
                  bt_strbuf_text(&answer->body));
}

/* ---- one request ---- */

static verdict hang_up(client *c, const prompt *p)
{
    const char *until = bt_rng_below(&c->rng, 2) == 0 ? NULL : "data: ";
    int fd = bt_http_open(c->all->port, "POST", "/v1/completions", p->bodies[1], until);
    if (fd >= 0)
        close(fd);
    return LEFT;
}

/* What a client is told that fails; one line. */
static void note_error(const bt_http_answer *answer, char *told, size_t room)
{
    const char *body = bt_strbuf_text(&answer->body);
    const char *error = strstr(body, "\"error\"");
    snprintf(told, room, "status %u: %.*s", answer->status,
             (int)strcspn(error != NULL ? error : body, "\n"), error != NULL ? error : body);
}

static verdict ask(client *c, const prompt *p, char *told, size_t room)
{
    bt_http_answer answer;
    bool stream = bt_rng_below(&c->rng, 2) == 0;
    verdict is = FAILED;
    if (bt_rng_below(&c->rng, 100) < HANG_UP_PERCENT)
        return hang_up(c, p);
    bt_http_call(c->all->port, "POST", "/v1/completions", p->bodies[stream], &answer);
    if (answer.status == 200)
        is = stream ? judge_stream(p, &answer) : judge_document(p, &answer);
    if (is == WRONG)
        show_wrong(p, &answer);
    if (is == FAILED)
        note_error(&answer, told, room);
    bt_http_answer_clear(&answer);
    return is;
}

static void count(chaos_clients *all, verdict is, uint64_t begun_ms, bool was_disturbed,
                  const char *told)
{
    uint64_t now_ms = chaos_now_ms(), fault_ms = chaos_journal_first(all->journal, begun_ms);
    uint64_t from_ms = !was_disturbed && fault_ms != 0 && fault_ms < now_ms ? fault_ms : begun_ms;
    pthread_mutex_lock(&all->lock);
    chaos_counts *counts = &all->counts;
    counts->sent++;
    counts->right += is == RIGHT;
    counts->failed += is == FAILED;
    counts->wrong += is == WRONG;
    counts->left += is == LEFT;
    counts->hung += now_ms - begun_ms > CHAOS_HUNG_MS;
    if (is == FAILED && now_ms - from_ms > counts->slowest_error_ms) {
        size_t room = sizeof(counts->slowest);
        counts->slowest_error_ms = now_ms - from_ms;
        int n = snprintf(counts->slowest, room, ", %s; from %.1f s before it was asked:", told,
                         LOOK_BACK_MS / 1000.0);
        chaos_journal_tell(all->journal, begun_ms - LOOK_BACK_MS, counts->slowest + n,
                           room - (size_t)n);
    }
    pthread_mutex_unlock(&all->lock);
}

static void *run(void *ctx)
{
    enum { PAUSE_MS = 50, BACK_OFF_MS = 100 };
    client *c = ctx;
    chaos_clients *all = c->all;
    while (!atomic_load(&all->stop)) {
        uint64_t begun_ms = chaos_now_ms();
        bool was_disturbed = chaos_journal_is_disturbed(all->journal);
        char told[TOLD_BYTES] = "";
        const prompt *p = &all->prompts[bt_rng_below(&c->rng, CHAOS_PROMPTS)];
        verdict is = ask(c, p, told, sizeof(told));
        count(all, is, begun_ms, was_disturbed, told);
        uint64_t ms = is == FAILED ? BACK_OFF_MS : bt_rng_below(&c->rng, PAUSE_MS);
        nanosleep(&(struct timespec){.tv_nsec = (long)ms * 1000000}, NULL); /* as users do */
    }
    return NULL;
}

chaos_clients *chaos_clients_start(const chaos_fleet *fleet, chaos_journal *journal, uint64_t seed)
{
    chaos_clients *all = calloc(1, sizeof(*all));
    assert_non_null(all);
    all->journal = journal;
    all->port = chaos_proxy_port(fleet);
    pthread_mutex_init(&all->lock, NULL);
    for (unsigned i = 0; i < CHAOS_PROMPTS; i++)
        learn(&all->prompts[i], fleet, seed, i);
    for (unsigned i = 0; i < CHAOS_CLIENTS; i++) {
        client *c = &all->list[i];
        *c = (client){.all = all, .rng = {seed * 131 + i}};
        assert_int_equal(pthread_create(&c->thread, NULL, run, c), 0);
    }
    return all;
}

void chaos_clients_count(chaos_clients *clients, chaos_counts *out)
{
    pthread_mutex_lock(&clients->lock);
    *out = clients->counts;
    pthread_mutex_unlock(&clients->lock);
}

void chaos_clients_stop(chaos_clients *clients, chaos_counts *out)
{
    atomic_store(&clients->stop, true);
    for (unsigned i = 0; i < CHAOS_CLIENTS; i++)
        pthread_join(clients->list[i].thread, NULL);
    chaos_clients_count(clients, out);
    for (unsigned i = 0; i < CHAOS_PROMPTS; i++) {
        free(clients->prompts[i].bodies[0]);
        free(clients->prompts[i].bodies[1]);
    }
    pthread_mutex_destroy(&clients->lock);
    free(clients);
}
