/* SPDX-License-Identifier: Apache-2.0 */
/* The demo's prompts, cut out of English texts found on the machine. Of every eight, five stand
 * alone, two begin as an earlier one does and go on differently, one repeats an earlier one.
 * Thread rule: owner thread. */
#ifndef BT_BENCH_DEMO_PROMPTS_H
#define BT_BENCH_DEMO_PROMPTS_H
#include "core/strbuf.h"

enum { BT_DEMO_MIN_BYTES = 200, BT_DEMO_MAX_BYTES = 4000 };

/* Reads the text files; prompts[n] (zeroed) get plain ASCII of BT_DEMO_MIN_BYTES to
 * BT_DEMO_MAX_BYTES, a byte being a token of the byte-level tokenizer. The same for the same files.
 * The caller frees them, also after an error. Errors: IO, NOT_FOUND (too little text), NO_MEMORY.
 */
baton_status bt_demo_prompts_make(const char *const *paths, size_t n_paths, bt_strbuf *prompts,
                                  uint32_t n);

#endif
