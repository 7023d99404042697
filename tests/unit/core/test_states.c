/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of core/states.def: complete in themselves, and the same as in docs/protocol.md. */
#include "support/test.h"

#include "core/states.h"
#include "core/strbuf.h"

#include <stdio.h>
#include <stdlib.h>

static const bt_state_table *const tables[] = {&bt_peer_states, &bt_transfer_states,
                                               &bt_ticket_states, &bt_page_states};
enum { N_TABLES = sizeof(tables) / sizeof(tables[0]) };

static void what_the_table_does_not_have_is_refused(void **state)
{
    (void)state;
    for (int i = 0; i < N_TABLES; i++) {
        assert_null(bt_state_next(tables[i], tables[i]->n_states, 0));
        assert_null(bt_state_next(tables[i], 0, tables[i]->n_events));
        assert_null(bt_state_next(tables[i], UINT32_MAX, UINT32_MAX));
        assert_string_equal(bt_state_name(tables[i], tables[i]->n_states), "?");
        assert_string_equal(bt_state_event_name(tables[i], UINT32_MAX), "?");
    }
    assert_null(bt_state_next(&bt_ticket_states, BT_TICKET_HELD, BT_TICKET_ON_COMMIT));
    assert_null(bt_state_next(&bt_ticket_states, BT_TICKET_ENDED, BT_TICKET_ON_GRANT));
    assert_null(bt_state_next(&bt_page_states, BT_PAGE_QUARANTINED, BT_PAGE_ON_TAKE));
    assert_null(bt_state_next(&bt_page_states, BT_PAGE_RETIRED, BT_PAGE_ON_PROOF));
    assert_null(bt_state_next(&bt_transfer_states, BT_TX_DRAINING, BT_TX_ON_DONE));
    assert_null(bt_state_next(&bt_peer_states, BT_TX_PEER_CLOSING, BT_TX_PEER_ON_HELLO));
}

static void moves_say_where_and_what(void **state)
{
    (void)state;
    const bt_move *move = bt_state_next(&bt_ticket_states, BT_TICKET_GRANTED, BT_TICKET_ON_FAIL);
    assert_non_null(move);
    assert_int_equal(move->to, BT_TICKET_REVOKED);
    assert_int_equal(move->guard, BT_TICKET_IF_NONE);
    assert_int_equal(move->action, BT_TICKET_DO_QUARANTINE);
    assert_string_equal(bt_state_name(&bt_ticket_states, move->to), "REVOKED");
    assert_string_equal(bt_state_event_name(&bt_ticket_states, BT_TICKET_ON_FAIL), "FAIL");
}

static void mark_reachable(const bt_state_table *table, uint32_t from, bool *seen)
{
    if (seen[from])
        return;
    seen[from] = true;
    for (uint32_t event = 0; event < table->n_events; event++) {
        const bt_move *move = bt_state_next(table, from, event);
        if (move != NULL)
            mark_reachable(table, move->to, seen);
    }
}

/* A word that nothing uses would be a promise of the docs that no code keeps. */
static void every_state_is_reached_and_every_word_used(void **state)
{
    (void)state;
    for (int i = 0; i < N_TABLES; i++) {
        const bt_state_table *table = tables[i];
        bool seen[16] = {false}, events[16] = {false}, guards[16] = {false}, actions[16] = {false};
        mark_reachable(table, 0, seen);
        guards[0] = actions[0] = true;
        for (uint32_t from = 0; from < table->n_states; from++) {
            assert_true(seen[from]);
            for (uint32_t event = 0; event < table->n_events; event++) {
                const bt_move *move = bt_state_next(table, from, event);
                if (move == NULL)
                    continue;
                events[event] = guards[move->guard] = actions[move->action] = true;
            }
        }
        for (uint32_t event = 0; event < table->n_events; event++)
            assert_true(events[event]);
        for (uint32_t guard = 0; guard < table->n_guards; guard++)
            assert_true(guards[guard]);
        for (uint32_t action = 0; action < table->n_actions; action++)
            assert_true(actions[action]);
    }
}

static void add_words(bt_strbuf *out, const bt_state_word *words, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        bt_strbuf_printf(out, "%s`%s`: %s", i > 0 ? "; " : "", words[i].name, words[i].text);
    bt_strbuf_printf(out, ".\n");
}

static const char *or_dash(const char *text)
{
    return text[0] != 0 ? text : "–";
}

/* As docs/protocol.md has it. */
static void render(const bt_state_table *table, bt_strbuf *out)
{
    bt_strbuf_clear(out);
    add_words(out, table->states, table->n_states);
    bt_strbuf_printf(out,
                     "\n| from | on | only if | to | does |\n| --- | --- | --- | --- | --- |\n");
    for (uint32_t from = 0; from < table->n_states; from++) {
        for (uint32_t event = 0; event < table->n_events; event++) {
            const bt_move *move = bt_state_next(table, from, event);
            if (move == NULL)
                continue;
            bt_strbuf_printf(out, "| %s | %s: %s | %s | %s | %s |\n", table->states[from].name,
                             table->events[event].name, table->events[event].text,
                             or_dash(table->guards[move->guard].text), table->states[move->to].name,
                             or_dash(table->actions[move->action].text));
        }
    }
}

static char *read_docs(void)
{
    FILE *file = fopen(PROTOCOL_MD, "r");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    long n = ftell(file);
    assert_true(n > 0);
    rewind(file);
    char *text = calloc((size_t)n + 1, 1);
    assert_int_equal(fread(text, 1, (size_t)n, file), (size_t)n);
    fclose(file);
    return text;
}

static void docs_have_the_same_tables(void **state)
{
    (void)state;
    char *docs = read_docs();
    bt_strbuf wanted = {0};
    bool differs = false;
    for (int i = 0; i < N_TABLES; i++) {
        render(tables[i], &wanted);
        if (strstr(docs, bt_strbuf_text(&wanted)) != NULL)
            continue;
        differs = true;
        printf("docs/protocol.md, \"States\": wanted for the %s:\n%s\n", tables[i]->name,
               bt_strbuf_text(&wanted));
    }
    bt_strbuf_free(&wanted);
    free(docs);
    assert_false(differs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(what_the_table_does_not_have_is_refused),
        bt_test(moves_say_where_and_what),
        bt_test(every_state_is_reached_and_every_word_used),
        bt_test(docs_have_the_same_tables),
    };
    return bt_run_tests(tests);
}
