#!/bin/bash
# Puts the kernel drivers into a root file system. Run by the image builds, on the host:
#   install.sh ROOTFS PYTHON [NODE]
# PYTHON is a command that runs the image's own Python, because an interpreter reads only the
# byte code of its own version; NODE is any word if the image has Node.js and empty if not. Init finds a language by its argv file, one argument a line.
set -euo pipefail
rootfs=$1 python=$2 node=${3-}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target=$rootfs/opt/codespace/kernels
rm -rf "$target"
install -d -m 0755 "$rootfs/opt" "$rootfs/opt/codespace" "$target" "$target/python"

for source in "$here"/python/*.py; do
  part=$(basename "$source" .py)
  # Without docstrings and asserts: less to read at every cold start. The fixed time stamp
  # keeps builds of the same sources equal.
  # shellcheck disable=SC2086  # PYTHON may be a command with arguments
  $python -I -S -c '
import importlib._bootstrap_external as external, sys
data = sys.stdin.buffer.read()
code = compile(data, sys.argv[1], "exec", dont_inherit=True, optimize=2)
sys.stdout.buffer.write(external._code_to_timestamp_pyc(code, 0, len(data)))
' "/opt/codespace/kernels/python/$part.py" <"$source" >"$target/python/$part.pyc"
  chmod 0644 "$target/python/$part.pyc"
done
printf '%s\n' /usr/bin/python3 -I -S -X utf8 /opt/codespace/kernels/python/kernel.pyc >"$target/python/argv"
# The flavours of preloaded interpreters this image can make (images/kernels/PROTOCOL.md).
{
  echo min
  site=$rootfs/usr/lib/python3/dist-packages
  [[ -d $site/numpy && -d $site/pandas && -d $site/matplotlib && -d $site/IPython ]] && echo data
} >"$target/python/zygotes" || true
chmod 0644 "$target/python/argv" "$target/python/zygotes"

if [[ -n $node ]]; then
  install -d -m 0755 "$target/javascript"
  install -m 0644 "$here/javascript/"*.js "$target/javascript/"
  printf '%s\n' /usr/bin/node /opt/codespace/kernels/javascript/kernel.js >"$target/javascript/argv"
  chmod 0644 "$target/javascript/argv"
fi
