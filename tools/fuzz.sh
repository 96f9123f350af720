#!/usr/bin/env bash
# Runs every fuzz target of the tree for a time each: tools/fuzz.sh 20s
# What looks new is made smaller for a moment only: goroutines make the coverage differ from run to run, and the minute that
# go would take over each such input is all the time there is.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-20s}
grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -n1 dirname | sort -u | while read -r dir; do
	for target in $(grep -hoE '^func Fuzz\w+' "$dir"/*_test.go | cut -d' ' -f2); do
		echo "== $dir $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 10x "$dir"
	done
done
