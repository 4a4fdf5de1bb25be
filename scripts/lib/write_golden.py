"""Writes what is missing of tests/golden and tests/conformance, or prints the table of one network."""

import json
import sys

import golden
from vectors import tables, write


def main() -> None:
    match sys.argv[1:]:
        case []:
            golden.main()
            write.main()
        case ["--table", spec]:
            print(json.dumps(tables.table(spec), indent=1))
        case _:
            sys.exit("usage: scripts/golden [--table ARCHITECTURE]")


if __name__ == "__main__":
    main()
