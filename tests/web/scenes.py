"""An engine whose texts are about drawn scenes, so that seeded pages read like real ones and verdicts make sense."""

from __future__ import annotations

import io
import math
import random
from concurrent.futures import Future
from dataclasses import dataclass, field
from hashlib import sha256

from PIL import Image, ImageDraw

from reasoning.prompts import Prompt
from reasoning.records import Candidate, Finish, Usage
from reasoning.stages import Stage
from workers.engine import script_text
from workers.engine.protocol import Choose, Chosen, Counters, EngineInfo, Generate, Generated

COLOURS = {"red": "#d6453d", "blue": "#3d6fd6", "green": "#3f9d5b", "orange": "#e08a2e", "purple": "#8a56c2"}
SHAPES = ("circle", "square", "triangle")
WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven")


@dataclass(frozen=True, slots=True)
class Scene:
    """Shapes in a row on a plain ground, left to right, with the question asked about them."""

    things: tuple[tuple[str, str], ...]
    """Colour and shape."""
    question: str
    choices: tuple[str, ...]
    truth: str
    """The letter of the right choice."""
    png: bytes
    sha256: str


def scene(seed: int) -> Scene:
    """The scene of that number: always the same."""
    noise = random.Random(seed)
    things = tuple((noise.choice(list(COLOURS)), noise.choice(SHAPES)) for _ in range(noise.randint(4, 7)))
    png = _draw(things, noise)
    if seed % 2:
        shape = noise.choice(SHAPES)
        count = sum(thing[1] == shape for thing in things)
        numbers = sorted({count, max(0, count - 1), count + 1, count + 2})[:4]
        question = f"How many {shape}s are there in the picture?"
        choices = tuple(str(number) for number in numbers)
        truth = "ABCD"[numbers.index(count)]
    else:
        place = noise.randrange(1, len(things))
        question = f"What colour is the shape directly left of shape number {place + 1}, counted from the left?"
        choices = tuple(noise.sample(list(COLOURS), 4))
        if things[place - 1][0] not in choices:
            choices = (things[place - 1][0], *choices[1:])
        truth = "ABCD"[choices.index(things[place - 1][0])]
    return Scene(things, question, choices, truth, png, sha256(png).hexdigest())


def _draw(things: tuple[tuple[str, str], ...], noise: random.Random) -> bytes:
    width, height = 90 * len(things) + 40, 260
    image = Image.new("RGB", (width, height), "#f4f1ea")
    pen = ImageDraw.Draw(image)
    for place, (colour, shape) in enumerate(things):
        size = noise.randint(44, 72)
        x, y = 40 + 90 * place, noise.randint(60, 130)
        box = (x, y, x + size, y + size)
        fill = COLOURS[colour]
        if shape == "circle":
            pen.ellipse(box, fill=fill)
        elif shape == "square":
            pen.rectangle(box, fill=fill)
        else:
            pen.polygon([(x, y + size), (x + size / 2, y), (x + size, y + size)], fill=fill)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


