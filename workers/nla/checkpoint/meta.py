"""`nla_meta.yaml`: the metadata of one half of an NLA pair, in the official format.

These are the keys of schema_version 2. Version 1 differs only in names, and both names are read.
docs/decisions/0007-official-format.md lists where the official code and documents disagree.

    kind: nla_model
    schema_version: 2                    # optional: the released client ignores it
    role: av | ar                        # also actor | critic, the trainer's names
    base_checkpoint: name of the audited model
    d_model: 3584
    extraction_layer_index: 20           # K: the output of block K (released pairs; optional)
    extraction:
      layer_index: 20                    # K again (optional; every K in the file must agree)
      injection_scale: 150.0 | sqrt_d_model | raw   # L2 norm of the injected vector; null in an AR
      mse_scale: 59.87 | sqrt_d_model | raw         # the AR's training loss; cancels out of every figure
    tokens:                              # the injection, used by the AV only
      injection_char: "㈎"               # one token whose embedding the vector replaces
      injection_token_id: 149705
      injection_left_neighbor_id: 29     # the tokens beside it in the finished prompt
      injection_right_neighbor_id: 522
      critic_suffix_ids: [1318, 29]      # AR: how its prompt must end; may be null in an AV
    prompt_templates:
      av: "... {injection_char} ..."     # also `actor`; one user turn of the chat template
      ar: "... {explanation} ..."        # also `critic`; plain text, read at its last token
    critic: {extraction_layer_index: 20} # also `ar`, also num_hidden_layers; always K, not K+1

Subtext adds these optional keys, see docs/decisions/0008-pair-format.md:

    projector: {file: projector.safetensors, rows: 8, scale: 0.03, mean: mean}   # AV: 8 soft tokens
    labels: {file: labels.safetensors, names: labels.json}                       # AV: fills {labels}
    prompt_templates:
      av: '... {injection_char} Token:{token} ... {labels} Expects "'   # {token}: id of the read token
      ar: "... {explanation}{token}"     # the AR is read at this token
      chat: false                        # av is the whole prompt, with its special tokens
      end: "<|endoftext|>"               # ends the AV's answer instead of </explanation>
      date: 2026-03-01                   # for a chat template that prints today's date

The same folder holds `config.json`, the weights, the tokenizer and, for an AR, `value_head.safetensors`.
"""

import datetime as dt
import string
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

import yaml
from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from workers.nla.claims import EXPECTS
from workers.nla.errors import MetaError

FILE = "nla_meta.yaml"
SCHEMA_VERSIONS = (1, 2)
Role = Literal["av", "ar"]
_NEIGHBORS = ("injection_left_neighbor_id", "injection_right_neighbor_id")
_ROLES: dict[str, Role] = {"av": "av", "actor": "av", "ar": "ar", "critic": "ar"}


class _Part(BaseModel):
    # Released files carry training keys that inference does not need.
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, populate_by_name=True)


TokenId = Annotated[int, Field(ge=0)]
# Not strict: YAML writers turn 150.0 into 150, and YAML reads 1e5 as text.
Number = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=False)]
Scale = Number | Literal["sqrt_d_model", "raw", "none"]


class Extraction(_Part):
    """The layer that vectors come from, and the norms in injection and loss."""

    layer_index: int | None = Field(None, ge=0, description="the layer K that was read")
    injection_scale: Scale | None = Field(
        None, description="the L2 norm at which the AV takes vectors: a number, sqrt_d_model or raw"
    )
    mse_scale: Scale | None = Field(
        "sqrt_d_model", description="the L2 norm in the AR's loss: a number, sqrt_d_model or raw"
    )


class Tokens(_Part):
    """Token ids that training fixed."""

    injection_char: str | None = Field(
        None, min_length=1, description="the character that the vector replaces"
    )
    injection_token_id: TokenId | None = Field(None, description="the id of injection_char")
    injection_left_neighbor_id: TokenId | None = Field(None, description="the id before it in the prompt")
    injection_right_neighbor_id: TokenId | None = Field(None, description="the id after it in the prompt")
    critic_suffix_ids: list[TokenId] | None = Field(None, description="the last ids of every AR prompt")


FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]


class ProjectorFile(_Part):
    """File and parameters of the projector; see `workers.nla.checkpoint.projector`."""

    file: FileName = Field(description="the projector's file, beside nla_meta.yaml")
    rows: int = Field(gt=0, le=64, description="how many soft tokens a vector becomes")
    scale: Number = Field(description="what the centred unit vector is divided by")
    mean: str = Field("mean", min_length=1, description="the tensor that holds the mean direction")


class LabelFiles(_Part):
    """Files of the label head; see `workers.nla.checkpoint.labels`."""

    file: FileName = Field(description="the label head's weights, beside nla_meta.yaml")
    names: FileName = Field(description="what the label head's outputs are called, beside nla_meta.yaml")


class Injection(NamedTuple):
    """The token that the vector replaces, and its neighbours in the prompt."""

    char: str
    token_id: int
    left_neighbor_id: int
    right_neighbor_id: int


