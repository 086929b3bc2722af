"""Interface of the models that are asked."""

from pathlib import Path

from data_tools.square.replies import Ask, Reply


class BackendError(Exception):
    """A request that failed.

    Attributes:
        final: each other one would fail too, e.g. for a wrong key.
        refused: it would fail again, e.g. for what the picture shows: its reply is empty.
    """

    def __init__(self, message: str, final: bool = False, refused: bool = False):
        super().__init__(message)
        self.final, self.refused = final, refused


class Backend:
    """A model that replies.

    Attributes:
        name: for the files; without secrets.
        concurrency: requests that it takes at once.
        needs_picture: it takes no prompt without a picture.
    """

    name: str
    concurrency: int = 1
    needs_picture: bool = False

    def reply(self, ask: Ask, prompt: str, image: Path | None, temperature: float, seed: int) -> Reply:
        """The reply to a prompt about a picture. Called from several threads at once.

        Raises:
            BackendError: there is none.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Release what it holds."""
