"""What can be wrong with a decoder; every message names the field and the fix."""


class DecoderError(ValueError):
    """A decoder that cannot be used as it is."""


class MetaError(DecoderError):
    """Files of a checkpoint that are missing, broken or do not belong together."""


class PromptError(DecoderError):
    """A tokenizer that does not build the prompt of the decoder's training."""


class CalibrationError(DecoderError):
    """A calibration that is missing, broken or of another decoder."""
