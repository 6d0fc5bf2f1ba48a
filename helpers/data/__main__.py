"""Command line: `python -m helpers.data status | import DIR | download NAME`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from helpers.data._download import DataError, download, find, import_data
from helpers.data._real import available, data_dir
from helpers.data._sources import SOURCES, TITLES


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m helpers.data",
        description="Real data for the book: see what is there, import archives from a folder, or download.",
        epilog="Data lies in $HELPERS_DATA, by default in the user cache folder. The book runs without any of it.",
    )
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("status", help="say which data sets are there, and where")
    bring = actions.add_parser("import", help="import data sets from archives in a folder")
    bring.add_argument(
        "folder", metavar="DIR", type=Path, help="folder with the archives, or with one folder a data set"
    )
    bring.add_argument("--only", metavar="NAME", choices=list(SOURCES), help=f"one data set: {', '.join(SOURCES)}")
    fetch = actions.add_parser("download", help="download a data set")
    fetch.add_argument("name", choices=["mnist", "tiny-imagenet"], help="which data set")
    for command in (bring, fetch):
        command.add_argument("--to", metavar="DEST", type=Path, help="where it goes instead of the data folder")
    return parser


def _status() -> None:
    print(f"data folder: {data_dir()}")
    for name, title in TITLES.items():
        print(f"  {title:<22} {'there' if available(name) else 'not there (the book runs without it)'}")


def _import(folder: Path, only: str | None, dest: Path | None) -> None:
    if not folder.is_dir():
        raise DataError(f"no such folder: {folder}")
    names = [only] if only else list(SOURCES)
    place = data_dir() if dest is None else dest
    if not any(available(name, place) or find(name, folder) for name in names):
        raise DataError(
            f"nothing to import in {folder}: it must hold the archives of {' or '.join(TITLES[n] for n in names)}"
        )
    for name in names:
        print(import_data(name, folder, dest), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0; 1 after printing what went wrong; 130 when interrupted."""
    options = _parser().parse_args(arguments)
    try:
        if options.action == "status":
            _status()
        elif options.action == "import":
            _import(options.folder, options.only, options.to)
        else:
            print(download(options.name, options.to))
    except (DataError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; nothing half done is left behind", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
