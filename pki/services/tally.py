"""Plain counters for the hot path; `metrics` shows them to Prometheus."""

from __future__ import annotations

__all__ = ["Tally"]


class Tally:
    """Counts by fixed words; a dictionary entry each, so that counting costs next to nothing."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, int], int] = {}
        self.seconds: dict[str, float] = {}
        self.ocsp: dict[tuple[str, str], int] = {}

    def count_request(self, endpoint: str, status: int, seconds: float = 0.0) -> None:
        """Count one answered request."""
        key = (endpoint, status)
        self.requests[key] = self.requests.get(key, 0) + 1
        self.seconds[endpoint] = self.seconds.get(endpoint, 0.0) + seconds

    def count_ocsp(self, answer: str, source: str) -> None:
        """Count one OCSP answer: ``good``, ``revoked``, ``unknown`` or an error; from memory, store or live."""
        key = (answer, source)
        self.ocsp[key] = self.ocsp.get(key, 0) + 1
