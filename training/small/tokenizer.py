"""The demo model's tokenizer: one token per word, with the stage tags as ordinary words.

White space carries no token. Decoding puts one space between words, none around tags and line ends and none
before `,` `.` `?`, so that text written by the teacher comes back exactly.
"""

from __future__ import annotations

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from reasoning.stages import STAGES
from training.scenes.questions import LETTERS
from training.scenes.world import ATTRIBUTES, PLACES

PAD, BOS, END, SYSTEM, USER, ASSISTANT, UNKNOWN = (
    *("<|pad|>", "<|begin_of_text|>", "<|eot|>"),
    *("<|system|>", "<|user|>", "<|assistant|>"),
    "<|unknown|>",
)
IMAGE = "<|image|>"
"""Last of the vocabulary: it is read and never written, so the output layer stops before it."""

MOST = 9
"""Greatest number that is a word of its own."""

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message.role + '|>' }}"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|image|>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Every turn under the name of its role, images before text as given; nothing is left out."""

_WORDS = """
Subtract all and How many things are left Take away remain Are there more than Is the number of greater Count a the
Does picture show What is left right above below stand Drop each or count rest first second compare Look for Find name
its check keep drop both none yes no so vs option unknown thing balls cubes cylinders size material color shape
judge summary caption reasoning conclusion whole better Look
"""
_PATTERN = r"<\|?/?[A-Za-z_]+\|?>|#\d|\([a-z\d-]+\)|\[[a-z\d-]+\]|\d|[A-Za-z]+(?:-[A-Za-z]+)*|\n|[^\s]"


def vocabulary() -> list[str]:
    """All tokens in the order of their ids."""
    numbers = range(MOST + 1)
    words = [word for values in (*ATTRIBUTES.values(), PLACES) for word in values]
    tags = [tag for stage in STAGES for tag in (stage.open_tag, stage.close_tag)]
    names = [stage.tag for stage in STAGES]
    counts = [form.format(n) for form in ("{}", "#{}", "({})", "[{}]") for n in numbers]
    found = [f"({word})" for word in (*words, "none")] + [f"[{word}]" for word in (*PLACES, "none")]
    specials = [PAD, BOS, END, SYSTEM, USER, ASSISTANT, UNKNOWN]
    tokens = [*specials, *tags, *names, *counts, *found, *words, *_WORDS.split(), *LETTERS, *",.?:\n"]
    return [*dict.fromkeys(tokens), IMAGE]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer, ready to be saved beside the weights."""
    ids = {token: place for place, token in enumerate(vocabulary())}
    raw = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex(_PATTERN), "removed", invert=True)
    tag = r"</?(?:SUMMARY|CAPTION|REASONING|CONCLUSION)>"
    raw.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix="\x00", cleanup=False),
            decoders.Fuse(),
            decoders.Replace(Regex(rf" (?=[,.?\n]|{tag})"), ""),
            decoders.Replace(Regex(rf"(?<={'>|'.join(f'</?{s.tag}' for s in STAGES)}>|\n) "), ""),
        ]
    )
    specials = [PAD, BOS, END, SYSTEM, USER, ASSISTANT, UNKNOWN, IMAGE]
    raw.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=512,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
