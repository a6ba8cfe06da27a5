"""`posezoo doctor`: whether this installation works."""

from __future__ import annotations

from dataclasses import asdict

import typer

from posezoo.terminal import USER_ERROR, AsJson, guard, print_fields, print_json
from posezoo.words import counted

NAMES = 9  # characters that a name takes


@guard
def doctor_command(as_json: AsJson = False) -> None:
    """Look at the installation, and say what does not work.

    Packages and extras, devices, packaged networks on every runtime, folder of weights.

    Exit code 2 where something that is installed does not work. For a report of a fault, paste what it prints.

    Example:  posezoo doctor
    """
    from posezoo.doctor import examine

    findings = []
    for finding in examine():
        findings.append(finding)
        if not as_json:
            print_fields([(finding.name.ljust(NAMES), finding.found)])
            if finding.problem:
                print_fields(
                    [("".ljust(NAMES), f"{typer.style('PROBLEM', fg=typer.colors.RED, bold=True)}: {finding.problem}")]
                )
    problems = [finding for finding in findings if finding.problem]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    elif problems:
        typer.echo(counted(len(problems), "problem"))
    else:
        typer.echo("No problem found.")
    if problems:
        raise typer.Exit(USER_ERROR)
