"""Who writes the four stages when the answer is known: a large model behind an engine, or the exact program."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from reasoning.errors import ModelError
from reasoning.prompts import Message, Prompt, question_text
from reasoning.records import Usage
from reasoning.stages import Stage
from training.data import questions
from training.data.questions import Known
from training.scenes.files import scene_of
from training.scenes.teacher import tagged, teach
from workers.engine.protocol import Engine, Generate, Sampling
from workers.engine.registry import open_engine

_TASK = """You write training examples of slow thinking. You see an image, a question about it and the correct answer. \
Explain how a careful observer arrives at that answer, in exactly four parts, each once and in this order:
<SUMMARY>how the question will be approached, without carrying it out</SUMMARY>
<CAPTION>what the image shows, as far as the question needs it</CAPTION>
<REASONING>the steps from the image to the answer, one after the other</REASONING>
<CONCLUSION>the answer alone</CONCLUSION>
Write nothing outside the tags. Do not mention that the answer was given. The conclusion must say the same as the \
correct answer; for a multiple-choice question it is the letter of the option and nothing else."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What a teacher wrote, unchecked, and what it cost."""

    text: str
    usage: Usage


class Teacher(Protocol):
    """Writes a structured answer. Raises `Transient` or a retryable `ModelError` where another try may help."""

    def write(self, known: Known, attempt: int) -> Draft:
        """The four stages for a question whose answer is known; `attempt` counts from 0."""
        ...


class ProgramTeacher:
    """The program that drew the scenes: exact, free, for questions written by `training.scenes.write` alone."""

    def write(self, known: Known, attempt: int) -> Draft:
        """The teacher's stages; raises ModelError for a question that is not one of the scenes."""
        found = scene_of(known.custom_id)
        if found is None or found[1].text != known.question or found[1].choices != known.choices:
            message = f'"{known.custom_id}" is not a question of the scenes; use a model as the teacher'
            raise ModelError(message, code="not_a_scene")
        return Draft(tagged(teach(*found)), Usage())


@contextmanager
def open_teacher(name: str, source: Path, *, max_tokens: int) -> Iterator[Teacher]:
    """The teacher called `name` for the questions of `source`: `program`, or an engine's name for `open_engine`.

    Raises:
        BadInput: unknown engine, or the questions are not usable.
    """
    if name == "program":
        yield ProgramTeacher()
        return
    known = questions.read(source)
    digests, load_image = questions.load_images(known, source.parent)
    sampling = Sampling(temperature=0.7, top_p=0.95, top_k=0, max_tokens=max_tokens)
    engine = open_engine(name)
    try:
        yield ModelTeacher(engine, lambda row: digests[row.image], load_image, sampling)
    finally:
        engine.close()


class ModelTeacher:
    """Any model behind an engine, such as `openai:BASE_URL#MODEL`, in the role of the paper's GPT-4o."""

    def __init__(
        self,
        engine: Engine,
        digest: Callable[[Known], str],
        load_image: Callable[[str], bytes],
        sampling: Sampling,
        seed: int = 0,
    ) -> None:
        self._engine, self._digest, self._load_image = engine, digest, load_image
        self._sampling, self._seed = sampling, seed

    def write(self, known: Known, attempt: int) -> Draft:
        """One request; every attempt draws anew."""
        digest = self._digest(known)
        text = f"{_TASK}\n\nQuestion: {question_text(known.query(digest))}\nCorrect answer: {known.answer}"
        request = Generate(
            call_id=f"{known.custom_id}/teach/{attempt}",
            prompt=Prompt((Message("user", text, (digest,)),)),
            load_image=self._load_image,
            group=known.custom_id,
            indices=(0,),
            seeds=(self._seed + attempt,),
            stop=Stage.CONCLUSION.close_tag,
            sampling=self._sampling,
        )
        result = self._engine.generate(request).result()
        return Draft(result.candidates[0].text, result.usage)
