#!/usr/bin/env python3
"""The Python module and the examples in Python, C and C++, on a store of their own.

bindings_test.py BUILD_DIR SOURCE_DIR     (built: holdfast_c, holdfast-fake-store, the examples)
"""

import glob
import os
import subprocess
import sys
import tempfile
import threading
import time
import unittest

BUILD, SOURCE = sys.argv[1], sys.argv[2]
LIBRARY = os.path.join(BUILD, "client", "libholdfast.so")
EXAMPLES = os.path.join(SOURCE, "client", "examples")
os.environ["HOLDFAST_LIBRARY"] = LIBRARY
sys.path.insert(0, EXAMPLES)

import holdfast  # noqa: E402

PATIENCE = 60  # seconds; a reconnect on a busy machine can take some of them


class Store:
    """holdfast-fake-store, by its lines."""

    def __init__(self):
        self._process = subprocess.Popen(
            [os.path.join(BUILD, "bin", "holdfast-fake-store")], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, bufsize=1)
        self.endpoints = self._process.stdout.readline().split()[1].split(",")

    def __call__(self, line):
        self._process.stdin.write(line + "\n")
        answer = self._process.stdout.readline().rstrip("\n")
        if not answer.startswith("ok"):
            raise AssertionError(answer)
        return answer[3:]

    def close(self):
        self._process.stdin.close()
        self._process.wait(PATIENCE)
        self._process.stdout.close()


class Program:
    """An example that runs, and its lines."""

    def __init__(self, *command):
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._timer = threading.Timer(PATIENCE, self._process.kill)
        self._timer.start()

    def wait_for(self, *parts):
        """Until a line holds all of these; a program that says no such thing is ended by the timer."""
        seen = []
        for line in self._process.stdout:
            seen.append(line)
            if all(part in line for part in parts):
                return line
        raise AssertionError(f"no line with {parts} in:\n{''.join(seen[-20:])}")

    def close(self, kill=False):
        self._process.kill() if kill else self._process.terminate()
        self._process.wait(PATIENCE)
        self._timer.cancel()
        self._process.stdout.close()


class Test(unittest.TestCase):
    def setUp(self):
        self.store = Store()
        self.addCleanup(self.store.close)
        self.dir = tempfile.TemporaryDirectory(prefix="holdfast_bindings.")
        self.addCleanup(self.dir.cleanup)

    def open(self, **more):
        client = holdfast.Client(
            endpoints=self.store.endpoints, disk_dir=self.dir.name,
            prefixes=[{"prefix": "/c/", "policy": "fail-static", "probation": "0s"}], **more)
        self.addCleanup(client.close)
        return client


