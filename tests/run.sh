#!/usr/bin/env bash
# Installs what the tests need, builds everything, and runs all tests. Can be run again.
#
#   sudo ./tests/run.sh            everything
#   sudo ./tests/run.sh --quick    without the sanitizer build, the virtual machine and the benchmark
#
# Leaves nothing running. Builds below build/, images below build/images.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

quick=no
case ${1:-} in
  "") ;;
  --quick) quick=yes ;;
  *) echo "usage: tests/run.sh [--quick]" >&2; exit 2 ;;
esac
if [ "$(id -u)" -ne 0 ]; then
  echo "tests/run.sh needs root: it creates namespaces, control groups and service users. Run: sudo ./tests/run.sh" >&2
  exit 2
fi

export CODESPACE_REQUIRE_ALL=1 PYTHONDONTWRITEBYTECODE=1
passed=0
failed=0
started=$SECONDS

step() { printf '\n== %s (%d s)\n' "$1" $((SECONDS - started)); }

# check NAME COMMAND...: one line of the closing count, and the run goes on after a failure.
check() {
  local name=$1
  shift
  step "$name"
  if "$@"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "FAILED: $name" >&2
  fi
}

install_packages() {
  local missing=()
  while read -r _ package; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
  done < <(grep -Ev '^\s*(#|$)' deploy/packages.txt | sort -u -k2,2)
  [ ${#missing[@]} -eq 0 ] && return 0
  echo "installing: ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

build() { # PRESET
  cmake --preset "$1" >/dev/null && cmake --build --preset "$1"
}

run_pytest() { # SUITE ARGS...
  /usr/bin/python3 -m pytest -q -p no:cacheprovider --strict-markers -rfEs "$@"
}

step "packages"
install_packages

scripts=$(git ls-files -co --exclude-standard '*.sh' .ci/run deploy/check-host 2>/dev/null | sort -u)
# shellcheck disable=SC2086
check "shell scripts" shellcheck $scripts
check "release build" build release
if [ "$failed" -gt 0 ]; then
  echo "$passed passed, $failed failed"
  exit 1
fi
check "unit tests" ctest --preset release
if [ $quick = no ]; then
  check "build with AddressSanitizer and UBSan" build dev
  check "unit tests under AddressSanitizer and UBSan" ctest --preset dev
fi
check "image host" images/host/build.sh "$root/build/images"
check "image code_latest" images/code_latest/build.sh "$root/build/images"
check "kernel drivers on this machine's interpreters" run_pytest tests/kernels
check "kernel drivers in code_latest" run_pytest tests/kernels --rootfs "$root/build/images/code_latest/rootfs"
check "kernel drivers in code_latest, forked from a zygote with its libraries" \
  run_pytest tests/kernels --rootfs "$root/build/images/code_latest/rootfs" --born data
check "integration and security, image code_latest" \
  run_pytest tests/integration tests/security --build build/release --images build/images --image code_latest
check "the embedded image host" \
  run_pytest tests/integration/test_sessions.py tests/integration/test_runs.py tests/integration/test_files.py --build build/release --images build/images --image host
check "the official SDKs" run_pytest tests/sdk --build build/release --images build/images
if [ $quick = no ]; then
  check "the package in a virtual machine: systemd, control groups version 2" run_pytest tests/vm --build build/release --images build/images
  # Ratios are printed and not gated: on a busy machine they say more of the machine than of us.
  check "benchmark" /usr/bin/python3 tests/bench/run.py --quick --rounds 40 --build build/release --images build/images
fi

step "done"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