@dataclass(slots=True)
class SceneEngine:
    """Answers at once. A third of its drafts hold a mistake, which its judge mostly, not always, sees."""

    scenes: dict[str, Scene] = field(default_factory=dict)
    """By content hash of the image."""
    mistakes: float = 0.35
    quality: dict[str, float] = field(default_factory=dict)
    """Of every inner text written, for the judge: 1 right, 0 wrong."""

    @property
    def info(self) -> EngineInfo:
        return EngineInfo(
            kind="scripted",
            model="scenes",
            revision="1",
            device="cuda:0",
            dtype="bfloat16",
            slots=64,
            context=8192,
            prompts="standard",
            has_labels=True,
            keeps_ids=False,
        )

    def generate(self, request: Generate) -> Future[Generated]:
        done: Future[Generated] = Future()
        asked = script_text.read(request.prompt)
        if asked.form == "check":
            made = [self._checked(request, asked.question)]
        elif asked.form == "stages":
            made = [self._draft(request, i, s) for i, s in zip(request.indices, request.seeds, strict=True)]
        else:
            made = [self._reply(request, asked.shown)]
        tokens = sum(candidate.tokens for candidate in made)
        prompt = _prompt_tokens(request.prompt)
        done.set_result(
            Generated(
                candidates=tuple(made),
                usage=Usage(prompt, prompt * 3 // 4, tokens, 1, round(0.2 + 0.021 * tokens / len(made), 4)),
            )
        )
        return done

    def choose(self, request: Choose) -> Future[Chosen]:
        done: Future[Chosen] = Future()
        first = self._preference(request.prompt, script_text.read(request.prompt).shown)
        prompt = _prompt_tokens(request.prompt)
        done.set_result(Chosen(probabilities=(first, 1 - first), usage=Usage(prompt, prompt // 2, 0, 0, 0.08)))
        return done

    def counters(self) -> Counters:
        return Counters()

    def close(self) -> None:
        """Nothing to close."""

    def _preference(self, prompt: Prompt, shown: tuple[str, str]) -> float:
        gap = self.quality.get(shown[0], 0.5) - self.quality.get(shown[1], 0.5)
        noise = (script_text.fraction(prompt.digest) - 0.5) * 1.6
        # A little love for whatever is shown first: the swap check has something to find.
        return round(1 / (1 + math.exp(-(2.6 * gap + noise + 0.35))), 4)

    def _checked(self, request: Generate, question: str) -> Candidate:
        wrong = "(as I see it)" in question.partition("Reasoning: ")[2]
        word = "incorrect" if wrong and script_text.fraction(request.prompt.digest) < 0.7 else "correct"
        return Candidate(0, f"The line of thought is {word}.", 6, Finish.EARLY_END, seed=request.seeds[0])

    def _reply(self, request: Generate, shown: tuple[str, str]) -> Candidate:
        first = self._preference(request.prompt, shown)
        if script_text.fraction(request.prompt.digest, "mute") < 0.06:
            text = "Both responses have their merits and it is hard to say which one is more helpful."
        else:
            better = 1 if first > 0.5 else 2
            text = f"Since it describes the scene with fewer errors, I choose response {better}."
        return Candidate(0, text, len(text.split()), Finish.EARLY_END, seed=request.seeds[0])

    def _draft(self, request: Generate, index: int, seed: int) -> Candidate:
        scene = self.scenes[request.prompt.images[0]]
        due = script_text.due_stages(request.prompt.prefix, request.stop)
        noise = random.Random(seed)
        kept_wrong = "(as I see it)" in request.prompt.prefix
        wrong = noise.random() < self.mistakes + 0.4 * kept_wrong * (due[-1] is Stage.CONCLUSION)
        inner = [_text(scene, stage, noise, wrong=wrong) for stage in due]
        self.quality.setdefault(inner[-1], 0.0 if wrong else 1.0)
        text = "\n".join(f"{stage.open_tag} {each} {stage.close_tag}" for stage, each in zip(due, inner, strict=True))
        finish = Finish.STOP
        if noise.random() < 0.04 and due[-1] is not Stage.CONCLUSION:
            text, finish = text[: int(len(text) * 0.7)], Finish.LENGTH
        return Candidate(index, text, max(3, round(len(text.split()) * 1.35)), finish, seed=seed)


def _text(scene: Scene, stage: Stage, noise: random.Random, *, wrong: bool) -> str:
    if stage is Stage.SUMMARY:
        return noise.choice(
            (
                "I will look at the picture from left to right, name each shape, and then answer the question.",
                "First I describe what stands in the row. Then I find the shapes that the question names and compare.",
                "The question asks about the row of shapes. I will list them and read the answer off the list.",
                "I will look at the picture."
                if wrong
                else "I will list colour and form of every shape in order, "
                "then count or look up what is asked, and check the result against the options.",
            )
        )
    things = list(scene.things)
    if wrong:
        place = noise.randrange(len(things))
        things[place] = (noise.choice(list(COLOURS)), noise.choice(SHAPES))
    row = ", ".join(f"a {colour} {shape}" for colour, shape in things)
    seen = " (as I see it)" if wrong else ""
    if stage is Stage.CAPTION:
        opening = noise.choice(
            ("From left to right the picture shows", "There is a row of shapes on a plain ground:", "I see in order")
        )
        count = WORDS[len(things)]
        return f"{opening} {row}{seen}. In all these are {count} shapes, none of them overlapping."
    letters = "ABCD"[: len(scene.choices)]
    letter = noise.choice([each for each in letters if each != scene.truth]) if wrong else scene.truth
    if stage is Stage.REASONING:
        steps = " ".join(f"{number}. {colour} {shape}." for number, (colour, shape) in enumerate(things, 1))
        tail = noise.choice(("I checked this against the description once more.", "The other options do not fit.", ""))
        value = scene.choices[letters.index(letter)]
        end = f"The question asks: {scene.question} That gives {value}, which is option {letter}. {tail}"
        return f"I go along the row{seen}: {steps} {end}".strip()
    return letter


def _prompt_tokens(prompt: Prompt) -> int:
    return 576 * len(prompt.images) + sum(len(message.text.split()) for message in prompt.messages)
