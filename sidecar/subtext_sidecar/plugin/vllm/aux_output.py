"""Switch the model's auxiliary hidden states on and off; both runner generations do it alike."""

from typing import Any

from subtext_sidecar.plugin.step import CaptureError


class AuxOutput:
    """The switch of one runner. Half on would break the unpacking of every forward pass."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner

    def enable(self, aux_layer: int) -> None:
        """Make the model return the residual stream that enters block ``aux_layer``.

        After the runner's load_model, and before profiling, compilation and graph capture. Raises,
        with nothing changed, when the runner already uses this output itself.
        """
        if self._runner.use_aux_hidden_state_outputs:
            raise CaptureError("the runner's auxiliary hidden states are already in use")
        try:
            self._runner.get_model().set_aux_hidden_state_layers((aux_layer,))
            self._runner.use_aux_hidden_state_outputs = True
        except Exception:
            self.disable()
            raise

    def disable(self) -> None:
        """Return the model to a single output."""
        self._runner.use_aux_hidden_state_outputs = False
        self._runner.get_model().set_aux_hidden_state_layers(())
