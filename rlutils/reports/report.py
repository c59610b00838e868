"""`rlalgo report`: the page that fits what is given, the numbers on the terminal, the table as Markdown."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from rlalgo.errors import ConfigError
from rlutils.reports.experiments import experiments
from rlutils.reports.result_view import print_results, print_suite
from rlutils.reports.runs_page import write_report
from rlutils.reports.suite_page import markdown, write_suite_report
from rlutils.reports.suite_results import results_of, suite_results
from rlutils.reports.writing import write_text
from rlutils.sweeps.plan import PLAN


def report(folders: Sequence[Path], page: Path | None, markdown_file: Path | None, console: Console) -> None:
    """Writes a page about run folders, or about the folder of one suite, and prints its results.

    Args:
        folders: of runs, or of one suite.
        page: HTML file to write; None for report.html, within the folder where there is but one.
        markdown_file: where to write algorithms by datasets, if anywhere.
        console: where to print.

    Raises:
        ConfigError, RlalgoError: a folder is neither, a suite is mixed with runs, or a file cannot be written.
    """
    page = page or (folders[0] / "report.html" if len(folders) == 1 else Path("report.html"))
    suites = [folder for folder in folders if (folder / PLAN).is_file()]
    if suites and len(folders) > 1:
        raise ConfigError([f"{suites[0]} is a suite's folder; report it alone, or give run folders"])
    if suites:
        results = suite_results(suites[0])
        write_suite_report(results, page)
        print_suite(results, console)
    else:
        found = experiments(folders)
        results = results_of(found)
        write_report(found, page)
        print_results(found, console)
        if len(found) > 1:
            print_suite(results, console)
    if markdown_file is not None:
        write_text(markdown_file, markdown(results), "--markdown")
        console.print(f"tables: {markdown_file}", soft_wrap=True)
    console.print(f"report: {page}", soft_wrap=True)
