/* SPDX-License-Identifier: Apache-2.0 */
#include "core/args.h"

#include "core/alloc.h"
#include "core/argshelp.h"
#include "core/fail.h"
#include "core/suggest.h"

#include <assert.h>
#include <string.h>
#include <strings.h>

/* One option of the command line, as given. */
typedef struct {
    const char *name;             /* of the option or key, without dashes */
    const char *value;            /* NULL: a flag */
    const bt_config_entry *entry; /* NULL: an option of the spec or a built-in one */
} given_arg;

struct bt_args {
    const bt_args_spec *spec;
    given_arg *given; /* [n_given] */
    size_t n_given;
    const char **positional; /* [n_positional] */
    size_t n_positional;
};

static const bt_args_option built_in[] = {
    {.section = "General", .name = "help", .help = "Prints this."},
    {.name = "version", .help = "Prints the version."},
    {.section = "Configuration",
     .name = "config",
     .value_name = "FILE",
     .repeat = true,
     .help = "Reads options from a YAML file; BATON_* variables and flags go over it."},
    {.name = "set", .value_name = "KEY=VALUE", .repeat = true, .help = "Sets one option."},
    {.name = "print-config", .help = "Prints the options in force and where each is from."},
    {.name = "print-reference", .help = "Prints a config file with all options and their help."},
};
enum { N_GENERAL = 2, N_BUILT_IN = sizeof(built_in) / sizeof(built_in[0]) };

const bt_args_option *bt_args_option_at(const bt_args_spec *spec, size_t i)
{
    if (i < spec->n_options)
        return &spec->options[i];
    i -= spec->n_options;
    /* The last section of --help is the general one, but its options are always there. */
    size_t n_config = spec->config_file ? N_BUILT_IN - N_GENERAL : 0;
    if (i < n_config)
        return &built_in[N_GENERAL + i];
    i -= n_config;
    return i < N_GENERAL ? &built_in[i] : NULL;
}

/* name[n] is the option's name, with '-' and '_' equal. */
static bool is_named(const char *option, const char *name, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (option[i] == '\0' ||
            (option[i] == '_' ? '-' : option[i]) != (name[i] == '_' ? '-' : name[i]))
            return false;
    }
    return option[n] == '\0';
}

static const bt_args_option *find_option(const bt_args_spec *spec, const char *name, size_t n)
{
    const bt_args_option *option;
    for (size_t i = 0; (option = bt_args_option_at(spec, i)) != NULL; i++) {
        if (is_named(option->name, name, n))
            return option;
    }
    return NULL;
}

static const bt_config_entry *find_key(const bt_args_spec *spec, const char *name, size_t n)
{
    for (size_t t = 0; t < spec->n_tables; t++) {
        for (size_t i = 0; i < spec->tables[t].n_entries; i++) {
            if (is_named(spec->tables[t].entries[i].key, name, n))
                return &spec->tables[t].entries[i];
        }
    }
    return NULL;
}

static baton_status unknown_option(const bt_args_spec *spec, const char *argument)
{
    char word[64] = "";
    size_t n = strcspn(argument + 2, "=");
    if (n < sizeof(word))
        memcpy(word, argument + 2, n);
    bt_suggest near = {.word = word};
    const bt_args_option *option;
    for (size_t i = 0; (option = bt_args_option_at(spec, i)) != NULL; i++)
        bt_suggest_offer(&near, option->name);
    for (size_t t = 0; t < spec->n_tables; t++) {
        for (size_t i = 0; i < spec->tables[t].n_entries; i++)
            bt_suggest_offer(&near, spec->tables[t].entries[i].key);
    }
    if (near.best == NULL)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "%.80s: wanted a known option, found an unknown one; see --help", argument);
    /* Keys are shown as flags, with dashes. */
    char best[64] = "";
    for (size_t i = 0; near.best[i] != '\0' && i + 1 < sizeof(best); i++)
        best[i] = near.best[i] == '_' ? '-' : near.best[i];
    return bt_fail(BATON_ERR_INVALID_ARG,
                   "%.80s: wanted a known option, found an unknown one; did you mean --%s?",
                   argument, best);
}

