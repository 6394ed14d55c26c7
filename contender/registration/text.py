"""Words of texts as standard operators count them: skl2onnx writes a tokenizer of Microsoft's own domain."""

import string
from typing import Any

import numpy as np
from onnx import TensorProto
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer

from contender.errors import ExportError
from contender.registration.nodes import Converters, Nodes

OPSET = 20
"""The first that splits, joins and matches text."""
_BETWEEN_WORDS = sorted(set(string.punctuation) - {"_"}) + list(
    "\u00a0\u00a7\u00a9\u00ab\u00b0\u00b7\u00bb\u00bf\u00a1\u20ac\u2013\u2014\u2018\u2019\u201c\u201d\u201e\u2026\u2022"
)
_PATTERNS = {r"(?u)\b\w\w+\b": r"[\pL\pN_]{2,}", r"(?u)\b\w+\b": r"[\pL\pN_]+"}
"""scikit-learn's patterns of a token, each with the pattern that a whole token matches in ONNX."""
ODD = "odd_text"
"""Prefix of the names of tensors, shape (rows, 1): NaN where a text's words can't be separated, 0 elsewhere."""
_GLUED = r"(?s).*[\pL\pN_].*"
_WORD = r"[\pL\pN_]+"
_CAPITAL = r"(?s).*[\p{Lu}\p{Lt}\x{2160}-\x{216F}].*"


def _count(scope: Any, operator: Any, container: Any) -> None:
    nodes = Nodes(scope, container)
    nodes.hand_on(_counts(nodes, operator), operator.outputs[0])


def _weigh_words(scope: Any, operator: Any, container: Any) -> None:
    nodes = Nodes(scope, container)
    vectorizer = operator.raw_operator
    weighed = _weighed(nodes, vectorizer._tfidf, _counts(nodes, operator))  # noqa: SLF001 - nothing public holds it
    nodes.hand_on(weighed, operator.outputs[0])


def _weigh_counts(scope: Any, operator: Any, container: Any) -> None:
    nodes = Nodes(scope, container)
    counts = nodes.add("Cast", operator.inputs[0].full_name, to=TensorProto.DOUBLE)
    nodes.hand_on(_weighed(nodes, operator.raw_operator, counts), operator.outputs[0])


def _counts(nodes: Nodes, operator: Any) -> str:
    """How often each term of the vocabulary is in each text, shape (rows, terms)."""
    vectorizer = operator.raw_operator
    _check(vectorizer)
    terms = sorted(vectorizer.vocabulary_, key=vectorizer.vocabulary_.get)
    texts = nodes.add("Reshape", operator.inputs[0].full_name, nodes.constant([-1]))
    if vectorizer.lowercase:
        texts = nodes.add("StringNormalizer", texts, case_change_action="LOWER", locale="C", op_version=10)
    size = nodes.add("Shape", texts)
    tokens, rows = _tokens(nodes, vectorizer, texts, size)
    positions = [
        _positions(nodes, grams, of_rows, terms)
        for grams, of_rows in _grams(nodes, tokens, rows, *vectorizer.ngram_range)
    ]
    where = nodes.add("Concat", *positions, axis=0)
    width = nodes.constant([len(terms)])
    zero, unit = nodes.constant(0.0), nodes.constant(1.0)
    empty = nodes.add("Expand", zero, nodes.add("Mul", size, width))
    units = nodes.add("Expand", unit, nodes.add("Shape", where))
    flat = nodes.add("ScatterElements", empty, where, units, axis=0, reduction="add", op_version=18)
    counts = nodes.add("Reshape", flat, nodes.add("Concat", size, width, axis=0))
    return nodes.add("Min", counts, unit) if vectorizer.binary else counts


def _check(vectorizer: Any) -> None:
    name = type(vectorizer).__name__
    for setting in ("tokenizer", "preprocessor", "strip_accents"):
        if getattr(vectorizer, setting) is not None:
            raise ExportError(
                f"{name} has {setting}=, which has no counterpart in ONNX: change the texts before, and leave it out"
            )
    if vectorizer.analyzer != "word" or vectorizer.token_pattern not in _PATTERNS:
        raise ExportError(
            f"{name} is exported with analyzer='word' and scikit-learn's own token_pattern alone: leave both out"
        )


def _tokens(nodes: Nodes, vectorizer: Any, texts: str, size: str) -> tuple[str, str]:
    """Every token in text order, shape (tokens,), and its row."""
    scalar = nodes.add("Squeeze", size)
    tokens, rows = texts, nodes.add("Range", nodes.constant(0), scalar, nodes.constant(1))
    nothing = nodes.constant("")
    for delimiter in ("", *_BETWEEN_WORDS):
        pieces, _ = nodes.pair("StringSplit", tokens, delimiter=delimiter, op_version=20)
        column = nodes.add("Unsqueeze", rows, nodes.constant([1]))
        spread = nodes.add("Expand", column, nodes.add("Shape", pieces))
        flat = nodes.add("Reshape", pieces, nodes.constant([-1]))
        kept = nodes.add("Not", nodes.add("Equal", flat, nothing, op_version=19))
        tokens, rows = _kept(nodes, kept, flat, nodes.add("Reshape", spread, nodes.constant([-1])))
    _mark_odd(nodes, tokens, rows, size, lowercase=vectorizer.lowercase)
    pattern = _PATTERNS[vectorizer.token_pattern]
    tokens, rows = _kept(nodes, nodes.add("RegexFullMatch", tokens, pattern=pattern, op_version=20), tokens, rows)
    if stop_words := sorted(vectorizer.get_stop_words() or []):
        stopped = _looked_up(nodes, tokens, stop_words)
        tokens, rows = _kept(nodes, nodes.add("Less", stopped, nodes.constant(0)), tokens, rows)
    return tokens, rows


