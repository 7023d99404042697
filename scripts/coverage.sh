#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Line coverage of the tests, per folder.
# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"
PRESET=coverage "$top/scripts/test.sh" "$@" || echo "coverage: some tests failed; counting anyway"
cd "$top"
gcovr --root . --object-directory build/coverage --exclude tests --exclude-throw-branches \
    --gcov-ignore-parse-errors \
    --json-summary build/coverage/coverage.json --html-details build/coverage/coverage.html
python3 - build/coverage/coverage.json <<'EOF'
import collections, json, sys
lines = collections.defaultdict(lambda: [0, 0])
for file in json.load(open(sys.argv[1]))["files"]:
    for key in (file["filename"].split("/")[0], "all"):
        lines[key][0] += file["line_covered"]
        lines[key][1] += file["line_total"]
print(f"{'folder':12} {'lines':>7} {'covered':>8}")
for folder, (covered, total) in sorted(lines.items(), key=lambda item: item[0] == "all"):
    print(f"{folder:12} {total:7} {100 * covered / max(total, 1):7.1f}%")
EOF
echo "coverage: details in build/coverage/coverage.html"
