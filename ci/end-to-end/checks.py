"""Says what is checked and how it went, one line each, and ends with `N passed, M failed`."""

import sys
import time
import traceback


class Checks:
    def __init__(self, title):
        self.title = title
        self.passed = 0
        self.failed = 0
        self.started = time.monotonic()
        note(f"== {title}")

    def that(self, claim, holds, detail=""):
        if holds:
            self.passed += 1
            note(f"ok: {claim}")
        else:
            self.failed += 1
            note(f"FAILED: {claim}" + (f"\n    {detail}" if detail else ""))
        return bool(holds)

    def equal(self, claim, found, expected):
        return self.that(claim, found == expected, f"found {found!r}, expected {expected!r}")

    def skip(self, claim, reason):
        note(f"skipped: {claim} ({reason})")

    def run(self, work):
        """Runs `work(self)`, counts an exception as a failure, prints the summary and exits."""
        try:
            work(self)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever it is, the summary must say so
            traceback.print_exc()
            self.that("the script runs to its end", False, repr(error))
        seconds = time.monotonic() - self.started
        note(f"== {self.title}: {self.passed} passed, {self.failed} failed ({seconds:.0f} s)")
        sys.exit(1 if self.failed or not self.passed else 0)


def note(text):
    print(text, flush=True)
