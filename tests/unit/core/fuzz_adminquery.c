/* SPDX-License-Identifier: Apache-2.0 */
/* Heads of admin requests: whatever they are, the answer is a status, and what was read is whole.
 */
#include "core/adminquery.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (int local_host = 0; local_host < 2; local_host++) {
        bt_admin_query query;
        const char *error = NULL;
        unsigned status =
            bt_admin_query_read((const char *)data, size, local_host != 0, &query, &error);
        bool is_whole = query.limit >= 1 && query.limit <= BT_ADMIN_ROWS_MAX &&
                        memchr(query.name, 0, sizeof(query.name)) != NULL &&
                        memchr(query.id, 0, sizeof(query.id)) != NULL &&
                        memchr(query.state, 0, sizeof(query.state)) != NULL;
        if ((status == 200) != (error == NULL) || !is_whole)
            abort();
    }
    return 0;
}
