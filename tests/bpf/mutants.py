#!/usr/bin/env python3
"""Leaves out one check of the egress filter after the other, and expects the suite to notice each time.

A check is a line `return CR_…;` of ebpf/egress.bpf.c: without it the packet goes on to the next check. Where several
conditions lead to one line, and where something else than a verdict is at stake, PARTS lists what is left out. What is neither
noticed nor refused by the kernel's verifier must stand in BLIND, with the reason why test runs cannot see it.

usage: mutants.py SOURCE TEST_BINARY WORK_FOLDER -- CLANG FLAGS…
"""
import os
import pathlib
import re
import subprocess
import sys

CHECK = re.compile(r"^(\s*)return (CR_(?!ALLOWED|ESTABLISHED|REPLY|REASONS)[A-Z_0-9]+);", re.M)
FRAMES = "24000"

# Text that stands in the source once -> the same with one condition or effect less.
PARTS = [
    ("flow->epoch == epoch && ", ""),
    ("now < flow->expires_ns && ", ""),
    (" && now - flow->last_ns < flow->idle_ns", ""),
    ("ip[0] >> 4 != 4 || ", ""),
    ("header < IPV4_HEADER || total < header", "total < header"),
    ("|| total < header ", ""),
    (" || total + ETHERNET_HEADER > skb->len)\n    return CR_MALFORMED", ")\n    return CR_MALFORMED"),
    ("ip[0] != 0x45 || ", ""),
    (" || total + ETHERNET_HEADER > skb->len)\n    return CR_INBOUND_HEADER", ")\n    return CR_INBOUND_HEADER"),
    ("if ((ip[6] & 0x3f) | ip[7]) /*", "if (ip[6] & 0x3f) /*"),
    ("if ((ip[6] & 0x3f) | ip[7]) /*", "if (ip[7]) /*"),
    ("if ((ip[6] & 0x3f) | ip[7])\n", "if (ip[6] & 0x3f)\n"),
    ("if ((ip[6] & 0x3f) | ip[7])\n", "if (ip[7])\n"),
    ("eth[12] != ETH_P_IP >> 8 || ", ""),
    (" || eth[13] != (ETH_P_IP & 0xff)", ""),
    ("total < IPV4_HEADER + TCP_HEADER || ", ""),
    ("total < IPV4_HEADER + UDP_HEADER || ", ""),
    ("to->protocol == IPPROTO_TCP && (flags", "(flags"),
    ("(flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) != TCP_SYN", "!(flags & TCP_SYN)"),
    (" && !(again && flow->idle_ns == CR_IDLE_CLOSING_NS)", ""),
    ("if (flags & (TCP_FIN | TCP_RST))", "if (flags & TCP_RST)"),
    ("if (flags & (TCP_FIN | TCP_RST))", "if (flags & TCP_FIN)"),
    ("  flow->last_ns = now;\n", ""),
    ("  u->exhausted = 1;\n", ""),
    ("  __sync_fetch_and_add(used, -more);\n", ""),
    ("      __sync_fetch_and_add(&u->packets, -1);\n", ""),
    ("    __sync_fetch_and_add(&u->bytes, -bytes);\n", ""),
    ("!exceeds(&u->bytes, bytes, config.max_bytes)", "1"),
    ("!exceeds(&u->packets, 1, config.max_packets)", "1"),
    ("!exceeds(&u->connections, connections, config.max_connections)", "1"),
    ("    skb->mark = config.allow_mark;\n", "    ;\n"),
    ("rule && now < rule->expires_ns", "rule"),
    ("opened->expires_ns = named->rule_expires_ns;", "opened->expires_ns = named->expires_ns;"),
    ("__builtin_memcpy(host.port, service.port, 2);", ""),
    ("__builtin_memcpy(host.address, to->address, 4);", ""),
    ("struct cr_named_key host = {.protocol = to->protocol};", "struct cr_named_key host = {.protocol = IPPROTO_TCP};"),
    ("spend(skb->len, 1, now)", "spend(skb->len, 0, now)"),
    ("    c->suppressed += 1;\n", ""),
    ("    c->lost += 1;\n", ""),
    ("start > now || ", ""),
]

