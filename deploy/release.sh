#!/usr/bin/env bash
# Builds the command for each system of a release into dist/, each twice in different
# directories, and fails where the bytes differ. goreleaser builds with the same flags.
set -euo pipefail
cd "$(dirname "$0")/.."
# Both by their versions: a tool of a release is a part of it.
CYCLONEDX=github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0
GOVULNCHECK=golang.org/x/vuln/cmd/govulncheck@v1.1.4
mkdir -p dist
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Clones, so that Go notes the commit: it is the program's version.
for copy in first second; do git clone --quiet --no-hardlinks . "$work/$copy"; done
for target in linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64; do
  name=outboxcdc_${target%/*}_${target#*/}
  [ "${target%/*}" = windows ] && name=$name.exe
  for copy in first second; do
    (cd "$work/$copy" && CGO_ENABLED=0 GOOS=${target%/*} GOARCH=${target#*/} \
      go build -trimpath -buildvcs=true -ldflags '-s -w' -o "$work/$copy.bin" ./cmd/outboxcdc)
  done
  cmp "$work/first.bin" "$work/second.bin" || { echo "$name is another one the second time" >&2; exit 1; }
  go version -m "$work/first.bin" | grep -q 'vcs.modified=false' || { echo "$name does not say which commit it is" >&2; exit 1; }
  mv "$work/first.bin" "dist/$name"
done
(cd dist && sha256sum outboxcdc_*) | tee dist/checksums.txt
# The bill of materials, from what the binary says that it was built from (CycloneDX).
# Without a serial number and a time it is the same the second time.
for target in linux_amd64 windows_amd64; do
  binary=dist/outboxcdc_$target
  [ -e "$binary" ] || binary=$binary.exe
  go run "$CYCLONEDX" bin -json -std -noserial -notimestamp -version "$(git describe --tags --always)" -output "dist/sbom_$target.cdx.json" "$binary"
done
# Only goreleaser makes packages and images, and images only with Docker.
echo "made: binaries and bills of materials; goreleaser makes the packages, and with Docker the images" >&2
# What is known of its dependencies' holes. Who cannot reach the database says so.
if [ "${VULNCHECK:-on}" = off ]; then
  echo "known vulnerabilities were not looked for, because VULNCHECK=off" >&2
else
  go run "$GOVULNCHECK" ./... || {
    echo "govulncheck found a vulnerability, or cannot reach its database: mend it, or release with VULNCHECK=off and say so" >&2
    exit 1
  }
fi
