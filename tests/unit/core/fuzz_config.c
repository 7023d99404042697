/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a config file: refused or loaded, and then what is printed must load again and give
 * the same values. */
#include "config_sample.h"
#include "core/configtable.h"
#include "core/log.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void drop_line(void *ctx, baton_log_level level, const char *line)
{
    (void)ctx;
    (void)level;
    (void)line;
}

static bool print_of(const void *text, size_t n, bt_strbuf *out)
{
    bt_config *config = NULL;
    const bt_config_options options = {.tables = &sample_table,
                                       .n_tables = 1,
                                       .foreign = bt_lmcache_keys,
                                       .n_foreign = bt_n_lmcache_keys};
    if (bt_config_create(&options, &config) < 0)
        abort();
    bool loads = bt_config_load_text(config, "fuzz.yaml", text, n) == BATON_OK;
    bt_config_print(config, out);
    bt_config_destroy(config);
    return loads;
}

/* Cuts the origins off: the comments behind the values. */
static void drop_origins(bt_strbuf *text)
{
    size_t kept = 0;
    for (char *line = text->data; line < text->data + text->length;) {
        char *end = strchr(line, '\n'), *origin = end;
        while (origin > line && strncmp(origin, " # ", 3) != 0)
            origin--;
        size_t n = origin > line ? (size_t)(origin - line) : (size_t)(end - line);
        memmove(text->data + kept, line, n);
        kept += n;
        text->data[kept++] = '\n';
        line = end + 1;
    }
    text->length = kept;
    text->data[kept] = '\0';
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    baton_log_set_sink(drop_line, NULL);
    bt_strbuf first = {0}, second = {0};
    if (print_of(data, size, &first)) {
        drop_origins(&first);
        if (!print_of(first.data, first.length, &second))
            abort();
        drop_origins(&second);
        if (strcmp(first.data, second.data) != 0)
            abort();
    }
    bt_strbuf_free(&first);
    bt_strbuf_free(&second);
    return 0;
}
