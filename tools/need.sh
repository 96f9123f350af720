#!/usr/bin/env bash
# Installs packages of the distribution unless a program is there: tools/need.sh PROGRAM PACKAGE...
# As root, or through sudo; it says what it does. None of the packages that are asked for here brings a service.
set -euo pipefail
program=$1
shift
PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null && exit
sudo=()
if [ "$(id -u)" != 0 ]; then
	if ! command -v sudo >/dev/null; then
		echo "$program is missing; run this as root, then try again: apt-get install $*" >&2
		exit 1
	fi
	sudo=(sudo)
fi
echo "== installing $* (apt-get)" >&2
install=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@")
# The package lists may be missing or old: they are read only where the first try fails.
"${install[@]}" >/dev/null 2>&1 || { "${sudo[@]}" apt-get update -qq && "${install[@]}" >/dev/null; }
