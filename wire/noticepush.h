/* SPDX-License-Identifier: Apache-2.0 */
/* Sends notices to proxies: one PUSH socket per address, opened when it is first needed. The least
 * recently used one is closed when there are too many; what it had not sent yet still has a second.
 * Each holds a bounded number of notices while its proxy cannot be reached; more are dropped and
 * counted, since a proxy that misses one asks with STATUS.
 *
 * Thread rule: owner thread; stats from any thread. */
#ifndef BT_WIRE_NOTICEPUSH_H
#define BT_WIRE_NOTICEPUSH_H
#include "wire/notice.h"
#include "wire/security.h"

typedef struct bt_noticepush bt_noticepush;

enum { BT_NOTICE_SOCKETS_MAX = 64, BT_NOTICES_WAITING_MAX = 1024 };

/* context: of ZeroMQ; security: of either side, NULL or without keys: none. Both borrowed until
 * destroy. With keys, but without the proxy's, every notice is dropped, after one warning. Errors:
 * NO_MEMORY. */
baton_status bt_noticepush_create(void *context, const bt_security *security,
                                  bt_noticepush **push_p);
/* Queues one notice for "tcp://host:port" and counts it as sent or dropped. Never blocks. */
void bt_noticepush_send(bt_noticepush *push, const char *address, const bt_notice *notice);
void bt_noticepush_get_stats(const bt_noticepush *push, uint64_t *sent, uint64_t *dropped);
/* Closes; what waits has flush_ms, which the context's destruction waits for. NULL is allowed. */
void bt_noticepush_destroy(bt_noticepush *push, uint32_t flush_ms);

#endif
