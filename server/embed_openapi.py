#!/usr/bin/env python3
"""Turns api/openapi.yaml into a C++ source with the same document as compact JSON."""
import json
import sys

import yaml

document = json.dumps(yaml.safe_load(open(sys.argv[1], encoding="utf-8")), separators=(",", ":"), default=str)
pieces = [document[i:i + 8000] for i in range(0, len(document), 8000)]
with open(sys.argv[2], "w", encoding="utf-8") as out:
    out.write("// Made from api/openapi.yaml; do not edit.\n#include \"server/router.h\"\n\n")
    out.write("namespace codespace::server {\n\nstd::string_view openapi_json() {\n  static constexpr char text[] =\n")
    for piece in pieces:
        out.write(f'      R"codespace({piece})codespace"\n')
    out.write("      ;\n  return {text, sizeof text - 1};\n}\n\n}  // namespace codespace::server\n")
