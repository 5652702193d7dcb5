#!/bin/bash
# Builds the image "code_latest": Debian 12 from Debian's packages, with Python 3.11.2,
# Node.js 18.20.4 and the libraries and tools in packages.txt. Runs on the host as root.
# Usage: build.sh STORE. Does nothing when STORE has a build of the same recipe.
set -euo pipefail
umask 022
# shellcheck disable=SC2034  # read by store.sh
image_name=code_latest
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
images_dir=$(dirname "$here")
# shellcheck source=images/store.sh
source "$images_dir/store.sh"

release=bookworm
want_python=3.11.2
want_node=18.20.4
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# The Debian archive this host itself uses, so that a mirror, a proxy or a snapshot keeps
# working; other repositories of the host (a vendor's nodejs) stay out.
find_sources() {
  # shellcheck disable=SC2016  # the fields are apt's
  apt-get indextargets --format '$(ORIGIN)|$(REPO_URI)|$(CODENAME)|$(COMPONENT)' 'Created-By: Packages' 2>/dev/null |
    awk -F'|' -v r="$release" '
      $1 == "Debian" && $4 == "main" && ($3 == r || $3 == r "-updates" || $3 == r "-security") && !seen[$0]++ {
        print "deb " $2 " " $3 " main" }'
}

default_sources() {
  printf 'deb http://deb.debian.org/debian %s main\n' "$release" "$release-updates"
  printf 'deb http://security.debian.org/debian-security %s main\n' "$release-security"
}

recipe_digest() {
  cat "$here/build.sh" "$here/packages.txt" "$images_dir/store.sh" | sha256sum | cut -d' ' -f1
}

proxy_options() {
  apt-config dump | awk -F'"' '/^Acquire::(http|https|ftp)::[Pp]roxy/ && $2 != "" { print $1 "\"" $2 "\";" }'
}

