/* SPDX-License-Identifier: Apache-2.0 */
/* Prompts from a file. By the end of its name:
 *   .jsonl  one JSON value a line: a string, or an object with "prompt" (text or token ids) or
 *           "messages" (chat), and optionally "max_tokens"
 *   .json   an array of conversations, as ShareGPT has them
 *   else    one a line, as it is
 * Thread rule: any thread once created. */
#ifndef BT_BENCH_LOAD_PROMPTS_H
#define BT_BENCH_LOAD_PROMPTS_H
#include "bench/load/load_options.h"
#include "http/jsonscan.h"

/* JSON texts, borrowed from the prompts. */
typedef struct {
    bt_slice prompt;     /* a string or an array of ids; n 0: messages instead */
    bt_slice messages;   /* an array; n 0: made from prompt */
    uint32_t max_tokens; /* 0: as the options say */
} bt_load_prompt;

typedef struct bt_load_prompts bt_load_prompts;

/* Reads options->dataset_path; what a line may hold depends on options->backend and n_turns.
 * Errors: NOT_FOUND, IO, BAD_MESSAGE (file and line), INVALID_ARG (no prompt in it), NO_MEMORY. */
baton_status bt_load_prompts_read(const bt_load_options *options, bt_load_prompts **prompts_p);
/* Prompt i, from the beginning again behind the last. */
const bt_load_prompt *bt_load_prompts_at(const bt_load_prompts *prompts, uint32_t i);
void bt_load_prompts_destroy(bt_load_prompts *prompts); /* NULL is allowed. */

#endif
