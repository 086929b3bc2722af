"""Tasks whose answer is a picture: text in it is erased, replaced or written."""

from varytoy.tasks.base import Task

BEGIN_OF_IMAGE = "<|beginofimage|>"
"""What the language model answers: the image decoder draws from the states before it (TextHarmony)."""


class DrawingTask(Task):
    """Base of these tasks. They are about a place in the image; only models with an image decoder do them."""

    view = "drawing"
    learned = True
    metric = "answers with a picture"

    def answer(self, truth="") -> str:
        return BEGIN_OF_IMAGE


class Erase(DrawingTask):
    """The picture without the text in the place."""

    name = "erase"
    prompts = (
        "Erase the text in the marked place.",
        "Remove the marked text from this image.",
        "Erase the marked words.",
        "Take the text in the box away.",
        "Make the marked text disappear.",
        "Clean the marked place of its text.",
        "Delete the text in the marked area.",
        "Remove the words in the box and restore the background.",
        "Wipe out the marked text.",
        "Fill the marked place with the background.",
    )


class Edit(DrawingTask):
    """The picture with other words in the place, in the style of those that stood there."""

    name = "edit"
    takes = "the words to write"
    prompts = (
        'Fill the masked part in this image with "{}".',
        'Replace the marked text by "{}".',
        'Change the marked words to "{}".',
        'Write "{}" in place of the marked text.',
        'Edit the marked place to say "{}".',
        'The marked text shall be "{}".',
        'Put "{}" where the marked text is.',
        'Let the marked place read "{}".',
        'Swap the text in the box for "{}".',
        'Rewrite the marked text as "{}".',
    )


class Write(DrawingTask):
    """The picture with words in a place where there were none."""

    name = "generate"
    takes = "the words to write"
    prompts = (
        'Write "{}" in the marked place.',
        'Add the text "{}" to this image.',
        'Draw the words "{}" in the box.',
        'Print "{}" on this image.',
        'Put the text "{}" in the empty place.',
        'Letter the marked place with "{}".',
        'Generate the words "{}" in the marked area.',
        'Place the text "{}" here.',
        'Add "{}" in the box.',
        'Let "{}" stand in the marked place.',
    )
