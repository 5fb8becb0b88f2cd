#!/usr/bin/env python3
"""Every #include obeys the layers of docs/ARCHITECTURE.md: a module includes itself and what its row allows, nothing else.

usage: layers.py SOURCE_ROOT
"""
import pathlib
import re
import sys

# Module -> modules it may include. Written out, so that a new dependency is a line in a diff of this file.
FOUNDATION = {"base", "model"}
SERVICES = FOUNDATION | {"crypto", "api"}
STATE = SERVICES | {"containerd", "host", "ledger"}
ALLOWED = {
    "base": set(),
    "model": {"base"},
    "crypto": FOUNDATION,
    "api": FOUNDATION,
    "containerd": SERVICES,
    "host": SERVICES,
    "ledger": SERVICES,
    "job": STATE,
    "admit": STATE,
    "image": STATE,
    "evidence": STATE,
    "netpolicy": STATE | {"ebpf"},
    # The verifier shares no code with what it verifies.
    "residue": {"base", "model", "crypto", "api"},
    "cell": STATE | {"job", "admit", "image", "evidence", "netpolicy", "residue", "shim/wire"},
    "daemon": STATE | {"job", "admit", "image", "evidence", "netpolicy", "residue", "cell", "shim/wire"},
    "ebpf": set(),
    "shim/wire": FOUNDATION,
    "shim/guest": {"base", "shim/wire"},
    "shim": FOUNDATION | {"crypto", "api", "host", "shim/wire"},
    "tools": STATE | {"job", "admit", "image", "evidence", "netpolicy", "residue", "cell", "daemon", "shim/wire"},
}
TREES = ("runtime", "netpolicy", "ebpf", "shim", "tools")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
GENERATED = re.compile(r"\.(pb|skel)\.h$")


def module_of(path: str) -> str:
    parts = path.split("/")
    if parts[0] == "runtime":
        return parts[1]
    if parts[0] == "shim" and parts[1] in ("wire", "guest"):
        return "shim/" + parts[1]
    return parts[0]


def resolve(root: pathlib.Path, source: pathlib.Path, name: str) -> str | None:
    """The included file relative to the root; None when it is none of ours."""
    for candidate in (source.parent / name, root / "runtime" / name, root / name):
        if candidate.is_file():
            return str(candidate.resolve().relative_to(root))
    return None


def check(root: pathlib.Path) -> list[str]:
    problems = []
    seen = 0
    for tree in TREES:
        for source in sorted((root / tree).rglob("*")):
            if source.suffix not in (".cpp", ".hpp", ".h", ".c"):
                continue
            path = str(source.relative_to(root))
            module = module_of(path)
            if module not in ALLOWED:
                problems.append(f"{path}: module {module} has no row in tests/lint/layers.py")
                continue
            for number, line in enumerate(source.read_text().splitlines(), 1):
                match = INCLUDE.match(line)
                if not match:
                    continue
                seen += 1
                target = resolve(root, source, match[2])
                if target is None:
                    if match[1] == '"' and not GENERATED.search(match[2]):
                        problems.append(f'{path}:{number}: "{match[2]}" is no file of the project')
                    continue
                if match[1] == "<":
                    problems.append(f"{path}:{number}: <{match[2]}> is ours: use quotes")
                used = module_of(target)
                if used != module and used not in ALLOWED[module]:
                    problems.append(f"{path}:{number}: {module} may not include {target}")
    if seen < 100:
        problems.append(f"only {seen} includes found below {root}: is this the source root?")
    return problems


if __name__ == "__main__":
    found = check(pathlib.Path(sys.argv[1]).resolve())
    print("\n".join(found) or "layers hold")
    sys.exit(1 if found else 0)
