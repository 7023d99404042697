/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of core/states.def as Promela: a name for each state and event, and one macro per
 * machine that is the rows of an if, to be used as
 *
 *   if
 *   TICKET_ROWS -> ...
 *
 * A row asserts its guard, sets the state and says in `act` what is to be done. What has no row is
 * an error here: the code would refuse it, and is not meant to get there. */
mtype = {
#define BT_OF_PEER
#define BT_STATE(name, text) PEER_##name,
#define BT_EVENT(name, text) PEER_ON_##name,
#include "core/states.def"
#define BT_OF_TRANSFER
#define BT_STATE(name, text) XFER_##name,
#define BT_EVENT(name, text) XFER_ON_##name,
#include "core/states.def"
#define BT_OF_TICKET
#define BT_STATE(name, text) TICKET_##name,
#define BT_EVENT(name, text) TICKET_ON_##name,
#include "core/states.def"
#define BT_OF_PAGE
#define BT_STATE(name, text) PAGE_##name,
#define BT_EVENT(name, text) PAGE_ON_##name,
#include "core/states.def"
#define BT_OF_PEER
#define BT_ACTION(name, text) PEER_DO_##name,
#include "core/states.def"
#define BT_OF_TRANSFER
#define BT_ACTION(name, text) XFER_DO_##name,
#include "core/states.def"
#define BT_OF_TICKET
#define BT_ACTION(name, text) TICKET_DO_##name,
#include "core/states.def"
    NOWHERE /* no transfer, no ticket */
}

inline peer_table(r, st, on)
{
    if
#define BT_OF_PEER
#define BT_MOVE(from, event, guard, to, action)                                                    \
    :: st == PEER_##from && on == PEER_ON_##event ->                                               \
        assert(PEER_IF_##guard(r)); st = PEER_##to; act = PEER_DO_##action
#include "core/states.def"
    :: else -> assert(false) /* refused */
    fi
}

inline transfer_table(r, x, st, on)
{
    if
#define BT_OF_TRANSFER
#define BT_MOVE(from, event, guard, to, action)                                                    \
    :: st == XFER_##from && on == XFER_ON_##event ->                                               \
        assert(XFER_IF_##guard(r, x)); st = XFER_##to; act = XFER_DO_##action
#include "core/states.def"
    :: else -> assert(false) /* refused */
    fi
}

inline ticket_table(r, t, st, on)
{
    if
#define BT_OF_TICKET
#define BT_MOVE(from, event, guard, to, action)                                                    \
    :: st == TICKET_##from && on == TICKET_ON_##event ->                                           \
        assert(TICKET_IF_##guard(r, t)); st = TICKET_##to; act = TICKET_DO_##action
#include "core/states.def"
    :: else -> assert(false) /* refused */
    fi
}

inline page_table(r, p, st, on)
{
    if
#define BT_OF_PAGE
#define BT_MOVE(from, event, guard, to, action)                                                    \
    :: st == PAGE_##from && on == PAGE_ON_##event -> assert(PAGE_IF_##guard(r, p)); st = PAGE_##to
#include "core/states.def"
    :: else -> assert(false) /* refused */
    fi
}
