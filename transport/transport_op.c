/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/transport_op.h"

#include <stdio.h>

#include "core/alloc.h"

enum { OPS_PER_SLAB = 128 };

struct bt_op_slab {
    struct bt_op_slab *next;
    bt_op ops[OPS_PER_SLAB];
};

void bt_op_push(bt_op_queue *queue, bt_op *op)
{
    op->next = NULL;
    if (queue->last != NULL)
        queue->last->next = op;
    else
        queue->first = op;
    queue->last = op;
}

bt_op *bt_op_pop(bt_op_queue *queue)
{
    bt_op *op = queue->first;
    if (op == NULL)
        return NULL;
    queue->first = op->next;
    if (queue->first == NULL)
        queue->last = NULL;
    return op;
}

bool bt_op_remove(bt_op_queue *queue, bt_op *op)
{
    bt_op_queue rest = {0};
    bool is_found = false;
    for (bt_op *each = bt_op_pop(queue); each != NULL; each = bt_op_pop(queue)) {
        if (each == op)
            is_found = true;
        else
            bt_op_push(&rest, each);
    }
    *queue = rest;
    return is_found;
}

void bt_op_set_failure(bt_op *op, baton_status status, const char *detail)
{
    if (op->status < 0)
        return;
    op->status = status;
    op->detail = detail;
}

void bt_op_report(const bt_op *op, bt_event *event)
{
    event->kind = op->kind;
    event->status = op->status;
    event->user_data = op->user_data;
    event->text[0] = '\0';
    if (op->status < 0 && op->detail != NULL)
        snprintf(event->text, sizeof(event->text), "%s", op->detail);
}

static bool grow(bt_op_pool *pool)
{
    struct bt_op_slab *slab = bt_calloc(1, sizeof(*slab));
    if (slab == NULL)
        return false;
    slab->next = pool->slabs;
    pool->slabs = slab;
    for (uint32_t i = 0; i < OPS_PER_SLAB; i++)
        bt_op_give(pool, &slab->ops[i]);
    return true;
}

bt_op *bt_op_take(bt_op_pool *pool)
{
    if (pool->free == NULL && !grow(pool))
        return NULL;
    bt_op *op = pool->free;
    pool->free = op->next;
    *op = (bt_op){0};
    return op;
}

void bt_op_give(bt_op_pool *pool, bt_op *op)
{
    op->next = pool->free;
    pool->free = op;
}

void bt_op_pool_clear(bt_op_pool *pool)
{
    while (pool->slabs != NULL) {
        struct bt_op_slab *slab = pool->slabs;
        pool->slabs = slab->next;
        bt_free(slab);
    }
    pool->free = NULL;
}