# The text of the line above a check (of its condition) -> why a test run cannot tell, and what does.
BLIND = {
    "if (skb->vlan_present)": "BPF_PROG_TEST_RUN refuses tags in metadata; tests/privileged/netpolicy_cell.cpp sends them",
    "if (bpf_skb_load_bytes(skb, 0, eth, sizeof(eth)))": "no frame below 14 bytes reaches a test run",
    "if (skb->vlan_present || bpf_skb_load_bytes(skb, 0, eth, sizeof(eth)))": "as the two above",
    "if (bpf_skb_load_bytes(skb, ETHERNET_HEADER, ip, sizeof(ip)))":
        "a test run refuses frames that end inside the IP header; tests/privileged/netpolicy_cell.cpp sends them",
    "if (bpf_map_update_elem(&flows, &flow_key, &opened, BPF_ANY))": "an LRU map has room as long as the kernel has memory",
    "if (!denied)": "0.0.0.0/0 is in every deny set that is written; the verifier asks for the check",
}


def built(clang: list[str], source: str, folder: pathlib.Path, name: str) -> pathlib.Path | None:
    text = folder / f"{name}.bpf.c"
    text.write_text(source)
    output = folder / f"{name}.o"
    done = subprocess.run([*clang, "-Wno-error", "-Wno-everything", "-c", str(text), "-o", str(output)], capture_output=True, text=True)
    if done.returncode != 0:
        print(f"{name}: does not compile:\n{done.stderr[:2000]}")
        return None
    return output


def noticed(test: str, output: pathlib.Path) -> tuple[bool, str]:
    run = subprocess.run([test, "-m"], env=os.environ | {"CELLRUN_EGRESS_OBJECT": str(output), "CELLRUN_FRAMES": FRAMES},
                         capture_output=True, text=True)
    refused = "this kernel refuses it" in run.stdout
    return run.returncode not in (0, 77), "verifier" if refused else "suite"


def main() -> int:
    if len(sys.argv) < 6 or sys.argv[4] != "--":
        print(__doc__)
        return 2
    if os.geteuid() != 0:
        print("skipped: needs root (CAP_BPF, CAP_NET_ADMIN)")
        return 77
    source, test, folder, clang = pathlib.Path(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3]), sys.argv[5:]
    clang += ["-I", str(source.parent)]
    folder.mkdir(parents=True, exist_ok=True)
    text = source.read_text()
    whole = built(clang, text, folder, "whole")
    if whole is None or noticed(test, whole)[0]:
        print("the unchanged filter fails")
        return 1
    missed, counts, blind_seen = [], {"suite": 0, "verifier": 0, "blind": 0}, set()
    mutants: list[tuple[str, str]] = []
    for check in CHECK.finditer(text):
        condition = text[:check.start()].rstrip().rsplit("\n", 1)[-1].strip()
        line = text.count("\n", 0, check.start()) + 1
        mutant = text[:check.start()] + check[1] + ";" + text[check.end():]
        if condition in BLIND:
            counts["blind"] += 1
            blind_seen.add(condition)
            continue
        mutants.append((f"line {line}: {condition} {check[0].strip()}", mutant))
    for whole_text, part in PARTS:
        if text.count(whole_text) != 1:
            missed.append(f"PARTS names what does not stand in the source once: {whole_text}")
        mutants.append((f"{whole_text.strip()} -> {part.strip()}", text.replace(whole_text, part)))
    for number, (what, mutant) in enumerate(mutants):
        output = built(clang, mutant, folder, f"mutant{number}")
        if output is None:
            missed.append(f"{what}: does not compile")
            continue
        found, by = noticed(test, output)
        if found:
            counts[by] += 1
        else:
            missed.append(what)
        output.unlink()
    for condition in BLIND.keys() - blind_seen:
        missed.append(f"BLIND names a check that is not there: {condition}")
    print(f"{sum(counts.values()) + len(missed)} checks left out one by one: {counts['suite']} noticed by the suite, {counts['verifier']} refused by "
          f"the verifier, {counts['blind']} that test runs cannot see")
    for what in missed:
        print(f"not noticed: {what}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
