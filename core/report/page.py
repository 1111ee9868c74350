"""One HTML file for any number of runs: no script, no request, light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from core.errors import ArtifactError, InputError
from core.files import write_text
from core.report.markup import Markup, element, join, table
from core.report.run import Run
from core.report.sections import section
from core.results.words import number, with_error

#: Whatever a model or a user wrote into a run: a browser runs nothing and fetches nothing here.
_POLICY = Markup(
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
)
_STYLE = Markup("""<style>
:root { color-scheme: light dark; --ink: #1c2430; --quiet: #5b6675; --line: #d9dee5; --back: #ffffff;
  --card: #f5f7fa; --s0: #2563eb; --s1: #d9480f; --s2: #0f766e; --s3: #7c3aed; --warn: #9a3412; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --quiet: #9aa6b5; --line: #333c49;
  --back: #12161c; --card: #1a2029; --s0: #7aa7ff; --s1: #ff9a62; --s2: #4fd1b5; --s3: #b79bff;
  --warn: #ffb38a; } }
body { margin: 0 auto; max-width: 1000px; padding: 24px; background: var(--back); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 26px; } h2 { font-size: 21px; border-top: 1px solid var(--line); padding-top: 24px; }
h3 { font-size: 17px; margin-top: 28px; } h4 { margin: 0; font-size: 13px; color: var(--quiet); }
.quiet, figcaption { color: var(--quiet); font-size: 13px; } .warn { color: var(--warn); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 14px 5px 0; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
th:first-child { text-align: left; font-weight: 500; } thead th { color: var(--quiet); font-size: 13px; }
figure { margin: 12px 0; } h1 + section > h2 { display: none; } svg { width: 100%; max-width: 720px; }
svg text { fill: var(--quiet); font-size: 11px; }
.axis { fill: none; stroke: var(--line); } .line { fill: none; stroke-width: 2; } .gone { fill: var(--line); }
.line.s0 { stroke: var(--s0); } .line.s1 { stroke: var(--s1); } .line.s2 { stroke: var(--s2); }
.line.s3 { stroke: var(--s3); } .bar.s0 { fill: var(--s0); } .bar.s1 { fill: var(--s1); }
.bar.s2 { fill: var(--s2); } .bar.s3 { fill: var(--s3); } .key { display: none; }
.key + .key, .key:not(:only-child) { display: inline; margin-right: 12px; }
pre { background: var(--card); padding: 10px 12px; border-radius: 6px; white-space: pre-wrap;
  overflow-wrap: anywhere; font-size: 13px; margin: 6px 0; }
.prompt { border-left: 3px solid var(--s0); } article { margin: 16px 0; }
.sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(240px, 1fr)); gap: 12px; }
</style>""")


def write_report(run_dirs: Sequence[Path], file: Path) -> Path:
    """Write the report of these runs, in that order.

    Returns:
        The file, absolute.

    Raises:
        InputError: a run cannot be read. StorageError: the file cannot be written.
    """
    runs = []
    for run_dir in run_dirs:
        try:
            runs.append(Run(run_dir))
        except ArtifactError as error:
            raise InputError(f"{run_dir.name} cannot be reported: {error} Leave it out.") from error
    file = file.expanduser().absolute()
    write_text(file, document(runs))
    return file


def document(runs: Sequence[Run]) -> str:
    """The whole page."""
    title = runs[0].title if len(runs) == 1 else f"{len(runs)} runs"
    head = element("head", Markup('<meta charset="utf-8">'), _POLICY, element("title", title), _STYLE)
    body = [element("h1", title), overview(runs) if len(runs) > 1 else Markup(), *map(section, runs)]
    return f"<!doctype html>\n{element('html', head, element('body', *body), lang='en')}\n"


def overview(runs: Sequence[Run]) -> Markup:
    """All runs in one table, each leading to its part."""
    rows = []
    for run in runs:
        found, link = run.metrics, element("a", run.title, href=f"#{run.id}")
        total = found.get("sparsity_total")
        ppl = [
            with_error(found.get(f"ppl_{when}"), found.get(f"ppl_stderr_{when}"), ",.2f")
            for when in ("before", "pruned", "after")
        ]
        if "ppl_pruned" not in found:
            ppl[1] = ppl[2]
        params = number(found.get("params_after", found.get("params")), ",d")
        rows.append([link, run.spec.model.source, number(total, ".1%"), params, *ppl])
    head = ["run", "model", "removed of all", "parameters", "ppl dense", "ppl pruned", "ppl final"]
    return join([table(head, rows)])
