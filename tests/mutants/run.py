#!/usr/bin/env python3
"""./dev mutants: plants each bug of the lists by itself, and shows which tests notice."""

import argparse
import concurrent.futures
import os
import pathlib
import shutil
import sys
import time

import mutant_build
import mutant_list
import mutant_run

SOURCE_DIR = pathlib.Path(__file__).resolve().parents[2]
SELF_CHECK_SEEDS = 200


def arguments():
    parser = argparse.ArgumentParser(prog="./dev mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutants, or patterns of names")
    parser.add_argument("--list", action="store_true", help="name them, check that all apply")
    parser.add_argument("--seeds", type=int, default=2000, help="of each simulation (%(default)s)")
    parser.add_argument(
        "--simulations", default="core,cluster", help="run only these (%(default)s)"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="at a time (%(default)s)")
    parser.add_argument("--keep", action="store_true", help="keep the mutated programs")
    parser.add_argument("--build-dir", default=SOURCE_DIR / "build", type=pathlib.Path)
    options = parser.parse_args()
    options.build_dir = options.build_dir.resolve()
    options.simulations = options.simulations.split(",")
    return options


def check_lists(mutants):
    """All errors at once: after a change of the code several mutants may need a new text."""
    errors = []
    for mutant in mutants:
        for check in mutant.simulations:
            if check.program not in mutant_run.SIMULATIONS:
                errors.append(f"mutant {mutant.name}: no simulation is called {check.program}")
        try:
            mutant.apply(lambda file: (SOURCE_DIR / file).read_text())
        except (mutant_list.ListError, OSError) as error:
            errors.append(str(error))
    if errors:
        raise mutant_list.ListError("\n".join(errors))


def programs_of(mutants):
    names = {check.program for m in mutants for check in m.by_hand}
    names |= {mutant_run.SIMULATIONS[c.program].program for m in mutants for c in m.simulations}
    return sorted(names)


class Laboratory:
    def __init__(self, frozen, work_dir, options):
        self.frozen = frozen
        self.work_dir = work_dir
        self.options = options

    def examine(self, mutant):
        """The outcomes of every check of one mutant. Hand tests end at the first that notices."""
        out_dir = self.work_dir / mutant.name
        shutil.rmtree(out_dir, ignore_errors=True)
        out_dir.mkdir(parents=True)
        objects = {
            file: self.frozen.compile(file, text, out_dir)
            for file, text in mutant.apply(self.frozen.read_source).items()
        }
        programs = {}

        def program(name):
            if name not in programs:
                programs[name] = self.frozen.link(name, objects, out_dir)
            return programs[name]

        hand, simulated = [], []
        for check in mutant.by_hand:
            hand.append(mutant_run.by_hand(program(check.program), check, out_dir / "tmp"))
            if caught(mutant, hand[-1]):
                break
        for check in mutant.simulations:
            simulation = mutant_run.SIMULATIONS[check.program]
            seeds = max(mutant.seeds.get(check.program, 0), self.options.seeds)
            binary = program(simulation.program)
            simulated.append(simulation.run(binary, seeds, check.required, out_dir / "tmp"))
        if not self.options.keep:
            shutil.rmtree(out_dir)
        return hand, simulated

    def self_check(self, mutants):
        """The same files, compiled and linked the same way without a bug, pass everything."""
        files = sorted({file for m in mutants for file in m.files()})
        checks = sorted({c for m in mutants for c in m.by_hand}, key=str)
        simulations = sorted({c.program for m in mutants for c in m.simulations})
        out_dir = self.work_dir / "self-check"
        shutil.rmtree(out_dir, ignore_errors=True)
        out_dir.mkdir(parents=True)
        objects = {
            file: self.frozen.compile(file, self.frozen.read_source(file), out_dir)
            for file in files
        }

        def program(name):
            mine = {f: o for f, o in objects.items() if self.frozen.contains(name, f)}
            return self.frozen.link(name, mine, out_dir)

        outcomes = [
            mutant_run.by_hand(program(check.program), check, out_dir / "tmp") for check in checks
        ]
        for name in simulations:
            simulation = mutant_run.SIMULATIONS[name]
            binary = program(simulation.program)
            outcomes.append(simulation.run(binary, SELF_CHECK_SEEDS, True, out_dir / "tmp"))
        shutil.rmtree(out_dir)
        return [o for o in outcomes if o.noticed]


