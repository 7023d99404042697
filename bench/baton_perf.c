/* SPDX-License-Identifier: Apache-2.0 */
/* baton-perf: moves pages between two processes, checks them and measures. */
#include "bench/perf_control.h"
#include "bench/perf_curve.h"
#include "bench/perf_latency.h"
#include "bench/perf_matrix.h"
#include "bench/perf_produce.h"
#include "bench/perf_receiver.h"
#include "bench/perf_report.h"
#include "bench/perf_soak.h"
#include "bench/perf_work.h"
#include "core/fail.h"

#include <baton/log.h>
#include <baton/receiver.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Exit statuses. */
enum { ALL_RIGHT = 0, WRONG_BYTE = 1, NOTHING_RAN = 2 };

static int complain(baton_status status)
{
    fprintf(stderr, "baton-perf: %s\n", baton_last_error());
    return status == BATON_ERR_CORRUPT ? WRONG_BYTE : NOTHING_RAN;
}

static bool is_loopback(const char *host)
{
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "localhost") == 0;
}

/* A receiver without work, for who asks how bytes would get here (baton-doctor --peer). It has no
 * thread, since a sender's setup may change the environment. */
static baton_status open_probed(const bt_perf_place *place, baton_receiver **receiver_p)
{
    enum { PAGE_BYTES = 4096 };
    bt_perf_work work = {.n_pages = 1, .page_bytes = PAGE_BYTES};
    BATON_TRY(bt_perf_work_init(&work));
    const baton_receiver_options options = {
        .name = "perf-receiver",
        .layout = work.layout,
        .host = place->host,
        .pool_bytes = PAGE_BYTES,
        .n_regions = 1,
        .progress = BATON_PROGRESS_MANUAL,
        .security = {.allow_unauthenticated = place->allow_unauthenticated},
        .data = {.data_devices = place->devices, .n_data_devices = place->n_devices},
    };
    return baton_receiver_create(&options, receiver_p);
}

/* Until a sender is there. */
static baton_status wait_for_sender(int listener, baton_receiver *probed)
{
    for (;;) {
        struct pollfd fds[] = {{.fd = listener, .events = POLLIN},
                               {.fd = baton_receiver_progress_fd(probed), .events = POLLIN}};
        uint32_t ms = baton_receiver_progress(probed);
        if (poll(fds, 2, ms < 60000 ? (int)ms : 60000) < 0 && errno != EINTR)
            return bt_fail_errno(BATON_ERR_IO, errno, "perf: poll");
        if (fds[0].revents != 0)
            return BATON_OK;
    }
}

/* One sender after the other; what is wrong with one is no reason to turn the next one away. */
static baton_status serve_all(const bt_perf_place *place, int listener, baton_receiver *probed)
{
    for (;;) {
        BATON_TRY(wait_for_sender(listener, probed));
        bt_perf_control control = {.fd = accept(listener, NULL, NULL)};
        if (control.fd < 0 && errno == EINTR)
            continue;
        if (control.fd < 0)
            return bt_fail_errno(BATON_ERR_IO, errno, "perf: accept");
        if (bt_perf_serve(place, &control) != BATON_OK)
            complain(BATON_ERR_IO);
        bt_perf_close(&control);
    }
}

static baton_status listen_and_serve(const bt_perf_options *o, bt_perf_place *place)
{
    int listener;
    uint16_t port = o->port, init_port, alloc_port;
    baton_receiver *probed = NULL;
    place->host = o->host;
    place->allow_unauthenticated = !is_loopback(o->host);
    BATON_TRY(bt_perf_listen(o->host, &port, &listener));
    baton_status status = open_probed(place, &probed);
    if (status == BATON_OK) {
        baton_receiver_ports(probed, &init_port, &alloc_port);
        printf("baton-perf: init=%s:%u --role sender --peer %s:%u\n", o->host, init_port, o->host,
               port);
        fflush(stdout);
        status = serve_all(place, listener, probed);
    }
    baton_receiver_destroy(probed);
    close(listener);
    return status;
}

static int receive(const bt_perf_options *o)
{
    bt_perf_place place = {.devices = o->devices, .n_devices = o->n_devices};
    bt_perf_control control = {.fd = o->control_fd};
    baton_status status =
        o->control_fd >= 0 ? bt_perf_serve(&place, &control) : listen_and_serve(o, &place);
    return status == BATON_OK ? ALL_RIGHT : complain(status);
}

static baton_status measure_one(const bt_perf_options *o, const char *program, bt_strbuf *out)
{
    bt_perf_result result;
    baton_status status = bt_perf_run(o, program, &result);
    if (status == BATON_OK)
        status = bt_perf_report(o, &result, out);
    bt_perf_result_free(&result);
    return status;
}

static int work_for(const bt_perf_options *o)
{
    bt_perf_control control = {.fd = o->control_fd};
    baton_status status = bt_perf_work_for(o, &control);
    return status == BATON_OK ? ALL_RIGHT : complain(status);
}

static int measure(const bt_perf_options *o)
{
    static baton_status (*const modes[])(const bt_perf_options *options, const char *program,
                                         bt_strbuf *out) = {
        [BT_PERF_ONE] = measure_one,
        [BT_PERF_CURVE] = bt_perf_curve,
        [BT_PERF_BESIDE] = bt_perf_side_by_side,
        [BT_PERF_LATENCY] = bt_perf_latency,
        [BT_PERF_ALLOC] = bt_perf_alloc,
        [BT_PERF_PRODUCE] = bt_perf_produce,
        [BT_PERF_MATRIX] = bt_perf_matrix,
        [BT_PERF_SOAK] = bt_perf_soak,
    };
    bt_strbuf text = {0};
    baton_status status = modes[o->mode](o, "/proc/self/exe", &text);
    if (status == BATON_OK)
        status = bt_strbuf_status(&text);
    fputs(bt_strbuf_text(&text), stdout);
    bt_strbuf_free(&text);
    return status == BATON_OK ? ALL_RIGHT : complain(status);
}

int main(int argc, char **argv)
{
    bt_perf_options options;
    bt_strbuf info = {0};
    int exit_code = ALL_RIGHT;
    baton_status status = bt_perf_options_parse(argc, argv, &options, &info);
    if (status != BATON_OK)
        exit_code = complain(BATON_ERR_INVALID_ARG);
    else if (info.length > 0)
        fputs(bt_strbuf_text(&info), stdout);
    else if (options.role == BT_PERF_RECEIVER)
        exit_code = receive(&options);
    else if (options.role == BT_PERF_WORKER)
        exit_code = work_for(&options);
    else
        exit_code = measure(&options);
    bt_strbuf_free(&info);
    bt_perf_options_free(&options);
    return exit_code;
}
