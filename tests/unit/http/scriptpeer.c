/* SPDX-License-Identifier: Apache-2.0 */
#include "scriptpeer.h"

#include "rawsocket.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Reads until a head is there, whatever of the body comes along. */
static bool read_head(int fd)
{
    char request[4096] = "";
    size_t used = 0;
    while (strstr(request, "\r\n\r\n") == NULL && used + 1 < sizeof(request)) {
        ssize_t n = TEMP_FAILURE_RETRY(recv(fd, request + used, sizeof(request) - 1 - used, 0));
        if (n <= 0)
            return false;
        used += (size_t)n;
        request[used] = '\0';
    }
    return true;
}

static void *play(void *arg)
{
    script *play_script = arg;
    char request[4096];
    int fd = -1;
    for (size_t i = 0; i < play_script->n_steps; i++) {
        if (fd < 0)
            fd = raw_accept(play_script->listener);
        play_script->n_requests += read_head(fd);
        if (play_script->steps[i].answer != NULL)
            raw_send_text(fd, play_script->steps[i].answer);
        if (!play_script->steps[i].keep) {
            shutdown(fd, SHUT_WR);
            raw_read_all(fd, request, sizeof(request));
            close(fd);
            fd = -1;
        }
    }
    return NULL;
}

uint16_t script_start(script *s, const step *steps, size_t n_steps)
{
    uint16_t port;
    *s = (script){.listener = raw_listen(&port), .steps = steps, .n_steps = n_steps};
    pthread_create(&s->thread, NULL, play, s);
    return port;
}

void script_stop(script *s)
{
    pthread_join(s->thread, NULL);
    close(s->listener);
}
