"""Planted bugs as text: what a mutant is, and how it changes a source file.

The lists are the *.list files beside this one; README.md describes their format.
"""

import fnmatch
import pathlib
import re
from dataclasses import dataclass, field

FIELDS = ("what", "file", "by-hand", "simulation", "expect", "seeds")


class ListError(Exception):
    """A list that says something wrong, or a mutant that no longer fits the code."""


@dataclass
class Edit:
    file: str
    find: str
    replacement: str


@dataclass(frozen=True)
class Check:
    """One program that looks at the mutant, and whether it must notice."""

    program: str
    test_filter: str  # of GoogleTest; "" = everything
    required: bool


@dataclass
class Mutant:
    name: str
    source: str  # list and line, for error messages
    what: str = ""
    by_hand: list = field(default_factory=list)
    simulations: list = field(default_factory=list)
    expects_hang: bool = False
    seeds: dict = field(default_factory=dict)  # simulation -> how many it takes at least
    edits: list = field(default_factory=list)

    def files(self):
        return sorted({edit.file for edit in self.edits})

    def apply(self, read_source):
        """{file: mutated text}. `read_source(file)` gives the text of today."""
        texts = {}
        for edit in self.edits:
            text = texts.get(edit.file) or read_source(edit.file)
            found = text.count(edit.find)
            if found != 1:
                raise ListError(
                    f"mutant {self.name} no longer applies ({self.source}): in {edit.file} its text "
                    f"occurs {found} times and not once:\n{edit.find}"
                )
            texts[edit.file] = text.replace(edit.find, edit.replacement)
        return texts


def parse_checks(text):
    checks = []
    for word in text.split():
        name, _, test_filter = word.rstrip("?").partition(":")
        checks.append(Check(name, test_filter, required=not word.endswith("?")))
    return checks


class Parser:
    def __init__(self, path):
        self.path = path
        self.lines = path.read_text().split("\n")
        self.at = 0
        self.mutants = []
        self.file = ""

    def fail(self, text):
        raise ListError(f"{self.path.name}:{self.at}: {text}")

    def parse(self):
        while self.at < len(self.lines):
            line = self.lines[self.at]
            self.at += 1
            if not line.strip() or line.startswith("#"):
                continue
            if header := re.fullmatch(r"\[([a-z0-9-]+)\]", line):
                self.mutants.append(Mutant(header[1], f"{self.path.name}:{self.at}"))
                self.file = ""
            elif line == "--- find":
                self.parse_edit()
            else:
                self.parse_field(line)
        for mutant in self.mutants:
            self.check(mutant)
        return self.mutants

    def mutant(self):
        return self.mutants[-1] if self.mutants else self.fail("text before the first [name]")

    def parse_field(self, line):
        name, colon, value = line.partition(":")
        value = value.strip()
        if not colon or name not in FIELDS:
            self.fail(f"'{line}' is neither a field ({', '.join(FIELDS)}) nor the start of an edit")
        mutant = self.mutant()
        if name == "what":
            mutant.what = f"{mutant.what} {value}".strip()
        elif name == "file":
            self.file = value
        elif name == "by-hand":
            mutant.by_hand = parse_checks(value)
        elif name == "simulation":
            mutant.simulations = parse_checks(value)
        elif name == "expect":
            if value != "hang":
                self.fail("'hang' is the only symptom that must be announced")
            mutant.expects_hang = True
        else:
            for word in value.split():
                simulation, _, count = word.partition("=")
                mutant.seeds[simulation] = int(count)

    def block(self, end):
        first = self.at
        while self.at < len(self.lines) and self.lines[self.at] != end:
            self.at += 1
        if self.at == len(self.lines):
            self.fail(f"no line '{end}' up to the end of the file")
        self.at += 1
        return "\n".join(self.lines[first : self.at - 1])

    def parse_edit(self):
        mutant = self.mutant()
        find = self.block("--- with")
        replacement = self.block("--- end")
        if not self.file:
            self.fail("an edit before its 'file:'")
        if not self.file.endswith(".cc"):
            self.fail("only .cc files are mutated: a header would need all that includes it built")
        if find == replacement or not find.strip():
            self.fail("an edit that changes nothing")
        mutant.edits.append(Edit(self.file, find, replacement))

    def check(self, mutant):
        if not mutant.what or not mutant.edits:
            raise ListError(f"mutant {mutant.name} ({mutant.source}) lacks 'what:' or an edit")
        if not any(c.required for c in mutant.by_hand + mutant.simulations):
            raise ListError(f"mutant {mutant.name} ({mutant.source}): nothing has to catch it")


def read_lists(folder):
    mutants = []
    for path in sorted(pathlib.Path(folder).glob("*.list")):
        mutants += Parser(path).parse()
    names = [m.name for m in mutants]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise ListError(f"two mutants are called {', '.join(twice)}")
    return mutants


def select(mutants, patterns):
    if not patterns:
        return mutants
    for pattern in patterns:
        if not fnmatch.filter([m.name for m in mutants], pattern):
            raise ListError(f"no mutant is called '{pattern}'; --list shows all")
    return [m for m in mutants if any(fnmatch.fnmatch(m.name, p) for p in patterns)]
