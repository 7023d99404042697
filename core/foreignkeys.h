/* SPDX-License-Identifier: Apache-2.0 */
/* Config keys of LMCache, so that the files of existing deployments start a Baton sender or
 * receiver as they are: each is mapped to the Baton key that means the same, or is known and
 * ignored with its reason. Sources: LMCache's config.py up to 0.3.x (nixl_*) and after (pd_*).
 *
 * Thread rule: any thread; the table is constant. */
#ifndef BT_CORE_FOREIGNKEYS_H
#define BT_CORE_FOREIGNKEYS_H
#include <stdbool.h>
#include <stddef.h>

/* Keys that both sides of a hand-off share, and that foreign keys are mapped to. */
#define BT_KEY_ROLE "role"                     /* sender or receiver */
#define BT_KEY_HOST "host"                     /* receiver: address to bind; sender: its peer's */
#define BT_KEY_INIT_PORT "init_port"           /* ports, one per rank */
#define BT_KEY_ALLOC_PORT "alloc_port"         /* ports, one per rank */
#define BT_KEY_PROXY_HOST "proxy_host"         /* where notices go */
#define BT_KEY_PROXY_PORT "proxy_port"         /* where notices go */
#define BT_KEY_POOL_BYTES "pool_bytes"         /* size of the pool */
#define BT_KEY_CHUNK_TOKENS "chunk_tokens"     /* tokens per chunk */
#define BT_KEY_MEMORY_KIND "memory_kind"       /* host, cuda or cuda_host */
#define BT_KEY_HASH_ALGORITHM "hash_algorithm" /* of tokens */
#define BT_KEY_HASH_SEED "hash_seed"           /* of tokens */

typedef struct {
    const char *key;
    const char *baton_key; /* NULL: known and ignored */
    const char *why;       /* what it means here, or why it is ignored */
    /* The Baton value for a foreign one; NULL when there is none. NULL function: as it is. */
    const char *(*translate)(const char *value);
    const char *takes; /* what translate understands, for the error text */
    bool weak;         /* counts only where no other key of the file says the same */
} bt_foreign_key;

extern const bt_foreign_key bt_lmcache_keys[];
extern const size_t bt_n_lmcache_keys;

#endif
