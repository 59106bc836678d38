"""`python -m kdhelpers doctor`: what is here, what is missing, and what each lack means."""

from kdhelpers.cli.parsing import Parser, start_console
from kdhelpers.errors import UserError


def main(argv: list[str]) -> None:
    """Print the report. Raises UserError where something has to be mended."""
    parser = Parser(prog="python -m kdhelpers doctor", description=__doc__)
    parser.add_argument("--prepare", action="store_true", help="fill the caches, so that the notebooks need no network")
    options = parser.parse_args(argv)
    from kdhelpers import quiet, workshop

    if options.prepare:
        quiet()
        start_console()
        workshop.fill_caches()
    report = workshop.doctor()
    print(report)
    if report.missing:
        raise UserError(f"mend first: {', '.join(report.missing)}")
    print("Ready: python -m kdhelpers distill")
