# shellcheck shell=bash disable=SC2154  # image_name and images_dir are the sourcing script's
# Shared by the image builds (sourced): the layout of the image store, the fixed files of
# every root file system, and the handle. Runs on the host, as root or as any user that
# owns the store.
#
#   STORE/<16 hex digits>/rootfs/         what a session sees, read-only
#   STORE/<16 hex digits>/image.json      name, languages, versions
#   STORE/<16 hex digits>/manifest.txt    what is in it, one name=version a line
#   STORE/<name> -> <16 hex digits>       the current build of that name
# The digits are the start of a SHA-256 over recipe, versions and kernels: a changed image
# gets a new directory, and sessions that live on the old one keep it.

say() { printf '%s\n' "image $image_name: $*"; }
die() { printf '%s\n' "image ${image_name:-?}: $*" >&2; exit 1; }

# Starts a build in STORE/.building-NAME-PID, removed when the script ends early.
begin_build() {
  store=$1
  mkdir -p "$store" || die "cannot create the image store $store; run this as root, or give a directory you may write"
  chmod 0755 "$store"
  store=$(cd "$store" && pwd)
  local old
  for old in "$store/.building-$image_name-"*; do
    # Left by a build that was killed, unless its process still lives.
    [[ -d $old && ! -d /proc/${old##*-} ]] && rm -rf --one-file-system "$old"
  done
  building=$store/.building-$image_name-$$
  mkdir -m 0755 "$building"
  trap 'rm -rf --one-file-system "$building"' EXIT
  rootfs=$building/rootfs
}

# The files that are the same in every image, over whatever the recipe brought.
write_fixed_files() {
  local dir
  for dir in etc workspace tmp proc dev home home/sandbox root run sys opt; do
    [[ -d $rootfs/$dir ]] || mkdir -p "$rootfs/$dir"
    chmod 0755 "$rootfs/$dir"
  done
  # Programs written for AgentBay's images name the home there.
  ln -sfn sandbox "$rootfs/home/wuying"
  cat >"$rootfs/etc/passwd" <<'EOF'
root:x:0:0:root:/root:/bin/bash
sandbox:x:1000:1000:sandbox:/home/sandbox:/bin/bash
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
EOF
  cat >"$rootfs/etc/group" <<'EOF'
root:x:0:
tty:x:5:
sandbox:x:1000:
nogroup:x:65534:
EOF
  cat >"$rootfs/etc/hosts" <<'EOF'
127.0.0.1 localhost sandbox
::1 localhost ip6-localhost ip6-loopback sandbox
EOF
  cat >"$rootfs/etc/nsswitch.conf" <<'EOF'
passwd: files
group: files
shadow: files
hosts: files dns
networks: files
protocols: files
services: files
EOF
  echo sandbox >"$rootfs/etc/hostname"
  echo '# This session has no name server.' >"$rootfs/etc/resolv.conf.new"
  mv -f "$rootfs/etc/resolv.conf.new" "$rootfs/etc/resolv.conf"  # it may have been a link
  rm -f "$rootfs/etc/machine-id" "$rootfs/etc/shadow" "$rootfs/etc/gshadow" "$rootfs/etc/mtab" \
    "$rootfs/etc/passwd-" "$rootfs/etc/group-" "$rootfs/etc/shadow-" "$rootfs/etc/gshadow-"
  : >"$rootfs/etc/machine-id"
  ln -s /proc/self/mounts "$rootfs/etc/mtab"
  chmod 0644 "$rootfs"/etc/{passwd,group,hosts,nsswitch.conf,hostname,resolv.conf,machine-id}
}

# Nothing in an image may raise privilege, be a device, or be unreadable for the tenant,
# to whom every file of the host's root belongs to nobody.
tidy_modes() {
  find "$rootfs" -xdev \( -type b -o -type c -o -type p -o -type s \) -delete
  find "$rootfs" -xdev -type f -perm /7000 -exec chmod ug-s,-t {} +
  find "$rootfs" -xdev -type d -exec chmod u-s,g-s,-t,a+rx,go-w {} +
  find "$rootfs" -xdev -type f -exec chmod a+r,go-w {} +
  chmod 0755 "$rootfs"
}

# kernels_digest: one hash over the drivers and the way they are installed.
kernels_digest() {
  (cd "$images_dir/kernels" && find . -type f \( -name '*.py' -o -name '*.js' -o -name '*.sh' \) -print0 |
    LC_ALL=C sort -z | xargs -0 sha256sum; sha256sum <"$images_dir/store.sh") | sha256sum | cut -d' ' -f1
}

# Ends a build: names it by its digest and points STORE/NAME at it.
publish() {
  local digest=$1 handle=${1:0:16}
  find "$building" -mindepth 1 -maxdepth 1 -type f -exec chmod 0644 {} +
  if [[ -d $store/$handle ]]; then
    rm -rf --one-file-system "$building"
  else
    mv -T "$building" "$store/$handle"
  fi
  ln -sfn "$handle" "$store/.$image_name.link"
  mv -T "$store/.$image_name.link" "$store/$image_name"
  say "ready as $handle (sha256 ${digest:0:32}...)"
}

json_string() {
  local text=$1
  text=${text//\\/\\\\}
  printf '"%s"' "${text//\"/\\\"}"
}
