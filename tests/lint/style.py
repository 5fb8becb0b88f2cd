#!/usr/bin/env python3
"""Rules that a compiler does not hold: banned calls, confined calls, shapes of files, deadlines (CONTRIBUTING.md).

usage: style.py SOURCE_ROOT
"""
import pathlib
import re
import sys

from source import PRODUCT, code, files, line_of

MAX_LINES = 600
MAX_TEST_LINES = 800

# Call -> what to use instead. Everywhere, tests included, but for the last one.
BANNED = {
    r"\bsystem": "base::run_command",
    r"\bpopen": "base::run_command",
    r"\bvfork": "base::spawn",
    r"\busleep": "a wait on a descriptor or a condition, with a deadline",
    r"\bsleep_for": "a wait on a descriptor or a condition, with a deadline",
    r"\bsleep_until": "a wait on a descriptor or a condition, with a deadline",
    r"(?<!\w)::sleep": "a wait on a descriptor or a condition, with a deadline",
    r"\bnanosleep": "a wait on a descriptor or a condition, with a deadline",
    r"\bstrerror": "base::Error::from_errno",
    r"\bato[ifl]l?": "std::from_chars",
    r"(?<!secure_)\bgetenv": "secure_getenv",
    r"\.detach": "a joined thread",
    r"(?<!\w)::pipe": "base::make_pipe",
    r"(?<!\w)::accept": "accept4 with SOCK_CLOEXEC",
    r"(?<!\w)::dup": "fcntl F_DUPFD_CLOEXEC",
    r"(?<!\w)::creat": "base::open_file",
    r"\bgets": "a bounded read",
    r"\bsprintf": "std::to_string or snprintf",
    r"\bstrcpy": "std::string",
    r"\bstrcat": "std::string",
    r"\blocaltime(?!_r)": "gmtime_r",
    r"\bgmtime(?!_r)": "gmtime_r",
}
# A member may be called exit(); the process's exit always has an argument.
EXIT = re.compile(r"(?<![\w.>&])(?:std::|::)?exit\s*\(\s*[^)\s]")
PRODUCT_ONLY = {r"\bremove_all": "removal by descriptor, name by name"}

# Call -> folders or files that may make it: the few places where a process or namespace changes.
CONFINED = {
    r"(?<!\w)::fork": ("shim/", "runtime/host/", "runtime/image/unpack/"),
    r"(?<!\w)::setns": ("netpolicy/netns.cpp", "runtime/residue/namespace_visit.cpp", "runtime/host/", "shim/"),
    r"(?<!\w)::unshare": ("netpolicy/netns.cpp", "runtime/host/", "shim/"),
    r"(?<!\w)::mount": ("netpolicy/", "runtime/host/", "runtime/image/unpack/", "shim/"),
    r"(?<!\w)::dup2": ("runtime/host/", "runtime/image/unpack/", "shim/"),
    r"(?<!\w)::kill": ("runtime/host/", "shim/"),
}

# Headers of third parties that must stay inside .cpp files, and the private headers of the adapters that own them.
ADAPTERS = ("runtime/containerd/impl.hpp",)
FOREIGN = re.compile(r"^\s*#\s*include\s*<(nlohmann/|grpcpp/|grpc\+\+/|grpc/|toml\+\+/|spdlog/|bpf/|google/protobuf/)", re.M)

# Descriptors are close-on-exec from birth: the flag stands in the call itself.
BIRTHS = re.compile(
    r"(?<!\w)::(open|openat|openat2|socket|socketpair|accept4|pipe2|epoll_create1|eventfd|timerfd_create|signalfd|memfd_create|"
    r"inotify_init1|fanotify_init|open_by_handle_at)\s*\(")

# Programs that open their own descriptors 0 to 2, which are to be inherited.
STANDARD_STREAMS = ("shim/guest/main.cpp",)

UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")


def statement(text: str, start: int) -> str:
    """From `start` to the end of the call's argument list."""
    depth = 0
    for position in range(start, len(text)):
        if text[position] == "(":
            depth += 1
        elif text[position] == ")":
            depth -= 1
            if depth == 0:
                return text[start:position + 1]
    return text[start:]


