/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/zmqguard.h"

#include "core/alloc.h"
#include "core/clock.h"
#include "core/fail.h"
#include "core/fdroom.h"
#include "core/log.h"
#include "core/pollset.h"
#include "core/thread.h"
#include "wire/zmqheld.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    LOOK_MS = 100,
    LOOK_SOON_MS = 10,
    MUCH_BYTES = 1 << 20,  /* held of all: look soon */
    CALL_BYTES = 64 << 10, /* held of all: have the owner look */
    NOISE_BYTES = 1 << 20,
    UNFINISHED_BYTES = 64 << 20,
    HELD_BYTES = 256 << 20,
    FIRST_SLOTS = 256,
    OWN_FDS = 2,
    MAX_EVENTS = 4096, /* of a socket, before the connections are looked at */
};
#define LOG_NS BT_NS_PER_S /* between two lines about connections that were shut down */

typedef struct {
    void *socket, *monitor; /* the latter is the thread's once it runs */
    bool is_router, is_curve;
    uint64_t frame_bytes; /* the largest */
    uint64_t ahead;       /* messages that ZeroMQ reads ahead for a connection */
    /* Lock. */
    uint64_t n_open;      /* connections, written by the thread */
    uint64_t round_stamp; /* when this round began, written by the thread */
    uint64_t empty_stamp; /* later than this the queue was found empty, in whatever round */
    uint64_t n_taken;     /* messages in this round */
    bool was_empty;       /* in this round */
} watched;

/* The connection that has this descriptor, as one socket tells. Each socket has slots of its own:
 * its monitor tells in order, but what two of them tell of a descriptor that moved may come
 * crosswise. */
typedef struct {
    bool is_open, is_cut; /* lock, written by the thread */
    uint32_t socket;      /* lock, written by the thread: index */
    uint64_t stamp;       /* lock, written by the thread: when it was accepted */
    bt_zmq_given given;   /* lock */
    /* The thread's. */
    uint64_t cookie; /* the kernel's name for it, which no other connection ever has */
    uint64_t received_bytes, waiting_bytes; /* by the kernel; of those, not read yet */
    bt_zmq_held held;
} slot;

struct bt_zmq_guard {
    bt_zmq_guard_options options; /* defaults filled in */
    watched sockets[BT_ZMQ_GUARD_SOCKETS_MAX];
    uint32_t n_sockets;
    pthread_mutex_t lock; /* held for a few instructions only */
    /* Counts rounds and accepted connections; release by the thread, acquire by the owner before it
     * looks into a queue: what it finds is so after that. */
    _Atomic uint64_t stamp;
    slot *slots; /* [n_slots] by slot_at; replaced by the thread, under lock */
    uint32_t n_slots;
    uint32_t n_open; /* the thread's, as is what follows */
    uint64_t look_ns, logged_ns;
    int spare_fd; /* becomes the descriptor of who is to be shut down: there may be no other left */
    int stop_fd;
    pthread_t thread;
    bool has_thread;
    _Atomic uint64_t n_cut;  /* relaxed counter */
    _Atomic bool has_called; /* release by the thread, acquire by the owner */
};

static uint32_t slot_at(uint32_t socket, int fd)
{
    return (uint32_t)fd * BT_ZMQ_GUARD_SOCKETS_MAX + socket;
}

static int fd_of(uint32_t at)
{
    return (int)(at / BT_ZMQ_GUARD_SOCKETS_MAX);
}

/* Owner. */

static uint64_t or_default(uint64_t bytes, uint64_t otherwise)
{
    return bytes != 0 ? bytes : otherwise;
}

baton_status bt_zmq_guard_create(const bt_zmq_guard_options *options, bt_zmq_guard **guard_p)
{
    BATON_TRY(bt_fdroom_require(OWN_FDS, "zmq: guard"));
    bt_zmq_guard *guard = bt_calloc(1, sizeof(*guard));
    if (guard == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "zmq: guard");
    pthread_mutex_init(&guard->lock, NULL);
    guard->options = *options;
    guard->options.noise_bytes = or_default(options->noise_bytes, NOISE_BYTES);
    guard->options.unfinished_bytes = or_default(options->unfinished_bytes, UNFINISHED_BYTES);
    guard->options.held_bytes = or_default(options->held_bytes, HELD_BYTES);
    guard->spare_fd = -1;
    guard->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (guard->stop_fd >= 0)
        guard->spare_fd = fcntl(guard->stop_fd, F_DUPFD_CLOEXEC, 0);
    if (guard->spare_fd < 0) {
        int err = errno;
        bt_zmq_guard_destroy(guard);
        return bt_fail_errno(bt_status_from_errno(err), err, "zmq: guard");
    }
    *guard_p = guard;
    return BATON_OK;
}

