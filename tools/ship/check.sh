#!/usr/bin/env bash
# Installs Courser the ways that people do, each in a clean Debian root, and starts it there: a server, a download, their end.
#
#   tools/ship/check.sh [deb] [install] [container] [--root FOLDER]      all three unless some are named
#
# Needs root, debootstrap, openssl, cargo-deb (deb, container), buildah (container). --root names a folder with a Debian that debootstrap
# made (--variant=minbase) and that stays as it is; without it one is made. Exit code 0: each of them served.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-$PWD/target}
ways=() root=
while [ $# -gt 0 ]; do
    case $1 in
        deb | install | container) ways+=("$1"); shift ;;
        --root) root=${2:?a folder}; shift 2 ;;
        *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
[ ${#ways[@]} -gt 0 ] || ways=(deb install container)
work=$(mktemp -d)
server=
# Asks the servers themselves to end: what started them may not pass a signal on.
end_servers() {
    for pid in $(pgrep -x courser); do
        ! tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qE "serve /srv --listen 127.0.0.1:2443[123] " || kill -TERM "$pid"
    done
}
cleanup() {
    [ -z "$server" ] || end_servers
    rm -rf "$work"
}
trap cleanup EXIT

if [ -z "$root" ]; then
    root=$work/base
    echo "making a clean root in $root"
    debootstrap --variant=minbase bookworm "$root" >"$work/debootstrap.log"
fi

# A copy of the clean root, and what every program may expect there: /proc is not among it.
clean() {
    cp -a "$root" "$work/$1"
    mkdir -p "$work/$1/srv"
    echo "it works" >"$work/$1/srv/hello.txt"
    cp "$work"/tls/*.pem "$work/$1/srv/"
}

# An issuer, and a certificate of it for localhost: what `get` trusts is checked too.
mkdir "$work/tls"
(
    cd "$work/tls"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=issuer" -keyout issuer.key -out issuer.pem
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=localhost" -keyout key.pem -out request
    printf 'subjectAltName=DNS:localhost\n' >names
    openssl x509 -req -in request -CA issuer.pem -CAkey issuer.key -CAcreateserial -days 2 -extfile names -out cert.pem
    # The image runs as a user of its own.
    chmod 644 key.pem
) 2>"$work/tls/log" || { cat "$work/tls/log"; exit 1; }

# Starts a server by the words given, fetches from it over HTTP/3 and over TCP by the words of $fetch, which finds the issuer in
# $trust, and ends it with SIGTERM.
serves() {
    local port=$1 log="$work/server.log"
    shift
    "$@" serve /srv --listen "127.0.0.1:$port" --cert /srv/cert.pem --key /srv/key.pem >"$log" 2>&1 &
    server=$!
    for version in --http3-only --no-http3; do
        for attempt in $(seq 50); do
            if "${fetch[@]}" get -q --cacert "$trust" --resolve "localhost:$port:127.0.0.1" "$version" -o - "https://localhost:$port/hello.txt" >"$work/answer" 2>"$work/fetch.log"; then break; fi
            [ "$attempt" -lt 50 ] || { cat "$log" "$work/fetch.log"; echo "nothing came ($version)"; return 1; }
            sleep 0.2
        done
        grep -qx "it works" "$work/answer" || { echo "something else came ($version):"; cat "$work/answer"; return 1; }
    done
    end_servers
    local code=0
    wait "$server" || code=$?
    server=
    [ "$code" = 0 ] || { cat "$log"; echo "the server ended with $code"; return 1; }
}

package() {
    local made
    made=$(ls "$target"/ship/courser_*.deb 2>/dev/null | tail -n 1)
    [ -n "$made" ] || { tools/ship/deb.sh "$target/ship" >&2; made=$(ls "$target"/ship/courser_*.deb | tail -n 1); }
    echo "$made"
}

for way in "${ways[@]}"; do
    trust=/srv/issuer.pem
    case $way in
        deb)
            deb=$(package)
            clean deb
            cp "$deb" "$work/deb/tmp/"
            # What it depends on comes from the archive, as it does for users.
            cp /etc/resolv.conf "$work/deb/etc/resolv.conf" 2>/dev/null || true
            chroot "$work/deb" sh -c "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends /tmp/$(basename "$deb")" >"$work/apt.log" 2>&1 ||
                { tail "$work/apt.log"; exit 1; }
            chroot "$work/deb" getent passwd courser >/dev/null
            chroot "$work/deb" test -s /usr/share/man/man1/courser.1.gz
            fetch=(chroot "$work/deb" courser)
            serves 24431 chroot "$work/deb" courser
            chroot "$work/deb" apt-get purge -y -qq courser >"$work/apt.log" 2>&1
            [ ! -e "$work/deb/usr/bin/courser" ] || { echo "the package left its program behind"; exit 1; }
            ;;
        install)
            clean install
            cargo install --quiet --path crates/courser-cli --bin courser --locked --root "$work/install/usr/local" --target-dir "$target"
            fetch=(chroot "$work/install" courser)
            serves 24432 chroot "$work/install" courser
            ;;
        container)
            deb=$(package)
            mkdir "$work/image"
            cp "$deb" "$work/image/"
            # The base image is the clean root and what the package depends on, not one that is fetched; and the image is run
            # in a root of its own without a runtime's cgroups and limits, which not every machine lets one set.
            clean container
            cp /etc/resolv.conf "$work/container/etc/resolv.conf" 2>/dev/null || true
            chroot "$work/container" sh -c "apt-get update -qq && apt-get install -y -qq --no-install-recommends ca-certificates" >"$work/apt.log" 2>&1
            build() { buildah --storage-driver vfs --root "$work/images" --runroot "$work/running" "$@"; }
            base=$(build from scratch)
            build add -q "$base" "$work/container" / >/dev/null
            build commit -q "$base" courser-clean >/dev/null
            build bud --isolation chroot --build-arg BASE=localhost/courser-clean -q -t courser-check -f tools/ship/Containerfile \
                "$work/image" >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
            image=$(build from localhost/courser-check)
            # A container for the server; what fetches is the same program outside of it.
            dpkg-deb -x "$deb" "$work/outside"
            fetch=("$work/outside/usr/bin/courser") trust=$work/container/srv/issuer.pem
            serves 24433 build run --isolation chroot "$image" -- /usr/bin/courser
            ;;
    esac
    echo "$way: installed, served over HTTP/3 and over TCP, ended when asked"
done
