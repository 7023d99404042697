/* SPDX-License-Identifier: Apache-2.0 */
#include "core/suggest.h"

#include <string.h>

enum { MAX_WORD = 63 }; /* longer words are nobody's slip of the finger */

static char folded(char c)
{
    return c == '-' ? '_' : c;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Optimal string alignment distance: insert, delete, replace, or swap two neighbours. Rows of the
 * usual table: `two` and `one` are the two before `row`. */
static size_t edit_distance(const char *a, size_t n_a, const char *b, size_t n_b)
{
    size_t rows[3][MAX_WORD + 1];
    for (size_t j = 0; j <= n_b; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= n_a; i++) {
        size_t *row = rows[i % 3];
        const size_t *one = rows[(i + 2) % 3], *two = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= n_b; j++) {
            size_t change = folded(a[i - 1]) != folded(b[j - 1]);
            row[j] = least(one[j - 1] + change, least(one[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = least(row[j], two[j - 2] + 1);
        }
    }
    return rows[n_a % 3][n_b];
}

void bt_suggest_offer(bt_suggest *near, const char *candidate)
{
    size_t n_word = strlen(near->word), n_candidate = strlen(candidate);
    if (n_word == 0 || n_word > MAX_WORD || n_candidate > MAX_WORD)
        return;
    size_t distance = edit_distance(near->word, n_word, candidate, n_candidate);
    if (distance > (n_word + 2) / 3 || distance >= n_candidate)
        return;
    if (near->best == NULL || distance < near->distance) {
        near->best = candidate;
        near->distance = distance;
    }
}
