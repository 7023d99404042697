/* SPDX-License-Identifier: Apache-2.0 */
/* Started operations of a worker, and the queue of those that are done and wait to be reported. An
 * operation owns the room for its own event from the start, so that finishing cannot fail.
 * Thread rule: the backend's (ucx: owner thread; loop: under the net's lock). */
#ifndef BT_TRANSPORT_TRANSPORT_OP_H
#define BT_TRANSPORT_TRANSPORT_OP_H
#include "transport/transport.h"

typedef struct bt_op {
    struct bt_op *next;
    void *owner; /* backend's; borrowed */
    uint64_t user_data;
    uint64_t tag, n_wanted; /* backend's */
    const char *detail;     /* static text of the failure, or NULL */
    bt_event_kind kind;
    baton_status status;            /* OK, or the first failure */
    uint32_t n_pending;             /* parts not finished yet */
    void (*then)(struct bt_op *op); /* backend's: called at the end, instead of a report */
} bt_op;

typedef struct {
    bt_op *first;
    bt_op *last;
} bt_op_queue;

void bt_op_push(bt_op_queue *queue, bt_op *op);
bt_op *bt_op_pop(bt_op_queue *queue); /* NULL when empty. */
/* False when it is not in the queue. */
bool bt_op_remove(bt_op_queue *queue, bt_op *op);
/* Records a failure; the first one stays. */
void bt_op_set_failure(bt_op *op, baton_status status, const char *detail);
void bt_op_report(const bt_op *op, bt_event *event);

/* Free operations, in slabs that grow and live until bt_op_pool_clear. Zero is a valid pool. */
struct bt_op_slab;
typedef struct {
    bt_op *free;
    struct bt_op_slab *slabs;
} bt_op_pool;

/* A zeroed operation, or NULL when there is no memory. */
bt_op *bt_op_take(bt_op_pool *pool);
void bt_op_give(bt_op_pool *pool, bt_op *op);
void bt_op_pool_clear(bt_op_pool *pool);

#endif
