/* SPDX-License-Identifier: Apache-2.0 */
/* One message of every kind, with every field set. Their frames, made by another implementation
 * from docs/protocol.md, are the corpus of the message fuzz target: tests/fuzz/corpus/message/.
 *
 * Thread rule: the test's thread. */
#ifndef BT_TESTS_WIRE_MESSAGE_SAMPLES_H
#define BT_TESTS_WIRE_MESSAGE_SAMPLES_H
#include "wire/messages.h"

/* Fills message, which borrows static memory; returns the name of its frame in the corpus, or NULL
 * when there is no sample idx. */
const char *message_sample(unsigned idx, bt_message *message);

#endif
