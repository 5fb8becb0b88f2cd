#!/usr/bin/env python3
"""docs/SPEC.md: each promise names tests that exist and that meson runs, or says "not yet tested".
Sources: each document that is cited exists, and so does the section, as in docs/SPEC.md, "Jobs".

usage: spec.py SOURCE_ROOT
"""
import pathlib
import re
import sys

from source import PRODUCT, files, line_of

CITED = re.compile(r'\b(docs/[\w-]+\.md)(?:`?,\s+(?:section\s+)?"([^"\n]+)")?')


def runs(root: pathlib.Path, path: pathlib.Path) -> bool:
    """Some meson.build below tests/ names the file, or lists the folder's files."""
    if path.is_dir():
        return any(m.read_text().strip() for m in path.rglob("meson.build")) or any(
            f"{path.relative_to(m.parent)}/" in m.read_text()
            for m in (root / "tests").rglob("meson.build") if path.is_relative_to(m.parent) and path != m.parent)
    for folder in path.parents:
        meson = folder / "meson.build"
        if meson.is_file() and str(path.relative_to(folder)).removesuffix(".py").removesuffix(".sh") in meson.read_text():
            return True
        if folder == root:
            return False
    return False


def check(root: pathlib.Path) -> list[str]:
    spec = root / "docs/SPEC.md"
    problems, promises = [], 0
    in_table = False
    for number, line in enumerate(spec.read_text().splitlines(), 1):
        where = f"docs/SPEC.md:{number}"
        if not line.startswith("|"):
            in_table = False
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if cells == ["promise", "test"]:
            in_table = True
            continue
        if not in_table or set("".join(cells)) <= set("-: "):
            continue
        promises += 1
        if len(cells) != 2 or not cells[0]:
            problems.append(f"{where}: a row is | promise | test |")
            continue
        if cells[1] in ("not yet tested", "*not yet tested*"):
            continue
        names = [name.strip() for name in cells[1].split(",")]
        for name in names:
            name = name.strip("`")
            if not re.fullmatch(r"tests/[\w./-]+", name):
                problems.append(f'{where}: "{name}" is neither a path below tests/ nor "not yet tested"')
                continue
            found = [root / (name + end) for end in ("", ".py", ".sh", ".cpp") if (root / (name + end)).exists()]
            if not found:
                problems.append(f"{where}: {name} does not exist")
            elif not runs(root, found[0]):
                problems.append(f"{where}: {name} is run by no meson.build")
    if promises == 0:
        problems.append("docs/SPEC.md: no promise found")
    return problems


def citations(root: pathlib.Path) -> list[str]:
    problems = []
    texts = list(files(root, PRODUCT + ("tests",)))
    texts += [(str(path.relative_to(root)), path.read_text()) for pattern in ("*.md", "docs/*.md", "tools/*", "meson.build")
              for path in sorted(root.glob(pattern)) if path.is_file()]
    for path, text in texts:
        for match in CITED.finditer(text):
            where, document = f"{path}:{line_of(text, match.start())}", root / match[1]
            if not document.is_file():
                problems.append(f"{where}: {match[1]} does not exist")
            elif match[2] and not re.search(rf"^#+ {re.escape(match[2])}$", document.read_text(), re.M):
                problems.append(f'{where}: {match[1]} has no section "{match[2]}"')
    return problems


if __name__ == "__main__":
    source_root = pathlib.Path(sys.argv[1]).resolve()
    found = check(source_root) + citations(source_root)
    print("\n".join(found) or "every promise names its test")
    sys.exit(1 if found else 0)
