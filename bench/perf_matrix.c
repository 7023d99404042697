/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/perf_matrix.h"

#include "bench/perf_quantiles.h"
#include "bench/perf_setup.h"
#include "core/alloc.h"
#include "core/fail.h"

#include <inttypes.h>
#include <sys/wait.h>

typedef struct {
    bt_perf_control control;
    pid_t child;
    uint16_t init_port, alloc_port; /* receivers */
} end;

typedef struct {
    bt_perf_values alone, together; /* us of each transfer */
} cell;

typedef struct {
    const bt_perf_options *options;
    bt_perf_options setup; /* what the processes are told */
    end senders[BT_PERF_MAX_ENDS], receivers[BT_PERF_MAX_ENDS];
    cell cells[BT_PERF_MAX_ENDS][BT_PERF_MAX_ENDS]; /* [sender][receiver] */
    bt_perf_values rounds;                          /* us from the first start to the last end */
    uint32_t iteration, n_verified;
    uint32_t last_tokens; /* of a transfer's last page: it is full */
} matrix;

static baton_status start_end(matrix *m, const char *program, const char *role, end *e)
{
    char line[BT_PERF_LINE_BYTES];
    uint64_t init, alloc;
    BATON_TRY(bt_perf_spawn(program, role, &e->control, &e->child));
    BATON_TRY(bt_perf_setup_send(&e->control, &m->setup));
    BATON_TRY(bt_perf_expect(&e->control, "ready", line));
    BATON_TRY(bt_perf_field(line, "init", 1, UINT16_MAX, &init));
    BATON_TRY(bt_perf_field(line, "alloc", 1, UINT16_MAX, &alloc));
    e->init_port = (uint16_t)init;
    e->alloc_port = (uint16_t)alloc;
    return BATON_OK;
}

static baton_status introduce(end *sender, const end *receiver, uint32_t index)
{
    char line[BT_PERF_LINE_BYTES];
    BATON_TRY(bt_perf_send(&sender->control, "peer index=%u init=%u alloc=%u", index,
                           receiver->init_port, receiver->alloc_port));
    return bt_perf_expect(&sender->control, "added", line);
}

static baton_status start_all(matrix *m, const char *program)
{
    const bt_perf_options *o = m->options;
    m->setup = *o;
    /* As many senders as can meet at one receiver have room at once. */
    m->setup.pool_pages *= (o->n_senders + o->n_receivers - 1) / o->n_receivers;
    for (uint32_t j = 0; j < o->n_receivers; j++)
        BATON_TRY(start_end(m, program, "receiver", &m->receivers[j]));
    for (uint32_t i = 0; i < o->n_senders; i++) {
        BATON_TRY(start_end(m, program, "worker", &m->senders[i]));
        for (uint32_t j = 0; j < o->n_receivers; j++) {
            BATON_TRY(introduce(&m->senders[i], &m->receivers[j], j));
            BATON_TRY(bt_perf_values_create(o->n_iterations, &m->cells[i][j].alone));
            BATON_TRY(bt_perf_values_create(o->n_iterations, &m->cells[i][j].together));
        }
    }
    return bt_perf_values_create(o->n_iterations * o->n_receivers, &m->rounds);
}

typedef struct {
    uint32_t sender, receiver, iteration;
    uint64_t start_ns, end_ns;
} one_move;

/* Moves all at once: prepared first, verified afterwards. */
static baton_status move_all(matrix *m, one_move *moves, uint32_t n)
{
    char line[BT_PERF_LINE_BYTES];
    for (uint32_t i = 0; i < n; i++) {
        moves[i].iteration = m->iteration++;
        BATON_TRY(bt_perf_send(&m->senders[moves[i].sender].control, "prepare to=%u iteration=%u",
                               moves[i].receiver, moves[i].iteration));
    }
    for (uint32_t i = 0; i < n; i++)
        BATON_TRY(bt_perf_expect(&m->senders[moves[i].sender].control, "prepared", line));
    for (uint32_t i = 0; i < n; i++)
        BATON_TRY(bt_perf_send(&m->senders[moves[i].sender].control, "go"));
    for (uint32_t i = 0; i < n; i++) {
        BATON_TRY(bt_perf_expect(&m->senders[moves[i].sender].control, "moved", line));
        BATON_TRY(bt_perf_field(line, "start_ns", 0, UINT64_MAX, &moves[i].start_ns));
        BATON_TRY(bt_perf_field(line, "end_ns", moves[i].start_ns, UINT64_MAX, &moves[i].end_ns));
    }
    for (uint32_t i = 0; i < n; i++) {
        end *receiver = &m->receivers[moves[i].receiver];
        BATON_TRY(bt_perf_send(&receiver->control,
                               "check iteration=%u name=%u pages=%u "
                               "last_tokens=%u",
                               moves[i].iteration, moves[i].iteration, m->setup.n_pages,
                               m->last_tokens));
        BATON_TRY(bt_perf_expect(&receiver->control, "good", line));
        m->n_verified++;
    }
    return BATON_OK;
}

