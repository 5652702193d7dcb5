#!/usr/bin/env bash
# From a clone to a running server, on Debian 12: installs what is missing, builds, makes the
# image, starts launcher and gateway, runs two examples through the API, prints how to reach
# it, and stays in the foreground until Ctrl-C. Can be run again at any time.
set -euo pipefail
umask 022
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD

usage() {
  cat <<'EOF'
usage: sudo ./deploy/quickstart.sh [options]
  --detach             return when the server is ready, leave it running
  --stop               end the server of this state directory
  --image NAME         code_latest (default; Debian 12 with numpy, pandas, ...) or host (this
                       machine's /usr, no image build)
  --listen ADDR:PORT   default 127.0.0.1:8642
  --state DIR          default .codespace/ in the checkout
EOF
}

say() { printf '%s\n' "$*"; }
step() { printf '\n== %s\n' "$*"; }
die() { printf 'quickstart: %s\n' "$*" >&2; exit 1; }

detach=no stop=no image=code_latest listen=127.0.0.1:8642 state=$root/.codespace
while [[ $# -gt 0 ]]; do
  case $1 in
    --detach) detach=yes ;;
    --stop) stop=yes ;;
    --image | --listen | --state)
      [[ $# -ge 2 ]] || die "$1 needs a value; --help lists the options"
      case $1 in
        --image) image=$2 ;;
        --listen) listen=$2 ;;
        --state) state=$2 ;;
      esac
      shift ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; die "unknown option $1" ;;
  esac
  shift
done
[[ $EUID -eq 0 ]] || die "this creates service users, namespaces and control groups; run it as root: sudo $0"
[[ $image == code_latest || $image == host ]] || die "unknown image $image; known are code_latest and host"
[[ $listen =~ ^(\[[0-9a-fA-F:]+\]|[^:]+):([0-9]+)$ && ${BASH_REMATCH[2]} -ge 1 && ${BASH_REMATCH[2]} -le 65535 ]] ||
  die "--listen wants ADDR:PORT, such as 127.0.0.1:8642, and not $listen"
state=$(realpath -m "$state")

# The daemons run as users who need not be able to enter the directory of this checkout. In a
# mount namespace of their own they find everything they need below here; the name follows
# from the state directory, so that two of them never meet.
# Root's are the state directory itself, images/, logs/ and env; data/ is the gateway's, and
# root neither reads nor changes anything in there.
data=$state/data
base=/run/codespace/$(printf %s "$state" | sha256sum | cut -c1-8)
bin=$root/build/release/bin
launcher_pid=''
egress_pid=''
gateway_pid=''
headers=''
launcher_was_there=no

# ---- processes ---------------------------------------------------------------------------

# The pid in FILE, if it is a live process of this state directory; our runtime directory is
# in its command line, which a process that merely got the same number has not.
find_running() {
  local file=$base/$1.pid program=$2 pid
  [[ -f $file ]] || return 1
  pid=$(<"$file")
  [[ $pid =~ ^[0-9]+$ && -r /proc/$pid/cmdline ]] || return 1
  local line
  line=$(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null) || return 1
  [[ $line == *"/$program "* && $line == *" $base/"* ]] || return 1
  printf %s "$pid"
}

# Ends one daemon politely, and by force when it does not follow within the bound.
end_daemon() {
  local name=$1 program=$2 bound_s=$3 pid i
  pid=$(find_running "$name" "$program") || { rm -f "$base/$name.pid"; return 0; }
  kill -TERM "$pid" 2>/dev/null || true
  for ((i = 0; i < bound_s * 10; i++)); do
    find_running "$name" "$program" >/dev/null || break
    sleep 0.1
  done
  if find_running "$name" "$program" >/dev/null; then
    say "$program did not end within $bound_s s; killing it (log: $state/logs/$name.log)"
    kill -KILL "$pid" 2>/dev/null || true
    sleep 0.2
  fi
  rm -f "$base/$name.pid"
}

