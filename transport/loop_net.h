/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the loop backend: what its files share. Everything hangs off the net and is guarded by
 * its lock; functions here want the lock held unless they say otherwise. Things in flight name
 * their target by id, not by pointer, since it may be gone when they arrive. */
#ifndef BT_TRANSPORT_LOOP_NET_H
#define BT_TRANSPORT_LOOP_NET_H
#include <pthread.h>

#include "transport/loop.h"
#include "transport/transport_op.h"

typedef struct loop_worker loop_worker;
typedef struct loop_endpoint loop_endpoint;

typedef struct {
    bt_loop_faults faults;
    uint64_t n_puts, n_messages; /* calls since the faults were set */
} bt_loop_fault_state;

/* A message behind the data. It is reported when it has come, the runs posted before it have
 * arrived, and the messages before it have been reported. */
typedef struct bt_loop_note {
    struct bt_loop_note *next;
    uint64_t seq;      /* of the link's runs, those below it come first */
    uint64_t n_before; /* how many of these have not arrived */
    bool has_come;
    size_t n_bytes;
    uint8_t bytes[];
} bt_loop_note;

typedef struct {
    bt_loop_note *first, *last;
} bt_loop_notes;

typedef struct {
    uint32_t idx;
    uint64_t target_id;      /* of the worker */
    loop_endpoint *endpoint; /* NULL once closed */
    uint64_t n_blocking;     /* first copies that have not arrived; a flush waits for them */
    uint64_t next_seq;
    bt_loop_notes notes;    /* on their way, in order */
    bool has_failed_put;    /* so nothing behind it may be told */
    bool has_faults;        /* of its own, instead of the net's */
    uint64_t busy_until_ns; /* with bytes_per_s: when the last run has left the link */
    bt_loop_fault_state own;
} bt_loop_link;

/* One run on its way, or a message. */
typedef struct bt_loop_packet {
    struct bt_loop_packet *prev, *next;
    bt_loop_link *link;
    bt_loop_note *note; /* the message, in the link's list; NULL: a run */
    uint64_t due_ns;
    uint64_t order; /* among equal due_ns */
    uint64_t seq;   /* within the link */
    uint64_t memory_id;
    const bt_memory *local; /* that local_addr is in, NULL: host memory; not used once sent */
    uint64_t local_addr, remote_addr, bytes;
    uint64_t duplicate_ns; /* the second copy's due time; 0: none */
    bool is_lost, is_stuck, is_duplicate;
    uint8_t payload[];
} bt_loop_packet;

typedef struct {
    bt_loop_packet *first, *last;
} bt_loop_packets;

typedef struct loop_memory {
    bt_memory base;
    struct loop_memory *next;
    uint64_t id;
    bool is_own;    /* allocated by us */
    bool is_mapped; /* by a peer: as shared memory would, it outlives being freed */
} loop_memory;

typedef struct {
    bt_transport base;
    bt_loop_net *net;
    uint32_t n_users; /* workers and memories */
} loop_transport;

/* A put, flush or close that was called. */
typedef struct loop_call {
    bt_op op;
    bt_loop_packets packets; /* put: its runs, until they are sent */
    uint64_t flush_seq;      /* flush: waits for what is before it */
    uint64_t n_before;       /* flush: how many of these have not arrived */
} loop_call;

struct loop_endpoint {
    bt_endpoint base;
    loop_endpoint *next;
    bt_loop_link *link;
    bt_op_queue posted;   /* calls before the issuer's progress took them */
    bt_op_queue flushes;  /* flushes that wait */
    bt_op failed, closed; /* embedded, so that reporting them needs no memory */
    bool has_failed, is_closing, is_closed;
    bool waits_to_close; /* by force, where it hangs */
    uint32_t n_remotes;
};

struct loop_worker {
    bt_worker base;
    loop_worker *next;
    bt_loop_net *net;
    uint64_t id;
    int fd; /* timerfd: expires at once to wake up, or when the next run is due */
    loop_endpoint *endpoints;
    bt_op_queue done;
    bt_loop_notes received; /* messages to be reported */
    bt_loop_notes reported; /* valid until the next progress */
};

typedef struct {
    bt_remote base;
    uint64_t memory_id;
} loop_remote;

struct bt_loop_net {
    pthread_mutex_t lock;
    const bt_clock *clock;
    uint64_t rng;
    uint64_t next_id;
    loop_worker *workers;
    loop_memory *memories;
    loop_memory *freed;   /* but mapped: kept until the network goes */
    bt_loop_link **links; /* [n_links], room for cap_links */
    uint32_t n_links, cap_links;
    bt_loop_packets in_flight; /* by due_ns, then order */
    bt_loop_fault_state all;
    bool can_map, puts_are_mapped, reaches_device;
    bt_loop_stats stats;
};

void bt_loop_lock(bt_loop_net *net); /* without the lock */
void bt_loop_unlock(bt_loop_net *net);
uint64_t bt_loop_random(bt_loop_net *net);
bt_loop_fault_state *bt_loop_faults_of(bt_loop_net *net, bt_loop_link *link);
loop_worker *bt_loop_find_worker(bt_loop_net *net, uint64_t id);
loop_memory *bt_loop_find_memory(bt_loop_net *net, uint64_t id);
void bt_loop_free_memory(loop_memory *memory);
/* Errors: NO_MEMORY. */
baton_status bt_loop_add_link(bt_loop_net *net, uint64_t target_id, bt_loop_link **link_p);

/* As memcpy, where one side is in `memory`, which may be on a device. */
void bt_loop_copy(const bt_memory *memory, void *to, const void *from, size_t bytes);
void bt_loop_packet_append(bt_loop_packets *list, bt_loop_packet *packet);
void bt_loop_packets_clear(bt_loop_packets *list);
/* Takes the packet over, in order of arrival. */
void bt_loop_send(bt_loop_net *net, bt_loop_packet *packet);
void bt_loop_deliver_due(bt_loop_net *net);
/* Forgets what is on its way to the worker. */
void bt_loop_drop_for(bt_loop_net *net, uint64_t worker_id);

void bt_loop_note_append(bt_loop_notes *list, bt_loop_note *note);
bt_loop_note *bt_loop_note_pop(bt_loop_notes *list); /* NULL when empty. */
void bt_loop_notes_clear(bt_loop_notes *list);

/* Queues the operation for reporting and wakes its worker. */
void bt_loop_finish(loop_endpoint *endpoint, bt_op *op);
/* Fails the endpoint and what waits on it. */
void bt_loop_fail(loop_endpoint *endpoint, baton_status status, const char *detail);
/* Finishes all that waits with the status. */
void bt_loop_cancel_calls(loop_endpoint *endpoint, baton_status status, const char *detail);
/* The rest of a close by force. */
void bt_loop_force(loop_endpoint *endpoint);
/* Reports CLOSED once nothing waits any more. */
void bt_loop_try_close(loop_endpoint *endpoint);
void bt_loop_call_free(loop_call *call);
void bt_loop_wake(loop_worker *worker);

#endif
