#!/usr/bin/env bash
# Drives the public npm client of the compatible API, unchanged, against a daemon of this tree whose machines are fakes.
# The client is pinned by package-lock.json and lives in .cache; Node.js 18 or later and npm must be there.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=test/compat
dir=.cache/compat/$(sha256sum $here/package-lock.json | cut -c1-16)
if [ ! -e "$dir/ready" ]; then
	echo "fetching the npm client"
	rm -rf .cache/compat
	mkdir -p "$dir"
	cp $here/package.json $here/package-lock.json "$dir"
	npm ci --prefix "$dir" --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
	touch "$dir/ready"
fi
cp $here/compat.mjs "$dir"
exec ${GO:-go} run ./$here -- node --test --test-reporter=spec "$dir/compat.mjs"