static baton_status option_of(void *socket, int option, void *value, size_t bytes)
{
    if (zmq_getsockopt(socket, option, value, &bytes) != 0)
        return bt_zmq_fail(errno, "zmq: option %d", option);
    return BATON_OK;
}

baton_status bt_zmq_guard_watch(bt_zmq_guard *guard, void *context, void *socket)
{
    int type = 0, mechanism = 0, ahead = 0;
    int64_t frame_bytes = 0;
    if (guard->n_sockets == BT_ZMQ_GUARD_SOCKETS_MAX)
        return bt_fail(BATON_ERR_INVALID_ARG, "zmq: guard of more than %d sockets",
                       BT_ZMQ_GUARD_SOCKETS_MAX);
    BATON_TRY(option_of(socket, ZMQ_TYPE, &type, sizeof(type)));
    BATON_TRY(option_of(socket, ZMQ_MECHANISM, &mechanism, sizeof(mechanism)));
    BATON_TRY(option_of(socket, ZMQ_RCVHWM, &ahead, sizeof(ahead)));
    BATON_TRY(option_of(socket, ZMQ_MAXMSGSIZE, &frame_bytes, sizeof(frame_bytes)));
    watched *watch = &guard->sockets[guard->n_sockets];
    watch->socket = socket;
    watch->is_router = type == ZMQ_ROUTER;
    watch->is_curve = mechanism == ZMQ_CURVE;
    watch->frame_bytes = (uint64_t)frame_bytes;
    watch->ahead = (uint64_t)ahead;
    BATON_TRY(bt_zmq_monitor_open_listener(context, socket, &watch->monitor));
    guard->n_sockets++;
    return BATON_OK;
}

static uint32_t index_of(const bt_zmq_guard *guard, const void *socket)
{
    uint32_t i = 0;
    while (i + 1 < guard->n_sockets && guard->sockets[i].socket != socket)
        i++;
    return i;
}

/* ZeroMQ takes from its connections in turn, so after so many messages whatever waited has been
 * taken: who floods does not keep others from being judged. Twice, since one that begins to have
 * something may change places with another. */
static bool has_taken_all(const watched *watch)
{
    return watch->n_taken > 2 * (watch->n_open + 1) * (watch->ahead + 2);
}

/* What was found out is so since stamp. When the queue was found empty after a connection had been
 * accepted, nothing is left of who had its descriptor before. */
static void note_given(bt_zmq_guard *guard, uint32_t index, const bt_zmq_arrival *arrival,
                       uint64_t stamp)
{
    watched *watch = &guard->sockets[index];
    slot *from = arrival->fd >= 0 && slot_at(index, arrival->fd) < guard->n_slots
                     ? &guard->slots[slot_at(index, arrival->fd)]
                     : NULL;
    if (from != NULL && from->is_open) {
        bool is_its_own = watch->empty_stamp >= from->stamp;
        from->given.bytes += is_its_own ? arrival->wire_bytes : 0;
        from->given.doubtful_bytes += is_its_own ? 0 : arrival->wire_bytes;
        from->given.messages += is_its_own;
    }
    if (arrival->was_empty)
        watch->empty_stamp = stamp;
    if (stamp < watch->round_stamp)
        return;
    watch->n_taken += arrival->fd >= 0;
    if (has_taken_all(watch) && watch->empty_stamp < watch->round_stamp)
        watch->empty_stamp = watch->round_stamp;
    watch->was_empty |= arrival->was_empty || has_taken_all(watch);
}

baton_status bt_zmq_guard_recv(bt_zmq_guard *guard, void *socket, bt_zmq_message *message)
{
    uint32_t index = index_of(guard, socket);
    const watched *watch = &guard->sockets[index];
    uint64_t stamp = atomic_load_explicit(&guard->stamp, memory_order_acquire);
    bt_zmq_arrival arrival = {.is_router = watch->is_router, .is_curve = watch->is_curve};
    baton_status status = bt_zmq_recv_from(socket, message, &arrival);
    pthread_mutex_lock(&guard->lock);
    note_given(guard, index, &arrival, stamp);
    pthread_mutex_unlock(&guard->lock);
    return status;
}

