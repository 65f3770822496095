#!/bin/sh
set -e

# Options alone are meant for memcached.
case $1 in
-*) set -- memcached "$@" ;;
esac
if [ "$1" = memcached ] && [ "$(id -u)" = 0 ]; then
	exec setpriv --reuid=memcache --regid=memcache --clear-groups -- "$@"
fi
exec "$@"
