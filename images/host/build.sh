#!/bin/bash
# Makes the image "host": a root file system whose /usr is the host's own, which the launcher
# mounts there read-only (the file bind-host-usr beside it says so). It takes about a second
# and no download. Usage: build.sh STORE
set -euo pipefail
umask 022
# shellcheck disable=SC2034  # read by store.sh
image_name=host
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
images_dir=$(dirname "$here")
# shellcheck source=images/store.sh disable=SC2154
source "$images_dir/store.sh"
[[ $# -eq 1 ]] || die "usage: $0 STORE, the directory that holds the images"
[[ -x /usr/bin/python3 ]] || die "/usr/bin/python3 is missing; install it: apt-get install python3"

begin_build "$1"
python_version=$(/usr/bin/python3 -I -c 'import platform; print(platform.python_version())')
node_version=
if [[ -x /usr/bin/node ]]; then
  node_version=$(/usr/bin/node --version)
  node_version=${node_version#v}
fi

mkdir -p "$rootfs/usr" "$rootfs/etc"
: >"$building/bind-host-usr"
for name in bin sbin lib lib32 lib64 libx32; do
  if [[ -L /$name ]]; then
    ln -s "$(readlink "/$name")" "$rootfs/$name"
  elif [[ -d /$name ]]; then
    die "/$name is a directory of its own; this image needs a host with /usr merged (apt-get install usrmerge)"
  fi
done

# What programs in /usr expect to find in /etc. Copies, so nothing else of the host's /etc is seen.
for path in alternatives ld.so.cache ld.so.conf ld.so.conf.d ssl/certs ssl/openssl.cnf ca-certificates.conf \
    bash.bashrc profile inputrc mime.types protocols services localtime timezone debian_version os-release \
    python3 python3.11 fonts matplotlibrc java-17-openjdk; do
  [[ -e /etc/$path ]] || continue
  mkdir -p "$rootfs/etc/$(dirname "$path")"
  cp -a --no-preserve=ownership "/etc/$path" "$rootfs/etc/$path"
done
# Certificates are links into /usr/share, which the session has, or files of the host's own, copied here.
write_fixed_files
"$images_dir/kernels/install.sh" "$rootfs" /usr/bin/python3 "${node_version:+node}"
tidy_modes

languages='"python"' versions="\"python\": $(json_string "$python_version")"
if [[ -n $node_version ]]; then
  languages+=', "javascript"'
  versions+=", \"node\": $(json_string "$node_version")"
fi
{
  echo "python=$python_version"
  [[ -z $node_version ]] || echo "node=$node_version"
} >"$building/manifest.txt"
cat >"$building/image.json" <<EOF
{
  "name": "host",
  "description": "The /usr of this server, read-only",
  "languages": [$languages],
  "versions": {$versions},
  "aliases": [],
  "default": false
}
EOF
digest=$( (
  kernels_digest
  sha256sum <"$here/build.sh"
  cat "$building/manifest.txt"
  (cd "$rootfs" && find etc -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum)
  (cd "$rootfs" && find . -type l -printf '%P -> %l\n' | LC_ALL=C sort)
) | sha256sum | cut -d' ' -f1)
publish "$digest"