class Templates(_Part):
    """The prompt templates of the training."""

    av: str | None = None
    ar: str | None = None
    chat: bool = Field(default=True, description="whether av is one user turn of the chat template")
    end: str | None = Field(None, min_length=1, description="the token that ends the AV's answer")
    date: dt.date | None = Field(None, description="what a chat template that prints today's date prints")

    @model_validator(mode="before")
    @classmethod
    def _read_both_names(cls, content: Any) -> Any:
        # The old name applies when the new one is empty, as in the official code.
        if not isinstance(content, dict):
            return content
        names = {"av": "actor", "ar": "critic"}
        both = {new: content.get(new) or content.get(old) for new, old in names.items()}
        return both | {name: content[name] for name in ("chat", "end", "date") if name in content}


class Truncation(_Part):
    """The depth of the AR, given as the layer K that it predicts."""

    layer: int | None = Field(
        None, ge=0, validation_alias=AliasChoices("extraction_layer_index", "num_hidden_layers")
    )


class Meta(_Part):
    """One validated `nla_meta.yaml`."""

    kind: Literal["nla_model"] = Field(description="nla_model, for a checkpoint (not a data set)")
    schema_version: Literal[1, 2] = Field(2, description="the version of the format, 1 or 2")
    role: Annotated[Role, BeforeValidator(lambda role: _ROLES.get(role, role))] = Field(
        description="av (actor) or ar (critic)"
    )
    base_checkpoint: str = Field(min_length=1, description="the name of the audited model")
    d_model: int = Field(gt=0, description="the width of the audited model's residual stream")
    extraction_layer_index: int | None = Field(None, ge=0)
    extraction: Extraction = Field(default_factory=lambda: Extraction.model_validate({}))
    tokens: Tokens = Field(default_factory=lambda: Tokens.model_validate({}))
    prompt_templates: Templates = Field(description="the prompts of the AV and the AR")
    projector: ProjectorFile | None = None
    labels: LabelFiles | None = None
    ar: Truncation | None = None
    critic: Truncation | None = None

    @property
    def layer(self) -> int | None:
        """K, or None when this file does not give it; the other half or the AR's depth may."""
        return next(iter(self._layers().values()), None)

    @property
    def extra_files(self) -> list[str]:
        """Names of the AV's files that are not part of a standard checkpoint."""
        projector = [self.projector.file] if self.projector else []
        return projector + ([self.labels.file, self.labels.names] if self.labels else [])

    @property
    def injection(self) -> Injection:
        """The AV's injection token and its neighbours; MetaError names a missing key."""
        names = ("injection_char", "injection_token_id", *_NEIGHBORS)
        values = {name: getattr(self.tokens, name) for name in names}
        for name, value in values.items():
            if value is None:
                purpose = Tokens.model_fields[name].description
                raise MetaError(
                    f"tokens.{name}: missing; add it: it is {purpose}; without it nothing tells whether the"
                    " vector goes to its place"
                )
        return Injection(*values.values())

    @property
    def injection_scale(self) -> float | None:
        """The L2 norm of injected vectors, or None when they are injected unscaled.

        Raises MetaError when the key is missing, as in files of an AR.
        """
        scale = self.extraction.injection_scale
        if scale is None:
            raise MetaError(
                "extraction.injection_scale: missing; an AV needs the norm that it was trained with"
                " (Qwen2.5-7B: 150.0, Gemma 3 12B: 80000.0), or raw if it was trained on vectors as they"
                " are; ask its publisher"
            )
        return _resolve(scale, self.d_model)

    @property
    def mse_scale(self) -> float | None:
        """The L2 norm of both sides in the AR's loss, or None when the loss includes magnitudes."""
        scale = self.extraction.mse_scale
        return None if scale is None else _resolve(scale, self.d_model)

    def _layers(self) -> dict[str, int]:
        named = {
            "extraction.layer_index": self.extraction.layer_index,
            "extraction_layer_index": self.extraction_layer_index,
            "ar.extraction_layer_index": self.ar.layer if self.ar else None,
            "critic.extraction_layer_index": self.critic.layer if self.critic else None,
        }
        return {name: layer for name, layer in named.items() if layer is not None}


def _resolve(scale: Scale, d_model: int) -> float | None:
    if scale == "sqrt_d_model":
        return float(d_model**0.5)
    return None if isinstance(scale, str) else scale


def load_meta(checkpoint: Path, role: Role) -> Meta:
    """Read and validate the `nla_meta.yaml` of a checkpoint directory with the given role.

    Raises MetaError naming the file, the field and the fix.
    """
    path = checkpoint / FILE
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MetaError(f"{path}: missing; it ships with the checkpoint, ask its publisher") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MetaError(f"{path}: not YAML ({error}); copy it again from its publisher") from error
    try:
        return parse_meta(content, role)
    except MetaError as error:
        raise MetaError(f"{path}: {error}") from None


