/* SPDX-License-Identifier: Apache-2.0 */
/* baton-proxy: reads the flags, runs the proxy until SIGINT or SIGTERM, drains and leaves. SIGHUP
 * has certificates and API keys read again. */
#include "core/log.h"
#include "proxy/proxyflags.h"

#include <signal.h>
#include <stdio.h>

static bool set_log_level(const char *name)
{
    baton_log_level level;
    if (baton_log_level_parse(name, &level) != BATON_OK) {
        fprintf(stderr, "baton-proxy: --log-level: %s\n", baton_last_error());
        return false;
    }
    baton_log_set_sink(bt_log_stderr, NULL);
    baton_log_set_level(level);
    return true;
}

/* Scripts read this line; its form is in docs/proxy.md. */
static void print_ready(const bt_proxy *proxy, const bt_proxy_options *options)
{
    printf("ready: baton-proxy http=%s:%u notices=%s:%u prefill=%u decode=%u threads=%u%s\n",
           options->host, bt_proxy_port(proxy), options->notice_host, bt_proxy_notice_port(proxy),
           options->n_prefill, options->n_decode, bt_proxy_threads(proxy),
           options->doors.tls_certificate != NULL ? " tls=on" : "");
    fflush(stdout);
}

/* Until a signal that ends the proxy. */
static int wait_for_end(bt_proxy *proxy, const sigset_t *signals)
{
    int signum;
    while (sigwait(signals, &signum) == 0 && signum == SIGHUP) {
        if (bt_proxy_reload(proxy) == BATON_OK)
            bt_info("certificates and API keys read again");
        else
            bt_error("not read again, the old one stays: %s", baton_last_error());
    }
    return signum;
}

static int run(const bt_args *args)
{
    static bt_proxy_flag_room room;
    bt_proxy_options options;
    bt_proxy *proxy = NULL;
    sigset_t signals;
    if (!set_log_level(bt_args_value(args, "log-level")))
        return 2;
    if (bt_proxy_flags_read(args, &room, &options) != BATON_OK) {
        fprintf(stderr, "baton-proxy: %s\n", baton_last_error());
        return 2;
    }
    /* Blocked before threads start, so that only sigwait here gets them. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);
    if (bt_proxy_start(&options, &proxy) != BATON_OK) {
        fprintf(stderr, "baton-proxy: %s\n", baton_last_error());
        return 1;
    }
    print_ready(proxy, &options);
    int signum = wait_for_end(proxy, &signals);
    bt_info("stopping on signal %d, %u requests running", signum, bt_proxy_inflight(proxy));
    pthread_sigmask(SIG_UNBLOCK, &signals, NULL); /* a second one ends the process at once */
    bt_proxy_stop(proxy);
    return 0;
}

int main(int argc, char **argv)
{
    bt_args *args = NULL;
    bt_strbuf info = {0};
    int code;
    if (bt_args_parse(&bt_proxy_args_spec, argc, argv, &args) != BATON_OK) {
        fprintf(stderr, "baton-proxy: %s\n", baton_last_error());
        return 2;
    }
    if (bt_args_info(args, &info)) {
        fputs(bt_strbuf_text(&info), stdout);
        code = 0;
    } else {
        code = run(args);
    }
    bt_strbuf_free(&info);
    bt_args_destroy(args);
    return code;
}