/* Every pair by itself; the first transfers connect. */
static baton_status run_alone(matrix *m)
{
    const bt_perf_options *o = m->options;
    for (uint32_t i = 0; i < o->n_senders * o->n_receivers; i++) {
        one_move move = {.sender = i / o->n_receivers, .receiver = i % o->n_receivers};
        for (uint32_t k = 0; k < o->n_warmup + o->n_iterations; k++) {
            BATON_TRY(move_all(m, &move, 1));
            if (k >= o->n_warmup)
                bt_perf_values_add(&m->cells[move.sender][move.receiver].alone,
                                   move.end_ns - move.start_ns);
        }
    }
    return BATON_OK;
}

/* A round of the rotation: sender i moves to receiver i + round. */
static baton_status run_round(matrix *m, uint32_t round)
{
    const bt_perf_options *o = m->options;
    one_move moves[BT_PERF_MAX_ENDS];
    uint64_t first_ns = UINT64_MAX, last_ns = 0;
    for (uint32_t i = 0; i < o->n_senders; i++)
        moves[i] = (one_move){.sender = i, .receiver = (i + round) % o->n_receivers};
    BATON_TRY(move_all(m, moves, o->n_senders));
    for (uint32_t i = 0; i < o->n_senders; i++) {
        const one_move *move = &moves[i];
        first_ns = move->start_ns < first_ns ? move->start_ns : first_ns;
        last_ns = move->end_ns > last_ns ? move->end_ns : last_ns;
        bt_perf_values_add(&m->cells[i][move->receiver].together, move->end_ns - move->start_ns);
    }
    bt_perf_values_add(&m->rounds, last_ns - first_ns);
    return BATON_OK;
}

static baton_status run_all(matrix *m)
{
    bt_perf_work work = {.n_pages = m->setup.n_pages,
                         .page_bytes = m->setup.page_bytes,
                         .paged = m->setup.paged,
                         .shape = m->setup.shape};
    BATON_TRY(bt_perf_work_init(&work));
    m->last_tokens = work.layout.chunk_tokens;
    BATON_TRY(run_alone(m));
    for (uint32_t i = 0; i < m->options->n_iterations * m->options->n_receivers; i++)
        BATON_TRY(run_round(m, i));
    return BATON_OK;
}

static double rate(const bt_perf_options *o, uint32_t n_transfers, double us)
{
    return (double)o->n_pages * (double)o->page_bytes * n_transfers / us / 1e3;
}

static void put_table(matrix *m, bt_strbuf *out)
{
    const bt_perf_options *o = m->options;
    bt_perf_quantiles rounds = bt_perf_quantiles_of(&m->rounds);
    bt_strbuf_printf(out,
                     "%u senders, %u receivers, %u x %" PRIu64 " bytes, %s, transport %s; %u "
                     "transfers, every byte verified\n\nGB/s, medians: alone / all senders at "
                     "once\n%-12s",
                     o->n_senders, o->n_receivers, o->n_pages, o->page_bytes,
                     bt_perf_order_name(o->order), bt_perf_transport_name(o->transport),
                     m->n_verified, "");
    for (uint32_t j = 0; j < o->n_receivers; j++)
        bt_strbuf_printf(out, "   receiver %-6u", j);
    for (uint32_t i = 0; i < o->n_senders; i++) {
        bt_strbuf_printf(out, "\nsender %-5u", i);
        for (uint32_t j = 0; j < o->n_receivers; j++) {
            double alone = bt_perf_quantiles_of(&m->cells[i][j].alone).median;
            double together = bt_perf_quantiles_of(&m->cells[i][j].together).median;
            bt_strbuf_printf(out, "  %7.3f /%7.3f", rate(o, 1, alone), rate(o, 1, together));
        }
    }
    bt_strbuf_printf(out,
                     "\n\nall senders together, of a round: %.3f GB/s (lowest %.3f, highest "
                     "%.3f)\n",
                     rate(o, o->n_senders, rounds.median), rate(o, o->n_senders, rounds.max),
                     rate(o, o->n_senders, rounds.min));
}

