#!/usr/bin/env bash
# Fuzzes each target for some time with libFuzzer under AddressSanitizer and UBSan, prints how many
# inputs were tried, and adds what reached new code to its corpus. Ends with 1 if anything was found.
#
#   tests/fuzz/run.sh [SECONDS [TARGET...]]      default: 600 seconds, all targets
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-600}
[ $# -eq 0 ] || shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(json form http frames egress)
kept=300 # inputs of a corpus, of all sizes: they are replayed in every run of the unit tests

cmake --preset fuzz >/dev/null
cmake --build --preset fuzz --target "${targets[@]/#/fuzz_}"
status=0
for target in "${targets[@]}"; do
  work=build/fuzz/work/$target
  mkdir -p "$work/seeds" "$work/found" "$work/merged"
  number=0
  while read -r line; do
    base64 -d <<<"$line" >"$work/seeds/$number"
    number=$((number + 1))
  done <"tests/fuzz/corpus/$target.b64"
  rm -f "$work/merged/"*
  echo "== $target for $seconds s"
  log=$work/log
  nice build/fuzz/bin/fuzz_"$target" -max_total_time="$seconds" -max_len=8192 -timeout=20 -rss_limit_mb=3000 -print_final_stats=1 \
    -artifact_prefix="$work/" "$work/found" "$work/seeds" >"$log" 2>&1 || { status=1; tail -n 40 "$log"; }
  grep -E 'stat::number_of_executed_units|stat::new_units_added' "$log" || true
  build/fuzz/bin/fuzz_"$target" -merge=1 -max_len=512 "$work/merged" "$work/seeds" "$work/found" >/dev/null 2>&1 || true
  find "$work/merged" -type f -printf '%s %p\n' | sort -n >"$work/sizes"
  awk -v all="$(wc -l <"$work/sizes")" -v kept="$kept" 'int(NR * kept / all) > int((NR - 1) * kept / all) || all <= kept' "$work/sizes" | while read -r _ file; do
    base64 -w 0 "$file"
    echo
  done >"$work/corpus.b64"
  [ ! -s "$work/corpus.b64" ] || cp "$work/corpus.b64" "tests/fuzz/corpus/$target.b64"
done
exit "$status"
