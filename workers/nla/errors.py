"""Errors of unusable decoders; every message names the field and the fix."""


class DecoderError(ValueError):
    """The decoder cannot be used."""


class MetaError(DecoderError):
    """A checkpoint's files are missing or broken, or do not belong together."""


class PromptError(DecoderError):
    """The tokenizer does not reproduce the prompt of the decoder's training."""


class CalibrationError(DecoderError):
    """The calibration is missing or broken, or belongs to another decoder."""