# What apt and dpkg leave behind, and what nobody reads in a sandbox. Licences stay.
clean_up() {
  (
    cd "${rootfs:?}"
    rm -rf var/lib/apt/lists/* var/cache/* var/log/* var/backups/* var/lib/dpkg/*-old var/tmp/* \
      tmp/{*,.[!.]*} run/* root/.[!.]* usr/share/man/* usr/share/info/* boot/* dev/* \
      etc/apt/apt.conf.d/99mmdebstrap etc/ssh/ssh_config.d/*
  )
  find "$rootfs/usr/share/doc" -type f ! -name copyright -delete
  find "$rootfs/usr/share/doc" -mindepth 1 -type d -empty -delete
  find "$rootfs/usr/share/locale" -mindepth 1 -maxdepth 1 -type d -exec rm -rf {} +
  default_sources >"$rootfs/etc/apt/sources.list"
  rm -f "$rootfs"/etc/apt/sources.list.d/*
}

inside() {
  chroot "$rootfs" /usr/bin/env -i PATH=/usr/bin:/usr/sbin:/bin:/sbin HOME=/tmp LC_ALL=C.UTF-8 MPLBACKEND=Agg "$@"
}

check_version() {
  local what=$1 want=$2 have=$3
  [[ $have == "$want" ]] || die "Debian's archive now has $what $have, and this image promises $want; \
use a mirror or snapshot.debian.org entry that still has it, or change want_* in $here/build.sh and the documents"
}

bootstrap() {
  local sources option options=() packages
  sources=$(find_sources || true)
  if ! grep -q " $release main" <<<"$sources"; then
    sources=$(default_sources)
  fi
  [[ $sources == *"$release-security"* ]] ||
    sources+=$'\n'$(default_sources | grep -- -security)
  while read -r option; do
    [[ -z $option ]] || options+=("--aptopt=$option")
  done < <(proxy_options)
  packages=$(grep -v '^#' "$here/packages.txt" | paste -sd, -)
  say "downloading and unpacking Debian 12 packages (about 250 MB, some minutes) from:"
  while read -r option; do say "  $option"; done <<<"$sources"
  # The list of sources goes in on stdin; the host's own sources are not looked at again.
  # In a mount namespace of its own: a build that is killed leaves no mounts in the way of the next.
  SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1735689600} nice \
    unshare --mount --propagation private mmdebstrap --mode=root --variant=minbase \
    --format=directory --keyring="$keyring" --include="$packages" \
    --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Retries "3"' \
    --aptopt='Acquire::Languages "none"' "${options[@]}" \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt=force-unsafe-io \
    "" "$rootfs" - <<<"$sources" ||
    die "mmdebstrap failed (its lines above say where); check that this host reaches its Debian mirror, then run this again"
}

# Settles what would otherwise be done again in every session, or cannot be done in a read-only one.
prepare() {
  say "compiling Python modules, building the font list"
  rm -f "$rootfs"/usr/lib/python3*/EXTERNALLY-MANAGED  # pip install --user is what a session is for
  local manager=$rootfs/usr/lib/python3/dist-packages/matplotlib/font_manager.py
  local list=/usr/share/codespace/matplotlib/fontlist.json
  mkdir -p "$rootfs${list%/*}"
  inside python3 -c 'import matplotlib.font_manager'
  cp "$rootfs"/tmp/.cache/matplotlib/fontlist-*.json "$rootfs$list"
  # matplotlib reads its font list only from a writable home, which is empty in a new session.
  sed -i "s|fm = json_load(fm_path)|fm = json_load(fm_path if fm_path.exists() else '$list')|" "$manager"
  grep -q "$list" "$manager" || die "matplotlib's font manager has changed; adapt the sed line in $here/build.sh"
  inside python3 -m compileall -q -j 2 /usr/lib/python3.11 /usr/lib/python3/dist-packages >/dev/null || true
  printf 'prefix=/home/sandbox/.local\nupdate-notifier=false\nfund=false\n' >"$rootfs/etc/npmrc"
  inside ldconfig
}

describe() {
  local python_version node_version
  python_version=$(inside python3 -c 'import platform; print(platform.python_version())')
  node_version=$(inside node --version)
  check_version Python "$want_python" "$python_version"
  check_version Node.js "$want_node" "${node_version#v}"
  # shellcheck disable=SC2016  # the fields are dpkg's
  inside dpkg-query -W -f '${Package}=${Version}\n' | LC_ALL=C sort >"$building/manifest.txt"
  recipe_digest >"$building/recipe"
  local library versions
  versions="\"python\": $(json_string "$python_version"), \"node\": $(json_string "${node_version#v}")"
  for library in ipython numpy pandas matplotlib; do
    versions+=", \"$library\": $(json_string "$(inside python3 -c \
      "import importlib.metadata as m; print(m.version('$library'))")")"
  done
  versions+=", \"npm\": $(json_string "$(inside npm --version)"), \"git\": $(json_string "$(inside git --version | cut -d' ' -f3)")"
  cat >"$building/image.json" <<EOF
{
  "name": "code_latest",
  "description": "Debian 12 with Python, Node.js, IPython, numpy, pandas, matplotlib and common tools",
  "languages": ["python", "javascript"],
  "versions": {$versions},
  "aliases": ["linux_latest"],
  "default": true
}
EOF
}

digest_of() {
  {
    kernels_digest
    cat "$1/recipe" "$1/manifest.txt"
  } | sha256sum | cut -d' ' -f1
}

[[ $# -eq 1 ]] || die "usage: $0 STORE, the directory that holds the images"
[[ $EUID -eq 0 ]] || die "building a root file system needs root: sudo $0 $1"
for tool in mmdebstrap apt-get gpgv; do
  command -v "$tool" >/dev/null || die "$tool is missing; install it: apt-get install mmdebstrap apt gpgv"
done
[[ -r $keyring ]] || die "$keyring is missing; install it: apt-get install debian-archive-keyring"

begin_build "$1"
current=$store/code_latest
if [[ -f $current/recipe && $(<"$current/recipe") == $(recipe_digest) ]]; then
  digest=$(digest_of "$current")
  if [[ $(readlink "$current") == "${digest:0:16}" ]]; then
    say "unchanged, using ${digest:0:16}"
    exit 0
  fi
  # Only the drivers changed: the same files under hard links, with other drivers.
  say "the packages are unchanged, putting in the new kernel drivers"
  cp -al "$current/rootfs" "$rootfs"
  cp "$current"/{image.json,manifest.txt,recipe} "$building/"
  "$images_dir/kernels/install.sh" "$rootfs" "chroot $rootfs /usr/bin/python3" node
  publish "$digest"
  exit 0
fi
bootstrap
prepare
describe
clean_up
write_fixed_files
"$images_dir/kernels/install.sh" "$rootfs" "chroot $rootfs /usr/bin/python3" node
tidy_modes
say "$(grep -c . "$building/manifest.txt") packages, $(du -sh "$rootfs" | cut -f1)"
publish "$(digest_of "$building")"
