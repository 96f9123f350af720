#!/usr/bin/env bash
# Fails when generated code differs from what its source gives.
set -euo pipefail
cd "$(dirname "$0")/.."
mapfile -t files < <(git ls-files '*.gen.go')
before=$(sha256sum "${files[@]}")
go generate ./...
if ! sha256sum --quiet -c <<<"$before"; then
	echo "generated code was not up to date: it is now; commit it" >&2
	exit 1
fi
