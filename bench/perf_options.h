/* SPDX-License-Identifier: Apache-2.0 */
/* What baton-perf is asked to do, from its command line.
 * Thread rule: set up before threads start; read-only after that. */
#ifndef BT_BENCH_PERF_OPTIONS_H
#define BT_BENCH_PERF_OPTIONS_H
#include "bench/perf_work.h"
#include "core/args.h"

#include <baton/sender.h>

enum {
    BT_PERF_N_TABLES = 4,
    BT_PERF_MAX_PAGES = 65536,
    BT_PERF_HOST_BYTES = 256,
    BT_PERF_MAX_LAYERS = 64,
    BT_PERF_MAX_ENDS = 16 /* senders, and receivers, of a matrix */
};
/* Pages of this size, as many as a pool may have, fit 63 bits. */
#define BT_PERF_MAX_PAGE_BYTES (UINT64_C(1) << 39)
#define BT_PERF_MAX_POOL_PAGES (UINT64_C(1) << 24)

typedef enum {
    BT_PERF_PAIR,
    BT_PERF_SENDER,
    BT_PERF_RECEIVER,
    BT_PERF_WORKER, /* a sender of a matrix, which the one that asks drives over control_fd */
} bt_perf_role;
/* Of the source and the pool. */
typedef enum {
    BT_PERF_HUGE_AUTO, /* the pool asks for them, as pools do; the source does not */
    BT_PERF_HUGE_OFF,  /* none, or fail */
    BT_PERF_HUGE_ON,   /* both ask, and fail when they have none */
} bt_perf_huge;
typedef enum { BT_PERF_SCATTER, BT_PERF_CONTIGUOUS, BT_PERF_DESCENDING } bt_perf_order;
typedef enum {
    BT_PERF_AUTO,   /* what a sender chooses */
    BT_PERF_MAPPED, /* stores into the receiver's mapped pages, or fail */
    BT_PERF_PUT,    /* UCX puts, over what UCX chooses */
    BT_PERF_TCP,    /* UCX puts over tcp */
    BT_PERF_STAGED, /* as PUT, from copies of the pages in staging memory */
    BT_PERF_LOOP,   /* both ends in this process */
    BT_PERF_ALL,    /* auto, mapped, put and tcp side by side */
} bt_perf_transport;

/* What is measured. */
typedef enum {
    BT_PERF_ONE,     /* transfers of one size */
    BT_PERF_CURVE,   /* of many sizes */
    BT_PERF_LATENCY, /* of one page, from push to seen */
    BT_PERF_ALLOC,   /* the granting alone */
    BT_PERF_PRODUCE, /* pages that come in time with prefill */
    BT_PERF_BESIDE,  /* as ONE, every transport */
    BT_PERF_MATRIX,  /* of several senders to several receivers */
    BT_PERF_SOAK,    /* of random shapes, very many */
} bt_perf_mode;

/* Texts belong to config, which points back here: not to be moved. */
typedef struct {
    bt_config_table tables[BT_PERF_N_TABLES];
    bt_config *config; /* owned */

    uint32_t n_pages;
    uint64_t page_bytes;
    bt_perf_order order;
    bool scatter, contiguous, descending; /* as given; order says what they mean */
    baton_memory_kind memory;             /* of the source and the pool */
    bt_perf_huge huge_pages;
    bool paged;
    bt_perf_shape shape; /* of a paged source */
    uint32_t pool_pages; /* 0: as many as a transfer needs */
    uint32_t n_iterations, n_warmup;
    uint64_t budget_ns; /* measure for no longer, but at least once; 0: no such limit */
    uint64_t seed;
    bool flip_byte;

    bt_perf_transport transport;
    bool loop; /* as given; transport says what it means */
    baton_digests digests;
    baton_progress_mode progress;
    uint32_t data_lanes;        /* of both ends; 0: 1 */
    uint32_t copy_threads;      /* of a sender; 0: its default */
    const char *const *devices; /* [n_devices] */
    uint32_t n_devices;

    bt_perf_mode mode; /* follows from these: */
    bool curve, latency, alloc;
    uint32_t produce_ms;  /* 0: not this */
    uint64_t curve_bytes; /* of a transfer, at most */
    uint32_t seconds;     /* curve: about as long */
    uint32_t n_samples;
    uint32_t soak;                   /* transfers; 0: not this */
    uint32_t n_senders, n_receivers; /* matrix; 0: not this */

    bt_perf_role role;
    const char *peer;              /* sender: "host:port" of the receiver's control port */
    const char *listen;            /* receiver: "host:port" to bind */
    char host[BT_PERF_HOST_BYTES]; /* of peer or listen */
    uint16_t port;
    int32_t control_fd; /* receiver: a connected socket instead of listen; -1: none */
    bool json;
    const char *plot; /* NULL: none */
    bool verbose;
} bt_perf_options;

/* Parses argv[argc]. When the user asked for --help or --version, *info holds the text and nothing
 * else is set. *options is to be freed also after a failure. Errors: INVALID_ARG, CONFIG,
 * NO_MEMORY. */
baton_status bt_perf_options_parse(int argc, char *const *argv, bt_perf_options *options,
                                   bt_strbuf *info);
void bt_perf_options_free(bt_perf_options *options);
const char *bt_perf_order_name(bt_perf_order order);
const char *bt_perf_huge_name(bt_perf_huge huge);
const char *bt_perf_digests_name(baton_digests digests);
const char *bt_perf_transport_name(bt_perf_transport transport);

#endif