def caught(mutant, outcome):
    return outcome.noticed and (mutant.expects_hang or not outcome.hung)


def misses(mutant, hand, simulated):
    """Who should have noticed, and did not."""
    found = []
    required = [c.program for c in mutant.by_hand if c.required]
    if required and not any(caught(mutant, o) for o in hand):
        found.append(" and ".join(required))
    for check, outcome in zip(mutant.simulations, simulated):
        if check.required and not caught(mutant, outcome):
            found.append(f"the {check.program} simulation")
    if not found and not any(caught(mutant, o) for o in hand + simulated):
        found.append("anybody")
    return found


def cell(outcome):
    if outcome.hung:
        return f"{outcome.program}: hangs"
    if not outcome.noticed:
        return f"{outcome.program}: no" + (f" ({outcome.seeds} seeds)" if outcome.seeds else "")
    seed = f" seed {outcome.seed}:" if outcome.seed else ""
    return f"{outcome.program}:{seed} {outcome.where}".replace("|", "\\|")


def table(results):
    lines = ["| mutant | what it breaks | by hand | simulation |", "|---|---|---|---|"]
    for mutant, hand, simulated, _ in results:
        by_hand = cell(hand[-1]) if hand else "-"
        by_seed = "; ".join(cell(o) for o in simulated) or "-"
        lines.append(f"| `{mutant.name}` | {mutant.what} | {by_hand} | {by_seed} |")
    return "\n".join(lines)


def run_all(laboratory, mutants, jobs):
    """(mutant, hand, simulated, missed) of each, in the order of the lists."""

    def one(mutant):
        begin = time.monotonic()
        try:
            hand, simulated = laboratory.examine(mutant)
            missed = misses(mutant, hand, simulated)
        except mutant_build.BuildError as error:
            hand, simulated, missed = [], [], [f"it does not build:\n{error}"]
        verdict = f"NOT CAUGHT by {', '.join(missed)}" if missed else "caught"
        seconds = time.monotonic() - begin
        cells = "; ".join(cell(o) for o in hand + simulated)
        print(f"{mutant.name}: {verdict} ({cells}) {seconds:.1f} s", file=sys.stderr, flush=True)
        return mutant, hand, simulated, missed

    with concurrent.futures.ThreadPoolExecutor(max_workers=jobs) as pool:
        return list(pool.map(one, mutants))


def main():
    options = arguments()
    lists = mutant_list.read_lists(pathlib.Path(__file__).parent)
    mutants = mutant_list.select(lists, options.names)
    check_lists(mutants)
    for mutant in mutants:
        mutant.simulations = [c for c in mutant.simulations if c.program in options.simulations]
    if options.list:
        for mutant in mutants:
            print(f"{mutant.name:40} {mutant.what}")
        print(f"{len(mutants)} mutants, all of them apply")
        return 0
    begin = time.monotonic()
    work_dir = options.build_dir / "mutants"
    frozen = mutant_build.Frozen(SOURCE_DIR, options.build_dir, work_dir, programs_of(mutants))
    laboratory = Laboratory(frozen, work_dir, options)
    if failed := laboratory.self_check(mutants):
        print("the code without a planted bug fails: " + "; ".join(map(cell, failed)))
        return 1
    print("self-check: without a planted bug everything passes", file=sys.stderr, flush=True)
    results = run_all(laboratory, mutants, options.jobs)
    print(table(results))
    survivors = [(mutant, missed) for mutant, _, _, missed in results if missed]
    for mutant, missed in survivors:
        print(f"\nSURVIVOR {mutant.name} ({mutant.source}): not caught by {', '.join(missed)}")
    minutes = (time.monotonic() - begin) / 60
    print(f"\n{len(results)} mutants, {len(survivors)} survived; {minutes:.1f} minutes")
    return 1 if survivors else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (mutant_list.ListError, mutant_build.BuildError) as error:
        print(f"mutants: {error}", file=sys.stderr)
        sys.exit(1)
