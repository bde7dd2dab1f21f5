# SPDX-License-Identifier: Apache-2.0
"""What a study cannot be: refused before anything is prepared."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from operator import attrgetter

from mlm_jax import config as cfg
from mlm_jax.errors import UserError
from mlm_jax.fields import check_bounds, differences
from mlm_jax.files import in_bucket
from mlm_jax.names import check_names
from mlm_jax.neutrality.config import Analyze
from mlm_jax.study.config import ALL, OF_PROBES, OF_ROWS, Curve, Factor, Study, apply, chosen, placed, runs_of, things
from mlm_jax.typed import as_type

# What neither a factor nor a measure's label can be: columns of results, and what means are asked for by beside labels.
TAKEN = (*OF_ROWS, "group")


def validate_study(study: Study) -> None:
    """Refuse a study that cannot work, before anything is prepared.

    Raises:
      UserError: naming the factor or the option, and what would be right.
    """
    check_bounds(study)
    if in_bucket(study.workdir):
        raise UserError(f"workdir: {study.workdir}: a study works on a local disk; use a local --workdir")
    if not study.factors:
        raise UserError("factors: none; a study has at least one, e.g. vary('sampling.exponent', 1.0, 0.3)")
    if not isinstance(study.seeds, tuple | list):
        raise UserError(f"seeds: {study.seeds!r}: give a tuple of whole numbers, as (0, 1)")
    whole = all(isinstance(seed, int) for seed in study.seeds)
    if len(set(study.seeds)) < len(study.seeds) or not study.seeds or not whole:
        raise UserError(f"seeds: {' '.join(map(str, study.seeds))}: give whole numbers, each once, and at least one")
    names = [factor.name for factor in study.factors]
    check_names("factors", names)
    if len(set(names)) < len(names):
        raise UserError(f"factors: {', '.join(names)}: two of one name; rename one of them")
    for name in names:
        if name in TAKEN:
            raise UserError(f"factors: {name}, which is a column of every table of results; rename it")
    owners: dict[str, str] = {}
    for factor in study.factors:
        labels = [value.label for value in factor.values]
        nameless = next((x for x in labels if not isinstance(x, str) or not x), None)
        if nameless is not None:
            raise UserError(f"factor {factor.name}: label {nameless!r} is no text; write one, as Value('1', ...)")
        if len(set(labels)) < len(labels) or len(labels) < 2:
            raise UserError(
                f"factor {factor.name}: {', '.join(labels)}: give it two values or more, each with a label of its own"
            )
        made = [cfg.config_to_json(apply(value, study.base, f"factor {factor.name}")) for value in factor.values]
        same = next(((i, j) for i, j in itertools.combinations(range(len(made)), 2) if made[i] == made[j]), None)
        if same:
            first, second = (labels[i] for i in same)
            raise UserError(
                f"factor {factor.name}: {first} and {second} give the same config, so that it changes nothing; mend its values"
            )
        for option in changed(factor, study.base):
            other = owners.setdefault(option, factor.name)
            if other != factor.name:
                raise UserError(
                    f"factors: {other} and {factor.name} both set {option}; the later would undo the former: make them one factor"
                )
    for curve in study.curves:
        refuse_curve(study, curve)
    made_runs = runs_of(study)
    if not made_runs:
        raise UserError("choose: leaves no run; mend it")
    check_names("runs", [run.name for run in made_runs], as_files=True)
    refuse_undone(study)
    check_names("measures", [measure.name for measure in study.measures], as_files=True)
    if len({measure.name for measure in study.measures}) < len(study.measures):
        raise UserError(f"measures: {', '.join(m.name for m in study.measures)}: two of one name; rename one of them")
    taken = [name for name in names if name in OF_PROBES]
    if taken and any(isinstance(measure.config, Analyze) for measure in study.measures):
        raise UserError(f"factors: {taken[0]}, which rows of probes are told apart by; rename it")
    for measure in study.measures:
        for label in (*names, *OF_PROBES, *TAKEN):
            if label in measure.labels:
                raise UserError(f"measures: {measure.name} has a label {label}, which rows have already; rename it")
    if study.run:
        chosen(study, made_runs)
    for run in made_runs:
        try:
            as_type(cfg.Config, json.loads(cfg.config_to_json(run.config)))
            cfg.validate_pretraining(run.config)
        except (UserError, ValueError) as e:
            raise UserError(f"{run.name}: {e}") from e


def changed(factor: Factor, base: cfg.Config) -> set[str]:
    """The options in which the configs of a factor's values differ."""
    made = [apply(value, base, f"factor {factor.name}") for value in factor.values]
    first = json.loads(cfg.config_to_json(made[0]))
    return {d.name.split("[")[0] for other in made[1:] for d in differences(first, other)}