static baton_status value_error(const char *argument, const char *wanted, const char *found)
{
    return bt_fail(BATON_ERR_INVALID_ARG, "%.80s: wanted %s, found %s; see --help", argument,
                   wanted, found);
}

typedef struct {
    char *const *argv;
    int argc, at;
} arg_cursor;

/* The value of the option at the cursor, from behind its '=' or the next argument. */
static baton_status take_value(arg_cursor *cursor, const char *equals, const char **value)
{
    const char *argument = cursor->argv[cursor->at];
    if (equals != NULL) {
        *value = equals + 1;
        return BATON_OK;
    }
    if (cursor->at + 1 >= cursor->argc)
        return value_error(argument, "a value", "the end of the line");
    const char *next = cursor->argv[cursor->at + 1];
    if (strncmp(next, "--", 2) == 0)
        return value_error(argument, "a value", "another option");
    cursor->at++;
    *value = next;
    return BATON_OK;
}

/* A bool key's value may be left out, and is only taken from the next argument if it is one. */
static const char *take_bool(arg_cursor *cursor, const char *equals)
{
    static const char *const words[] = {"true", "false", "yes", "no", "on", "off"};
    if (equals != NULL)
        return equals + 1;
    const char *next = cursor->at + 1 < cursor->argc ? cursor->argv[cursor->at + 1] : "";
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcasecmp(next, words[i]) == 0) {
            cursor->at++;
            return next;
        }
    }
    return "true";
}

static baton_status take_key(const bt_config_entry *entry, arg_cursor *cursor, const char *equals,
                             given_arg *out)
{
    *out = (given_arg){.name = entry->key, .entry = entry};
    if (entry->type != BT_CONFIG_BOOL)
        return take_value(cursor, equals, &out->value);
    out->value = take_bool(cursor, equals);
    return BATON_OK;
}

static baton_status take_option(const bt_args_spec *spec, arg_cursor *cursor, given_arg *out)
{
    const char *argument = cursor->argv[cursor->at], *name = argument + 2;
    size_t n = strcspn(name, "=");
    const char *equals = name[n] == '=' ? name + n : NULL;
    const bt_args_option *option = find_option(spec, name, n);
    if (option != NULL) {
        *out = (given_arg){.name = option->name};
        if (option->value_name != NULL)
            return take_value(cursor, equals, &out->value);
        return equals == NULL ? BATON_OK : value_error(argument, "no value", "one");
    }
    const bt_config_entry *entry = find_key(spec, name, n);
    if (entry != NULL)
        return take_key(entry, cursor, equals, out);
    if (n > 3 && strncmp(name, "no-", 3) == 0 && equals == NULL) {
        entry = find_key(spec, name + 3, n - 3);
        if (entry != NULL && entry->type == BT_CONFIG_BOOL) {
            *out = (given_arg){.name = entry->key, .value = "false", .entry = entry};
            return BATON_OK;
        }
    }
    return unknown_option(spec, argument);
}

static baton_status take_positional(bt_args *args, const char *argument)
{
    if (args->n_positional == args->spec->max_positional)
        return bt_fail(BATON_ERR_INVALID_ARG, "%.80s: wanted %s, found this one more; see --help",
                       argument,
                       args->spec->max_positional == 0 ? "only options" : "fewer arguments");
    args->positional[args->n_positional++] = argument;
    return BATON_OK;
}

static bool asks_info(const bt_args *args)
{
    const char *name = args->n_given > 0 ? args->given[args->n_given - 1].name : "";
    return strcmp(name, "help") == 0 || strcmp(name, "version") == 0;
}

static baton_status parse(bt_args *args, arg_cursor *cursor)
{
    bool options = true;
    for (; cursor->at < cursor->argc; cursor->at++) {
        const char *argument = cursor->argv[cursor->at];
        if (options && strcmp(argument, "--") == 0) {
            options = false;
        } else if (options && strcmp(argument, "-h") == 0) {
            args->given[args->n_given++] = (given_arg){.name = "help"};
        } else if (options && strncmp(argument, "--", 2) == 0) {
            BATON_TRY(take_option(args->spec, cursor, &args->given[args->n_given]));
            args->n_given++;
        } else if (options && argument[0] == '-' && argument[1] != '\0') {
            return bt_fail(BATON_ERR_INVALID_ARG,
                           "%.80s: wanted --name, found one dash; see --help", argument);
        } else {
            BATON_TRY(take_positional(args, argument));
        }
        if (asks_info(args))
            break;
    }
    return BATON_OK;
}

