"""``sharegpt`` and ``alpaca``: conversation without images, so that a model of images still answers text."""

from data_tools.importers.base import Dropped, Importer, read_records
from data_tools.program import register

_ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bing", "bard", "assistant"), "assistant"),
    "system": "system",
}


class _Texts(Importer):
    """Base of importers without images, whose records stand alone."""

    images = ""

    def groups(self, options):
        return ([entry] for entry in read_records(options.annotations, self.takes))


@register
class ShareGpt(_Texts):
    name = "sharegpt"
    help = "import text conversations in ShareGPT's form"
    licence = "unknown (conversations that users shared)"
    takes = "ShareGPT's conversations, a JSON list or JSON lines"

    def rows(self, entry, options):
        """The conversation from its first question to its last answer."""
        turns = entry.record.get("conversations") or entry.record["items"]
        messages = []
        for turn in turns:
            speaker = turn["from"]
            if speaker not in _ROLES:
                raise Dropped("turn of an unknown speaker", f"{str(speaker)[:80]!r} is not one of {', '.join(_ROLES)}")
            messages.append({"role": _ROLES[speaker], "content": turn["value"].strip()})
        system = messages[:1] if messages and messages[0]["role"] == "system" else []
        rest = messages[len(system) :]
        while rest and rest[0]["role"] != "user":
            rest = rest[1:]
        while rest and rest[-1]["role"] != "assistant":
            rest = rest[:-1]
        if not rest:
            raise Dropped("conversation without a question and an answer")
        if any(not message["content"] for message in rest):
            raise Dropped("conversation with an empty turn")
        if [message["role"] for message in rest] != ["user", "assistant"] * (len(rest) // 2):
            raise Dropped("conversation whose turns do not alternate")
        system = [message for message in system if message["content"]]
        row = {"task": "chat", "messages": system + rest, "images": []}
        yield row | ({"id": entry.record["id"]} if entry.record.get("id") else {})


@register
class Alpaca(_Texts):
    name = "alpaca"
    help = "import instructions in Alpaca's form"
    licence = "CC-BY-NC-4.0 (Alpaca)"
    takes = "alpaca_data.json, a JSON list or JSON lines of instruction, input and output"

    def rows(self, entry, options):
        instruction, given, output = (
            (entry.record.get(key) or "").strip() for key in ("instruction", "input", "output")
        )
        if not instruction or not output:
            raise Dropped("instruction or output that is empty")
        given = "" if given == "<noinput>" else given
        messages = [
            {"role": "user", "content": f"{instruction}\n\n{given}" if given else instruction},
            {"role": "assistant", "content": output},
        ]
        yield {"task": "chat", "messages": messages, "images": []}
