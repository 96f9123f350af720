#!/usr/bin/env bash
# Fetches a package of the distribution and unpacks it: tools/unpack.sh PACKAGE PROGRAM DIR [PACKAGE...]. Nothing is installed, and so
# nothing starts. Further packages, those of libraries that the program needs, are unpacked into the same directory.
# It does nothing where DIR has the program already.
set -euo pipefail
package=$1 program=$2 dir=$3
shift 3
[ -x "$dir/$program" ] && exit
echo "== fetching $package (apt-get download)"
rm -rf "$dir" "$dir.new"
mkdir -p "$dir.new"
(
	cd "$dir.new"
	get=(apt-get -qq -o APT::Sandbox::User="$(id -un)" download "$package" "$@")
	# The package lists may be missing or old, and reading them anew wants root.
	"${get[@]}" 2>/dev/null || { $([ "$(id -u)" = 0 ] || echo sudo) apt-get -qq update && "${get[@]}"; }
	for deb in *.deb; do
		dpkg-deb -x "$deb" .
		rm "$deb"
	done
)
mv "$dir.new" "$dir"