bool bt_zmq_guard_called(bt_zmq_guard *guard)
{
    return atomic_exchange_explicit(&guard->has_called, false, memory_order_acquire);
}

uint64_t bt_zmq_guard_cut_total(const bt_zmq_guard *guard)
{
    return atomic_load_explicit(&guard->n_cut, memory_order_relaxed);
}

/* The thread: who is there. */

static uint64_t cookie_of(int fd)
{
    uint64_t cookie = 0;
    socklen_t bytes = sizeof(cookie);
    return getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &bytes) == 0 ? cookie : 0;
}

/* At once a reset, and no more of it is taken. False: the descriptor is another's by now. */
static bool shut_down(bt_zmq_guard *guard, int fd, uint64_t cookie)
{
    const struct linger at_once = {.l_onoff = 1};
    if (dup3(fd, guard->spare_fd, O_CLOEXEC) < 0)
        return false;
    bool is_it = cookie_of(guard->spare_fd) == cookie;
    if (is_it) {
        setsockopt(guard->spare_fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
        shutdown(guard->spare_fd, SHUT_RDWR);
    }
    dup3(guard->stop_fd, guard->spare_fd, O_CLOEXEC);
    return is_it;
}

/* There is a slot of that number. */
static bool make_slot(bt_zmq_guard *guard, uint32_t at)
{
    uint32_t n = guard->n_slots == 0 ? FIRST_SLOTS : guard->n_slots;
    while (n <= at)
        n *= 2;
    if (n == guard->n_slots)
        return true;
    slot *slots = bt_calloc(n, sizeof(*slots)), *old = guard->slots;
    if (slots == NULL)
        return false;
    pthread_mutex_lock(&guard->lock);
    if (old != NULL)
        memcpy(slots, old, guard->n_slots * sizeof(*slots));
    guard->slots = slots;
    guard->n_slots = n;
    pthread_mutex_unlock(&guard->lock);
    bt_free(old);
    return true;
}

static void set_closed(bt_zmq_guard *guard, uint32_t at)
{
    if (at >= guard->n_slots || !guard->slots[at].is_open)
        return;
    pthread_mutex_lock(&guard->lock);
    guard->sockets[guard->slots[at].socket].n_open--;
    guard->slots[at].is_open = false;
    pthread_mutex_unlock(&guard->lock);
    guard->n_open--;
}

static uint64_t next_stamp(bt_zmq_guard *guard)
{
    return atomic_fetch_add_explicit(&guard->stamp, 1, memory_order_release) + 1;
}

/* What ZeroMQ has read of it. Where nothing more has come, nothing more is asked. */
static void measure(slot *s, int fd)
{
    struct tcp_info info = {0};
    socklen_t bytes = sizeof(info);
    int waiting = 0;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) != 0)
        return; /* it has gone, of which we shall hear */
    if (info.tcpi_bytes_received == s->received_bytes && s->waiting_bytes == 0)
        return;
    s->received_bytes = info.tcpi_bytes_received;
    s->waiting_bytes = ioctl(fd, SIOCINQ, &waiting) == 0 && waiting > 0 ? (uint64_t)waiting : 0;
    if (s->waiting_bytes > s->received_bytes) /* it came in between */
        s->waiting_bytes = s->received_bytes;
}

/* What it said before we heard of it may have been given already. */
static void set_open(bt_zmq_guard *guard, uint32_t socket, int fd, uint64_t now_ns)
{
    uint64_t cookie = cookie_of(fd);
    if (fd < 0 || cookie == 0) /* gone again */
        return;
    uint32_t at = slot_at(socket, fd);
    if (!make_slot(guard, at)) {
        shut_down(guard, fd, cookie); /* what cannot be watched is not let in */
        return;
    }
    slot opened = {.is_open = true, .socket = socket, .cookie = cookie, .held.since_ns = now_ns};
    measure(&opened, fd);
    opened.held.doubtful_bytes = opened.received_bytes - opened.waiting_bytes;
    set_closed(guard, at);
    pthread_mutex_lock(&guard->lock);
    opened.stamp = next_stamp(guard);
    guard->slots[at] = opened;
    guard->sockets[socket].n_open++;
    pthread_mutex_unlock(&guard->lock);
    guard->n_open++;
}

