"""VaryProcessor: images and conversations -> tensors; labels are created together with the tokens."""

import re
from collections.abc import Sequence

import torch
from PIL import Image
from transformers import BatchFeature, ProcessorMixin

from varytoy.data.documents import to_rgb
from varytoy.data.sample import IMAGE_PLACEHOLDER
from varytoy.models.config import VaryConfig, read_preset
from varytoy.processing.chat_template import Special, read_template, render, special_tokens
from varytoy.processing.images import VaryImageProcessor
from varytoy.processing.messages import ChatText, Message, open_image, read_chat
from varytoy.processing.plan import ImagePlan
from varytoy.processing.tiling import WHOLE, Tiling
from varytoy.processing.tokenizer import add_image_tokens, character_tokenizer
from varytoy.tasks import find_prompt

IGNORED = -100
_HALF = re.compile("[\ud800-\udfff]")
_OPEN, _CLOSED, _CONTINUED = "open", "closed", "continued"
"""How a conversation ends: with an opened turn of the assistant, with its last message, or within that."""


class VaryProcessor(ProcessorMixin):
    """Image processor, tokenizer and prompt template of one checkpoint.

    Args:
        template: ``"chatml"`` (Qwen; no newline after ``<|im_end|>``), ``"compact"`` (the same without roles),
            ``"vicuna"`` (the OPT vocabulary stage) or ``"jinja"`` for ``chat_template``.
        chat_template: a Jinja template (varytoy.processing.chat_template). One that comes with a stock tokenizer is not
            the model's and is dropped.
        system: the system text; empty for none.
        places: number of ``<y_n>`` and of ``<x_n>`` tokens, 0 for none. A model trained with them writes the position
            of each line and word before it, which keeps it from losing its place; ``decode_text`` drops them.
        place_size: step between them in pixels (vertical, horizontal) of the image at the model's size.
        prompts: task -> prompt, if the model was trained on other prompts than the tasks' own; it knows only these.
        learned: tasks that few models know, such as music, and that this one was trained on; training adds to it.
    """

    def __init__(
        self,
        image_processor=None,
        tokenizer=None,
        template: str = "chatml",
        system: str = "",
        places: int = 0,
        place_size: Sequence[int] = (16, 16),
        prompts: dict[str, str] | None = None,
        learned: Sequence[str] = (),
        chat_template: str | None = None,
        **kwargs,
    ):
        self.prompts, self.learned = dict(prompts or {}), list(learned)
        self.template, self.system, self.places, self.place_size = template, system, places, tuple(place_size)
        if template == "jinja" and not isinstance(chat_template, str):
            raise ValueError("the template is 'jinja', but there is no chat_template (chat_template.jinja)")
        if tokenizer is not None:
            tokenizer.chat_template = None
        chat_template = chat_template if template == "jinja" else None
        super().__init__(image_processor, tokenizer, chat_template=chat_template, **kwargs)

    takes_place = False
    """Whether a prompt can name the part of the image to look at; else ``Reader`` cuts it out."""

    @classmethod
    def preset(cls, name: str, tokenizer=None) -> "VaryProcessor":
        """The processor of a preset. Those without a character set need their family's tokenizer, to which
        missing image tokens are added.

        Raises:
            ValueError: the preset is unknown, or needs a tokenizer and got none, or one of another family.
        """
        chosen, config = dict(read_preset(name)["processor"]), VaryConfig.preset(name)
        characters = chosen.pop("characters", None)
        if tokenizer is None:
            if characters is None:
                raise ValueError(f"the preset '{name}' needs a tokenizer: give the folder of one")
            tokenizer = character_tokenizer(characters, config.text_config.vocab_size, chosen.get("places", 0))
        else:
            add_image_tokens(tokenizer, config.image_token_id, config.text_config.vocab_size)
        if chosen.get("template", "chatml") in ("chatml", "compact"):
            if "<|im_end|>" not in tokenizer.get_vocab():
                raise ValueError(f"the preset '{name}' needs a tokenizer with <|im_start|> and <|im_end|>, as Qwen's")
            tokenizer.eos_token = "<|im_end|>"
        return cls(VaryImageProcessor(**chosen.pop("image_processor")), tokenizer, **chosen)

    @staticmethod
    def get_possibly_dynamic_module(module_name: str):
        """Name -> class; transformers 5.23 cannot look up an image processor that was registered from outside."""
        if module_name == VaryImageProcessor.__name__:
            return VaryImageProcessor
        return ProcessorMixin.get_possibly_dynamic_module(module_name)

    def __call__(
        self,
        text: str | Sequence[str] | Sequence[Sequence[Message]] | None = None,
        images: Image.Image | Sequence[Image.Image] | Sequence[Sequence[Image.Image]] | None = None,
        view: str | Sequence[str] | None = None,
        train: bool = False,
        fit: bool | None = None,
        ending: str = _OPEN,
        return_tensors: str | None = "pt",
        padding: bool | str = True,
        tilings: Sequence[Tiling] | None = None,
    ) -> BatchFeature:
        """A batch of conversations.

        Args:
            text: a prompt, or a list of prompts, or a list of conversations (lists of messages). A prompt without
                ``<image>`` gets its images in front. Results of ``apply_chat_template`` are used unchanged.
            images: one image, or one for each prompt, or a list of images for each conversation; PIL images, or what
                ``varytoy.processing.messages.open_image`` takes.
            view: ``"text"`` or ``"picture"``, one for all or one for each conversation; by default that of the task
                whose prompt it is, ``"text"`` for other prompts.
            train: make ``labels`` and pad right; otherwise open the assistant's turn and pad left.
            fit: scale text to the size that the model reads best, as ``Reader`` does; by default unless ``train``.
            ending: how a conversation that is not trained on ends: ``"open"`` (the assistant's turn is opened),
                ``"closed"`` or ``"continued"`` (the last message stays open).
            tilings: of the images of each conversation; by default each image is one tile.
            return_tensors, padding: for transformers; the result is always padded PyTorch tensors.

        Raises:
            ValueError: placeholders and images do not match, or there is no text.
        """
        if return_tensors not in (None, "pt") or padding not in (True, "longest"):
            raise ValueError("batches are padded tensors of PyTorch: leave return_tensors and padding out")
        if text is None:
            raise ValueError("text is missing: give a prompt, e.g. text='OCR this image.'")
        conversations, image_lists = _conversations(text, images)
        chats = [
            (entry.ending, entry.template) if isinstance(entry, ChatText) else (ending, None) for entry in _listed(text)
        ]
        views = [view] * len(conversations) if view is None or isinstance(view, str) else list(view)
        if len(views) != len(conversations):
            raise ValueError(f"{len(conversations)} prompts but {len(views)} views")
        views = [choice or _view_of(messages) for choice, messages in zip(views, conversations, strict=True)]
        groups: list[list[tuple[Image.Image, ImagePlan]]] = []
        for choice, group, tiling in zip(views, image_lists, tilings or [WHOLE] * len(views), strict=True):
            fits = choice == "text" and (not train if fit is None else fit)
            images = [self.image_processor.fit(to_rgb(image)) if fits else to_rgb(image) for image in group]
            groups.append([(image, self.image_processor.plan(image.size, choice, tiling)) for image in images])
        rows = [
            self.encode(messages, [plan for _, plan in group], train, *chat)
            for messages, group, chat in zip(conversations, groups, chats, strict=True)
        ]
        return self.batch(rows, [pair for group in groups for pair in group], train)

    def batch(
        self, rows: Sequence[tuple[list, list]], images: Sequence[tuple[Image.Image, ImagePlan]], train: bool
    ) -> BatchFeature:
        """The tensors of encoded conversations and of their RGB images, which keep the order of the conversations."""
        batch = self.image_processor(*zip(*images, strict=True)) if images else BatchFeature()
        batch.update(self.pad(rows, train))
        return batch

    def apply_chat_template(
        self,
        conversation: Sequence[dict] | Sequence[Sequence[dict]],
        chat_template: str | None = None,
        tokenize: bool = False,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        return_dict: bool = False,
        return_tensors: str | None = "pt",
        processor_kwargs: dict | None = None,
        **kwargs,
    ) -> ChatText | list[ChatText] | BatchFeature | torch.Tensor:
        """transformers' chat messages (varytoy.processing.messages), one conversation or a batch, as text, or with
        ``tokenize`` as the tensors of ``__call__``, which takes ``processor_kwargs`` and ``kwargs``.

        Special tokens in message contents are plain characters.

        Args:
            chat_template: Jinja; replaces the checkpoint's own.

        Raises:
            ValueError: a message or part is not valid in a chat, or the template cannot be rendered.
        """
        single = bool(conversation) and isinstance(conversation[0], dict)
        if add_generation_prompt and continue_final_message:
            raise ValueError("add_generation_prompt opens a new turn, continue_final_message goes on: give one of them")
        if return_tensors not in (None, "pt", "auto"):
            raise ValueError(f"return_tensors is '{return_tensors}': tensors are PyTorch's, 'pt'")
        if not tokenize and kwargs:
            raise TypeError(f"without tokenize=True these options change nothing: {', '.join(sorted(kwargs))}")
        chats = [read_chat(chat) for chat in ([conversation] if single else conversation)]
        ending = _CONTINUED if continue_final_message else _OPEN if add_generation_prompt else _CLOSED
        if not tokenize:
            texts = [
                ChatText.of(self._written(messages, ending, chat_template), messages, ending, chat_template)
                for messages, _ in chats
            ]
            return texts[0] if single else texts
        options = {**(processor_kwargs or {}), **kwargs, "return_tensors": None if return_tensors == "auto" else "pt"}
        texts = [ChatText.of("", messages, ending, chat_template) for messages, _ in chats]
        batch = self(texts, [images for _, images in chats], **options)
        return batch if return_dict else batch["input_ids"]

    def _written(self, messages: Sequence[Message], ending: str, chat_template: str | None) -> str:
        """A conversation as readable text; ``<image>`` stands for the image tokens."""
        return "".join(str(piece) for piece, _ in self._pieces(messages, ending, chat_template))

    def encode(
        self,
        messages: Sequence[Message],
        plans: Sequence[ImagePlan],
        train: bool,
        ending: str = _OPEN,
        chat_template: str | None = None,
    ) -> tuple[list, list]:
        """One conversation with the plans of its images -> (ids, labels), of equal length; labels are -100 outside
        the assistant's turns.

        An assistant's content may be a list of texts and ``Special`` tokens.
        """
        ids: list[int] = []
        labels: list[int] = []
        counts = (plan.tokens for plan in plans)
        for piece, target in self._pieces(messages, _CLOSED if train else ending, chat_template):
            new: list[int] = []
            whole = target or isinstance(piece, Special)
            for number, part in enumerate([piece] if whole else piece.split(IMAGE_PLACEHOLDER)):
                if number:
                    count = next(counts, None)
                    if count is None:
                        raise ValueError(f"more '{IMAGE_PLACEHOLDER}' in the messages than images")
                    new += self._special("<img>") + self._special("<imgpad>") * count + self._special("</img>")
                new += self._special(part) if isinstance(part, Special) else self._plain(part)
            ids += new
            labels += new if target else [IGNORED] * len(new)
        answers = any(message["role"] == "assistant" for message in messages)
        if train and answers and all(label == IGNORED for label in labels):
            raise ValueError("the chat template has no {% generation %} block around what the assistant writes")
        if next(counts, None) is not None:
            raise ValueError(f"more images than '{IMAGE_PLACEHOLDER}' in the messages")
        return ids, labels

    def place(self, axis: str, pixels: float) -> Special:
        """The token of a position on the axis ``"y"`` or ``"x"`` of the image at the model's size."""
        number = int(pixels / self.place_size["yx".index(axis)])
        return Special(f"<{axis}_{min(max(number, 0), self.places - 1)}>")

    @property
    def place_tokens(self) -> dict[int, tuple[str, float]]:
        """Ids of the tokens that ``place`` gives -> the axis, and the middle of the position in pixels."""
        places = [
            (axis, (number + 0.5) * size)
            for axis, size in zip("yx", self.place_size, strict=True)
            for number in range(self.places)
        ]
        return {self.tokenizer.convert_tokens_to_ids(str(self.place(*place))): place for place in places}

    def decode_text(self, ids: Sequence[int]) -> str:
        """Generated ids -> text, special tokens left out."""
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _pieces(
        self, messages: Sequence[Message], ending: str, chat_template: str | None = None
    ) -> list[tuple[str, bool]]:
        """(text, whether it is a target) in order; special tokens are ``Special``, never text of a message."""
        if self.system and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": self.system}, *messages]
        if not isinstance(chat_template, str | None):
            raise ValueError(f"chat_template is Jinja text, not {type(chat_template).__name__}")
        own = self.chat_template if self.template == "jinja" else read_template(self.template)
        return render(
            chat_template or own,
            messages,
            special_tokens(self.tokenizer),
            opened=ending == _OPEN,
            continued=ending == _CONTINUED,
            **{name: str(token) for name, token in self.tokenizer.special_tokens_map.items()},
        )

    def _plain(self, text: str) -> list[int]:
        """Ids of message text: special tokens in it are plain characters."""
        half = _HALF.search(text)
        if half:
            raise ValueError(f"the text holds {half[0]!r}, which is half a character: write the whole, or leave it out")
        return self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True) if text else []

    def _special(self, token: str) -> list[int]:
        number = self.tokenizer.convert_tokens_to_ids(token)
        if number is None or number == self.tokenizer.unk_token_id:
            raise ValueError(f"the tokenizer has no token {token}")
        return [number]

    def pad(self, rows: Sequence[tuple[list, list]], train: bool) -> dict[str, torch.Tensor]:
        """Rows of ``encode`` as one batch: input_ids, attention_mask and, with ``train``, labels, each [B, T]."""
        longest = max(len(ids) for ids, _ in rows)
        batch = {
            "input_ids": torch.full((len(rows), longest), self.tokenizer.pad_token_id),
            "attention_mask": torch.zeros(len(rows), longest, dtype=torch.long),
        }
        if train:
            batch["labels"] = torch.full((len(rows), longest), IGNORED)
        for number, (ids, labels) in enumerate(rows):
            span = slice(0, len(ids)) if train else slice(longest - len(ids), longest)
            batch["input_ids"][number, span] = torch.tensor(ids)
            batch["attention_mask"][number, span] = 1
            if train:
                batch["labels"][number, span] = torch.tensor(labels)
        return batch


