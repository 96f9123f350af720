#!/usr/bin/env bash
# A real Prometheus scrapes a real daemon. Debian's package is fetched and unpacked, not installed: it would start a service.
set -euo pipefail
cd "$(dirname "$0")/../.."

prometheus=$PWD/.cache/prometheus
tools/unpack.sh prometheus usr/bin/prometheus "$prometheus"

export HALE_BIN=$PWD/bin/hale HALE_PROMETHEUS=$prometheus/usr/bin/prometheus HALE_PROMTOOL=$prometheus/usr/bin/promtool
go test -tags prometheus -count=1 -timeout 30m "$@" ./test/prometheus
