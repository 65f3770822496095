# shellcheck shell=bash
# Shared by the scripts of this folder; source it, don't run it.

# shellcheck disable=SC2034 # both are for the scripts
# repo is the root of the checkout, cache a folder for what may be thrown away.
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${CONFINE_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/confine}

say() { printf '%s\n' "$*"; }
note() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }
die() {
	note "$*"
	exit 1
}

# installed PACKAGE says whether a Debian package is there.
installed() {
	[ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# need PACKAGE... installs Debian packages that are missing, and asks for the
# package lists only when there is something to install.
need() {
	local missing=() package
	command -v dpkg-query >/dev/null || die "this is no Debian system: install by hand what corresponds to: $*"
	for package; do
		installed "$package" || missing+=("$package")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	[ "$(id -u)" = 0 ] || die "missing packages: as root, run: apt-get install ${missing[*]}"
	note "installing ${missing[*]}"
	local log
	log=$(mktemp)
	without_starting apt_install "${missing[@]}" >"$log" 2>&1 || {
		cat "$log" >&2
		rm -f "$log"
		die "could not install: ${missing[*]}"
	}
	rm -f "$log"
}

# apt_install PACKAGE... Lists that can't be brought up to date may still do.
apt_install() {
	apt-get update -qq || note "the package lists could not be updated; installing from those that are there"
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

# without_starting COMMAND... runs it while Debian's policy for services says
# that newly installed daemons stay stopped: nobody asked for a web server.
without_starting() (
	policy=/usr/sbin/policy-rc.d
	if [ ! -e "$policy" ]; then
		trap 'rm -f "$policy"' EXIT
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod 755 "$policy"
	fi
	"$@"
)
