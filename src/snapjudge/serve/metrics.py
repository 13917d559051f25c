"""What is counted and shown at /metrics, in Prometheus' text format. Labels are known beforehand: no caller makes a new one but by loading judges."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from snapjudge.core.api import Answer
from snapjudge.live.judges import LiveJudges

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_LOOKS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = (16, 32, 64, 128, 256, 512, 1024, 4096, 16384, 65536)


class Metrics:
    """One server's counters."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        self.requests = Counter("snapjudge_requests", "Requests by path and status.", ["path", "status"], registry=own)
        self.seconds = Histogram("snapjudge_request_seconds", "From a request's headers to the end of its answer.", ["path"], buckets=_SECONDS, registry=own)
        self.waited = Histogram("snapjudge_waited_seconds", "From the engine taking a request in to its first step.", buckets=_SECONDS, registry=own)
        self.engine = Histogram("snapjudge_engine_seconds", "From the engine taking a request in to its answer.", buckets=_SECONDS, registry=own)
        self.tokens = Histogram("snapjudge_content_tokens", "Content tokens of a request.", buckets=_TOKENS, registry=own)
        self.in_flight = Gauge("snapjudge_in_flight", "Requests that are being answered.", registry=own)
        self.refused = Counter("snapjudge_refused", "Requests that were refused, by the error's code.", ["code"], registry=own)
        self.judgements = Counter("snapjudge_judgements", "Answers by judge and label.", ["judge", "label"], registry=own)
        self.flagged = Counter("snapjudge_flagged", "Answers that were flagged, by judge.", ["judge"], registry=own)
        self.abstained = Counter("snapjudge_abstained", "Abstentions by judge and reason.", ["judge", "reason"], registry=own)
        self.flags = Counter("snapjudge_answer_flags", "Answers that carry a flag, by judge and flag.", ["judge", "flag"], registry=own)

        self.actions = Counter("snapjudge_guard_actions", "What guards came to.", ["policy", "stage", "action"], registry=own)
        self.rulesets = Counter("snapjudge_guard_rulesets", "How rulesets came out.", ["policy", "ruleset", "status"], registry=own)
        self.waiting = Gauge("snapjudge_observations_waiting", "Observations that wait to be judged.", registry=own)
        self.later = Counter("snapjudge_judged_later", "Observations and records of batches that were judged.", registry=own)
        self.looks = Histogram("snapjudge_stream_looks", "Looks at a text while it was written.", buckets=_LOOKS, registry=own)
        self.routed = Counter("snapjudge_routed", "Answers led elsewhere: why, where to, and how it went.", ["condition", "to", "outcome"], registry=own)
        self.models = Counter("snapjudge_llm_calls", "Calls of language models, by endpoint and how they ended.", ["endpoint", "outcome"], registry=own)
        self.dollars = Counter("snapjudge_llm_dollars", "What language models have cost, by their prices.", ["endpoint"], registry=own)
        self.reviews = Counter("snapjudge_reviews", "Put before people: kept, or dropped since too many wait.", ["outcome"], registry=own)
        self.webhooks = Counter("snapjudge_webhooks", "Webhooks by what became of them: sent, failed, dropped.", ["outcome"], registry=own)

    def watch(self, judges: LiveJudges) -> None:
        """Show the engines, too."""
        self.registry.register(_Engines(judges))

    def count(self, answers: Iterable[Answer]) -> None:
        """Note some answers."""
        for one in answers:
            if one.abstention is not None:
                self.abstained.labels(one.judge, one.abstention.code).inc()
                continue
            self.judgements.labels(one.judge, "open" if one.flags.zero_shot else one.label).inc()
            if one.flagged:
                self.flagged.labels(one.judge).inc()
            for name in ("windowed", "out_of_distribution", "zero_shot", "escalated"):
                if getattr(one.flags, name):
                    self.flags.labels(one.judge, name).inc()

    def forget(self, judge: str) -> None:
        """Drop what is counted of a judge that is gone, so that judges that come and go leave nothing behind."""
        for counter in (self.judgements, self.flagged, self.abstained, self.flags):
            counter.remove_by_labels({"judge": judge})

    @property
    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)


class _Engines:
    """The engines' own figures, as they were last looked at."""

    def __init__(self, judges: LiveJudges) -> None:
        self._judges = judges

    def collect(self) -> Iterator[Metric]:
        """All of them, for prometheus_client."""
        alive = GaugeMetricFamily("snapjudge_engines", "Engine processes that answer.", labels=["backbone"])
        deaths = CounterMetricFamily("snapjudge_engine_deaths", "Engine processes that ended by themselves.", labels=["backbone"])
        loaded = GaugeMetricFamily("snapjudge_judges", "Judges that are loaded.", value=len(self._judges.roster.judges))
        figures: dict[str, GaugeMetricFamily | CounterMetricFamily] = {
            "waiting": GaugeMetricFamily("snapjudge_engine_waiting", "Requests in an engine's queue.", labels=["backbone", "engine"]),
            "waiting_tokens": GaugeMetricFamily("snapjudge_engine_waiting_tokens", "Their tokens.", labels=["backbone", "engine"]),
            "rate": GaugeMetricFamily("snapjudge_engine_tokens_per_second", "What an engine computes, as measured.", labels=["backbone", "engine"]),
            "steps": CounterMetricFamily("snapjudge_engine_steps", "Steps of an engine.", labels=["backbone", "engine"]),
            "tokens": CounterMetricFamily("snapjudge_engine_tokens", "Tokens computed.", labels=["backbone", "engine"]),
            "refused": CounterMetricFamily("snapjudge_engine_refused", "Requests that an engine's plan refused.", labels=["backbone", "engine"]),
        }
        hits = GaugeMetricFamily("snapjudge_cache_hit_rate", "Share of content tokens that were at hand.", labels=["backbone", "engine"])
        used = GaugeMetricFamily("snapjudge_cache_bytes", "Bytes of the content cache in use.", labels=["backbone", "engine"])
        for backing in self._judges.backings.values():
            alive.add_metric([backing.name], backing.host.alive)
            deaths.add_metric([backing.name], backing.host.deaths)
            for place, stats in backing.host.stats.items():
                where = [backing.name, str(place)]
                for name, family in figures.items():
                    family.add_metric(where, getattr(stats, name))
                hits.add_metric(where, stats.cache.hit_rate)
                used.add_metric(where, stats.cache.bytes_used)
        yield from (alive, deaths, loaded, *figures.values(), hits, used)
