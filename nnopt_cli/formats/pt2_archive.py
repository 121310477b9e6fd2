"""What lies in a `.pt2` archive, by allow-list: every member has a known role, or the file is refused.

Refused are the roles through which a file could run something: pickled weights, constants and custom
objects, and compiled libraries. Sample inputs, which are always a pickle, are never opened.
Source of the names: `torch/csrc/export/pt2_archive_constants.h`, and `torch/export/pt2_archive/_package.py`.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nnopt_cli.errors import UnreadableError
from nnopt_cli.formats.dtypes import DType
from nnopt_cli.formats.pt2_payload import Payload, payload_of
from nnopt_cli.formats.pt2_records import RefusedError, parse
from nnopt_cli.formats.pt2_schema import PAYLOADS
from nnopt_cli.formats.weight import InputFile
from nnopt_cli.formats.zip_read import Member, members_of

RECORD = "nnopt.json"  # among the extra files: a JSON object of the nnopt.* strings
_TEXT = 64 << 20  # bytes of a program or a table of weights
_EXTRA = 16 << 20  # bytes of all extra files together
_NAME = r"[\w.+@-]{1,200}"
_AGAIN = "Load it with torch.export.load, if you trust it, and save it again with torch.export.save"

_SMALL = {"archive_format", "archive_version", "byteorder", "version", ".data/version", ".format_version"}
_SMALL |= {".data/serialization_id", ".storage_alignment", ".data/archive_version"}
_KNOWN = re.compile(
    rf"models/(?P<model>{_NAME})\.json"
    rf"|data/weights/(?P<weights>{_NAME})_weights_config\.json"
    rf"|data/constants/(?P<constants>{_NAME})_constants_config\.json"
    r"|data/weights/weight_\d{1,9}|data/constants/tensor_\d{1,9}"
    rf"|data/sample_inputs/(?P<sample>{_NAME})\.pt"
    r"|extra/(?P<extra>.{1,500})",
    re.ASCII | re.DOTALL,
)
_DANGEROUS = (  # how a name begins or ends, what it is, and what to do
    (
        r"data/aotinductor/.*",
        "a compiled library, which runs as soon as it is loaded",
        "Save the exported program itself with torch.export.save, not with aoti_compile_and_package.",
    ),
    (
        r"data/(weights|constants)/.*\.pt",
        "a pickle, as PyTorch 2.8 and older wrote them",
        f"{_AGAIN} of a newer PyTorch.",
    ),
    (
        r"data/constants/(custom_obj|opaque_obj)_.*",
        "a pickled object of a custom class",
        "Export the model without TorchBind and other custom objects.",
    ),
    (r".*\.(so|dll|dylib|cubin|ptx|spv)", "compiled code", "Save the exported program alone."),
    (r"(data/)?executorch/.*", "an ExecuTorch program", "Save the exported program alone."),
)


@dataclass(frozen=True)
class Archive:
    """A `.pt2` file whose members all passed.

    Attributes:
        file: the file.
        model: what the program in it is called.
        program: the member that holds it.
        weights: the state dict, in the file's order.
        constants: other tensors: constants, and buffers that a state dict leaves out.
        extra: extra files that are text, by name, without nnopt's own.
        record: nnopt's own strings.
        samples: whether sample inputs are there.
        notes: what was left out.
    """

    file: InputFile
    model: str
    program: Member
    weights: Mapping[str, Payload]
    constants: Mapping[str, Payload]
    extra: Mapping[str, str] = field(default_factory=dict)
    record: Mapping[str, str] = field(default_factory=dict)
    samples: bool = False
    notes: tuple[str, ...] = ()

    def program_text(self) -> bytes:
        """The program, as JSON."""
        return read_member(self.file, self.program, _TEXT)

    def metas(self) -> dict[str, Mapping[str, Any]]:
        """Every tensor's record, as the schema has it, by name."""
        return {name: item.meta for name, item in {**self.constants, **self.weights}.items()}


def is_archive(names: Mapping[str, Any]) -> bool:
    """Whether a zip's members are those of an exported program, of this format or the one before it."""
    last = {name.partition("/")[2] for name in names}
    return "archive_format" in last or "serialized_exported_program.json" in names


def open_archive(file: InputFile) -> Archive:
    """Check every member of a `.pt2` file, and describe its tensors. Raises UnreadableError."""
    members = _below_folder(file, members_of(file))
    for name, member in members.items():
        _check_role(file, name, member)
    _check_marks(file, members)
    models = _named(members, "model")
    if len(models) != 1:
        raise UnreadableError(
            f"{file.path}: it holds {len(models)} programs"
            + (f" ({', '.join(sorted(models)[:5])})" if models else ""),
            "Save one program with torch.export.save.",
        )
    (model,) = models
    weights = _payloads(file, members, "weights", model)
    constants = _payloads(file, members, "constants", model)
    extra, record, notes = _extra(file, members)
    samples = any(member.size for member in _named(members, "sample").values())
    return Archive(file, model, models[model], weights, constants, extra, record, samples, notes)


def read_member(file: InputFile, member: Member, limit: int) -> bytes:
    """All the bytes of a member of at most `limit`. Raises UnreadableError, also if they were damaged."""
    if member.size > limit:
        raise UnreadableError(
            f"{file.path}: its member {member.name!r} has {member.size:,} bytes; {limit:,} are the most"
        )
    data = file.read(member.start, member.size)
    check_crc(file, member, zlib.crc32(data))
    return data