def _mark_odd(nodes: Nodes, tokens: str, rows: str, size: str, *, lowercase: bool) -> None:
    """Mark texts with a word that ONNX does not split or lower-case: a sign at its side, a capital beyond ASCII."""

    def matches(pattern: str) -> str:
        return nodes.add("RegexFullMatch", tokens, pattern=pattern, op_version=20)

    odd = nodes.add("And", matches(_GLUED), nodes.add("Not", matches(_WORD)))
    if lowercase:
        odd = nodes.add("Or", odd, matches(_CAPITAL))
    where = nodes.add("Compress", rows, odd, axis=0)
    nan = nodes.add("Expand", nodes.constant(float("nan")), nodes.add("Shape", where))
    zeros = nodes.add("Expand", nodes.constant(0.0), size)
    marked = nodes.add("ScatterElements", zeros, where, nan, axis=0, op_version=18)
    nodes.add("Unsqueeze", marked, nodes.constant([1]), output=nodes.unique(ODD))


def _kept(nodes: Nodes, kept: str, *columns: str) -> tuple[str, str]:
    first, second = (nodes.add("Compress", column, kept, axis=0) for column in columns)
    return first, second


def _grams(nodes: Nodes, tokens: str, rows: str, shortest: int, longest: int) -> list[tuple[str, str]]:
    """Runs of tokens within a row, by their length, and their rows."""
    runs, grams, of_rows = [], tokens, rows
    for length in range(1, longest + 1):
        if length > 1:
            after = nodes.constant([length - 1])
            end = nodes.constant([np.iinfo(np.int64).max])
            tail, tail_rows = (nodes.add("Slice", column, after, end) for column in (tokens, rows))
            count = nodes.add("Shape", tail)
            head, head_rows = (nodes.add("Slice", column, nodes.constant([0]), count) for column in (grams, of_rows))
            grams = nodes.add(
                "StringConcat", nodes.add("StringConcat", head, nodes.constant(" "), op_version=20), tail, op_version=20
            )
            # A run that leaves its row is not a gram, nor is a longer run that begins with it.
            same = nodes.add("Equal", head_rows, tail_rows)
            of_rows = nodes.add("Where", same, head_rows, nodes.constant(-1))
        if length >= shortest:
            kept = nodes.add("GreaterOrEqual", of_rows, nodes.constant(0))
            runs.append(_kept(nodes, kept, grams, of_rows))
    return runs


def _positions(nodes: Nodes, grams: str, rows: str, terms: list[str]) -> str:
    """The indices in the flattened table at which the grams that are terms count."""
    index = _looked_up(nodes, grams, terms)
    begin = nodes.add("Mul", rows, nodes.constant(len(terms)))
    known = nodes.add("GreaterOrEqual", index, nodes.constant(0))
    return nodes.add("Compress", nodes.add("Add", begin, index), known, axis=0)


def _looked_up(nodes: Nodes, tokens: str, words: list[str]) -> str:
    """The index of each token among the words, -1 for others."""
    return nodes.add(
        "LabelEncoder",
        tokens,
        op_domain="ai.onnx.ml",
        op_version=2,
        keys_strings=words,
        values_int64s=list(range(len(words))),
        default_int64=-1,
    )


def _weighed(nodes: Nodes, weights: TfidfTransformer, counts: str) -> str:
    zero, unit = nodes.constant(0.0), nodes.constant(1.0)
    weighed = counts
    if weights.sublinear_tf:
        above = nodes.add("Max", counts, unit)
        weighed = nodes.add(
            "Where", nodes.add("Greater", counts, zero), nodes.add("Add", nodes.add("Log", above), unit), zero
        )
    if weights.use_idf:
        weighed = nodes.add("Mul", weighed, nodes.constant(weights.idf_.reshape(1, -1)))
    if weights.norm is None:
        return weighed
    squares = nodes.add("Mul", weighed, weighed) if weights.norm == "l2" else nodes.add("Abs", weighed)
    length = nodes.add("ReduceSum", squares, nodes.constant([1]), keepdims=1)
    if weights.norm == "l2":
        length = nodes.add("Sqrt", length)
    empty = nodes.add("Equal", length, zero)
    return nodes.add("Div", weighed, nodes.add("Where", empty, unit, length))


CONVERTERS: Converters = {CountVectorizer: _count, TfidfVectorizer: _weigh_words, TfidfTransformer: _weigh_counts}
