/* SPDX-License-Identifier: Apache-2.0 */
/* Who holds which page, and why: a window of the pool's pages, each with the tickets and pins that
 * claim it. The window is bounded, and so is the walk over what may claim it. */
#include "receiver/rxadmin.h"

#include "core/alloc.h"
#include "store/store.h"

#include <strings.h>

enum {
    LOOKS_MAX = 1 << 16, /* at pages for those of a state, and at claims */
    OWNERS_MAX = 4,      /* of a page that are named; it says how many there are */
};

typedef struct {
    const bt_rx_ticket *ticket; /* NULL: a pin */
    uint64_t pin;
    uint32_t chunk;
} owner;

typedef struct {
    uint64_t number;
    bt_page_look page;
    uint32_t n_owners;
    owner owners[OWNERS_MAX];
} row;

/* Pages have numbers here, from 0 over all regions in turn. */
typedef struct {
    uint64_t bases[BT_STORE_REGIONS_MAX + 1]; /* number of each region's first page */
    row *rows;                                /* [n], by number */
    uint32_t n;
    uint64_t next;    /* UINT64_MAX: that was all */
    uint32_t n_looks; /* at claims that may still be taken */
} window;

static void number_regions(const bt_rx *rx, window *w)
{
    for (uint32_t i = 0; i < BT_STORE_REGIONS_MAX; i++)
        w->bases[i + 1] = w->bases[i] + bt_store_region_pages(rx->store, i);
}

/* All states but free ones, unless one is asked for. */
static bool is_wanted(const bt_admin_query *query, const bt_page_look *look)
{
    if (query->state[0] == 0)
        return look->state != BT_PAGE_FREE;
    return strcasecmp(query->state, bt_state_name(&bt_page_states, look->state)) == 0;
}

static void choose_pages(const bt_rx *rx, const bt_admin_query *query, window *w)
{
    uint64_t number = query->from, n_all = w->bases[BT_STORE_REGIONS_MAX];
    uint32_t region = 0;
    for (uint32_t n = 0; number < n_all && n < LOOKS_MAX && w->n < query->limit; n++, number++) {
        bt_page_look look;
        while (number >= w->bases[region + 1])
            region++;
        const bt_page_ref page = {.region = region, .page = (uint32_t)(number - w->bases[region])};
        if (bt_store_look(rx->store, page, &look) && is_wanted(query, &look))
            w->rows[w->n++] = (row){.number = number, .page = look};
    }
    w->next = number < n_all ? number : UINT64_MAX;
}

