"""What the lint tests share: the project's C++ files, and their text without comments and literals."""
import pathlib
import re

PRODUCT = ("runtime", "netpolicy", "ebpf", "shim", "tools")

_TOKEN = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"([^(]*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.DOTALL)


def files(root: pathlib.Path, trees, suffixes=(".cpp", ".hpp", ".h", ".c")):
    """(path relative to the root, text) of every source below `trees`, in order."""
    for tree in trees:
        for path in sorted((root / tree).rglob("*")):
            if path.suffix in suffixes and path.is_file():
                yield str(path.relative_to(root)), path.read_text()


def code(text: str) -> str:
    """`text` with comments and literals blanked out, line numbers kept."""

    def blank(match: re.Match) -> str:
        token = match[0]
        newlines = "\n" * token.count("\n")
        if token.startswith("/"):
            return " " + newlines
        if token.startswith("'"):
            # Digit separators: 1'000'000 is no character literal.
            return token if match.start() > 0 and text[match.start() - 1].isalnum() else "' '"
        return '""' + newlines

    return _TOKEN.sub(blank, text)


def line_of(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1
