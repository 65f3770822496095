#!/bin/bash
# Makes the data folder when it is empty, then becomes the server.
set -eu

if [ "$(id -u)" = 0 ]; then
	mkdir -p "$PGDATA" /var/run/postgresql
	chown -R postgres:postgres "$PGDATA" /var/run/postgresql
	exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
	initdb --username=postgres --auth=trust --no-instructions >/dev/null
	printf 'host all all all trust\n' >>"$PGDATA/pg_hba.conf"
fi
exec "$@" -c listen_addresses='*'
