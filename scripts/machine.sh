# shellcheck shell=bash disable=SC2154,SC2034
# A whole Confine on this machine, in folders of its own; source it after
# lib.sh. machine_start NAMESPACE DIR starts containerd (unless one runs),
# server and agent n1; machine_stop ends what was started.
#
# Sets: work (a temporary folder), socket (containerd's), CONFINE_SERVER, and
# machine_containerd, machine_server for people.

server_pid='' agent_pid='' socket='' own_containerd='' work=''
machine_containerd='' machine_server=''

ctr() { command ctr --address "$socket" --namespace "$machine_namespace" "$@"; }

# until_true SECONDS COMMAND... waits for a condition.
until_true() {
	local tries
	for ((tries = $1 * 10; tries > 0; tries--)); do
		"${@:2}" && return 0
		sleep 0.1
	done
	return 1
}

# stop PID ends a process of this script and waits for it.
stop() {
	[ -n "$1" ] || return 0
	kill "$1" 2>/dev/null || true
	wait "$1" 2>/dev/null || true
}

# find_containerd takes the one that runs, or starts a private one.
find_containerd() {
	socket=${CONTAINERD_ADDRESS:-/run/containerd/containerd.sock}
	if [ -S "$socket" ] && command ctr --address "$socket" --connect-timeout 2s version >/dev/null 2>&1; then
		machine_containerd="the one that runs at $socket, namespace $machine_namespace"
		return
	fi
	own_containerd=yes
	socket=$("$repo/scripts/containerd" start "$machine_dir" 9>&-)
	machine_containerd="a private one in $machine_dir"
}

# import ARCHIVE. Names of images belong to a namespace: nobody else's image of
# the same name is touched.
import() { CONTAINERD_NAMESPACE=$machine_namespace "$repo/scripts/containerd" import "$socket" "$1"; }

node_ready() { "$repo/bin/confinectl" nodes -o json 2>/dev/null | grep -q '"connected": true'; }

# machine_failed MESSAGE shows the end of the daemons' logs.
machine_failed() {
	note "$*"
	local log
	for log in "$work"/*.log; do
		[ -s "$log" ] && tail -15 "$log" | sed "s/^/  $(basename "$log" .log): /" >&2
	done
	exit 1
}

machine_start() {
	machine_namespace=$1 machine_dir=$2
	# One at a time: two would stop each other's containerd. Daemons don't
	# inherit the lock (9>&-).
	mkdir -p "$machine_dir"
	exec 9>"$machine_dir/lock"
	flock -n 9 || die "another demo or benchmark runs in $machine_dir"
	work=$(mktemp -d /tmp/confine-m.XXXXXX)
	find_containerd
}

daemons_start() {
	local token
	export CONFINE_SERVER=unix://$work/server.sock
	"$repo/bin/confine-server" --data "$work/server" --listen 127.0.0.1:0 --socket "$work/server.sock" >"$work/server.log" 2>&1 9>&- &
	server_pid=$!
	until_true 10 test -S "$work/server.sock" || machine_failed "confine-server does not start"
	machine_server=$(sed -n 's/.*address=\(127.0.0.1:[0-9]*\).*/\1/p' "$work/server.log" | head -1)
	# A node joins with a token, once; then it has a certificate.
	token=$("$repo/bin/confinectl" token create --role agent)
	CONFINE_AGENT_TOKEN=$token "$repo/bin/confine-agent" --node n1 --server "$machine_server" --data "$work/agent" \
		--containerd "$socket" --namespace "$machine_namespace" --plugins "$repo/bin/plugins" >"$work/agent.log" 2>&1 9>&- &
	agent_pid=$!
	until_true 15 node_ready || machine_failed "the agent does not join"
}

# machine_stop [IMAGE...] ends the daemons; a containerd that isn't ours loses
# these images.
machine_stop() {
	local lease ref
	stop "$agent_pid"
	stop "$server_pid"
	agent_pid='' server_pid=''
	if [ -n "$own_containerd" ]; then
		"$repo/scripts/containerd" stop "$machine_dir"
	elif [ -n "$socket" ]; then
		for ref; do
			ctr images rm --sync "$ref" >/dev/null 2>&1 || true
		done
		for lease in $(ctr leases ls -q 2>/dev/null); do
			ctr leases rm "$lease" >/dev/null 2>&1 || true
		done
		command ctr --address "$socket" namespaces rm "$machine_namespace" >/dev/null 2>&1 || true
	fi
	[ -z "$work" ] || rm -rf "$work"
}
