#!/usr/bin/env bash
# Lints api/openapi.yaml. The linter is pinned in tools/openapi-lint and fetched once into .cache; after that it needs no network.
set -euo pipefail
cd "$(dirname "$0")/.."
lint=tools/openapi-lint

tools/need.sh npm nodejs npm

# One directory for each state of the lock file, moved into place whole.
key=$(sha256sum $lint/package-lock.json | cut -c1-16)
dir=.cache/openapi-lint/$key
if [ ! -d "$dir" ]; then
	echo "lint-openapi: fetching the linter" >&2
	rm -rf .cache/openapi-lint
	mkdir -p .cache/openapi-lint
	new=$(mktemp -d .cache/openapi-lint/new.XXXXXX)
	cp $lint/package.json $lint/package-lock.json $lint/.npmrc "$new"
	(cd "$new" && npm ci --ignore-scripts --loglevel=error >/dev/null)
	mv -T "$new" "$dir"
fi
LINTER=$dir exec node $lint/lint.mjs $lint/redocly.yaml api/openapi.yaml
