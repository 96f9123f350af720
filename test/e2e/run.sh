#!/usr/bin/env bash
# Boots real virtual machines. What is missing is installed or fetched first: QEMU and a kernel (hale setup), and for the
# nginx image mmdebstrap; Debian's registry is fetched and unpacked, not installed. Nothing here starts a service on the host.
set -euo pipefail
cd "$(dirname "$0")/../.."

cache=$PWD/.cache/hale
echo "== what machines need (hale setup)"
bin/hale setup --data-dir "$cache"

tools/need.sh strace strace
tools/need.sh ip iproute2

rootfs=$PWD/.cache/images/nginx-rootfs.tar
tools/rootfs.sh "$rootfs"

registry=$PWD/.cache/docker-registry
tools/unpack.sh docker-registry usr/bin/docker-registry "$registry"

systemd=$PWD/.cache/systemd
mkdir -p "$systemd"
tools/unpack.sh systemd-container usr/bin/systemd-nspawn "$systemd/tools"
if [ ! -s "$systemd/root.tar" ]; then
	echo "== making a root file system with systemd and QEMU (mmdebstrap)"
	. /etc/os-release
	mmdebstrap --quiet --variant=minbase --include=systemd,systemd-sysv,dbus,qemu-system-x86,e2fsprogs \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
		"$VERSION_CODENAME" "$systemd/root.new.tar"
	mv "$systemd/root.new.tar" "$systemd/root.tar"
fi

export HALE_E2E_SYSTEMD=$systemd
export HALE_E2E_REGISTRY=$registry/usr/bin/docker-registry
export HALE_E2E_BIN=$PWD/bin/hale HALE_E2E_KERNELS=$cache/kernels HALE_E2E_NGINX=$rootfs
echo "== real machines"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# One package at a time: they would only take each other's processors. The driver's conformance test is beside the driver.
# Without cgo, as hale is built: a shim in a test shuts in all its threads at once.
CGO_ENABLED=0 go test -tags "e2e${HALE_E2E_TAGS:+,$HALE_E2E_TAGS}" -count=1 -timeout 60m -p 1 -v "$@" ./test/e2e ./internal/daemon ./internal/hypervisor/qemu | tee "$log" |
	grep --line-buffered -vE '^(=== (RUN|PAUSE|CONT|NAME)|\s+--- PASS)'
awk '/^machines booted: /{n+=$3} END{printf "machines booted in all: %d\n", n}' "$log"