static void hear_monitor(bt_zmq_guard *guard, uint32_t socket, uint64_t now_ns)
{
    bt_zmq_event event;
    int fd;
    for (int i = 0; i < MAX_EVENTS; i++) {
        if (bt_zmq_monitor_next_fd(guard->sockets[socket].monitor, &event, &fd) != BATON_OK)
            return;
        if (event == BT_ZMQ_ACCEPTED)
            set_open(guard, socket, fd, now_ns);
        else if (fd >= 0)
            set_closed(guard, slot_at(socket, fd));
    }
}

/* The thread: what is held. */

static bool is_watched(const slot *s)
{
    return s->is_open && !s->is_cut;
}

static uint64_t positive(int64_t bytes)
{
    return bytes > 0 ? (uint64_t)bytes : 0;
}

/* Of all connections. */
typedef struct {
    uint64_t held, unfinished;
} sums;

/* Lock. True: the round ends, and the next begins with what has just been measured. */
static bool end_round(bt_zmq_guard *guard, watched *watch)
{
    if (!watch->was_empty)
        return false;
    watch->was_empty = false;
    watch->n_taken = 0;
    watch->round_stamp = next_stamp(guard);
    return true;
}

static sums look_at_all(bt_zmq_guard *guard, uint64_t now_ns)
{
    sums all = {0};
    bool ends_round[BT_ZMQ_GUARD_SOCKETS_MAX];
    for (uint32_t at = 0; at < guard->n_slots; at++) {
        slot *s = &guard->slots[at];
        if (is_watched(s))
            measure(s, fd_of(at));
    }
    pthread_mutex_lock(&guard->lock);
    for (uint32_t i = 0; i < guard->n_sockets; i++)
        ends_round[i] = end_round(guard, &guard->sockets[i]);
    for (uint32_t at = 0; at < guard->n_slots; at++) {
        slot *s = &guard->slots[at];
        if (!is_watched(s))
            continue;
        s->given.ends_round = ends_round[s->socket];
        bt_zmq_held_look(&s->held, s->received_bytes - s->waiting_bytes, &s->given, now_ns);
        s->given = (bt_zmq_given){0};
        all.held += positive(s->held.held_bytes);
        all.unfinished += s->held.unfinished_bytes;
    }
    pthread_mutex_unlock(&guard->lock);
    return all;
}

/* The thread: who is cut. */

/* Why, and what of. */
typedef struct {
    const char *text;
    uint64_t wanted_bytes, found_bytes;
} reason;

static void log_cut(bt_zmq_guard *guard, const reason *why, uint64_t now_ns)
{
    if (guard->logged_ns != 0 && bt_elapsed_ns(now_ns, guard->logged_ns) < LOG_NS)
        return;
    guard->logged_ns = now_ns;
    bt_warn("%s: connection cut: %s: wanted at most %" PRIu64 " bytes, found %" PRIu64
            "; keys decide who may connect (docs/security.md) cut_total=%" PRIu64,
            guard->options.what, why->text, why->wanted_bytes, why->found_bytes,
            bt_zmq_guard_cut_total(guard));
}

static void cut(bt_zmq_guard *guard, uint32_t at, const reason *why, uint64_t now_ns)
{
    slot *s = &guard->slots[at];
    if (!shut_down(guard, fd_of(at), s->cookie)) {
        set_closed(guard, at);
        return;
    }
    pthread_mutex_lock(&guard->lock);
    s->is_cut = true;
    pthread_mutex_unlock(&guard->lock);
    atomic_fetch_add_explicit(&guard->n_cut, 1, memory_order_relaxed);
    log_cut(guard, why, now_ns);
}

/* More is no message of ours: one that ZeroMQ has read and not passed on yet, and some of the next.
 */
static void cut_endless(bt_zmq_guard *guard, sums *all, uint64_t now_ns)
{
    for (uint32_t at = 0; at < guard->n_slots; at++) {
        const slot *s = &guard->slots[at];
        if (!is_watched(s))
            continue;
        uint64_t limit = 2 * guard->sockets[s->socket].frame_bytes + guard->options.noise_bytes;
        uint64_t unfinished = s->held.unfinished_bytes;
        if (unfinished <= limit || unfinished - limit <= s->held.doubtful_bytes)
            continue;
        all->unfinished -= unfinished;
        all->held -= positive(s->held.held_bytes);
        cut(guard, at, &(reason){"a message does not end", limit, unfinished}, now_ns);
    }
}

