#!/usr/bin/env bash
# Builds the Dockerfile with a real Docker engine and runs the image, on a Linux machine
# that has neither Docker nor a registry: as root, with Debian's packages.
#
#   test/docker-build.sh
#
# The engine is Debian's, unpacked beside the system, in a network of its own that leads
# nowhere. In the place of the official Go image stands one that is made here: Debian by
# debootstrap, with this machine's Go in /usr/local/go and the modules of go.mod as a
# proxy in a directory. Everything but that is as `make docker` does it.
set -euo pipefail
cd "$(dirname "$0")/.."

[ "$(id -u)" = 0 ] || { echo "docker-build.sh runs a Docker daemon and needs root" >&2; exit 1; }
cache=${OUTBOXCDC_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/outboxcdc-test}/docker
mkdir -p "$cache"
work=$(mktemp -d)
daemon=

finish() {
  local code=$?
  if [ -n "$daemon" ]; then
    kill "$daemon" 2>/dev/null || true
    wait "$daemon" 2>/dev/null || true
  fi
  [ "$code" = 0 ] || tail -n 20 "$work/dockerd.log" 2>/dev/null >&2 || true
  rm -rf "$work"
}
trap finish EXIT

# Debian's packages, downloaded and unpacked: nothing is installed, nothing is started.
unpack() { # directory, packages
  local into=$1
  shift
  [ ! -d "$into" ] || return 0
  rm -rf "$into.new"
  mkdir -p "$into.new/debs"
  (cd "$into.new/debs" && { apt-get download -qq "$@" || { apt-get update -qq && apt-get download -qq "$@"; }; })
  for deb in "$into.new"/debs/*.deb; do dpkg -x "$deb" "$into.new"; done
  rm -r "$into.new/debs"
  mv "$into.new" "$into"
}
unpack "$cache/engine" docker.io containerd runc
unpack "$cache/debootstrap" debootstrap
export PATH=$cache/engine/usr/sbin:$cache/engine/usr/bin:$PATH

# A Debian with what the official image has of it, as far as our build sees it.
suite=bookworm
if [ ! -d "$cache/$suite" ]; then
  rm -rf "$cache/$suite.new"
  DEBOOTSTRAP_DIR=$cache/debootstrap/usr/share/debootstrap \
    "$cache/debootstrap/usr/sbin/debootstrap" --variant=minbase --include=ca-certificates,git \
    "$suite" "$cache/$suite.new" > "$work/debootstrap.log" || { tail -n 20 "$work/debootstrap.log" >&2; exit 1; }
  rm -rf "$cache/$suite.new/var/cache/apt/archives" "$cache/$suite.new/var/lib/apt/lists"
  mv "$cache/$suite.new" "$cache/$suite"
fi

# The modules, as a proxy in a directory: from this machine's cache, or from the network.
GOFLAGS=-modcacherw GOMODCACHE=$work/modules GOPROXY="file://$(go env GOMODCACHE)/cache/download,$(go env GOPROXY)" \
  GONOSUMDB='*' go mod download

start() { # the engine with a storage driver
  unshare --net "$(command -v dockerd)" --host "unix://$work/docker.sock" --data-root "$work/data" \
    --exec-root "$work/exec" --pidfile "$work/docker.pid" --storage-driver "$1" \
    --bridge none --iptables=false --ip6tables=false > "$work/dockerd.log" 2>&1 &
  daemon=$!
  until docker version > /dev/null 2>&1; do
    kill -0 "$daemon" 2>/dev/null || { daemon=; return 1; }
    sleep 0.2
  done
}
export DOCKER_HOST=unix://$work/docker.sock DOCKER_CONFIG=$work/config
start overlay2 || start vfs
docker info --format 'engine {{.ServerVersion}}, storage {{.Driver}}'

cp -a "$cache/$suite" "$work/base"
cp -a "$(go env GOROOT)" "$work/base/usr/local/go"
cp -a "$work/modules/cache/download" "$work/base/go-proxy"
tar -c -C "$work/base" --exclude './dev/*' --exclude './proc/*' --exclude './sys/*' . |
  docker import --change 'ENV PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    --change 'ENV GOPATH=/go GOTOOLCHAIN=local GOPROXY=file:///go-proxy GOSUMDB=off' - golang:local > /dev/null

git clone --quiet --no-hardlinks . "$work/source"
docker build --network none --build-arg GO_IMAGE=golang:local --tag outboxcdc:local "$work/source" > "$work/build.log" 2>&1 ||
  { cat "$work/build.log" >&2; exit 1; }

want() { # text, command: what it prints holds the text
  local text=$1 out
  shift
  out=$("$@" 2>&1) || { echo "$* ended with $?: $out" >&2; exit 1; }
  case $out in *"$text"*) ;; *) echo "$* printed: $out; want: $text" >&2; exit 1 ;; esac
}
locked=(docker run --rm --network none --read-only --cap-drop ALL --security-opt no-new-privileges)
want "$(git -C "$work/source" rev-parse --short=12 HEAD)" "${locked[@]}" outboxcdc:local version
want outboxcdc "${locked[@]}" --user 12345:12345 outboxcdc:local version
want 65532:65532 docker image inspect --format '{{.Config.User}}' outboxcdc:local
# Without a command it streams; what is missing is said in a sentence, and no shell is there.
if out=$("${locked[@]}" outboxcdc:local 2>&1); then echo "the image streams without settings: $out" >&2; exit 1; fi
case $out in *"--slot"*) ;; *) echo "without settings the image says: $out" >&2; exit 1 ;; esac
# It trusts the authorities that Debian trusts.
docker create --name look outboxcdc:local > /dev/null
docker cp look:/etc/ssl/certs/ca-certificates.crt "$work/authorities.crt"
grep -q 'BEGIN CERTIFICATE' "$work/authorities.crt" || { echo "the image trusts no authority" >&2; exit 1; }
docker image inspect --format 'outboxcdc:local, {{.Size}} bytes' outboxcdc:local

# The image of a release, which is given the program and no source.
platform=$(docker version --format '{{.Server.Os}}/{{.Server.Arch}}')
mkdir -p "$work/context/$platform"
docker cp look:/outboxcdc "$work/context/$platform/outboxcdc"
cp deploy/release.Dockerfile "$work/context/Dockerfile"
docker build --network none --build-arg GO_IMAGE=golang:local --build-arg "TARGETPLATFORM=$platform" \
  --tag outboxcdc:release "$work/context" > "$work/build.log" 2>&1 || { cat "$work/build.log" >&2; exit 1; }
want "$(git -C "$work/source" rev-parse --short=12 HEAD)" "${locked[@]}" outboxcdc:release version
for part in User Entrypoint Cmd ExposedPorts; do
  want "$(docker image inspect --format "{{.Config.$part}}" outboxcdc:local)" docker image inspect --format "{{.Config.$part}}" outboxcdc:release
done
echo "the images are sound"
