#!/usr/bin/env bash
# Lints api/openapi.yaml. The linter is pinned by tools/redocly/package-lock.json and lives in .cache; Node.js and npm are
# fetched from the distribution where they are missing and this is root.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v npm >/dev/null; then
	if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
		echo "tools/lint-openapi.sh: npm is not here: install Node.js 18 or later with npm" >&2
		exit 1
	fi
	echo "installing Node.js and npm for the OpenAPI linter"
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm >/dev/null
fi
dir=.cache/redocly/$(sha256sum tools/redocly/package-lock.json | cut -c1-16)
if [ ! -e "$dir/ready" ]; then
	echo "fetching the OpenAPI linter"
	rm -rf .cache/redocly
	mkdir -p "$dir"
	cp tools/redocly/package.json tools/redocly/package-lock.json "$dir"
	npm ci --prefix "$dir" --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
	touch "$dir/ready"
fi
export REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true
exec node "$dir/node_modules/@redocly/cli/bin/cli.js" lint --config api/redocly.yaml api/openapi.yaml