baton_status bt_args_parse(const bt_args_spec *spec, int argc, char *const *argv, bt_args **args_p)
{
    size_t n = argc > 0 ? (size_t)argc : 1;
    bt_args *args = bt_calloc(1, sizeof(*args));
    if (args == NULL)
        goto no_memory;
    args->spec = spec;
    args->given = bt_calloc(n, sizeof(*args->given));
    args->positional = bt_calloc(n, sizeof(*args->positional));
    if (args->given == NULL || args->positional == NULL)
        goto no_memory;
    arg_cursor cursor = {.argv = argv, .argc = argc, .at = 1};
    baton_status status = parse(args, &cursor);
    if (status < 0) {
        bt_args_destroy(args);
        return status;
    }
    *args_p = args;
    return BATON_OK;

no_memory:
    bt_args_destroy(args);
    return bt_fail(BATON_ERR_NO_MEMORY, "arguments: no memory for %zu", n);
}

void bt_args_destroy(bt_args *args)
{
    if (args == NULL)
        return;
    bt_free(args->given);
    bt_free(args->positional);
    bt_free(args);
}

bool bt_args_info(const bt_args *args, bt_strbuf *out)
{
    if (bt_args_count(args, "help") > 0)
        bt_args_help(args->spec, out);
    else if (bt_args_count(args, "version") > 0)
        bt_strbuf_printf(out, "%s %s\n", args->spec->program, baton_version());
    else if (args->spec->config_file && bt_args_count(args, "print-reference") > 0)
        bt_config_reference(args->spec->tables, args->spec->n_tables, out);
    else
        return false;
    return true;
}

static baton_status set_key(const given_arg *given, bt_config *config)
{
    bt_strbuf place = {0};
    bt_strbuf_puts(&place, "flag --");
    for (const char *at = given->name; *at != '\0'; at++)
        bt_strbuf_putc(&place, *at == '_' ? '-' : *at);
    baton_status status = bt_strbuf_status(&place);
    if (status == BATON_OK)
        status = bt_config_set(config, bt_strbuf_text(&place), given->name, given->value);
    bt_strbuf_free(&place);
    return status;
}

baton_status bt_args_configure(const bt_args *args, bt_config *config)
{
    bool file = args->spec->config_file;
    for (size_t i = 0; file && i < bt_args_count(args, "config"); i++)
        BATON_TRY(bt_config_load_file(config, bt_args_nth(args, "config", i)));
    if (file)
        BATON_TRY(bt_config_load_env(config));
    for (size_t i = 0; i < args->n_given; i++) {
        const given_arg *given = &args->given[i];
        if (given->entry != NULL)
            BATON_TRY(set_key(given, config));
        else if (file && strcmp(given->name, "set") == 0)
            BATON_TRY(bt_config_set_pair(config, "flag --set", given->value));
    }
    return BATON_OK;
}

static bool is_option(const given_arg *given, const char *name)
{
    return given->entry == NULL && strcmp(given->name, name) == 0;
}

size_t bt_args_count(const bt_args *args, const char *name)
{
    size_t n = 0;
    for (size_t i = 0; i < args->n_given; i++)
        n += is_option(&args->given[i], name);
    return n;
}

const char *bt_args_nth(const bt_args *args, const char *name, size_t i)
{
    assert(i < bt_args_count(args, name));
    for (size_t j = 0; j < args->n_given; j++) {
        if (is_option(&args->given[j], name) && i-- == 0)
            return args->given[j].value;
    }
    return NULL;
}

const char *bt_args_value(const bt_args *args, const char *name)
{
    size_t n = bt_args_count(args, name);
    if (n > 0)
        return bt_args_nth(args, name, n - 1);
    const bt_args_option *option = find_option(args->spec, name, strlen(name));
    return option != NULL ? option->fallback : NULL;
}

size_t bt_args_n_positional(const bt_args *args)
{
    return args->n_positional;
}

const char *bt_args_positional(const bt_args *args, size_t i)
{
    assert(i < args->n_positional);
    return args->positional[i];
}