static row *find_row(const window *w, uint64_t number)
{
    uint32_t low = 0, high = w->n;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (w->rows[middle].number < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low < w->n && w->rows[low].number == number ? &w->rows[low] : NULL;
}

static void add_owner(window *w, bt_page_ref page, const owner *o)
{
    row *r = find_row(w, w->bases[page.region] + page.page);
    if (r != NULL && r->n_owners++ < OWNERS_MAX)
        r->owners[r->n_owners - 1] = *o;
}

static void find_owners(const bt_rx *rx, window *w)
{
    bt_page_ref page;
    bt_rx_pin_look pin = {0};
    for (const bt_rx_ticket *t = rx->first_ticket; t != NULL; t = t->next) {
        uint32_t n = t->grant != NULL ? t->n_chunks : 0;
        for (uint32_t i = 0; i < n && w->n_looks > 0; i++, w->n_looks--)
            if (bt_grant_claims(t->grant, i, &page))
                add_owner(w, page, &(owner){.ticket = t, .chunk = i});
    }
    while (bt_rx_next_pin(rx, &pin)) {
        uint32_t n = pin.chunks != NULL ? pin.n_chunks : 0;
        for (uint32_t i = 0; i < n && w->n_looks > 0; i++, w->n_looks--)
            add_owner(w, bt_chunk_page(pin.chunks[i]), &(owner){.pin = pin.number, .chunk = i});
    }
}

static const char *why(const bt_page_look *page)
{
    if (page->is_leaving && page->state == BT_PAGE_LANDED)
        return "its region is being replaced";
    switch (page->state) {
    case BT_PAGE_FREE:
        return "nobody needs it";
    case BT_PAGE_RESERVED:
        return "a sender may write it";
    case BT_PAGE_LANDED:
        return page->n_pins > 0    ? "decode reads it"
               : page->n_holds > 0 ? "waits for decode"
                                   : "prefix cache, may be evicted";
    case BT_PAGE_QUARANTINED:
        return "its writer is not proven done";
    default:
        return "its writer was never proven done";
    }
}

static void put_owner(bt_jsonwriter *json, const owner *o, uint64_t now_ns)
{
    bt_jw_open(json, NULL, '{');
    if (o->ticket != NULL) {
        bt_jw_text(json, "request", o->ticket->request);
        bt_jw_u64(json, "ticket", o->ticket->id);
        bt_jw_text(json, "state", bt_state_name(&bt_ticket_states, o->ticket->state));
        bt_admin_put_age(json, "age_ms", now_ns, bt_rx_ticket_since_ns(o->ticket));
    } else {
        bt_jw_u64(json, "pin", o->pin);
    }
    bt_jw_u64(json, "chunk", o->chunk);
    bt_jw_close(json);
}

static void put_row(bt_jsonwriter *json, const row *r, uint64_t now_ns)
{
    bt_jw_open(json, NULL, '{');
    bt_jw_u64(json, "page", r->number);
    bt_jw_u64(json, "region", r->page.page.region);
    bt_jw_u64(json, "region_page", r->page.page.page);
    bt_jw_text(json, "state", bt_state_name(&bt_page_states, r->page.state));
    bt_jw_text(json, "why", why(&r->page));
    bt_jw_u64(json, "tokens", r->page.n_tokens);
    bt_jw_u64(json, "holds", r->page.n_holds);
    bt_jw_u64(json, "pins", r->page.n_pins);
    bt_jw_u64(json, "n_owners", r->n_owners);
    bt_jw_open(json, "owners", '[');
    for (uint32_t i = 0; i < r->n_owners && i < OWNERS_MAX; i++)
        put_owner(json, &r->owners[i], now_ns);
    bt_jw_close(json);
    bt_jw_close(json);
}

static const char *count_name(bt_page_state state)
{
    static const char *const names[BT_N_PAGE_STATES] = {
        [BT_PAGE_FREE] = "free",       [BT_PAGE_RESERVED] = "reserved",
        [BT_PAGE_LANDED] = "landed",   [BT_PAGE_QUARANTINED] = "quarantined",
        [BT_PAGE_RETIRED] = "retired",
    };
    return names[state];
}

static void put_counts(bt_jsonwriter *json, const bt_rx *rx)
{
    bt_store_stats stats;
    bt_store_get_stats(rx->store, &stats);
    bt_jw_open(json, "counts", '{');
    bt_jw_u64(json, "total", stats.pages_total);
    for (int state = 0; state < BT_N_PAGE_STATES; state++)
        bt_jw_u64(json, count_name((bt_page_state)state), stats.pages[state]);
    bt_jw_close(json);
}

void bt_rx_admin_pages(bt_jsonwriter *json, bt_rx *rx, const bt_admin_query *query, uint64_t now_ns)
{
    window w = {.rows = bt_calloc(query->limit, sizeof(*w.rows)),
                .next = query->from,
                .n_looks = LOOKS_MAX};
    put_counts(json, rx);
    number_regions(rx, &w);
    if (w.rows != NULL) {
        choose_pages(rx, query, &w);
        find_owners(rx, &w);
    }
    bt_jw_bool(json, "owners_are_complete", w.n_looks > 0);
    bt_jw_open(json, "pages", '[');
    for (uint32_t i = 0; i < w.n; i++)
        put_row(json, &w.rows[i], now_ns);
    bt_jw_close(json);
    if (w.next != UINT64_MAX)
        bt_jw_u64(json, "next", w.next);
    else
        bt_jw_text(json, "next", NULL);
    bt_free(w.rows);
}