static uint64_t bytes_of(const slot *s, bool only_unfinished)
{
    return only_unfinished ? s->held.unfinished_bytes : positive(s->held.held_bytes);
}

/* The slot of who has most bytes for longest; n_slots: nobody has any. */
static uint32_t find_worst(const bt_zmq_guard *guard, bool only_unfinished, uint64_t now_ns)
{
    uint32_t worst = guard->n_slots;
    double most = 0;
    for (uint32_t at = 0; at < guard->n_slots; at++) {
        const slot *s = &guard->slots[at];
        if (!is_watched(s))
            continue;
        double rent =
            (double)bytes_of(s, only_unfinished) * (double)bt_elapsed_ns(now_ns, s->held.since_ns);
        if (rent > most) {
            most = rent;
            worst = at;
        }
    }
    return worst;
}

static void cut_worst(bt_zmq_guard *guard, sums *all, uint64_t now_ns)
{
    const bt_zmq_guard_options *most = &guard->options;
    while (all->unfinished > most->unfinished_bytes || all->held > most->held_bytes) {
        bool is_unfinished = all->unfinished > most->unfinished_bytes;
        uint32_t at = find_worst(guard, is_unfinished, now_ns);
        if (at == guard->n_slots)
            return;
        const reason why = is_unfinished ? (reason){"messages of all connections that do not end",
                                                    most->unfinished_bytes, all->unfinished}
                                         : (reason){"messages of all connections that are not read",
                                                    most->held_bytes, all->held};
        all->unfinished -= bytes_of(&guard->slots[at], true);
        all->held -= bytes_of(&guard->slots[at], false);
        cut(guard, at, &why, now_ns);
    }
}

/* Much is held, and the owner has not looked whether it could have it. */
static void call_owner(bt_zmq_guard *guard)
{
    atomic_store_explicit(&guard->has_called, true, memory_order_release);
    guard->options.wake(guard->options.ctx);
}

static void look(bt_zmq_guard *guard, uint64_t now_ns)
{
    sums all = look_at_all(guard, now_ns);
    bool is_much = all.held > MUCH_BYTES;
    if (all.held > CALL_BYTES)
        call_owner(guard);
    cut_endless(guard, &all, now_ns);
    cut_worst(guard, &all, now_ns);
    guard->look_ns =
        bt_deadline_ns(now_ns, (is_much ? LOOK_SOON_MS : LOOK_MS) * (uint64_t)BT_NS_PER_MS);
}

static void *run(void *ctx)
{
    bt_zmq_guard *guard = ctx;
    zmq_pollitem_t items[1 + BT_ZMQ_GUARD_SOCKETS_MAX] = {
        {.fd = guard->stop_fd, .events = ZMQ_POLLIN}};
    for (uint32_t i = 0; i < guard->n_sockets; i++)
        items[1 + i] = (zmq_pollitem_t){.socket = guard->sockets[i].monitor, .events = ZMQ_POLLIN};
    for (;;) {
        uint64_t now_ns = bt_now_ns(&bt_clock_monotonic);
        for (uint32_t i = 0; i < guard->n_sockets; i++)
            hear_monitor(guard, i, now_ns);
        if (guard->n_open > 0 && now_ns >= guard->look_ns)
            look(guard, now_ns);
        int ms = guard->n_open > 0 ? bt_wait_ms(now_ns, guard->look_ns) : -1;
        if (zmq_poll(items, (int)(1 + guard->n_sockets), ms) < 0 && errno != EINTR)
            return NULL;
        if (items[0].revents != 0)
            return NULL;
    }
}

baton_status bt_zmq_guard_start(bt_zmq_guard *guard)
{
    BATON_TRY(bt_thread_start(&guard->thread, "baton-guard", run, guard));
    guard->has_thread = true;
    return BATON_OK;
}

void bt_zmq_guard_destroy(bt_zmq_guard *guard)
{
    if (guard == NULL)
        return;
    if (guard->has_thread) {
        (void)!eventfd_write(guard->stop_fd, 1);
        pthread_join(guard->thread, NULL);
    }
    for (uint32_t i = 0; i < guard->n_sockets; i++)
        bt_zmq_monitor_close(guard->sockets[i].monitor, guard->sockets[i].socket);
    if (guard->spare_fd >= 0)
        close(guard->spare_fd);
    if (guard->stop_fd >= 0)
        close(guard->stop_fd);
    pthread_mutex_destroy(&guard->lock);
    bt_free(guard->slots);
    bt_free(guard);
}
