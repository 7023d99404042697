/* SPDX-License-Identifier: Apache-2.0 */
/* What endpoints answered to one question.
 * Thread rule: owner thread. */
#ifndef BT_CTL_ASK_H
#define BT_CTL_ASK_H
#include "ctl/ctl_endpoints.h"

#include <jansson.h>

typedef struct {
    json_t *answers; /* array of the answers, each with "at" added */
    json_t *failed;  /* array of {"at","error"} */
} bt_ctl_answers;

/* Asks all endpoints for `name`; what they list under `list` (NULL: nothing) is gathered window by
 * window, up to options->limit rows. state, id: NULL for none. Errors: NO_MEMORY; endpoints that
 * fail are in answers->failed. */
typedef struct {
    const char *name, *list, *state, *id;
    uint32_t limit;
} bt_ctl_question;
baton_status bt_ctl_ask(const bt_ctl_options *options, const bt_ctl_endpoints *endpoints,
                        const bt_ctl_question *question, bt_ctl_answers *answers);
void bt_ctl_answers_free(bt_ctl_answers *answers);

#endif
