"""The paths of a spec, made such that they lead to the same place from wherever a worker runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from core.spec.run import RunSpec
from core.spec.texts import NAMED


def absolute(spec: RunSpec) -> RunSpec:
    """Make paths absolute, so that the worker finds them wherever it runs."""

    def full(name: str) -> str:
        path, colon, part = name.partition(":")  # a data set's config and split
        if path in NAMED:
            return name
        return f"{Path(path).absolute()}{colon}{part}" if path and Path(path).exists() else name

    def folder(name: str | None) -> str | None:
        return name and str(Path(name).absolute())

    source = spec.model.source if spec.model.source == "demo" else full(spec.model.source)

    return replace(
        spec,
        data_dir=folder(spec.data_dir),
        model=replace(spec.model, source=source, adapter=full(spec.model.adapter)),
        calibration=replace(spec.calibration, name=full(spec.calibration.name)),
        recover=replace(
            spec.recover,
            data=",".join(map(full, spec.recover.data.split(","))),
            teacher=full(spec.recover.teacher),
            logits=folder(spec.recover.logits),
        ),
        evaluate=replace(
            spec.evaluate,
            text=full(spec.evaluate.text),
            also=tuple(map(full, spec.evaluate.also)),
            benchmarks_dir=folder(spec.evaluate.benchmarks_dir),
        ),
        export=replace(
            spec.export,
            out=folder(spec.export.out),
            tokenizer=spec.export.tokenizer and full(spec.export.tokenizer),
        ),
    )
