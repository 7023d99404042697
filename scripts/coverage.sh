#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Line coverage of the tests, per folder.
case "${1:-}" in
-h | --help)
    cat <<'EOF'
usage: scripts/coverage.sh [CTEST OPTION...]

Installs what is missing (scripts/setup.sh), builds build/coverage, runs the tests there (all, or
those that the options of ctest choose), and prints the share of lines they reach, per folder.
Details: build/coverage/coverage.html.
EOF
    exit 0
    ;;
esac
# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"
if [ -d "$top/build/coverage" ]; then find "$top/build/coverage" -name '*.gcda' -delete; fi
"$top/scripts/setup.sh"
build coverage -DBATON_TESTS=ON
cd "$top"
ctest --test-dir build/coverage --output-on-failure -j"$(nproc)" "$@" ||
    echo "coverage: some tests failed; counting anyway"
gcovr --root . --object-directory build/coverage --exclude tests --exclude-throw-branches \
    --gcov-ignore-parse-errors \
    --json-summary build/coverage/coverage.json --html-details build/coverage/coverage.html
python3 - build/coverage/coverage.json <<'EOF'
import collections, json, sys
lines = collections.defaultdict(lambda: [0, 0])
for file in json.load(open(sys.argv[1]))["files"]:
    # Headers are also seen through build/coverage/include-views/<module>/<module>/.
    name = file["filename"].split("include-views/")[-1]
    for key in (name.split("/")[0], "all"):
        lines[key][0] += file["line_covered"]
        lines[key][1] += file["line_total"]
print(f"{'folder':12} {'lines':>7} {'covered':>8}")
for folder, (covered, total) in sorted(lines.items(), key=lambda item: item[0] == "all"):
    print(f"{folder:12} {total:7} {100 * covered / max(total, 1):7.1f}%")
EOF
echo "coverage: details in build/coverage/coverage.html"
