#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes engine/unicode_tables.c: the code points of \\p{L} and \\p{N} as sorted ranges.

    python3 scripts/make_unicode_tables.py > engine/unicode_tables.c
"""
import sys
import unicodedata


def ranges(letter):
    """[(first, last)] of the code points whose general category starts with letter."""
    found = []
    for code in range(sys.maxunicode + 1):
        if not unicodedata.category(chr(code)).startswith(letter):
            continue
        if found and found[-1][1] == code - 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return found


def emit(name, pairs):
    lines, line = [], "   "
    for first, last in pairs:
        item = f" {{{first:#x}, {last:#x}}},"
        if len(line) + len(item) > 100:
            lines.append(line)
            line = "   "
        line += item
    lines.append(line)
    print(f"const bt_code_range {name}[] = {{\n" + "\n".join(lines) + "\n};")
    print(f"const size_t {name}_n = sizeof({name}) / sizeof({name}[0]);")


print("/* SPDX-License-Identifier: Apache-2.0 */")
print(f"/* Written by scripts/make_unicode_tables.py from Unicode {unicodedata.unidata_version}; do not edit. */")
print('#include "engine/unicode.h"\n\n/* clang-format off */')
emit("bt_unicode_letters", ranges("L"))
print()
emit("bt_unicode_numbers", ranges("N"))