def check_crc(file: InputFile, member: Member, crc: int) -> None:
    """Raises UnreadableError if `crc`, of the bytes as they were read, is not what the archive says."""
    if crc != member.crc:
        raise UnreadableError(
            f"{file.path}: its member {member.name!r} does not match its checksum",
            "The file was damaged after it was written: copy or download it again.",
        )


def _below_folder(file: InputFile, found: Mapping[str, Member]) -> dict[str, Member]:
    """The members by their names below the archive's one folder."""
    if "serialized_exported_program.json" in found:
        raise UnreadableError(
            f"{file.path}: it is an exported program of PyTorch 2.7 or older, whose tensors are pickles",
            f"{_AGAIN} of a newer PyTorch.",
        )
    roots = {name.partition("/")[0] for name in found}
    if len(roots) != 1 or any("/" not in name for name in found):
        raise UnreadableError(
            f"{file.path}: its members do not lie in one folder ({', '.join(sorted(roots)[:3])!r:.100})",
            "Give a .pt2 file as torch.export.save writes it.",
        )
    return {name.partition("/")[2]: member for name, member in found.items()}


def _check_role(file: InputFile, name: str, member: Member) -> None:
    for pattern, what, hint in _DANGEROUS:
        if re.fullmatch(pattern, name, re.DOTALL) and not name.startswith("extra/"):
            raise UnreadableError(
                f"{file.path}: its member {name!r:.200} is {what}; nothing of it was read", hint
            )
    steps = name.split("/")
    plain = name.isprintable() and "\\" not in name and not {"", ".", ".."} & set(steps)
    if not plain or not (name in _SMALL or _KNOWN.fullmatch(name)):
        raise UnreadableError(
            f"{file.path}: its member {name!r:.200} is none that a .pt2 file has",
            f"{_AGAIN}; that keeps what belongs to the program.",
        )
    if not member.stored:
        raise UnreadableError(
            f"{file.path}: its member {name!r:.200} is compressed, and torch.export.save compresses nothing",
            "A small file could unpack to any size. Save it again with torch.export.save.",
        )


def _check_marks(file: InputFile, members: Mapping[str, Member]) -> None:
    """The format, its version, and the order of bytes."""
    wanted = {"archive_format": b"pt2", "archive_version": b"0", "byteorder": b"little"}
    for name, value in wanted.items():
        member = members.get(name)
        if member is None and name == "byteorder":
            continue
        if member is None:
            raise UnreadableError(f"{file.path}: its member {name!r} is missing, so it is incomplete")
        found = read_member(file, member, 100).strip()
        if found != value:
            raise UnreadableError(
                f"{file.path}: its {name.replace('_', ' ')} is {found!r}, and nnopt reads {value!r}",
                "Export the model again with PyTorch 2.10 to 2.13.",
            )


def _named(members: Mapping[str, Member], role: str) -> dict[str, Member]:
    """Members of a role, by what their names say beside it."""
    matches = ((_KNOWN.fullmatch(name), member) for name, member in members.items())
    return {match[role]: member for match, member in matches if match and match[role]}


def _payloads(file: InputFile, members: Mapping[str, Member], kind: str, model: str) -> dict[str, Payload]:
    member = _named(members, kind).get(model)
    what = f"data/{kind}/{model}_{kind}_config.json"
    if member is None:
        raise UnreadableError(f"{file.path}: its member {what!r} is missing, so its {kind} cannot be found")
    try:
        config = PAYLOADS(parse(read_member(file, member, _TEXT)))["config"]
        out: dict[str, Payload] = {}
        types: dict[str, DType] = {}
        for name, entry in config.items():
            try:
                payload = payload_of(members, kind, name, entry)
                if types.setdefault(payload.member.name, payload.dtype) != payload.dtype:
                    raise RefusedError("it shares its record with a tensor of another element type")
            except RefusedError as problem:
                raise problem.under(f"[{name}]") from None
            out[name] = payload
    except RefusedError as problem:
        raise refusal(file, what, problem) from None
    return out


def _extra(
    file: InputFile, members: Mapping[str, Member]
) -> tuple[dict[str, str], dict[str, str], tuple[str, ...]]:
    """Extra files, nnopt's own strings, and notes."""
    found = _named(members, "extra")
    if sum(member.size for member in found.values()) > _EXTRA:
        raise UnreadableError(f"{file.path}: its extra files have more than {_EXTRA:,} bytes")
    extra: dict[str, str] = {}
    record: dict[str, str] = {}
    lost = []
    for name, member in found.items():
        data = read_member(file, member, _EXTRA)
        try:
            if name == RECORD:
                strings = parse(data)
                record = {k: v for k, v in strings.items() if k.startswith("nnopt.") and type(v) is str}
            else:
                extra[name] = data.decode()
        except (RefusedError, AttributeError, UnicodeDecodeError):
            lost.append(name)
    notes = (f"Left out, since they are not text: the extra files {', '.join(lost)}.",) if lost else ()
    return extra, record, notes


def refusal(file: InputFile, member: str, problem: RefusedError) -> UnreadableError:
    """The error for what a member of the archive holds."""
    where = f" at {problem.where}" if problem.where else ""
    return UnreadableError(f"{file.path}: {member}{where}: {problem.what}", problem.hint)
