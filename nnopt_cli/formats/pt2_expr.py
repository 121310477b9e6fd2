"""The arithmetic of dynamic sizes, as `.pt2` files write it: parsed here, printed anew, never evaluated.

PyTorch hands these strings to sympy, which runs them as Python. The grammar is what sympy's `srepr`
prints, and nothing else:

    expression := NAME "(" expression ("," expression)* ")" | Symbol | NUMBER | "true" | "false"
    NUMBER     := "Integer(" INT ")" | "Rational(" INT "," INT ")" | "Float('" DECIMAL "', precision=" INT ")"
    Symbol     := "Symbol('s0'" ("," ASSUMPTION "=" ("True" | "False"))* ")"

Source of the functions: `torch/utils/_sympy/functions.py`, and the table in the deserializer of
`torch/_export/serde/serialize.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from nnopt_cli.formats.pt2_records import RefusedError, show

_TEXT = 20_000  # characters of one expression
_NODES = 600  # functions and numbers of one expression
_DEPTH = 60
_BITS = 4096  # of the constants in an expression together: sympy computes what they come to
_POWER = 64

_ANY = 1 << 10
# name -> how many arguments it takes, at least and at most
FUNCTIONS = {
    **dict.fromkeys(("Add", "Mul", "Max", "Min", "And", "Or"), (1, _ANY)),
    **dict.fromkeys(("Pow", "PowByNatural", "FloatPow", "LShift", "RShift"), (2, 2)),
    **dict.fromkeys(("Mod", "PythonMod", "FloorDiv", "CeilDiv", "CleanDiv"), (2, 2)),
    **dict.fromkeys(("IntTrueDiv", "FloatTrueDiv", "RoundDecimal"), (2, 2)),
    **dict.fromkeys(("Where", "ModularIndexing"), (3, 3)),
    **dict.fromkeys(("floor", "ceiling", "Abs", "Not", "ToFloat", "Identity"), (1, 1)),
    **dict.fromkeys(("CeilToInt", "FloorToInt", "TruncToInt", "TruncToFloat", "RoundToInt"), (1, 1)),
    **dict.fromkeys(("Eq", "Ne", "Lt", "Le", "Gt", "Ge", "Equality", "Unequality"), (2, 2)),
    **dict.fromkeys(("StrictLessThan", "LessThan", "StrictGreaterThan", "GreaterThan"), (2, 2)),
    "IsNonOverlappingAndDenseIndicator": (2, _ANY),
}
_POWERS = {"Pow", "PowByNatural", "FloatPow"}
_SHIFTS = {"LShift", "RShift"}
_ASSUMPTIONS = {"integer", "positive", "negative", "nonnegative", "nonpositive", "nonzero", "zero", "real"}
_ASSUMPTIONS |= {"finite", "even", "odd", "commutative", "extended_real", "rational"}

_TOKEN = re.compile(r"\s*(?:([A-Za-z_]\w*)|(-?\d+)|'([^'\\]*)'|(.))", re.ASCII)
_SYMBOL = re.compile(r"(s|u|zf|zuf)\d{1,5}", re.ASCII)
_FLOAT = re.compile(r"-?\d{1,24}(\.\d{1,24})?(e[+-]?\d{1,2})?", re.ASCII)

symbol_name = _SYMBOL.fullmatch


def symbol(value: Any) -> str:
    """The name of a dynamic size, e.g. `s77`, or `u0` for one that only data tells."""
    if type(value) is not str or not symbol_name(value):
        raise RefusedError(f"{show(value)} is not the name of a dynamic size, such as s77 or u0")
    return value


def expression(value: Any) -> str:
    """An expression, printed anew from what was understood. Raises RefusedError for anything else."""
    if type(value) is not str or len(value) > _TEXT:
        raise RefusedError(f"{show(value)} is not an expression of at most {_TEXT:,} characters")
    parser = _Parser(value)
    printed = parser.expression(0).text
    if not parser.done:
        raise parser.refusal()
    return printed


@dataclass(frozen=True, slots=True)
class _Part:
    text: str
    bits: int  # about log2 of the constants in it
    value: int | None = None  # of an integer


class _Parser:
    def __init__(self, source: str) -> None:
        self._source = source
        self._tokens = [match.groups() for match in _TOKEN.finditer(source) if match.group().strip()]
        self._at = 0
        self._count = 0

    @property
    def done(self) -> bool:
        return self._at == len(self._tokens)

    def refusal(self) -> RefusedError:
        return RefusedError(
            f"{show(self._source)} is not arithmetic on dynamic sizes; PyTorch would run it as Python code"
        )

    def expression(self, depth: int) -> _Part:
        self._count += 1
        if depth > _DEPTH or self._count > _NODES:
            raise RefusedError(f"{show(self._source)} is too large an expression for a size")
        word = self._take(0)
        if word in ("true", "false"):
            return _Part(word, 1)
        self._expect("(")
        if word == "Symbol":
            return self._symbol()
        if word in ("Integer", "Rational", "Float"):
            return self._number(word)
        if word not in FUNCTIONS:
            raise self.refusal()
        parts = [self.expression(depth + 1)]
        while self._accept(","):
            parts.append(self.expression(depth + 1))
        self._expect(")")
        least, most = FUNCTIONS[word]
        if not least <= len(parts) <= most:
            raise self.refusal()
        return _Part(f"{word}({', '.join(part.text for part in parts)})", self._bits(word, parts))

    def _symbol(self) -> _Part:
        name = self._take(2)
        if not symbol_name(name):
            raise RefusedError(f"{name[:80]!r} is not the name of a dynamic size, such as s77 or u0")
        assumed: dict[str, str] = {}
        while self._accept(","):
            word = self._take(0)
            self._expect("=")
            truth = self._take(0)
            if word not in _ASSUMPTIONS or truth not in ("True", "False") or word in assumed:
                raise self.refusal()
            assumed[word] = truth
        self._expect(")")
        facts = "".join(f", {word}={assumed[word]}" for word in sorted(assumed))
        return _Part(f"Symbol('{name}'{facts})", 0)

    def _number(self, kind: str) -> _Part:
        if kind == "Float":
            digits = self._take(2)
            if self._accept(","):
                if self._take(0) != "precision":
                    raise self.refusal()
                self._expect("=")
                self._take(1)
            self._expect(")")
            if not _FLOAT.fullmatch(digits):
                raise self.refusal()
            mantissa, _, exponent = digits.partition("e")
            return _Part(f"Float('{digits}', precision=53)", 4 * (len(mantissa) + abs(int(exponent or 0))))
        first = self._integer()
        if kind == "Integer":
            self._expect(")")
            return _Part(f"Integer({first})", first.bit_length(), first)
        self._expect(",")
        second = self._integer()
        self._expect(")")
        if second < 1:
            raise self.refusal()
        return _Part(f"Rational({first}, {second})", first.bit_length() + second.bit_length())

    def _bits(self, word: str, parts: list[_Part]) -> int:
        """A bound on the size of the constants; sympy computes with them, however large they get."""
        total = sum(part.bits for part in parts)
        if word in _POWERS:
            power = parts[1].value
            if power is None:
                power = _POWER if word == "FloatPow" or parts[1].text.startswith("Rational") else None
            if power is None or abs(power) > _POWER:
                raise RefusedError(
                    f"{show(self._source)} has a power that is not a whole number up to {_POWER}"
                )
            total = parts[0].bits * max(1, abs(power))
        elif word in _SHIFTS:
            shift = parts[1].value
            if shift is None or not 0 <= shift < 64:
                raise RefusedError(f"{show(self._source)} shifts by something that is not in 0 to 63")
            total = parts[0].bits + shift
        if total > _BITS:
            raise RefusedError(f"{show(self._source)} comes to numbers that no size can have")
        return total

    def _integer(self) -> int:
        digits = self._take(1)
        if len(digits) > 20 or not -(1 << 63) <= int(digits) < 1 << 63:
            raise self.refusal()
        return int(digits)

    def _take(self, kind: int) -> str:
        """The next token, of a kind: 0 a word, 1 an integer, 2 a quoted text."""
        token = self._tokens[self._at][kind] if not self.done else None
        if token is None:
            raise self.refusal()
        self._at += 1
        return str(token)

    def _accept(self, mark: str) -> bool:
        found = not self.done and self._tokens[self._at][3] == mark
        self._at += found
        return found

    def _expect(self, mark: str) -> None:
        if not self._accept(mark):
            raise self.refusal()
