/* SPDX-License-Identifier: Apache-2.0 */
/* A server that plays a script, whatever it is asked: for clients.
 * Thread rule: the test's thread; the script is played in one of its own. */
#ifndef BT_TESTS_SCRIPTPEER_H
#define BT_TESTS_SCRIPTPEER_H
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A peer that accepts, reads a request's head and sends what the script says. */
typedef struct {
    const char *answer; /* NULL: nothing */
    bool keep;          /* the next step is on the same connection */
} step;

typedef struct {
    int listener;
    const step *steps;
    size_t n_steps, n_requests;
    pthread_t thread;
} script;

/* steps[n_steps] are borrowed until stop. Result: the port. */
uint16_t script_start(script *s, const step *steps, size_t n_steps);
/* Waits for the end of the script. */
void script_stop(script *s);

#endif
