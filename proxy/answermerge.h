/* SPDX-License-Identifier: Apache-2.0 */
/* One answer for the client from two engines' answers, when the prefill engine's token comes first:
 * its token, then the decode engine's, as if one engine had made both. Names, times and counts are
 * those of one answer: id and created of the prefill engine's, one prompt token less and one
 * completion token more than the decode engine counted, and the prefill engine's cached tokens
 * (the decode engine found nearly all of the prompt cached, because it was handed over).
 *
 * In chat both legs are completions, and the client's answer is written anew in chat's shape, event
 * by event.
 *
 * Thread rule: owner thread. */
#ifndef BT_PROXY_ANSWERMERGE_H
#define BT_PROXY_ANSWERMERGE_H
#include "core/strbuf.h"
#include "http/sse.h"
#include "proxy/bodyplan.h"
#include "proxy/prefillanswer.h"

typedef struct {
    bt_route route;
    bool include_usage, continuous_usage;
    const bt_prefill_answer *first; /* borrowed */
    char id[160];                   /* the answer's id, as JSON */
} bt_merge;

void bt_merge_init(bt_merge *merge, const bt_body_plan *plan, const bt_prefill_answer *first);

/* Appends the events of the prefill engine's token. is_last: the answer ends with it, so the finish
 * reason, usage if wanted, and [DONE] follow. Errors: NO_MEMORY, BAD_MESSAGE. */
baton_status bt_merge_first_events(const bt_merge *merge, bool is_last, bt_strbuf *out);
/* Appends one of the decode engine's events. What is no JSON object (comments, [DONE]) and errors
 * pass as they are. *is_done: it was [DONE]; *is_error: it was an error object. */
baton_status bt_merge_event(const bt_merge *merge, const bt_sse_event *event, bt_strbuf *out,
                            bool *is_done, bool *is_error);
/* Appends the whole JSON answer. decode_json NULL: the prefill engine's token is all.
 * Errors: NO_MEMORY, BAD_MESSAGE (the decode engine's answer has not one choice). */
baton_status bt_merge_whole(const bt_merge *merge, const char *decode_json, size_t n,
                            bt_strbuf *out);

#endif
