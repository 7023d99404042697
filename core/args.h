/* SPDX-License-Identifier: Apache-2.0 */
/* Command lines of the programs: long options, `--name value` or `--name=value`, `-` and `_` equal,
 * `--` ends them; --help and --version come by themselves. Keys of config tables are options too.
 *
 *   bt_args *args = NULL;
 *   baton_status status = bt_args_parse(&spec, argc, argv, &args);
 *   if (status == BATON_OK && bt_args_info(args, &text))
 *       print text, exit 0                     --help, --version, --print-reference
 *   if (status == BATON_OK)
 *       status = bt_args_configure(args, config);
 *   if (status < 0)
 *       print baton_last_error() to stderr, exit 2
 *
 * Thread rule: owner thread. */
#ifndef BT_CORE_ARGS_H
#define BT_CORE_ARGS_H
#include "core/configtable.h"
#include "core/strbuf.h"

typedef struct bt_args bt_args;

typedef struct {
    const char *section;    /* heading in --help; NULL: the one before goes on */
    const char *name;       /* "output": without dashes in front */
    const char *value_name; /* "FILE"; NULL: a flag, without a value */
    const char *fallback;   /* default, NULL: none */
    const char *help;
    bool repeat; /* may be given several times; otherwise the last one counts */
} bt_args_option;

typedef struct {
    const char *program;           /* "baton-proxy" */
    const char *summary;           /* one or more sentences */
    const char *lines;             /* behind it in --help, as they are; NULL: none */
    const bt_args_option *options; /* [n_options] */
    size_t n_options;
    const char *positional; /* "FILE..." as --help shows it; NULL: none */
    size_t max_positional;
    const bt_config_table *tables; /* [n_tables]; bool keys need no value, and have --no-KEY */
    size_t n_tables;
    bool config_file; /* adds --config, --set, --print-config, --print-reference, and BATON_* */
} bt_args_spec;

/* spec, its tables and argv are borrowed as long as *args_p lives. Values of table keys are checked
 * in configure. Stops at --help and --version. Errors: INVALID_ARG ("--name: wanted ..., found
 * ..."), NO_MEMORY. */
baton_status bt_args_parse(const bt_args_spec *spec, int argc, char *const *argv, bt_args **args_p);
void bt_args_destroy(bt_args *args); /* NULL is allowed. */

/* True when the user asked for --help, --version or --print-reference, which then is in out. */
bool bt_args_info(const bt_args *args, bt_strbuf *out);
/* --config files in order, then BATON_* (both with config_file only), then --set and keys in the
 * order of the command line. config has spec's tables. Errors: see core/configtable.h. */
baton_status bt_args_configure(const bt_args *args, bt_config *config);

/* How often an option was given. */
size_t bt_args_count(const bt_args *args, const char *name);
/* Its last value, else its default, else NULL. */
const char *bt_args_value(const bt_args *args, const char *name);
/* Its ith value; i < bt_args_count. */
const char *bt_args_nth(const bt_args *args, const char *name, size_t i);
size_t bt_args_n_positional(const bt_args *args);
const char *bt_args_positional(const bt_args *args, size_t i);

#endif
