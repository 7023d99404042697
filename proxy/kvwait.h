/* SPDX-License-Identifier: Apache-2.0 */
/* Who waits for which KV: the attempts of one loop thread by their id, and what the notices about
 * them said so far. An attempt enters before its prefill leg leaves, so a notice that overtakes
 * the prefill engine's HTTP answer finds it here; it leaves when it has ended, and a notice after
 * that is late. An id is
 *
 *   epoch of the process . thread . counter . 64 random bits      (hex, decimal, hex, hex)
 *
 * so notices meant for a restarted proxy's former life or for another proxy never match.
 *
 * Thread rule: owner thread (the loop), except bt_kvwait_thread_of: any thread. */
#ifndef BT_PROXY_KVWAIT_H
#define BT_PROXY_KVWAIT_H
#include "proxy/worker.h"

#include <baton/status.h>
#include <stdbool.h>

enum { BT_ATTEMPT_ID_BYTES = 64, BT_NOTICE_TEXT_BYTES = 160 };

/* What one notice says, as the control thread hands it to the loop. Copied by value. */
typedef struct {
    char id[BT_ATTEMPT_ID_BYTES]; /* terminated */
    bool has_rank;                /* false: existing frames that name no rank */
    uint32_t rank, world;         /* world 0: not said */
    bool failed;
    int status;                      /* a baton_status */
    uint32_t retry_ms;               /* when another attempt is worth it; 0: not said */
    char text[BT_NOTICE_TEXT_BYTES]; /* why it failed, terminated */
} bt_kv_notice;

typedef enum {
    BT_HEARD_MATCHED,   /* counted, more ranks to come */
    BT_HEARD_READY,     /* counted, and the attempt is ready now */
    BT_HEARD_FAILED,    /* the attempt has failed now */
    BT_HEARD_DUPLICATE, /* this rank was heard before, or the outcome is known already */
    BT_HEARD_EXPIRED,   /* failed after all ranks were ready: the hold ran out */
    BT_HEARD_LATE,      /* the attempt has ended */
    BT_HEARD_UNKNOWN,   /* never an attempt of this thread */
    BT_HEARD_INVALID,   /* rank or world out of bounds or changed */
    BT_N_HEARD
} bt_heard;

/* One waiting attempt; lives inside its request. Zeroed before bt_kvwait_add. */
typedef struct bt_kv_entry {
    struct bt_kv_entry *next; /* in the bucket */
    char id[BT_ATTEMPT_ID_BYTES];
    uint32_t n_needed;    /* ranks or frames; 0: ready at once */
    bool learn_world;     /* a notice that says its world replaces n_needed */
    uint32_t world;       /* as said by the first notice that did; 0: none yet */
    uint32_t n_anonymous; /* frames without a rank */
    uint64_t ranks;       /* bit r: rank r is ready */
    bool ready, failed, listed;
    int status;                      /* why it failed, a baton_status */
    uint32_t retry_ms;               /* as the notice */
    char text[BT_NOTICE_TEXT_BYTES]; /* why it failed */
} bt_kv_entry;

typedef struct bt_kvwait bt_kvwait;

/* The table of loop thread number `thread` in the process life `epoch`. Errors: NO_MEMORY. */
baton_status bt_kvwait_create(uint64_t epoch, uint32_t thread, bt_kvwait **table_p);
/* Gives entry a fresh id and lists it. entry is borrowed until bt_kvwait_remove. */
void bt_kvwait_add(bt_kvwait *table, bt_kv_entry *entry, uint32_t n_needed, bool learn_world);
/* Its notices are late from now on. An entry that is not listed is left alone. */
void bt_kvwait_remove(bt_kvwait *table, bt_kv_entry *entry);
/* Applies one notice; *entry_p is the attempt it was about, or NULL (LATE, UNKNOWN). */
bt_heard bt_kvwait_notice(bt_kvwait *table, const bt_kv_notice *notice, bt_kv_entry **entry_p);
uint32_t bt_kvwait_count(const bt_kvwait *table);
/* All entries must have been removed. NULL is allowed. */
void bt_kvwait_destroy(bt_kvwait *table);

/* The thread that made id in the process life `epoch`, or -1 when it is not an id of that life. */
int bt_kvwait_thread_of(const char *id, uint64_t epoch);
/* Looks like an id that a proxy made, in whatever life. */
bool bt_kvwait_is_id(const char *id);
/* "matched", "ready", ... for metrics. */
const char *bt_heard_name(bt_heard result);

#endif