def parse_meta(content: Any, role: Role) -> Meta:
    """Validate the content of a `nla_meta.yaml` with the given role; MetaError names the field."""
    if not isinstance(content, dict):
        raise MetaError("the whole file: expected keys and values; copy it again from its publisher")
    try:
        meta = Meta.model_validate(content)
    except ValidationError as error:
        raise MetaError(_describe(error)) from None
    _check_role(meta, role)
    return meta


def _check_role(meta: Meta, role: Role) -> None:
    layers = meta._layers()  # noqa: SLF001 - the same module's own model
    if len(set(layers.values())) > 1:
        raise MetaError(f"{', '.join(layers)}: name different layers {layers}; ask the publisher which")
    if meta.role != role:
        raise MetaError(
            f"role: is {meta.role!r} where {role!r} belongs; the verbalizer goes to av/, the"
            " reconstructor to ar/"
        )
    if role == "av":
        _check_verbalizer(meta)
    else:
        split_template("ar", meta.prompt_templates.ar)


def _check_verbalizer(meta: Meta) -> None:
    pieces = split_template("av", meta.prompt_templates.av)
    _ = meta.injection
    if meta.projector is None:
        _ = meta.injection_scale
    if meta.prompt_templates.chat and (TOKEN in pieces or LABELS in pieces):
        raise MetaError(
            "prompt_templates.chat: must be false where av holds {token} or {labels}; write the whole"
            " prompt out, with its special tokens"
        )
    if (LABELS in pieces) != (meta.labels is not None):
        found, lacking = (
            ("{labels} in av", "section") if LABELS in pieces else ("the section", "{labels} in av")
        )
        raise MetaError(
            f"labels: there is {found} and no {lacking}; add the section labels: {{file, names}} and"
            " {labels} to prompt_templates.av, or remove both"
        )
    if meta.labels is None:
        return
    if meta.prompt_templates.end is None:
        raise MetaError("prompt_templates.end: missing; add it: it is the token that ends the AV's answer")
    if meta.projector is None:
        raise MetaError("projector: missing; add it: labels are told from vectors that it has centred")
    if pieces[-2:] != [LABELS, Piece(EXPECTS)]:
        raise MetaError(
            f"prompt_templates.av: must end with '{{labels}}{EXPECTS}'; what the AV writes continues that"
        )


class Piece(NamedTuple):
    """A part of a template: literal text, or the name of a placeholder."""

    value: str
    is_place: bool = False


INJECTION, TOKEN, LABELS = (Piece(name, is_place=True) for name in ("injection_char", "token", "labels"))
_PLACES: dict[Role, dict[str, bool]] = {
    "av": {"injection_char": True, "token": False, "labels": False},
    "ar": {"explanation": True, "token": False},
}
"""The placeholders of each template, and whether each is required."""


def split_template(role: Role, template: str | None) -> list[Piece]:
    """Return a template's pieces in order.

    MetaError names a placeholder that is missing, unknown, repeated or in the wrong place.
    """
    field, places = f"prompt_templates.{role}", _PLACES[role]
    if template is None:
        raise MetaError(f"{field}: missing; it is the exact prompt of the {role.upper()}'s training")
    try:
        pieces = _parse(template, places)
    except ValueError as error:
        names = " and ".join(f"{{{name}}}" for name in places)
        raise MetaError(
            f"{field}: has a placeholder other than {names} ({error}); double other braces"
        ) from None
    for name, needed in places.items():
        count = pieces.count(Piece(name, is_place=True))
        if count > 1 or count < needed:
            expected = "exactly once" if needed else "at most once"
            raise MetaError(f"{field}: must hold {{{name}}} {expected}, holds it {count} times")
    if role == "ar" and TOKEN in pieces[:-1]:
        raise MetaError(f"{field}: must end with {{token}}; the vector is read at that token")
    return pieces


def _parse(template: str, places: Iterable[str]) -> list[Piece]:
    pieces: list[Piece] = []
    for text, name, style, conversion in string.Formatter().parse(template):
        if text and pieces and not pieces[-1].is_place:
            pieces[-1] = Piece(pieces[-1].value + text)  # the parser splits literal text at doubled braces
        elif text:
            pieces.append(Piece(text))
        if name is None:
            continue
        if name not in places or style or conversion:
            raise ValueError(repr(name))
        pieces.append(Piece(name, is_place=True))
    return pieces


def _describe(error: ValidationError) -> str:
    """Return a message about the first invalid field, with the field's purpose."""
    first = error.errors()[0]
    names = [part for part in first["loc"] if isinstance(part, str) and part.isidentifier()]
    field, purpose = ".".join(names), _purpose(names)
    if first["type"] == "missing":
        return f"{field}: missing; add it{purpose}"
    return f"{field}: {first['msg'].lower()}, got {first['input']!r}; correct it{purpose}"


def _purpose(names: list[str]) -> str:
    model: Any = Meta
    description = None
    for name in names:
        if name not in getattr(model, "model_fields", {}):
            break
        info = model.model_fields[name]
        description = info.description
        parts = [part for part in get_args(info.annotation) if hasattr(part, "model_fields")]
        model = parts[0] if parts else info.annotation
    return f": it is {description}" if description else ""
