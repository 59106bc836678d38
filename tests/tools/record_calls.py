"""Record anew what each command asks of AWS, against moto: python -m tests.tools.record_calls.

Writes tests/sagemaker/calls.json ({"service Operation": commands}) from the life of a job in test_life.py, and the
table in AWS.md from it and from the rights and costs in kdhelpers/sagemaker/rights.py. No AWS account, two minutes.
"""

import os
import sys
from pathlib import Path

CALLS_FILE = Path(__file__).parents[1] / "sagemaker" / "calls.json"
RECORDING = "KD_RECORD_CALLS"  # set: what was asked is written; else it is compared


def main() -> int:
    """Record, then write the table; returns the exit code."""
    import pytest

    from tests.tools import results

    os.environ[RECORDING] = "1"
    test = CALLS_FILE.with_name("test_life.py")
    code = pytest.main([str(test), "-k", "every_call_is_in_the_record", "-p", "no:cacheprovider"])
    return int(code) or results.main([])


if __name__ == "__main__":
    sys.exit(main())
