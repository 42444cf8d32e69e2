"""Runs a test program or a simulation on a mutant and says who noticed what."""

import os
import re
import resource
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass

CPU_SECONDS_MAX = 120  # of one program; beyond it, it hangs
WALL_SECONDS_MAX = 300
# The simulation of whole members, when it finds nothing: where it must, and where it may.
REQUIRED_MINUTES_MAX = 1.5
OPTIONAL_MINUTES_MAX = 0.25
RULE_CHARS_MAX = 110


@dataclass
class Outcome:
    program: str
    noticed: bool = False
    hung: bool = False
    where: str = ""  # the test that failed, or the rule that was broken
    seed: str = ""
    seeds: int = 0  # of a simulation that did not notice
    seconds: float = 0.0


@dataclass
class Finished:
    code: int
    output: str
    hung: bool
    seconds: float


def limit_process():
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS_MAX, CPU_SECONDS_MAX + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def execute(command, scratch, env=None):
    """Runs `command` in a group of its own, with its temporary files in `scratch`."""
    scratch.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    process = subprocess.Popen(
        command,
        env={**os.environ, **(env or {}), "TEST_TMPDIR": f"{scratch}/"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        preexec_fn=limit_process,
    )
    hung = False
    try:
        output, _ = process.communicate(timeout=WALL_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        hung = True
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
    shutil.rmtree(scratch, ignore_errors=True)
    hung = hung or process.returncode == -signal.SIGXCPU
    return Finished(process.returncode, output, hung, time.monotonic() - begin)


def crash_text(output):
    """What a CHECK or a sanitizer said, without the file it said it in."""
    found = re.search(r"(CHECK failed: .*)", output)
    return found[1][:RULE_CHARS_MAX] if found else ""


def by_hand(binary, check, scratch):
    wanted = check.test_filter or "*"
    command = [binary, "--gtest_fail_fast", f"--gtest_filter={wanted}-RaftSimulation.*"]
    done = execute(command, scratch)
    outcome = Outcome(check.program, done.code != 0, done.hung, seconds=done.seconds)
    if done.code == 0:
        return outcome
    failed = re.search(r"^\[  FAILED  \] ([\w./]+)", done.output, re.M)
    started = re.findall(r"^\[ RUN      \] ([\w./]+)", done.output, re.M)
    outcome.where = failed[1] if failed else (started[-1] if started else "at start")
    return outcome


class CoreSimulation:
    """Cores and freshness trackers under faults: raft_test's own simulation."""

    program = "raft_test"

    def run(self, binary, seeds, required, scratch):
        command = [binary, "--gtest_filter=RaftSimulation.Keeps*"]
        done = execute(command, scratch, {"HOLDFAST_SEEDS": str(seeds)})
        outcome = Outcome("core", done.code != 0, done.hung, seconds=done.seconds)
        if done.code == 0:
            outcome.seeds = seeds
            return outcome
        seed = re.search(r"(?:HOLDFAST_SEED=|run that aborted: )(\d+)", done.output)
        outcome.seed = seed[1] if seed else ""
        rule = re.search(r"^(.+)\nreplay: ", done.output, re.M)
        expected = re.search(r"^Expected: (.+)$", done.output, re.M)
        outcome.where = (
            rule[1][:RULE_CHARS_MAX]
            if rule
            else crash_text(done.output) or (f"its figures: {expected[1]}" if expected else "crash")
        )
        return outcome


class ClusterSimulation:
    """Whole members, driver and disk included: ./dev sim."""

    program = "holdfast-sim"

    def run(self, binary, seeds, required, scratch):
        minutes = REQUIRED_MINUTES_MAX if required else OPTIONAL_MINUTES_MAX
        command = [binary, "--first", "1", "--count", str(seeds), "--until-failure"]
        command += ["--minutes", str(minutes)]
        done = execute(command, scratch)
        outcome = Outcome("cluster", done.code != 0, done.hung, seconds=done.seconds)
        if done.code == 0:
            ran = re.search(r"^(\d+) seeds, no violation", done.output, re.M)
            outcome.seeds = int(ran[1]) if ran else 0
            return outcome
        seed = re.search(r"holdfast-sim --seed (\d+)", done.output)
        outcome.seed = seed[1] if seed else ""
        rule = re.search(r"^FAILED: (.+)", done.output, re.M)
        outcome.where = rule[1][:RULE_CHARS_MAX] if rule else crash_text(done.output) or "crash"
        return outcome


SIMULATIONS = {"core": CoreSimulation(), "cluster": ClusterSimulation()}
