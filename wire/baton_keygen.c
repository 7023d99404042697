/* SPDX-License-Identifier: Apache-2.0 */
/* baton-keygen: makes the CURVE key pair of one process (wire/curve.h). */
#include "core/args.h"
#include "core/fail.h"
#include "wire/curve.h"

#include <stdio.h>

enum { EXIT_FAILED = 1, EXIT_USAGE = 2 };

static const bt_args_option options[] = {
    {.section = "What to do",
     .name = "show",
     .help = "Make nothing; read the secret key NAME.key and print its public key."},
    {.name = "quiet", .help = "Print nothing but errors."},
};

static const bt_args_spec spec = {
    .program = "baton-keygen",
    .summary =
        "Makes a CURVE key pair for one sender, receiver or proxy: NAME.key, the secret key, which "
        "only this process may read (mode 0600), and NAME.pub, the public key, which its peers "
        "get. A server (receiver, proxy) lets in the clients whose .pub files lie in its folder "
        "of allowed clients; a client names the server's .pub file. Files that are there are "
        "never overwritten.",
    .options = options,
    .n_options = sizeof(options) / sizeof(options[0]),
    .positional = "NAME",
    .max_positional = 1,
};

static baton_status make_keys(const char *name, bool quiet)
{
    bt_curve_keys keys;
    BATON_TRY(bt_curve_generate(&keys));
    baton_status status = bt_curve_save(name, &keys);
    bt_curve_forget(&keys);
    if (status == BATON_OK && !quiet)
        printf("secret key: %s.key\npublic key: %s.pub\n", name, name);
    return status;
}

static baton_status show_key(const char *name)
{
    bt_curve_keys keys;
    char path[4096];
    int n = snprintf(path, sizeof(path), "%s.key", name);
    if (n < 0 || (size_t)n >= sizeof(path))
        return bt_fail(BATON_ERR_TOO_LARGE, "key file: path of %d bytes", n);
    BATON_TRY(bt_curve_load_secret(path, &keys));
    printf("%s\n", keys.public_key);
    bt_curve_forget(&keys);
    return BATON_OK;
}

static int fail(int code)
{
    fprintf(stderr, "baton-keygen: %s\n", baton_last_error());
    return code;
}

static int run(const bt_args *args)
{
    bt_strbuf text = {0};
    bool is_info = bt_args_info(args, &text);
    if (is_info)
        fputs(bt_strbuf_text(&text), stdout);
    bt_strbuf_free(&text);
    if (is_info)
        return 0;
    if (bt_args_n_positional(args) != 1) {
        bt_fail(BATON_ERR_INVALID_ARG, "wanted the NAME of the key files, found none; see --help");
        return fail(EXIT_USAGE);
    }
    const char *name = bt_args_positional(args, 0);
    baton_status status = bt_args_count(args, "show") != 0
                              ? show_key(name)
                              : make_keys(name, bt_args_count(args, "quiet") != 0);
    return status < 0 ? fail(EXIT_FAILED) : 0;
}

int main(int argc, char **argv)
{
    bt_args *args = NULL;
    if (bt_args_parse(&spec, argc, argv, &args) < 0)
        return fail(EXIT_USAGE);
    int code = run(args);
    bt_args_destroy(args);
    return code;
}