def calls(root: pathlib.Path) -> list[str]:
    problems = []
    for path, text in files(root, PRODUCT + ("tests",)):
        if path.startswith("ebpf/") and path.endswith(".bpf.c"):
            continue
        clean = code(text)
        banned = BANNED if path.startswith("tests/") else BANNED | PRODUCT_ONLY
        for match in EXIT.finditer(clean):
            problems.append(f"{path}:{line_of(clean, match.start())}: exit() is banned: a return from main")
        for pattern, instead in banned.items():
            for match in re.finditer(pattern + r"\s*\(", clean):
                problems.append(f"{path}:{line_of(clean, match.start())}: {match[0].rstrip('(').strip(' .:')}() is banned: {instead}")
        if not path.startswith("tests/"):
            for pattern, places in CONFINED.items():
                if path.startswith(places):
                    continue
                for match in re.finditer(pattern + r"\s*\(", clean):
                    problems.append(f"{path}:{line_of(clean, match.start())}: {match[0].rstrip('(')}() belongs in {', '.join(places)}")
            for match in BIRTHS.finditer(clean):
                call = statement(clean, match.start())
                if "CLOEXEC" not in call and "flags" not in call.lower() and path not in STANDARD_STREAMS:
                    problems.append(f"{path}:{line_of(clean, match.start())}: {match[1]}() without CLOEXEC")
            for match in UNFINISHED.finditer(text):
                problems.append(f"{path}:{line_of(text, match.start())}: {match[0]} in product code")
    return problems


def shapes(root: pathlib.Path) -> list[str]:
    problems = []
    for path, text in files(root, PRODUCT + ("tests",)):
        limit = MAX_TEST_LINES if path.startswith("tests/") else MAX_LINES
        if text.count("\n") > limit:
            problems.append(f"{path}: {text.count(chr(10))} lines, more than {limit}")
        if not path.endswith(".hpp"):
            continue
        if not re.match(r"(\s*//[^\n]*\n)*\s*#pragma once\n", text):
            problems.append(f"{path}: #pragma once is not the first thing behind the header's comment")
        if not text.startswith("//") and not path.startswith("tests/"):
            problems.append(f"{path}: no comment that says what this header is")
        for match in FOREIGN.finditer(text) if path not in ADAPTERS and not path.startswith("tests/") else ():
            problems.append(f"{path}:{line_of(text, match.start())}: {match[1]} in a header")
    return problems


def names(path: pathlib.PurePath) -> tuple[str, str]:
    """As a file of a list, or as a name in a foreach over targets."""
    return str(path), str(path.with_suffix(""))


def built(root: pathlib.Path) -> list[str]:
    """Every .cpp is named by the meson.build of its folder or of one above."""
    problems = []
    for path, _ in files(root, PRODUCT + ("tests",), (".cpp",)):
        source = root / path
        for folder in source.parents:
            meson = folder / "meson.build"
            if meson.is_file() and any(f"{name}'" in meson.read_text() for name in names(source.relative_to(folder))):
                break
            if folder == root:
                if not any(f"/{source.name}'" in m.read_text() for m in root.glob("tests/**/meson.build")):
                    problems.append(f"{path}: no meson.build names it")
                break
    return problems


def deadlines(root: pathlib.Path) -> list[str]:
    """Every gRPC client context gets a deadline before it leaves the lines that make it."""
    problems = []
    for path, text in files(root, PRODUCT, (".cpp",)):
        clean = code(text)
        for match in re.finditer(r"(make_unique<grpc::ClientContext>|grpc::ClientContext\s+\w+\s*;|new grpc::ClientContext)", clean):
            following = "\n".join(clean[match.start():].splitlines()[:8])
            if "deadline" not in following:
                problems.append(f"{path}:{line_of(clean, match.start())}: a gRPC context without a deadline")
    return problems


if __name__ == "__main__":
    source_root = pathlib.Path(sys.argv[1]).resolve()
    found = calls(source_root) + shapes(source_root) + built(source_root) + deadlines(source_root)
    print("\n".join(found) or "style holds")
    sys.exit(1 if found else 0)