def _view_of(messages: Sequence[Message]) -> str:
    """The view of the task whose prompt the last user turn is; ``"text"`` for other prompts."""
    prompts = [message["content"] for message in messages if message["role"] == "user"]
    last = prompts[-1] if prompts and isinstance(prompts[-1], str) else ""
    known = find_prompt(last.replace(IMAGE_PLACEHOLDER, "").strip())
    return known[0].view if known else "text"


def _is_single(text) -> bool:
    """Whether it is one prompt or one conversation, not a list of them."""
    return isinstance(text, str) or (len(text) > 0 and isinstance(text[0], dict))


def _listed(text) -> list:
    return [text] if _is_single(text) else list(text)


def _conversations(text, images) -> tuple[list[list[Message]], list[list[Image.Image]]]:
    """Convert every accepted form to a list of conversations and a list of image lists."""
    if _is_single(text):
        text, images = [text], [images] if images is not None else None
    elif images is not None and not isinstance(images, (list, tuple)):
        images = [images]
    if not len(text):
        raise ValueError("text is empty: give a prompt, e.g. text='OCR this image.'")
    groups = (
        [[]] * len(text)
        if images is None
        else [
            [open_image(image) for image in (group if isinstance(group, (list, tuple)) else [group])]
            for group in images
        ]
    )
    if len(groups) != len(text):
        raise ValueError(f"{len(text)} prompts but images for {len(groups)}")
    conversations = []
    for entry, group in zip(text, groups, strict=True):
        if isinstance(entry, ChatText):
            entry = entry.messages
        elif isinstance(entry, str):
            if entry.startswith("<|im_start|>"):
                raise ValueError(
                    "the text is a rendered chat: give apply_chat_template's result unchanged, or the words alone"
                )
            if IMAGE_PLACEHOLDER not in entry:
                entry = f"{IMAGE_PLACEHOLDER}\n" * len(group) + entry
            entry = [{"role": "user", "content": entry}]
        conversations.append(list(entry))
    return conversations, groups
