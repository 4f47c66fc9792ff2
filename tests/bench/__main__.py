"""`make bench`: what a sandbox costs, each figure beside something else run in the same minute on the same machine.

Absolute times on a shared machine mean little, so wherever it can be a bound is a ratio. Medians, measured in turns.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from .measures import MEASURES
from .report import Report


async def main() -> int:
    """Run the measurements that were asked for; the exit status says whether all bounds held."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("only", nargs="*", choices=[*MEASURES, []], help="which ones; all unless named")
    report = Report()
    for name in parser.parse_args().only or MEASURES:
        await MEASURES[name](report)
    return report.finish()


sys.exit(asyncio.run(main()))
