"""``export``: samples in the layouts of other trainers."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from data_tools.program import Program, register
from varytoy.data.sample import Sample
from varytoy.data.samples import LLAVA_ROLES, read_samples, sample_files
from varytoy.data.shards import SUFFIX

_ROLES = {ours: theirs for theirs, ours in LLAVA_ROLES.items()}


def _llava(sample: Sample, paths: list[str]) -> dict:
    turns = [{"from": _ROLES[turn["role"]], "value": turn["content"]} for turn in sample.messages]
    images = {} if not paths else {"image": paths[0] if len(paths) == 1 else paths}
    return {"id": sample.id, **images, "conversations": turns}


def _messages(sample: Sample, paths: list[str]) -> dict:
    return {"messages": list(sample.messages), "images": paths}


LAYOUTS: Mapping[str, Callable[[Sample, list[str]], dict]] = {
    "llava": _llava,
    "ms-swift": _messages,
    "llama-factory": _messages,
}
"""Name -> (sample, paths of its images) -> row."""
_TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}


@register
class Export(Program):
    name = "export"
    help = "write samples in the layout of LLaVA, ms-swift or LLaMA-Factory"

    def options(self, parser):
        parser.add_argument("samples", type=Path, help="folder or .jsonl file")
        parser.add_argument("--layout", choices=sorted(LAYOUTS), required=True)
        help = (
            "file to write: .json, or .jsonl for ms-swift; paths of images are relative to its folder where they can be"
        )
        parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=help)

    def run(self, options):
        """Images stay where they are. For LLaMA-Factory ``dataset_info.json`` beside the file names the data set."""
        suffix = ".jsonl" if options.layout == "ms-swift" else ".json"
        if options.out.suffix != suffix:
            raise ValueError(f"--out {options.out}: a file of {options.layout} ends in {suffix}")
        if any(file.suffix == SUFFIX for file in sample_files(options.samples)):
            raise ValueError(f"{options.samples} has shards: images must be files, so unpack them with `mix` first")
        make, rows = LAYOUTS[options.layout], []
        for sample in read_samples(options.samples):
            if sample.target_images:
                raise ValueError(f"{sample.where}: images to generate have no place in the layout of {options.layout}")
            rows.append(make(sample, [_path(sample.folder / name, options.out.parent) for name in sample.images]))
        if not rows:
            raise ValueError(f"{options.samples} has no samples")
        options.out.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        whole = "\n".join(lines) if suffix == ".jsonl" else "[\n" + ",\n".join(lines) + "\n]"
        options.out.write_text(f"{whole}\n", encoding="utf-8")
        if options.layout == "llama-factory":
            _describe(options.out)
        print(f"{len(rows):,} samples in {options.out}")


def _path(image: Path, folder: Path) -> str:
    image, folder = image.resolve(), folder.resolve()
    return image.relative_to(folder).as_posix() if image.is_relative_to(folder) else str(image)


def _describe(out: Path) -> None:
    """Add the file to the ``dataset_info.json`` of its folder. Raises ValueError if that is not JSON."""
    file = out.with_name("dataset_info.json")
    try:
        known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{file} is not JSON ({error}): mend or move it") from error
    columns = {"messages": "messages", "images": "images"}
    known[out.stem] = {"file_name": out.name, "formatting": "sharegpt", "columns": columns, "tags": _TAGS}
    file.write_text(json.dumps(known, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
