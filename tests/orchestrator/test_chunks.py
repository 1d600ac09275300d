"""How calls are put into messages."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.advance import BURST, Fleet, chunked
from storage.planning import QueuedCall

calls = st.lists(
    st.builds(
        QueuedCall,
        st.integers(1, 10_000),
        st.integers(1, 50),
        st.sampled_from(["m", "other"]),
        st.sampled_from(["generate", "compare", "check"]),
    ),
    max_size=300,
    unique_by=lambda call: call.id,
)
PRIORITIES = dict.fromkeys(range(1, 51), "batch")


@given(calls, st.integers(1, 8))
def test_every_call_goes_out_once_with_its_own_kind_and_model(queued: list[QueuedCall], workers: int) -> None:
    sent = [(item, call_id) for item in chunked(queued, PRIORITIES, Fleet(workers)) for call_id in item.call_ids]
    by_id = {call.id: call for call in queued}
    assert sorted(call_id for _, call_id in sent) == sorted(by_id)
    for item, call_id in sent:
        assert item.model == by_id[call_id].model
        assert item.kind == ("generate" if by_id[call_id].kind == "generate" else "judge")
        assert len(item.call_ids) <= BURST


def test_a_lone_call_is_a_message_and_a_burst_is_a_handful_each() -> None:
    queued = [QueuedCall(number, 1, "m", "generate") for number in range(1000)]
    assert len(chunked(queued[:3], PRIORITIES, Fleet(4))) == 3
    assert len(chunked(queued, PRIORITIES, Fleet(1))) == -(-1000 // BURST)


def test_the_next_call_prefers_the_worker_that_holds_the_image_while_it_has_room() -> None:
    queued = [
        QueuedCall(1, 1, "m", "generate"),
        QueuedCall(2, 2, "m", "generate"),
        QueuedCall(3, 3, "judge", "compare"),
    ]
    fleet = Fleet(2, {"w1": "m"})
    sent = {item.call_ids: item.worker for item in chunked(queued, PRIORITIES, fleet, {1: "w1", 2: "w2", 3: "w1"})}
    assert sent == {(1,): "w1", (2,): None, (3,): None}
