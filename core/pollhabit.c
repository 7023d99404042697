/* SPDX-License-Identifier: Apache-2.0 */
#include "core/pollhabit.h"

bool bt_pollhabit_idle(bt_pollhabit *habit, uint64_t now_ns)
{
    bool is_at_once = now_ns - habit->called_ns < BT_POLLHABIT_GAP_NS;
    habit->called_ns = now_ns;
    if (!is_at_once)
        habit->n_calls = 0;
    else if (habit->n_calls < BT_POLLHABIT_CALLS)
        habit->n_calls++;
    return habit->n_calls == BT_POLLHABIT_CALLS;
}

void bt_pollhabit_rely(bt_pollhabit *habit, uint64_t now_ns)
{
    habit->until_ns = now_ns + BT_POLLHABIT_NS;
}

bool bt_pollhabit_is_relied(const bt_pollhabit *habit, uint64_t now_ns)
{
    return now_ns < habit->until_ns;
}
