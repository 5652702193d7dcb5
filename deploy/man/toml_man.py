#!/usr/bin/python3
"""Makes codespaced.toml(5), as scdoc source, of docs/configuration.md: one table of keys, written once.

Usage: toml_man.py docs/configuration.md > codespaced.toml.5.scd
"""
import re
import sys


def escaped(text):
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return text.replace("\\", "\\\\").replace("_", "\\_").replace("*", "\\*").replace("`", "")


print("""codespaced.toml(5)

# NAME

codespaced.toml - configuration of codespaced

# DESCRIPTION

A file in TOML, read once, at start. Everything is checked before anything is done: an unknown key, a wrong type or a value out of range is an error, all of
them are reported together, and *codespaced* ends with status 78. A value is taken from the first of these that has it: a command line option, the environment
(*CODESPACE\\_* and the key in capitals with *\\_* for the dot, as in *CODESPACE\\_SERVER\\_MAX\\_SESSIONS*), this file, the default.
""")
section = False
for line in open(sys.argv[1], encoding="utf-8"):
    heading = re.match(r"## `\[(\w+)\]`", line)
    cells = re.split(r"\s*\|\s*", line.strip()[1:-1].strip()) if line.startswith("| ") else []
    if heading:
        print(f"# [{heading[1]}]\n")
        section = True
    elif line.startswith("## "):
        section = False
    elif section and line.startswith("| `") and len(cells) == 5:
        name, unit, default, allowed, why = cells
        bounds = f", {escaped(allowed)}" if allowed else ""
        print(f"*{escaped(name)}* ({escaped(unit)}{bounds}; default {escaped(default)})\n\t{escaped(why)}\n")
print("""# EXAMPLE

```
[server]
state_dir = "/var/lib/codespace/data"
image_dir = "/var/lib/codespace/images"
max_sessions = 200

[limits]
memory_bytes = 536_870_912
```

# SEE ALSO

*codespaced*(8)""")
