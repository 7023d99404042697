/* SPDX-License-Identifier: Apache-2.0 */
/* An OpenAI-compatible server of a few lines, on a thread and a port of its own. A prompt is
 * answered with max_tokens times "ab"; a prompt with one of these words gets what the word says:
 *   refuse (503), cut (the stream breaks off), complain (an error event), garble (no JSON),
 *   think (a chat whose first two
 *   tokens are reasoning and a tool's call), hang (no answer at all), interrupt (the same, and
 * SIGINT for the process) */
#ifndef BT_TESTS_FAKE_OPENAI_H
#define BT_TESTS_FAKE_OPENAI_H
#include "support/test.h"

typedef struct fake_openai fake_openai;

fake_openai *fake_openai_start(void);
/* Stops it. *most_at_once (may be NULL): requests that were there at the same time. */
void fake_openai_stop(fake_openai *fake, uint32_t *most_at_once);
uint16_t fake_openai_port(const fake_openai *fake);

#endif
