#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: every command that README.md and docs/operations.md show is run by some test with the same subcommand and
the same options, so that no page can promise what nobody tries. Commands of other projects (virsh) are theirs."""

import ast
import itertools
import pathlib
import re
import shlex
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/operations.md")
# The program as it is written in the pages, and how tests name it.
PROGRAMS = {"ferry": ("ferry", "tools/ferry/ferry"), "ferryd": ("ferryd", "core/ferryd"), "curl": ("curl",)}
# What CI itself runs; the demonstration has a test of its own.
SCRIPTS = {"tools/test": ".ci/run", "tools/demo": "tests/integration/test_demo.py"}
# Words after these options are examples, and so are these words.
EXAMPLE = re.compile(r"vm\d*|site-[ab]|[A-Z][A-Z_]*|.*/.*|\d.*")


def shown(page):
    """The commands of a page: lines of its blocks, and code in its text that begins with a program of ours."""
    text = (REPOSITORY / page).read_text()
    lines = [line for block in text.split("```")[1::2] for line in block.splitlines()]
    prose = " ".join(" ".join(text.split("```")[::2]).split())
    for line in itertools.chain(lines, re.findall(r"`([^`]+)`", prose)):
        words = shlex.split(line.strip(), comments=True) if re.match(r"\s*[\w/]+( |$)", line) else []
        if words and (words[0] in PROGRAMS or words[0] in SCRIPTS) and (len(words) > 1 or words[0] in SCRIPTS):
            yield words


def alternatives(words):
    """`source|target` is two commands."""
    return itertools.product(*(word.split("|") for word in words))


def constants(node):
    return {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}


def calls():
    """(names of what is called, the words given to it) of every call in the tests and in the lab they use."""
    for path in [*(REPOSITORY / "tests/integration").glob("*.py"), *(REPOSITORY / "tools/lablib").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                words = set().union(*(constants(arg) for arg in node.args)) if node.args else set()
                yield {called} | words, words


def fixed(words):
    return [word for word in words if not EXAMPLE.fullmatch(word)]


def main():
    tried = list(calls())
    unknown, untried, count = [], [], 0
    for page in PAGES:
        for words in shown(page):
            count += 1
            if words[0] in SCRIPTS:
                if words[0] not in (REPOSITORY / SCRIPTS[words[0]]).read_text():
                    untried.append((page, words))
                continue
            for one in alternatives(words):
                wanted = set(fixed(one[1:]))
                if not any(set(PROGRAMS[one[0]]) & names and wanted <= given for names, given in tried):
                    untried.append((page, one))
    for page, words in untried:
        print(f"FAIL: {page} shows `{' '.join(words)}`, and no test runs it")
    if count < 15:
        unknown.append(count)
        print(f"FAIL: only {count} commands were found in {', '.join(PAGES)}: this test does not see them any more")
    print(f"{count} commands shown, {len(untried)} of them not tried")
    return 1 if untried or unknown else 0


if __name__ == "__main__":
    sys.exit(main())
