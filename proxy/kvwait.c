/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/kvwait.h"
#include "core/alloc.h"
#include "core/fail.h"

#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { N_BUCKETS = 4096, N_ENDED = 1024 };

struct bt_kvwait {
    uint64_t epoch, counter;
    uint32_t thread, n_entries;
    bt_kv_entry *buckets[N_BUCKETS];
    /* Hashes of attempts that ended lately, by their low bits: only tells late from unknown in the
     * counters, so an overwritten one costs nothing. */
    uint64_t ended[N_ENDED];
};

static uint64_t hash_of(const char *id)
{
    return XXH3_64bits(id, strlen(id)) | 1; /* never 0, which is an empty place in ended[] */
}

baton_status bt_kvwait_create(uint64_t epoch, uint32_t thread, bt_kvwait **table_p)
{
    bt_kvwait *table = bt_calloc(1, sizeof(*table));
    if (table == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "kv wait: table of thread %u", thread);
    table->epoch = epoch;
    table->thread = thread;
    *table_p = table;
    return BATON_OK;
}

void bt_kvwait_add(bt_kvwait *table, bt_kv_entry *entry, uint32_t n_needed, bool learn_world)
{
    assert(!entry->listed);
    uint64_t random;
    randombytes_buf(&random, sizeof(random));
    *entry = (bt_kv_entry){
        .n_needed = n_needed, .learn_world = learn_world, .ready = n_needed == 0, .listed = true};
    snprintf(entry->id, sizeof(entry->id), "%016llx.%u.%llx.%016llx",
             (unsigned long long)table->epoch, table->thread, (unsigned long long)++table->counter,
             (unsigned long long)random);
    bt_kv_entry **bucket = &table->buckets[hash_of(entry->id) / 2 % N_BUCKETS];
    entry->next = *bucket;
    *bucket = entry;
    table->n_entries++;
}

void bt_kvwait_remove(bt_kvwait *table, bt_kv_entry *entry)
{
    if (!entry->listed)
        return;
    uint64_t hash = hash_of(entry->id);
    bt_kv_entry **at = &table->buckets[hash / 2 % N_BUCKETS];
    while (*at != entry)
        at = &(*at)->next;
    *at = entry->next;
    entry->listed = false;
    table->n_entries--;
    table->ended[hash / 2 % N_ENDED] = hash;
}

/* The notice's world, once said, is what must be complete; it may not change or exclude a rank. */
static bool check_world(bt_kv_entry *entry, const bt_kv_notice *notice)
{
    if (notice->world > BT_MAX_RANKS || (notice->has_rank && notice->rank >= BT_MAX_RANKS))
        return false;
    if (notice->world == 0)
        return true;
    if (notice->has_rank && notice->rank >= notice->world)
        return false;
    if (entry->world != 0)
        return entry->world == notice->world;
    entry->world = notice->world;
    if (entry->learn_world)
        entry->n_needed = notice->world;
    return true;
}

static bt_heard apply(bt_kv_entry *entry, const bt_kv_notice *notice)
{
    if (entry->failed || entry->ready)
        return notice->failed && !entry->failed ? BT_HEARD_EXPIRED : BT_HEARD_DUPLICATE;
    if (!check_world(entry, notice))
        return BT_HEARD_INVALID;
    if (notice->failed) {
        entry->failed = true;
        entry->status = notice->status;
        entry->retry_ms = notice->retry_ms;
        snprintf(entry->text, sizeof(entry->text), "%s", notice->text);
        return BT_HEARD_FAILED;
    }
    if (notice->has_rank) {
        uint64_t bit = UINT64_C(1) << notice->rank;
        if (entry->ranks & bit)
            return BT_HEARD_DUPLICATE;
        entry->ranks |= bit;
    } else {
        entry->n_anonymous++;
    }
    uint32_t n_heard = (uint32_t)__builtin_popcountll(entry->ranks) + entry->n_anonymous;
    entry->ready = n_heard >= entry->n_needed;
    return entry->ready ? BT_HEARD_READY : BT_HEARD_MATCHED;
}

bt_heard bt_kvwait_notice(bt_kvwait *table, const bt_kv_notice *notice, bt_kv_entry **entry_p)
{
    uint64_t hash = hash_of(notice->id);
    bt_kv_entry *entry = table->buckets[hash / 2 % N_BUCKETS];
    while (entry != NULL && strcmp(entry->id, notice->id) != 0)
        entry = entry->next;
    *entry_p = entry;
    if (entry != NULL)
        return apply(entry, notice);
    return table->ended[hash / 2 % N_ENDED] == hash ? BT_HEARD_LATE : BT_HEARD_UNKNOWN;
}

uint32_t bt_kvwait_count(const bt_kvwait *table)
{
    return table->n_entries;
}

void bt_kvwait_destroy(bt_kvwait *table)
{
    assert(table == NULL || table->n_entries == 0);
    bt_free(table);
}

int bt_kvwait_thread_of(const char *id, uint64_t epoch)
{
    char wanted[24];
    int n = snprintf(wanted, sizeof(wanted), "%016llx.", (unsigned long long)epoch);
    if (strncmp(id, wanted, (size_t)n) != 0 || id[n] < '0' || id[n] > '9')
        return -1;
    char *end;
    unsigned long thread = strtoul(id + n, &end, 10);
    return *end == '.' && thread < 1024 ? (int)thread : -1;
}

bool bt_kvwait_is_id(const char *id)
{
    static const char hex[] = "0123456789abcdef";
    size_t epoch = strspn(id, hex);
    if (epoch != 16 || id[epoch] != '.')
        return false;
    id += epoch + 1;
    size_t thread = strspn(id, "0123456789");
    if (thread == 0 || id[thread] != '.')
        return false;
    id += thread + 1;
    size_t counter = strspn(id, hex);
    if (counter == 0 || id[counter] != '.')
        return false;
    id += counter + 1;
    return strspn(id, hex) == 16 && id[16] == 0;
}

const char *bt_heard_name(bt_heard result)
{
    static const char *const names[BT_N_HEARD] = {"matched", "ready", "failed",  "duplicate",
                                                  "expired", "late",  "unknown", "invalid"};
    return result < BT_N_HEARD ? names[result] : "?";
}
