"""Submitting a job: a form, a plan that says what it would come to, and only then the button that does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files as files_of
from typing import Any, get_args

from starlette.responses import Response

from orchestrator import labels
from orchestrator.api.access import record
from orchestrator.api.submissions import served_model
from orchestrator.estimate import estimate
from orchestrator.intake.survey import Report
from orchestrator.service import new_id
from orchestrator.submit import JobRequest, check, effective_policy, submit
from orchestrator.web import refused, uploads
from orchestrator.web.pages import Ask
from orchestrator.web.samples import Sample, samples
from reasoning.errors import BadInput
from reasoning.policy import FanOut, Judge, Mode, OnLimit, Policy, PromptStyle
from reasoning.strategies import STRATEGIES
from storage import datasets, files, overview
from workers.messages import PRIORITIES

MAIN = ("strategy", "mode", "candidates", "judge", "swap_check", "seed")
"""Policy fields on the form itself; the others lie under "more"."""
CHOICES: Mapping[str, tuple[str, ...]] = {
    "strategy": tuple(STRATEGIES),
    "mode": get_args(Mode),
    "judge": get_args(Judge),
    "swap_check": ("true", "false"),
    "fan_out": get_args(FanOut),
    "on_limit": get_args(OnLimit),
    "prompts": get_args(PromptStyle),
}
INTEGERS = ("candidates", "top_k", "max_tokens", "retries", "judge_retries", "token_budget", "seed")
NUMBERS = ("temperature", "top_p", "deadline_s")
STORED_FILES = 30
INPUTS = frozenset({"lines", "question", "dataset"})
"""Text fields that become a file and are not filled in again."""
SHOWN_ERRORS = 20


@dataclass(frozen=True, slots=True)
class Plan:
    """What the job would come to."""

    report: Report
    policy: Policy
    """As it would be frozen."""
    acceptable: bool
    """Whether submitting it now would run anything."""
    history: Any | None
    """Seconds of engine time per query of earlier jobs: `low`, `high`, `jobs`; None without any."""
    likely: Mapping[str, Any]
    """See `orchestrator.estimate`."""
    ahead: int
    """Queries of other jobs of the model that wait or run."""
    served: bool
    """Whether a worker of the model is there."""
    twin: Any | None
    """An earlier job that did the same."""
    samples: list[Sample]


@dataclass(slots=True)
class Form:
    """The fields as the person left them."""

    values: dict[str, str] = field(default_factory=dict)
    file: Any = None
    """Row of the input file; None until there is one."""
    understood: str = ""
    """What was made of columns and images on the way to it."""


def form(ask: Ask) -> Response:
    """The empty form, or one filled like an earlier job."""
    values: dict[str, str] = {"model": served_model(ask.use.settings.model), "priority": "batch", "on_bad_line": "fail"}
    source = None
    like = ask.query.get("like")
    if like:
        with ask.use.db.read() as conn:
            job = overview.job(conn, ask.viewer.project_id, like)
            if job is not None:
                values |= _values_of(job)
                source = files.get(conn, ask.viewer.project_id, job.input_file_id) if job.input_file_id else None
    return _show(ask, Form(values, source))


def plan(ask: Ask) -> Response:
    """Check every line and say what the job would cost. Nothing runs."""
    filled = _before(ask)
    try:
        filled = _filled(ask, filled)
        request = _request(ask, filled)
        report = check(ask.use.db, ask.use.objects, request, ask.use.settings, ask.use.now)
        policy = effective_policy(request, ask.use.settings)
    except BadInput as error:
        return _show(ask, filled, problem=error)
    return _show(ask, filled, plan=_plan(ask, request, report, policy, filled.file))


def _plan(ask: Ask, request: JobRequest, report: Report, policy: Policy, file: Any) -> Plan:
    bad = report.refused > 0 or report.error_count > 0
    project, model = ask.viewer.project_id, request.model
    queues = {queue.model: queue for queue in ask.snapshot().models}
    queue = queues.get(model)
    with ask.use.db.read() as conn:
        history = overview.engine_seconds(conn, project, model, policy.digest)
        likely = estimate(conn, model, policy, report.cost)
        twin = overview.same_work(conn, project, file.sha256, model, policy.digest)
    return Plan(
        report=report,
        policy=policy,
        acceptable=report.accepted > 0 and (not bad or request.on_bad_line == "skip"),
        history=history,
        likely=likely,
        ahead=queue.waiting + queue.running if queue else 0,
        served=queue is not None and queue.workers > 0,
        twin=twin,
        samples=samples(ask, request, policy, file.object_key) if report.accepted else [],
    )


def errors(ask: Ask) -> Response:
    """Everything that is wrong with the lines, as a download."""
    filled = _before(ask)
    try:
        filled = _filled(ask, filled)
        return refused.download(ask, _request(ask, filled), filled.file.id)
    except BadInput as error:
        return _show(ask, filled, problem=error)


def run(ask: Ask) -> Response:
    """Submit what was planned."""
    filled = _before(ask)
    now = ask.use.now()
    try:
        filled = _filled(ask, filled)
        request = _request(ask, filled)
        with ask.use.db.write() as conn:
            job_id = submit(conn, request, ask.use.settings, now, new_id)
            record(conn, ask.viewer.caller, now, "job.submit", job_id)
    except BadInput as error:
        return _show(ask, filled, problem=error)
    ask.web.snapshots.forget()
    return ask.go("jobs", job_id, done="submit")


@cache
def _example() -> str:
    """Three lines as they may be; the same file that the page offers."""
    return files_of("orchestrator.web").joinpath("static", "example.jsonl").read_text().rstrip()


def _show(ask: Ask, filled: Form, *, plan: Plan | None = None, problem: BadInput | None = None) -> Response:
    with ask.use.db.read() as conn:
        models = overview.models(conn, ask.viewer.project_id, ask.use.now())
        stored = files.list_page(conn, ask.viewer.project_id, purpose="batch", limit=STORED_FILES)
        named = datasets.list_page(conn, ask.viewer.project_id, after=None, limit=STORED_FILES)
    own = served_model(ask.use.settings.model)
    return ask.page(
        "new_job.html",
        400 if problem else 200,
        values=filled.values,
        file=filled.file,
        understood=filled.understood,
        plan=plan,
        problem=problem,
        models=[own, *(model for model in models if model != own)],
        stored=stored,
        named=[row.name for row in named],
        max_images=uploads.MAX_IMAGES,
        choices=CHOICES,
        main=MAIN,
        more=[name for name in Policy().to_mapping() if name not in MAIN],
        defaults=_defaults(ask, filled.values.get("model", "")),
        priorities=tuple(PRIORITIES),
        example=_example(),
        shown_errors=SHOWN_ERRORS,
    )


def _before(ask: Ask) -> Form:
    """The form as sent, with the file that was chosen before."""
    values = {name: value.strip() for name, value in ask.form.items() if isinstance(value, str) and name not in INPUTS}
    chosen = values.get("stored") or values.get("file_id")
    with ask.use.db.read() as conn:
        return Form(values, files.get(conn, ask.viewer.project_id, chosen) if chosen else None)


def _filled(ask: Ask, before: Form) -> Form:
    """The form with its input as a stored file, so that a second look needs no second upload.

    Raises:
        BadInput: the input cannot be read as a whole, or there is none.
    """
    taken = uploads.take(ask.use, ask.viewer.caller, ask.form, before.file)
    if taken is not None:
        with ask.use.db.read() as conn:
            return Form(before.values, files.get(conn, ask.viewer.project_id, taken.file_id), taken.understood)
    if before.file is None:
        raise BadInput("choose a file, or paste some lines", code="missing_file", field="file")
    return before


def _request(ask: Ask, filled: Form) -> JobRequest:
    values = filled.values
    return JobRequest(
        project_id=ask.viewer.project_id,
        input_file_id=filled.file.id if filled.file is not None else None,
        model=values.get("model") or served_model(ask.use.settings.model),
        policy=_policy(values),
        name=values.get("name", ""),
        priority=values.get("priority", "batch"),
        on_bad_line="skip" if values.get("on_bad_line") == "skip" else "fail",
        attributes=labels.read(labels.split(values.get("labels", ""))) or None,
    )


def _policy(values: Mapping[str, str]) -> dict[str, Any]:
    """The policy fields that were set; an empty one keeps its default. Raises BadInput on what is no number."""
    found: dict[str, Any] = {}
    for name in Policy().to_mapping():
        text = values.get(f"policy.{name}", "")
        if not text:
            continue
        if name == "swap_check":
            found[name] = text == "true"
        elif name in INTEGERS or name in NUMBERS:
            found[name] = _number(name, text)
        else:
            found[name] = text
    return found


def _number(name: str, text: str) -> int | float:
    try:
        return int(text) if name in INTEGERS else float(text)
    except ValueError:
        kind = "a whole number" if name in INTEGERS else "a number"
        message = f'policy.{name} is "{text[:40]}"; write {kind}'
        raise BadInput(message, code="invalid_type", field=f"policy.{name}") from None


def _values_of(job: Any) -> dict[str, str]:
    """The form as an earlier job would fill it."""
    values = {"model": job.model, "name": job.name, "priority": job.priority, "on_bad_line": job.on_bad_line}
    values["labels"] = labels.joined(job.attributes)
    for name, default in Policy().to_mapping().items():
        value = job.policy.get(name, default)
        if value is not None:
            values[f"policy.{name}"] = str(value).lower() if isinstance(value, bool) else str(value)
    return values


def _defaults(ask: Ask, model: str) -> dict[str, str]:
    """What an empty field stands for, with this model."""
    request = JobRequest(project_id=ask.viewer.project_id, input_file_id=None, model=model)
    try:
        policy = effective_policy(request, ask.use.settings)
    except BadInput:
        policy = Policy()
    return {
        name: "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in policy.to_mapping().items()
    }