stop_all() {
  # The gateway first: it drains its requests while the launcher can still serve them.
  end_daemon gateway codespaced 30
  end_daemon launcher codespace-launcher 20
  end_daemon egress codespace-egress 5
  # The launcher empties its base group but cannot remove it: that lies among root's.
  local group
  group=$(python3 -c 'import sys
h = 0xcbf29ce484222325
for b in sys.argv[1].encode(): h = (h ^ b) * 0x100000001b3 % 2**64
print(f"codespace-{h:016x}")' "$base/run")
  find /sys/fs/cgroup -depth -type d -path "*/$group*" -exec rmdir {} + 2>/dev/null || true
  rm -rf "$base/run" "$base/egress"
  rmdir "$base/state" "$base/bin" "$base/images" "$base" 2>/dev/null || true
}

# After a failure: a launcher that was there before us keeps its sessions.
# shellcheck disable=SC2317  # called by the EXIT trap
stop_started() {
  if [[ $launcher_was_there == yes ]]; then
    end_daemon gateway codespaced 30
  else
    stop_all
  fi
}

# start_daemon NAME PROGRAM ARGUMENTS...: in the background, in its own session and mount namespace.
start_daemon() {
  local name=$1 program=$2
  shift 2
  # shellcheck disable=SC2016  # the inner shell's own parameters
  setsid unshare --mount --propagation private /bin/sh -euc '
    base=$1 state=$2 bin=$3 program=$4
    shift 4
    mount --bind "$state/data" "$base/state"
    mount --bind "$state/images" "$base/images"
    mount --bind "$bin" "$base/bin"
    mount -o remount,bind,ro "$base/bin"
    cd /
    umask 027
    exec "$base/bin/$program" "$@"
  ' sh "$base" "$state" "$bin" "$program" "$@" </dev/null >>"$state/logs/$name.log" 2>&1 &
  echo $! >"$base/$name.pid"
}

show_log() {
  say "the last lines of $state/logs/$1.log:" >&2
  tail -n 15 "$state/logs/$1.log" | sed 's/^/  /' >&2
}

# ---- steps -------------------------------------------------------------------------------

install_packages() {
  local group package groups=' build run ' missing=()
  if [[ $image == code_latest ]]; then groups+='image '; fi
  while read -r group package; do
    [[ $groups == *" $group "* ]] || continue
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
  done < <(grep -Ev '^\s*(#|$)' deploy/packages.txt)
  if [[ ${#missing[@]} -eq 0 ]]; then
    say "all there"
    return 0
  fi
  say "installing ${missing[*]}"
  apt-get update -qq ||
    die "apt-get update failed; check this machine's network and /etc/apt/sources.list*, then run this again"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    die "apt-get could not install the packages above; its lines say why"
}

build() {
  cmake --preset release >/dev/null || die "cmake could not configure; its lines above say what is missing"
  cmake --build --preset release --target codespaced codespace-launcher codespace-init codespace-egress ||
    die "the build failed; the first error above is the one to look at"
}

make_users() {
  local user
  for user in codespace codespace-launcher codespace-egress; do
    getent passwd "$user" >/dev/null && continue
    say "creating the system user $user"
    useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$user" ||
      die "cannot create the system user $user; create it by hand and run this again"
  done
}

make_directories() {
  install -d -m 0755 /run/codespace "$base" "$base/state" "$base/images" "$base/bin"
  install -d -m 0755 -o root -g root "$state" "$state/images"
  install -d -m 0711 -o codespace -g codespace "$data"
  install -d -m 0750 -o codespace-egress -g codespace "$base/egress"
  install -d -m 0700 -o root -g root "$state/logs"
}

curl_api() {
  curl --silent --show-error --max-time 70 --cacert "$data/tls/ca.pem" "$@"
}

wait_ready() {
  local i answer
  for ((i = 0; i < 300; i++)); do
    if ! kill -0 "$(<"$base/launcher.pid")" 2>/dev/null; then
      show_log launcher
      die "codespace-launcher ended while starting; the lines above say why"
    fi
    if ! kill -0 "$(<"$base/gateway.pid")" 2>/dev/null; then
      show_log gateway
      die "codespaced ended while starting; the lines above say why (is $listen in use by another program?)"
    fi
    if [[ -f $data/tls/bundle.pem && -f $data/api-key ]]; then
      write_env
      if curl_api --fail --output /dev/null "$CODESPACE_URL/readyz" 2>/dev/null; then return 0; fi
    fi
    sleep 0.1
  done
  answer=$(curl_api "${CODESPACE_URL:-https://$listen}/readyz?verbose" 2>&1 || true)
  show_log gateway
  die "the server was not ready within 30 s; /readyz says: $answer"
}

# <state>/env for the person who called us. What of it comes from the gateway's files is checked
# by `codespaced env`, and it is read here, never run.
write_env() {
  rm -f "$state/env.new"
  (umask 077 && "$bin/codespaced" env --state "$data" --listen "$listen" >"$state/env.new") ||
    die "codespaced env failed; see $state/logs/gateway.log"
  chown "${SUDO_UID:-0}:${SUDO_GID:-0}" "$state/env.new"
  mv -f "$state/env.new" "$state/env"
  CODESPACE_URL=$(sed -n "s/^export CODESPACE_URL='\(.*\)'\$/\1/p" "$state/env")
  CODESPACE_API_KEY=$(sed -n "s/^export CODESPACE_API_KEY='\(.*\)'\$/\1/p" "$state/env")
}

json_field() {
  /usr/bin/python3 -I -c '
import json, sys
value = json.load(sys.stdin)
print(value[sys.argv[1]] if sys.argv[1] in value else json.dumps(value), end="")' "$1"
}

# example SESSION LANGUAGE CODE WANTED: runs it and compares what it printed.
example() {
  local session=$1 language=$2 code=$3 wanted=$4 body answer got
  body=$(/usr/bin/python3 -I -c 'import json, sys; print(json.dumps({"language": sys.argv[1], "code": sys.argv[2]}))' \
    "$language" "$code")
  answer=$(curl_api -H @"$headers" -d "$body" "$CODESPACE_URL/v1/sessions/$session/runs") ||
    die "the $language example got no answer; see $state/logs/gateway.log"
  got=$(json_field stdout <<<"$answer")
  say "  $language> $code"
  say "  $got"
  [[ $got == "$wanted" ]] || die "the $language example should have printed: $wanted
  the whole answer: $answer"
}

run_examples() {
  local answer session
  headers=$(mktemp)
  printf 'Authorization: Bearer %s\nContent-Type: application/json\n' "$CODESPACE_API_KEY" >"$headers"
  answer=$(curl_api -H @"$headers" -d "{\"image\": \"$image\"}" "$CODESPACE_URL/v1/sessions") ||
    die "no answer to the creation of a session; see $state/logs/gateway.log"
  session=$(json_field session_id <<<"$answer")
  [[ $session == session-* ]] || die "no session could be created: $answer"
  example "$session" python 'print("Hello from CodeSpace!")' 'Hello from CodeSpace!'
  if [[ $image == code_latest || -x /usr/bin/node ]]; then
    example "$session" javascript 'console.log([1, 2, 3].map(x => x * x))' '[ 1, 4, 9 ]'
  else
    say "  (no JavaScript in the image host: this machine has no /usr/bin/node)"
  fi
  curl_api -H @"$headers" -X DELETE --fail "$CODESPACE_URL/v1/sessions/$session" ||
    die "the session could not be deleted; see $state/logs/gateway.log"
  rm -f "$headers"
}

print_access() {
  cat <<EOF

CodeSpace is running.
  URL   $CODESPACE_URL
  key   $CODESPACE_API_KEY
  CA    $data/tls/ca.pem
  env   . $state/env        (for the SDKs and curl)
  logs  $state/logs/

Try:
  curl --cacert '$data/tls/ca.pem' -H 'Authorization: Bearer $CODESPACE_API_KEY' -H 'Content-Type: application/json' \\
    -d '{"language": "python", "code": "print(\\"Hello from CodeSpace!\\")"}' $CODESPACE_URL/v1/runs

Stop it with: sudo ./deploy/quickstart.sh --stop$([[ $state == "$root/.codespace" ]] || printf ' --state %q' "$state")
EOF
}

# ---- the order ---------------------------------------------------------------------------

if [[ $stop == yes ]]; then
  if find_running gateway codespaced >/dev/null || find_running launcher codespace-launcher >/dev/null; then
    say "stopping the server of $state"
    stop_all
    say "stopped"
  else
    stop_all
    say "no server of $state is running"
  fi
  exit 0
fi

if find_running gateway codespaced >/dev/null && find_running launcher codespace-launcher >/dev/null; then
  listen=$(tr '\0' '\n' <"/proc/$(<"$base/gateway.pid")/cmdline" | sed -n '/^--listen$/{n;p}')
  say "already running for $state"
  write_env
  print_access
  exit 0
fi

# shellcheck disable=SC1091
if [[ $(. /etc/os-release && printf '%s %s' "$ID" "${VERSION_ID:-}") != "debian 12" ]]; then
  say "note: this is made for Debian 12; on another system packages and image may differ"
fi
step "1/5 packages"
install_packages
step "2/5 build"
build
step "3/5 image $image"
make_users
make_directories
images/host/build.sh "$state/images"
if [[ $image == code_latest ]]; then images/code_latest/build.sh "$state/images"; fi

step "4/5 start"
trap 'rm -f "$headers"; stop_started' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
end_daemon gateway codespaced 30
if find_running launcher codespace-launcher >/dev/null; then
  say "the launcher is still running, with its sessions; starting the gateway beside it"
  launcher_was_there=yes
else
  start_daemon launcher codespace-launcher --runtime "$base/run" --images "$base/images" \
    --user codespace-launcher --group codespace --id-range 1900000000:1048576
  for ((i = 0; i < 100; i++)); do
    [[ ! -S $base/run/launcher.sock ]] || break
    sleep 0.05
  done
fi
if ! find_running egress codespace-egress >/dev/null; then
  start_daemon egress codespace-egress --socket "$base/egress/egress.sock" --user codespace-egress --group codespace
fi
CODESPACE_NETWORK_EGRESS_SOCKET=$base/egress/egress.sock \
  start_daemon gateway codespaced serve --user codespace --listen "$listen" --state "$base/state" \
  --runtime "$base/run" --images "$base/images"
wait_ready
launcher_pid=$(find_running launcher codespace-launcher)
gateway_pid=$(find_running gateway codespaced)
egress_pid=$(find_running egress codespace-egress) || { show_log egress; die "codespace-egress ended while starting; the lines above say why"; }
say "launcher $launcher_pid, gateway $gateway_pid, egress proxy $egress_pid"

step "5/5 two examples through the API"
run_examples
print_access
if [[ $detach == yes ]]; then
  trap - EXIT INT TERM
  exit 0
fi
launcher_was_there=no
say "Ctrl-C stops everything."
trap 'say; say "stopping"; exit 0' INT TERM
while kill -0 "$launcher_pid" 2>/dev/null && kill -0 "$gateway_pid" 2>/dev/null && kill -0 "$egress_pid" 2>/dev/null; do
  sleep 1 &
  wait $! || true
done
show_log gateway
show_log launcher
show_log egress
die "a daemon ended by itself; the lines above say why"
