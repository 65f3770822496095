#!/bin/sh
# A day in the life of a small container: look around, work with files, serve.
set -eu

busybox --install -s /bin 2>/dev/null || true
www=$(mktemp -d)
i=0
while [ $i -lt 20 ]; do
	echo "line $i"
	i=$((i + 1))
done | sort -rn -k2 | awk '{ sum += $2 } END { print "sum", sum }' >"$www/sum.txt"
grep -q 190 "$www/sum.txt"
gzip -c "$www/sum.txt" | gunzip -c | cmp - "$www/sum.txt"
find /app -name '*.sh' -print0 | xargs -0 sha256sum >"$www/digests.txt"
{ date -u; id; uname -a; df / | tail -1; } >"$www/host.txt" 2>&1
ln -s sum.txt "$www/index.html"
(sleep 0.2; touch "$www/later") &
wait
trap 'kill $server; exit 0' TERM INT
httpd -f -p 8080 -h "$www" &
server=$!
echo "serving $www"
wait $server
