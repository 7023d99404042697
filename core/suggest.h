/* SPDX-License-Identifier: Apache-2.0 */
/* "Did you mean ...?": the nearest of some candidates to a mistyped word.
 * Thread rule: owner thread. */
#ifndef BT_CORE_SUGGEST_H
#define BT_CORE_SUGGEST_H
#include <stddef.h>

typedef struct {
    const char *word; /* borrowed */
    const char *best; /* borrowed; NULL while nothing is near */
    size_t distance;  /* of best */
} bt_suggest;

/* Usage: bt_suggest near = {.word = word}; offer every candidate; look at near.best. A candidate is
 * near when at most a third of the word's letters must change ('-' and '_' count as equal). */
void bt_suggest_offer(bt_suggest *near, const char *candidate);

#endif
