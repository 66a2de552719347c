"""A canary's prompt as the audited model reads it, worked out here.

The server could tell it too, but whoever stands between could answer in its place, and the token would be
bound to his prompt.
"""

from pathlib import Path
from typing import Any


class TokenizerError(ValueError):
    """The folder holds no tokenizer that can be used; the message names it and the fix."""


class ChatTokenizer:
    """Token ids of a chat whose only turn is the prompt."""

    def __init__(self, folder: Path) -> None:
        """Load the tokenizer in the folder; raises TokenizerError."""
        import transformers  # it takes seconds, and a bad setting must not wait for it

        try:
            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise TokenizerError(
                f"SUBTEXT_CANARY_TOKENIZER_DIR: {folder} holds no tokenizer ({error}): give the"
                " folder of the audited model"
            ) from error
        if self._tokenizer.chat_template is None:
            raise TokenizerError(
                f"SUBTEXT_CANARY_TOKENIZER_DIR: {folder} holds no chat template: add the one that is"
                " served, as chat_template.jinja"
            )

    def __call__(self, prompt: str) -> list[int]:
        """Return the ids, up to where the model would begin to answer."""
        return list(
            self._tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False
            )
        )
