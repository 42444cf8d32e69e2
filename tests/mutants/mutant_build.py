"""Builds test programs with some source files replaced, from a frozen copy of tree and objects.

The copy is what makes a long run trustworthy: what somebody edits or builds meanwhile never mixes
with the mutants. Only the changed file is compiled. Its object is linked before the archive that
holds the original, which therefore is never pulled in.
"""

import fcntl
import json
import os
import pathlib
import shlex
import shutil
import subprocess

SOURCE_FOLDERS = ("api", "base", "bench", "client", "replication", "server", "storage", "tests")
MAX_BUILDS = 3  # before giving up on a tree that changes faster than it builds


class BuildError(Exception):
    """The compiler or linker refused, or the tree can not be frozen."""


def run(command, cwd):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode != 0:
        raise BuildError(f"{shlex.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


class Frozen:
    """`programs`: the test programs to be linked, as ninja calls them."""

    def __init__(self, source_dir, build_dir, work_dir, programs):
        self.source_dir = pathlib.Path(source_dir)
        self.build_dir = pathlib.Path(build_dir)
        self.tree = pathlib.Path(work_dir) / "frozen" / "tree"
        self.objects = pathlib.Path(work_dir) / "frozen" / "objects"
        self.ccache = shutil.which("ccache")
        self.links = {}
        self.compiles = {}
        self.archives = {}
        if not (self.build_dir / "build.ninja").exists():
            self.build(programs)
        for _ in range(MAX_BUILDS):
            if self.freeze(programs):
                return
        raise BuildError("the sources change faster than they build: try again later")

    def build(self, programs):
        env = {**os.environ, "HOLDFAST_BUILD_DIR": str(self.build_dir)}
        done = subprocess.run(
            [self.source_dir / "dev", "build", *programs], env=env, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise BuildError(f"./dev build failed\n{done.stdout}{done.stderr}")

    def freeze(self, programs):
        """False if the sources are newer than what was built from them."""
        shutil.rmtree(self.tree.parent, ignore_errors=True)
        with open(self.build_dir / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            run(["ninja", *programs], self.build_dir)
            for path in self.sources():
                copy = self.tree / path.relative_to(self.source_dir)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, copy)
            for program in programs:
                self.links[program] = self.link_command(program)
                for word in self.links[program]:
                    self.keep_object(word)
            database = json.loads((self.build_dir / "compile_commands.json").read_text())
            for entry in database:
                file = os.path.relpath(entry["file"], self.source_dir)
                self.compiles[file] = shlex.split(entry["command"])
            return "no work to do" in run(["ninja", "-n", *programs], self.build_dir)

    def sources(self):
        for folder in SOURCE_FOLDERS:
            for pattern in ("*.h", "*.cc"):
                yield from (self.source_dir / folder).rglob(pattern)

    def link_command(self, program):
        commands = run(["ninja", "-t", "commands", program], self.build_dir).strip().split("\n")
        words = shlex.split(commands[-1])
        if words[:2] != [":", "&&"] or words[-2:] != ["&&", ":"] or "-o" not in words:
            raise BuildError(f"the last command for {program} is no link: {commands[-1]}")
        return words[2:-2]

    def keep_object(self, word):
        path = self.build_dir / word
        if word.startswith(("/", "-")) or not word.endswith((".o", ".a")) or not path.exists():
            return
        copy = self.objects / word
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not copy.exists():
            shutil.copy2(path, copy)

    def read_source(self, file):
        return (self.tree / file).read_text()

    def compile(self, file, text, out_dir):
        """The object made of `text` in the place of `file`."""
        source = out_dir / "source" / file
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_text(text)
        out = out_dir / (file.replace("/", "-") + ".o")
        if file not in self.compiles:
            raise BuildError(f"{file} is compiled nowhere in this build")
        words = [self.in_tree(word) for word in self.compiles[file]]
        words[words.index("-o") + 1] = str(out)
        words[words.index("-c") + 1] = str(source)
        # A planted bug may leave a variable unused.
        words += ["-Wno-error", "-iquote", str(self.tree / file.rsplit("/", 1)[0])]
        run(([self.ccache] if self.ccache else []) + words, self.build_dir)
        return out

    def in_tree(self, word):
        """Include paths of the source tree, not of generated files, lead to the frozen tree."""
        source, build = f"-I{self.source_dir}", f"-I{self.build_dir}"
        if word == source or (word.startswith(source + "/") and not word.startswith(build)):
            return f"-I{self.tree}" + word[len(source) :]
        return word

    def contains(self, program, file):
        return self.place_of(program, file) is not None

    def place_of(self, program, file):
        """The word of the link command that brings `file` in: its object, or an archive."""
        compile_words = self.compiles.get(file)
        if compile_words is None:
            return None
        made = compile_words[compile_words.index("-o") + 1]
        folder, name = made.split("/CMakeFiles/")[0], pathlib.Path(made).name
        for word in self.links[program]:
            if word == made:
                return word
            # By what is in it: an archive need not be called as its target is.
            if os.path.dirname(word) == folder and name in self.members(word):
                return word
        return None

    def members(self, word):
        """The names of the objects in an archive; of anything else, none."""
        if word not in self.archives:
            kept = self.objects / word
            is_archive = word.endswith(".a") and kept.exists()
            self.archives[word] = set(run(["ar", "t", str(kept)], ".").split()) if is_archive else ()
        return self.archives[word]

    def link(self, program, objects, out_dir):
        """`objects`: {file: object}. Links `program` with these in place of the originals."""
        words = list(self.links[program])
        out = out_dir / program
        words[words.index("-o") + 1] = str(out)
        for file, made in objects.items():
            place = self.place_of(program, file)
            if place is None:
                raise BuildError(f"{program} does not contain {file}")
            if place.endswith(".o"):
                words[words.index(place)] = str(made)
            else:
                words.insert(words.index("-o"), str(made))
        run(words, self.objects)
        return out
