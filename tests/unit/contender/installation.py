"""An installation in memory that answers the calls about models and experiments as the services do."""

import hashlib
import json
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qs

import httpx
import msgspec
from msgspec.structs import fields, replace

from contender.client import Client
from contender.contracts.experiments import (
    SHOW_READINESS,
    ExperimentRevision,
    FieldChange,
    HistoryEntry,
    NewExperiment,
    Ramp,
    VariantAllocation,
)

NOW = 1_700_000_000.0
_NEXT = {"start": "running", "pause": "paused", "stop": "stopped", "promote": "stopped"}
_FROM = {
    "start": ("draft", "paused"),
    "pause": ("running", "decided"),
    "stop": ("running", "paused", "decided"),
    "ramp": ("running", "paused", "decided"),
    "promote": ("running", "decided"),
}


class Refusal(Exception):  # noqa: N818 - an answer
    """A problem."""


@dataclass
class Installation:
    """Experiments by revision, versions by model, and definitions; `refused` makes a call fail by `METHOD path`."""

    versions: list[dict[str, Any]] = field(default_factory=list)
    champions: dict[str, str] = field(default_factory=dict)
    promotions: list[dict[str, Any]] = field(default_factory=list)
    files: dict[tuple[str, str], tuple[bytes, bytes]] = field(default_factory=dict)
    revisions: dict[str, list[ExperimentRevision]] = field(default_factory=dict)
    definitions: dict[str, Any] = field(default_factory=lambda: {"views": []})
    readiness: dict[str, Any] = field(default_factory=lambda: dict(SHOW_READINESS.answer_example))
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    calls: list[tuple[str, Any]] = field(default_factory=list)
    interferes: str = ""
    """The experiment that gets another revision just before the next one that is asked for."""

    @property
    def client(self) -> Client:
        return Client("http://127.0.0.1:8400", transport=httpx.MockTransport(self.answer))

    @property
    def changes(self) -> list[str]:
        """The calls that were to change something, in order."""
        return [call for call, _ in self.calls if not call.startswith("GET")]

    def add(self, model: str, name: str, **more: Any) -> str:
        """Register a version whose file is its name."""
        onnx = name.encode()
        version = hashlib.sha256(onnx).hexdigest()
        manifest = {"task": "binary", "inputs": [], "note": name}
        self.register(model, onnx, json.dumps(manifest | more).encode(), b'{"inputs": {}, "scores": []}')
        return version

    def register(self, model: str, onnx: bytes, manifest: bytes, sample: bytes) -> dict[str, Any]:
        version = hashlib.sha256(onnx).hexdigest()
        if (model, version) not in self.files:
            whole = json.loads(manifest)
            known = {"model": model, "version": version, "registered_at": NOW, "manifest": whole}
            self.versions.append({**known, "task": whole["task"], "inputs": whole["inputs"]})
            self.files[model, version] = (onnx, sample)
            self.champions.setdefault(model, version)
        return self.summary(model, version)

    def declare(self, **declared: Any) -> ExperimentRevision:
        """Keep a draft."""
        new = msgspec.convert(declared, NewExperiment)
        if new.name in self.revisions:
            raise Refusal(409, f"there is an experiment {new.name} already")
        revision = _drafted(new, "fresh-seed")
        self.revisions[new.name] = [revision]
        return revision

    def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        call = f"{request.method} {path}"
        is_json = request.headers.get("content-type") == "application/json"
        body = json.loads(request.content) if is_json and request.content else None
        self.calls.append((call, body))
        try:
            query = {name: values[0] for name, values in parse_qs(request.url.query.decode()).items()}
            answer = self._route(request, path.strip("/").split("/")[1:], body or {}, query)
        except Refusal as refusal:
            status, detail = refusal.args
            return httpx.Response(status, json={"detail": detail, "errors": []})
        if isinstance(answer, bytes):
            return httpx.Response(200, content=answer)
        return httpx.Response(200, content=msgspec.json.encode(answer))

    def _route(self, request: httpx.Request, parts: list[str], body: dict, query: dict[str, str]) -> Any:
        if (refused := self.refused.get(f"{request.method} {request.url.path}")) is not None:
            raise Refusal(*refused)
        match parts:
            case ["definitions"]:
                return self.definitions
            case ["models", *rest]:
                return self._models(request, rest, body)
            case ["experiments"] if request.method == "POST":
                return self.declare(**body)
            case ["experiments"]:
                return {"experiments": [revisions[-1] for revisions in self.revisions.values()]}
            case ["experiments", name, *rest]:
                return self._experiment(request.method, name, rest, body, query)
        raise Refusal(404, "nothing is there")

    def _models(self, request: httpx.Request, parts: list[str], body: dict) -> Any:
        match parts:
            case []:
                return {"versions": [self._shown(known) for known in self.versions]}
            case [model, "stop"]:
                on_model = [name for name, known in self.revisions.items() if known[-1].model == model]
                in_force = [name for name in on_model if self.revisions[name][-1].status in _FROM["stop"]]
                return {"experiments": [self._change(name, "stop", body) for name in in_force]}
            case [model, "promotions"]:
                return {"promotions": [record for record in self.promotions if record["model"] == model]}
            case [model, "aliases", "champion"]:
                return self._promote(model, body)
            case [model, "aliases", "champion", "rollback"]:
                raise Refusal(409, f"model {model} has no promotion on record")
            case [model, "versions"]:
                return self.register(model, *_parts(request))
            case [model, "versions", version, *rest]:
                name = self.champions.get(model) if version == "champion" else version
                known = next(
                    (each for each in self.versions if (each["model"], each["version"]) == (model, name)), None
                )
                if known is None:
                    raise Refusal(404, f"model {model} has no version {version}")
                onnx, sample = self.files[model, str(name)]
                return {"": self._shown(known), "file": onnx, "sample": sample}["".join(rest)]
        raise Refusal(404, "nothing is there")

    def _promote(self, model: str, body: dict) -> Any:
        replaced, version = self.champions[model], body["version"]
        if replaced != version:
            number = len(self.promotions) + 1
            self.promotions.append({**body, "model": model, "number": number, "at": NOW, "replaced": replaced})
            self.champions[model] = version
            for revisions in self.revisions.values():  # an epoch begins, as the router has it
                if revisions[-1].model == model and revisions[-1].status in _FROM["stop"]:
                    self._keep(replace(revisions[-1], model_champion=version, epoch=revisions[-1].epoch + 1))
        return self.summary(model, version)

    def _shown(self, known: dict[str, Any]) -> dict[str, Any]:
        return {**known, "champion": self.champions[known["model"]] == known["version"]}

    def summary(self, model: str, version: str) -> dict[str, Any]:
        alias = "champion" if self.champions[model] == version else None
        return {"model": model, "version": version, "alias": alias, "registered_at": NOW}

    def _experiment(self, method: str, name: str, parts: list[str], body: dict, query: dict[str, str]) -> Any:  # noqa: PLR0911
        if name not in self.revisions:
            raise Refusal(404, f"there is no experiment {name}")
        match parts:
            case [] if method == "PUT":
                return self._revise(name, msgspec.convert(body, NewExperiment))
            case [] if "revision" in query:
                return self.revisions[name][int(query["revision"]) - 1]
            case []:
                return self.revisions[name][-1]
            case ["history"]:
                return {"history": _history(self.revisions[name])}
            case ["verdicts"]:
                return {"verdicts": self.verdicts}
            case ["readiness"]:
                return self.readiness
            case ["restart"]:
                old = msgspec.to_builtins(self.revisions[name][-1])
                declared = {field.name: old[field.name] for field in fields(NewExperiment) if field.name in old}
                return self.declare(**declared | {"name": body.get("name") or f"{name}-2", "seed": ""})
            case [action]:
                return self._change(name, action, body)
        raise Refusal(404, "nothing is there")

    def _revise(self, name: str, new: NewExperiment) -> ExperimentRevision:
        if self.interferes == name:
            self.interferes = ""
            self._keep(self.revisions[name][-1])
        known = self.revisions[name][-1]
        if new.revision not in (None, known.revision):
            raise Refusal(409, f"experiment {name} has revision {known.revision} by now")
        revised = _drafted(new, known.seed)
        kept = {each: getattr(known, each) for each in ("status", "epoch", "started_at", "step")}
        return self._keep(replace(revised, **kept))

    def _change(self, name: str, action: str, body: dict) -> ExperimentRevision:
        known = self.revisions[name][-1]
        if known.status not in _FROM[action]:
            raise Refusal(409, f"experiment {name} is {known.status}")
        by = {"changed_by": body.get("changed_by", ""), "reason": body.get("reason", "")}
        if action == "ramp":
            ramp = msgspec.convert(body, Ramp)
            weights = ramp.weights or {variant.name: variant.weight for variant in known.variants}
            variants = [replace(variant, weight=weights[variant.name]) for variant in known.variants]
            coverage = known.coverage if ramp.coverage is None else ramp.coverage
            return self._keep(replace(known, variants=variants, coverage=coverage, sticky=True, **by))
        started = {
            "started_at": NOW,
            "epoch": 1,
            "variants": [self._pinned(known.model, each) for each in known.variants],
        }
        begins = started if known.status == "draft" else {}
        return self._keep(replace(known, status=_NEXT[action], override=body.get("override", ""), **by, **begins))

    def _pinned(self, model: str, variant: VariantAllocation) -> VariantAllocation:
        if variant.version != "champion":
            return variant
        return replace(variant, version=self.champions[model], alias="champion")

    def _keep(self, revision: ExperimentRevision) -> ExperimentRevision:
        kept = replace(revision, revision=len(self.revisions[revision.name]) + 1)
        self.revisions[revision.name].append(kept)
        return kept


def _drafted(new: NewExperiment, seed: str) -> ExperimentRevision:
    declared = {each.name: getattr(new, each.name) for each in fields(NewExperiment)}
    declared |= {"seed": new.seed or seed, "champion": new.champion or new.variants[0].name, "revision": 1}
    return ExperimentRevision(**declared, epoch=0, status="draft", changed_at=NOW)


def _history(revisions: list[ExperimentRevision]) -> list[HistoryEntry]:
    entries = [HistoryEntry(revisions[0], [])]
    for before, after in pairwise(revisions):
        old, new = msgspec.to_builtins(before), msgspec.to_builtins(after)
        changes = [FieldChange(name, old[name], new[name]) for name in old if old[name] != new[name]]
        entries.append(HistoryEntry(after, changes))
    return entries


def _parts(request: httpx.Request) -> list[bytes]:
    """The contents of a multipart body's parts, in order."""
    boundary = request.headers["content-type"].partition("boundary=")[2].encode()
    chunks = request.read().split(b"--" + boundary)[1:-1]
    return [chunk.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for chunk in chunks]