class PythonTest(Test):
    def test_it_loads_the_library_of_its_own_version(self):
        major, minor, _ = holdfast.version().split(".")
        soname = "libholdfast.so." + (major if major != "0" else f"{major}.{minor}")
        self.assertEqual(holdfast.SONAME, soname)

    def test_reads_and_writes(self):
        client = self.open()
        written = client.put("/x/a", b"\x00\xff")
        self.assertEqual(client.get("/x/a", level="at-least", token=written.token).value,
                         b"\x00\xff")
        self.assertFalse(client.put_if("/x/a", "2", mod_revision=1).applied)
        self.assertTrue(client.put_if("/x/a", "2", written.revision).applied)
        self.assertEqual([e.key for e in client.scan("/x/").entries], [b"/x/a"])
        self.assertEqual(client.delete("/x/a").deleted, 1)
        self.assertIsNone(client.get("/x/a").value)
        self.assertIn("/c/", client.dump())
        self.assertIn("holdfast_", client.metrics())

    def test_errors_say_what_they_are(self):
        with self.assertRaises(holdfast.Error) as caught:
            holdfast.Client(endpoints=["a:1"], prefixes=[{"prefix": "/a/", "policy": "none"}])
        self.assertEqual(caught.exception.code, "INVALID_ARGUMENT")
        self.assertIn("prefixes[0].policy", str(caught.exception))
        client = self.open()
        self.store("age 1h")
        with self.assertRaises(holdfast.Error) as caught:
            client.get("/x/a", level="bounded", max_age=5)
        self.assertEqual(caught.exception.code, "FAILED_PRECONDITION")
        self.assertGreaterEqual(caught.exception.best_available().max_age, 3600)

    def test_an_outage_and_a_restart_during_it(self):
        self.store("put /c/a 1")
        client = self.open()
        mirror = client.mirror("/c/a")
        mirror.wait_fresh(60, PATIENCE)
        mirror.mark_good(mirror.status()["fresh"].revision)
        self.store("stop")
        self.assertEqual(mirror.get("/c/a").value, b"1")
        client.close()
        again = self.open().mirror("/c/")
        read = again.get("/c/a")
        self.assertEqual(read.value, b"1")
        self.assertEqual(read.freshness().source, "disk")
        self.store("resume")
        self.store("put /c/a 2")
        again.wait_fresh(60, PATIENCE)

    def test_a_validator_refuses_and_is_told(self):
        self.store("put /c/a 1")
        refused = threading.Event()

        def check(records):
            if records.get(b"/c/a") == b"bad":
                raise ValueError("a is bad")

        why = []
        client = self.open(validators={"/c/": check},
                           on_rejected=lambda p, r, w: (why.append((p, r, w)), refused.set()))
        revision = int(self.store("put /c/a bad"))
        self.assertTrue(refused.wait(PATIENCE))
        self.assertEqual(why[0][:2], ("/c/", revision))
        self.assertIn("a is bad", why[0][2])
        mirror = client.mirror("/c/")
        self.assertEqual(mirror.get("/c/a").value, b"1")
        self.assertTrue(mirror.get("/c/a").freshness().superseded)
        self.assertEqual(mirror.status()["refused_revision"], revision)
        self.assertIn("a is bad", mirror.status()["refused_why"])

    def test_a_lost_answer_is_no_failure(self):
        client = holdfast.Client(endpoints=self.store.endpoints, exactly_once=False)
        self.addCleanup(client.close)
        self.store("lose-answer Put")
        with self.assertRaises(holdfast.Error) as caught:
            client.put("/x/a", "1")
        self.assertTrue(caught.exception.maybe_committed)
        self.assertEqual(self.store("get /x/a"), "1")


class ExampleTest(Test):
    """Each example, through the whole outage: the servers go, it is killed, it starts, they return."""

    def wait_for_copy(self):
        """Until the program has left a copy on disk: it is about to be killed."""
        deadline = time.monotonic() + PATIENCE
        while not glob.glob(os.path.join(self.dir.name, "config_edge-*.0*")):
            self.assertLess(time.monotonic(), deadline, "no copy on disk")
            time.sleep(0.01)

    def survives(self, *command, value="value={}"):
        self.store("put /config/edge/limits 100")
        program = Program(*command)
        program.wait_for(value.format(100), "proven")
        self.wait_for_copy()
        self.store("stop")
        program.wait_for(value.format(100))
        program.close(kill=True)
        program = Program(*command)
        program.wait_for(value.format(100), "disk")
        self.store("put /config/edge/limits 200")
        self.store("resume")
        program.wait_for(value.format(200), "mirror")
        program.close()

    def test_python(self):
        self.survives(sys.executable, "-B", os.path.join(EXAMPLES, "config_service.py"),
                      self.store.endpoints[0], "/config/edge/limits", self.dir.name, "0.02")

    def test_c(self):
        self.survives(os.path.join(BUILD, "bin", "holdfast_example_c"), self.store.endpoints[0],
                      "/config/edge/limits", self.dir.name, "20")

    def test_cpp(self):
        self.survives(os.path.join(BUILD, "bin", "holdfast_example_edge_service"),
                      self.store.endpoints[0], self.dir.name, value="max_rps={}")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
