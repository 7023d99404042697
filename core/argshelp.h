/* SPDX-License-Identifier: Apache-2.0 */
/* The text of --help. Thread rule: any thread. */
#ifndef BT_CORE_ARGSHELP_H
#define BT_CORE_ARGSHELP_H
#include "core/args.h"

/* Usage, summary, then all options and keys by section, in aligned columns. */
void bt_args_help(const bt_args_spec *spec, bt_strbuf *out);
/* The ith option: the spec's, then the built-in ones; NULL behind the last. */
const bt_args_option *bt_args_option_at(const bt_args_spec *spec, size_t i);

#endif
