/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/digests.h"

#include "core/fail.h"

uint32_t bt_digests_of(baton_digests wanted)
{
    switch (wanted) {
    case BATON_DIGESTS_SAMPLED:
        return BT_DIGESTS_SAMPLED;
    case BATON_DIGESTS_FULL:
        return BT_DIGESTS_TILES;
    default:
        return BT_DIGESTS_OFF;
    }
}

uint32_t bt_digests_stronger(uint32_t a, uint32_t b)
{
    if (a == BT_DIGESTS_TILES || b == BT_DIGESTS_TILES)
        return BT_DIGESTS_TILES;
    return a != BT_DIGESTS_OFF ? a : b;
}

baton_status bt_digests_check(uint32_t theirs)
{
    if (theirs == BT_DIGESTS_OFF || theirs == BT_DIGESTS_TILES || theirs == BT_DIGESTS_SAMPLED)
        return BATON_OK;
    return bt_fail(BATON_ERR_VERSION_MISMATCH,
                   "init: digests: wanted %d (off), %d (of tiles) or %d (sampled), found %u: %s "
                   "Baton, whose digests never match ours; update the older side, or switch "
                   "digests off",
                   BT_DIGESTS_OFF, BT_DIGESTS_TILES, BT_DIGESTS_SAMPLED, theirs,
                   theirs == BT_DIGESTS_WHOLE ? "an older" : "a newer");
}
