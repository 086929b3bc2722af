"""Models that are asked: behind an API, on this machine, and one that is scripted."""

from data_tools.square.backends.base import Backend, BackendError

__all__ = ["Backend", "BackendError", "choose"]

BACKENDS = "openai:URL, scripted, scripted:wrong=0.3,…, nano, a folder, or a hub name"


def choose(name: str, model: str = "", concurrency: int = 4, timeout: float = 120.0) -> Backend:
    """The backend that the command line names.

    Raises:
        ValueError: there is none of that name, or something it needs is missing.
    """
    kind, _, rest = name.partition(":")
    if kind == "openai":
        from data_tools.square.backends.served import ServedBackend

        return ServedBackend(rest, model, concurrency, timeout)
    if model:
        raise ValueError(f"--model is for --backend openai:URL: {name} is one model")
    if kind == "scripted":
        from data_tools.square.backends.scripted import Scripted

        return Scripted.parse(rest)
    from data_tools.square.backends.local import open_local

    return open_local(name)
