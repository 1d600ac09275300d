"""Workers and queues: who works on what, what the broker holds, and the levers."""

from __future__ import annotations

from starlette.responses import Response

from orchestrator.api.access import record
from orchestrator.web.pages import Ask
from reasoning.errors import BadInput
from storage import controls


def workers(ask: Ask) -> Response:
    """Queues by model and workers, with what each has in hand."""
    now = ask.use.now()
    snap = ask.snapshot()
    depths = ask.web.broker.look([model.model for model in snap.models], now)
    return ask.page("workers.html", snap=snap, depths=depths, done=ask.query.get("done"), number=ask.query.get("n"))


def pause_queue(ask: Ask) -> Response:
    """Admit no more queries of a model."""
    reason = _reason(ask)
    with ask.use.db.write() as conn:
        if not controls.pause_model(conn, _model(ask), ask.use.now(), reason, ask.viewer.actor):
            raise BadInput(f"the queue of {_model(ask)} is paused already", code="conflict")
        record(conn, ask.viewer.caller, ask.use.now(), "queue.pause", _model(ask), reason)
    return _back(ask, "paused")


def resume_queue(ask: Ask) -> Response:
    """Admit queries of a model again."""
    with ask.use.db.write() as conn:
        if not controls.resume_model(conn, _model(ask)):
            raise BadInput(f"the queue of {_model(ask)} is not paused", code="conflict")
        record(conn, ask.viewer.caller, ask.use.now(), "queue.resume", _model(ask))
    return _back(ask, "resumed")


def send_again(ask: Ask) -> Response:
    """Have the messages of queued calls sent anew."""
    reason = _reason(ask)
    with ask.use.db.write() as conn:
        number = controls.send_again(conn, _model(ask))
        record(conn, ask.viewer.caller, ask.use.now(), "queue.send_again", _model(ask), reason)
    return _back(ask, "sent", number)


def drain(ask: Ask) -> Response:
    """Have a worker finish what it holds and take nothing more, or work again."""
    wanted = "run" if ask.field("wanted") == "run" else "drain"
    worker, reason = ask.field("worker"), _reason(ask)
    with ask.use.db.write() as conn:
        if not controls.want(conn, worker, wanted):
            raise BadInput(f"there is no worker {worker} that still runs", code="not_found")
        record(conn, ask.viewer.caller, ask.use.now(), f"worker.{wanted}", worker, reason)
    return _back(ask, wanted)


def _model(ask: Ask) -> str:
    """The queue meant: a field and not a part of the address, as names of models hold slashes."""
    return ask.field("model")


def _back(ask: Ask, done: str, number: int | None = None) -> Response:
    ask.web.snapshots.forget()
    return ask.go("workers", done=done, n=number)


def _reason(ask: Ask) -> str:
    given = ask.field("reason")[:300]
    if not given:
        raise BadInput("say why: the reason is shown to everybody and kept in the audit record", code="missing_reason")
    return given