def refuse_undone(study: Study) -> None:
    """Refuse a factor whose options do not stand in the runs, or that makes no difference to any of them, because of what another, or the study itself, sets.

    Raises:
      UserError: naming the factor.
    """
    runs = runs_of(replace(study, limit=0, seeds=study.seeds[:1]))
    for factor in study.factors:
        # label → its options, and the config that has it alone
        values = {
            x.label: (x.options, placed(study, apply(x, study.base, f"factor {factor.name}"))) for x in factor.values
        }
        alike: dict[str, dict[str, str]] = {}  # labels of the other factors → label of this one → config
        for run in runs:
            label = run.labels[factor.name]
            options, alone = values[label]
            for option in options:
                wanted, found = attrgetter(option)(alone), attrgetter(option)(run.config)
                if wanted != found:
                    raise UserError(
                        f"factor {factor.name}: sets {option} to {wanted}, and it is {found} in {run.name}, because another factor or the study "
                        "sets it too; let one of them do it"
                    )
            others = json.dumps({name: label for name, label in run.labels.items() if name != factor.name})
            # Both are the study's own in every run.
            alike.setdefault(others, {})[label] = cfg.config_to_json(replace(run.config, workdir="", corpus=""))
        beside = [made for made in alike.values() if len(made) > 1]
        if beside and all(len(set(made.values())) == 1 for made in beside):
            raise UserError(
                f"factor {factor.name}: {' and '.join(list(beside[0])[:2])} give the same config beside the other factors, so that it changes nothing; mend its values"
            )


def refuse_curve(study: Study, curve: Curve) -> None:
    """Refuse a curve over what the study does not have.

    Raises:
      UserError: naming it, and what there is.
    """
    names = things(study)
    if curve.over not in names:
        raise UserError(f"curves: {curve.over} is no factor; the study has {', '.join(names)}")
    if curve.lines not in ("group", "language", *names) or curve.lines == curve.over:
        others = [name for name in names if name != curve.over]
        raise UserError(f"curves: lines {curve.lines}: choose group, language{''.join(f', {x}' for x in others)}")
    if curve.lines != "group" and len(curve.groups) > 1:
        raise UserError(
            f"curves: groups {' '.join(curve.groups)}, but lines are of {curve.lines}, which one group is drawn of; name one"
        )
    twice = next((name for name in (curve.over, curve.lines) if name in curve.where), None)
    if twice is not None:
        raise UserError(
            f"curves: {twice} {curve.where[twice]}, but the figure is drawn over {twice}; leave one of them out"
        )
    for factor in study.factors:
        labels = [value.label for value in factor.values]
        if curve.where.get(factor.name, labels[0]) not in labels:
            raise UserError(f"curves: {factor.name} {curve.where[factor.name]} is none of {', '.join(labels)}")
    unknown = [*(x for x in curve.where if x not in names), *(x for x in curve.groups if x not in (*study.groups, ALL))]
    if unknown:
        raise UserError(f"curves: {unknown[0]} is none of {', '.join((*names, *study.groups, ALL))}")
