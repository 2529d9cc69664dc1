"""A source with a past: it answers instants and ranges out of one function of time, over a real socket."""

import json
from collections.abc import Callable, Sequence

from longtail.signals.samples import Point

from .conftest import Asked, FakePrometheus, Reply, success

World = Callable[[float], Sequence[Point]]
"""Samples by time, Unix seconds."""


class RecordedPrometheus:
    """Answers a query with those samples whose part it names."""

    def __init__(self, server: FakePrometheus, world: World) -> None:
        self.world = world
        self.most_steps = 11_000
        self.refuse = ""
        """Queries that contain this are refused."""
        self.down: Callable[[float], bool] = lambda _: False
        """Times for which no range is answered."""
        self.warn = False
        self.asked = server.asked
        server.answer = self._answer

    def steps_of(self, part: str) -> list[int]:
        """How many steps each range query for a part asked for."""
        return [_steps(asked) for asked in self.asked if part in asked.form["query"] and "step" in asked.form]

    def _answer(self, asked: Asked) -> Reply:
        form = asked.form
        if self.refuse and self.refuse in form["query"]:
            return Reply(422, b'{"status":"error","errorType":"execution","error":"too many samples"}')
        more: dict[str, object] = {"warnings": ["a store is down"]} if self.warn else {}
        if "time" in form:
            at = float(form["time"])
            found = [{"metric": dict(labels), "value": [at, repr(v)]} for labels, v in self._points(form["query"], at)]
            return success("vector", found, **more)
        start, end, step = (float(form[key]) for key in ("start", "end", "step"))
        if _steps(asked) > self.most_steps:
            return Reply(422, b'{"status":"error","errorType":"execution","error":"too many samples"}')
        series: dict[str, list[list[object]]] = {}
        at = start
        while at <= end:
            if self.down(at):
                return Reply(503, b'{"status":"error","errorType":"timeout","error":"query timed out"}')
            for labels, value in self._points(form["query"], at):
                series.setdefault(json.dumps(labels, sort_keys=True), []).append([at, repr(value)])
            at += step
        found = [{"metric": json.loads(labels), "values": values} for labels, values in series.items()]
        return success("matrix", found, **more)

    def _points(self, query: str, at: float) -> list[Point]:
        points = self.world(at)
        if "longtail_part" in query:
            return [point for point in points if f'"{point[0]["longtail_part"]}"' in query]
        wanted = [p for p in points if p[0]["longtail_part"] == "vllm/running" and "vllm:num_requests_running" in query]
        return [({k: v for k, v in labels.items() if k != "longtail_part"}, value) for labels, value in wanted]


def _steps(asked: Asked) -> int:
    form = asked.form
    return round((float(form["end"]) - float(form["start"])) / float(form["step"])) + 1
