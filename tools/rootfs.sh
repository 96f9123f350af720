#!/usr/bin/env bash
# Makes a root file system with nginx, as a tar, unless it is there: tools/rootfs.sh PATH.
set -euo pipefail
rootfs=$1
[ ! -s "$rootfs" ] || exit 0
"$(dirname "$0")/need.sh" mmdebstrap mmdebstrap
echo "== making a root file system with nginx (mmdebstrap)"
mkdir -p "${rootfs%/*}"
. /etc/os-release
# Essential packages and nginx, without documentation; no script of a package starts anything.
mmdebstrap --quiet --variant=essential --include=nginx-light \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
	"$VERSION_CODENAME" "${rootfs%.tar}.new.tar"
mv "${rootfs%.tar}.new.tar" "$rootfs"
