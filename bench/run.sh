#!/usr/bin/env bash
# Measures hale on this host; what is missing is installed or fetched first, as for the end-to-end tests. Arguments go to the bench.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=$PWD/.cache/hale
echo "== what machines need (hale setup)" >&2
bin/hale setup --data-dir "$cache" >&2

tools/need.sh ip iproute2
rootfs=$PWD/.cache/images/nginx-rootfs.tar
tools/rootfs.sh "$rootfs" >&2

tools/unpack.sh nginx usr/sbin/nginx "$PWD/.cache/nginx" >&2
tools/unpack.sh haproxy usr/sbin/haproxy "$PWD/.cache/haproxy" liblua5.3-0 libopentracing-c-wrapper0 libopentracing1 >&2
mkdir -p .cache
(cd bench && CGO_ENABLED=0 go build -trimpath -ldflags "-X github.com/halevm/hale/internal/version.version=$(git describe --tags --always --dirty 2>/dev/null || echo dev)" -o ../.cache/bench .)
exec .cache/bench -kernels "$cache/kernels" -rootfs "$rootfs" "$@"
