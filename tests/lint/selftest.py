#!/usr/bin/env python3
"""The lint tests find what they are for: a small tree is planted with one violation of each rule."""
import pathlib
import sys
import tempfile

import layers
import spec
import style

HEADER = "// What this is.\n#pragma once\n"
TREE = {
    "runtime/base/file.hpp": HEADER,
    "runtime/model/x.hpp": HEADER,
    "runtime/cell/x.hpp": HEADER,
    "runtime/base/cites.hpp": '// docs/SPEC.md, "Held"; docs/SPEC.md, "Gone"; docs/GONE.md\n#pragma once\n',
    "runtime/base/upward.cpp": '#include "model/x.hpp"\n',
    "runtime/residue/scan.cpp": '#include "cell/x.hpp"\n#include <base/file.hpp>\n#include "nowhere.hpp"\n',
    "runtime/unheard/of.cpp": "",
    "runtime/cell/calls.cpp": """
// system() in a comment and "system(" in a literal are no calls
void f() {
  auto s = "popen(";
  ::system("x");
  std::this_thread::sleep_for(1s);
  exit(1);
  thread.detach();
  ::fork();
  ::open("/x", O_RDONLY);
  fs::remove_all("/");
  getenv("HOME");
  secure_getenv("HOME");
  self.exit();
  // TODO later
  grpc::ClientContext context;
}
""",
    "runtime/cell/bare.hpp": '#include <nlohmann/json.hpp>\n#pragma once\n',
    "runtime/cell/long.cpp": "\n" * 601,
    "runtime/cell/meson.build": "files('calls.cpp', 'long.cpp')",
    "tests/unit/meson.build": "files('there.cpp')",
    "tests/unit/there.cpp": "",
    "tests/unit/idle.cpp": "",
    "docs/SPEC.md": """| promise | test |
|---|---|
| held | tests/unit/there.cpp |
| open | not yet tested |
| dangling | tests/unit/gone.cpp |
| idle | tests/unit/idle.cpp |
| vague | trust us |

## Held
""",
}
LAYERS = ["upward.cpp:1: base may not include runtime/model/x.hpp", "scan.cpp:1: residue may not include runtime/cell/x.hpp",
          "scan.cpp:2: <base/file.hpp> is ours", 'scan.cpp:3: "nowhere.hpp" is no file', "module unheard has no row"]
STYLE = ["calls.cpp:5: system()", "calls.cpp:6: sleep_for()", "calls.cpp:7: exit()", "calls.cpp:8: detach()",
         "calls.cpp:9: fork()", "calls.cpp:10: open() without CLOEXEC", "calls.cpp:11: remove_all()", "calls.cpp:12: getenv()",
         "calls.cpp:15: TODO", "calls.cpp:16: a gRPC context", "bare.hpp: #pragma once", "bare.hpp: no comment",
         "bare.hpp:1: nlohmann/", "long.cpp: 601 lines", "upward.cpp: no meson.build", "idle.cpp: no meson.build"]
SPEC = ["SPEC.md:5: tests/unit/gone.cpp does not exist", "SPEC.md:6: tests/unit/idle.cpp is run by no", 'SPEC.md:7: "trust us"']
CITATIONS = ['cites.hpp:1: docs/SPEC.md has no section "Gone"', "cites.hpp:1: docs/GONE.md does not exist"]


def compare(name: str, found: list[str], wanted: list[str]) -> list[str]:
    found = [problem.replace("::", "") for problem in found]
    missed = [f"{name}: not found: {want}" for want in wanted if not any(want in problem for problem in found)]
    extra = [f"{name}: not wanted: {problem}" for problem in found if not any(want in problem for want in wanted)]
    return missed + extra


with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder).resolve()
    for path, content in TREE.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    failures = compare("layers", [p for p in layers.check(root) if "source root" not in p], LAYERS)
    failures += compare("style", [p for p in style.calls(root) + style.shapes(root) + style.built(root) + style.deadlines(root)
                                  if "/scan.cpp" not in p and "/of.cpp" not in p], STYLE)
    failures += compare("spec", spec.check(root) + spec.citations(root), SPEC + CITATIONS)
print("\n".join(failures) or "the lint tests find what is planted")
sys.exit(1 if failures else 0)