static void put_json(matrix *m, bt_strbuf *out)
{
    const bt_perf_options *o = m->options;
    bt_perf_quantiles rounds = bt_perf_quantiles_of(&m->rounds);
    bt_strbuf_printf(out,
                     "{\n  \"mode\": \"matrix\",\n  \"senders\": %u,\n  \"receivers\": %u,\n"
                     "  \"pages\": %u,\n  \"page_bytes\": %" PRIu64 ",\n  \"verified\": %u,\n"
                     "  \"gb_per_s\": %.4f,\n",
                     o->n_senders, o->n_receivers, o->n_pages, o->page_bytes, m->n_verified,
                     rate(o, o->n_senders, rounds.median));
    bt_perf_json_string(out, "transport", bt_perf_transport_name(o->transport), ",");
    bt_perf_json_row(out, "us", &rounds, ",");
    bt_strbuf_puts(out, "  \"pairs\": [");
    for (uint32_t i = 0; i < o->n_senders * o->n_receivers; i++) {
        cell *c = &m->cells[i / o->n_receivers][i % o->n_receivers];
        bt_perf_quantiles alone = bt_perf_quantiles_of(&c->alone);
        bt_perf_quantiles together = bt_perf_quantiles_of(&c->together);
        bt_strbuf_printf(out, "%s\n  {\"sender\": %u, \"receiver\": %u,\n", i > 0 ? "," : "",
                         i / o->n_receivers, i % o->n_receivers);
        bt_perf_json_row(out, "alone_us", &alone, ",");
        bt_perf_json_row(out, "together_us", &together, ",");
        bt_strbuf_printf(out, "  \"alone_gb_per_s\": %.4f, \"together_gb_per_s\": %.4f}",
                         rate(o, 1, alone.median), rate(o, 1, together.median));
    }
    bt_strbuf_puts(out, "\n  ]\n}\n");
}

static void stop(end *e)
{
    bt_perf_close(&e->control); /* it leaves */
    if (e->child > 0)
        waitpid(e->child, NULL, 0);
}

static void stop_all(matrix *m)
{
    for (uint32_t i = 0; i < BT_PERF_MAX_ENDS; i++)
        stop(&m->senders[i]);
    for (uint32_t i = 0; i < BT_PERF_MAX_ENDS; i++)
        stop(&m->receivers[i]);
    for (uint32_t i = 0; i < BT_PERF_MAX_ENDS * BT_PERF_MAX_ENDS; i++) {
        cell *c = &m->cells[i / BT_PERF_MAX_ENDS][i % BT_PERF_MAX_ENDS];
        bt_perf_values_free(&c->alone);
        bt_perf_values_free(&c->together);
    }
    bt_perf_values_free(&m->rounds);
}

baton_status bt_perf_matrix(const bt_perf_options *options, const char *program, bt_strbuf *out)
{
    matrix *m = bt_calloc(1, sizeof(*m));
    if (m == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "perf: matrix");
    m->options = options;
    for (uint32_t i = 0; i < BT_PERF_MAX_ENDS; i++)
        m->senders[i].control.fd = m->receivers[i].control.fd = -1;
    baton_status status = start_all(m, program);
    if (status == BATON_OK)
        status = run_all(m);
    if (status == BATON_OK && options->json)
        put_json(m, out);
    else if (status == BATON_OK)
        put_table(m, out);
    stop_all(m); /* fails nothing: the text of status stays */
    bt_free(m);
    return status;
}
