"""What a CSMS asks of a CSR before it orders a certificate: its policy, whose it is, and how many came (A02/A03)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from chargepki.ocpp_security.errors import OcppRefusal, StatusAnswer
from chargepki.ocpp_security.sign_certificate import IssuePlan, opens_link
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki import names
from chargepki.pki.csr import CertificateRequest, parse_csr
from chargepki.pki.errors import ChargePkiError
from chargepki.pki.inventory.records import StationRecord
from chargepki.pki.policy import judge_request
from chargepki.pki.profiles import get_profile

__all__ = ["RequestJudge"]

_MAX_INFO_CHARACTERS = 512


class RequestJudge:
    """Judges the requests of one station by the plans of its CSMS; every refusal is a status, never a CALLERROR."""

    __slots__ = ("_accepted_at", "_max_per_hour", "_profiles", "_station", "plans")

    def __init__(self, station: StationRecord, plans: Mapping[CertificateUse, IssuePlan], max_per_hour: int) -> None:
        """Set up; *max_per_hour* is how many new CSRs (not repeats) are accepted, all uses together."""
        self._station = station
        self._max_per_hour = max_per_hour
        # A list and not a deque: it is short, and there are ten thousand of them.
        self._accepted_at: list[datetime] = []
        self.replan(plans)

    def replan(self, plans: Mapping[CertificateUse, IssuePlan]) -> None:
        """Have later requests judged by *plans*."""
        self.plans = dict(plans)
        self._profiles = {use: get_profile(plan.profile) for use, plan in plans.items()}

    def take_over(self, previous: RequestJudge) -> None:
        """Go on counting where *previous* stopped: another OCPP version is no way round the limit of requests."""
        self._accepted_at = previous._accepted_at

    def use_planned(self, use: CertificateUse) -> CertificateUse:
        """Return the use that a request means; 2.x leaves certificateType out for a combined certificate."""
        # Stations without ISO 15118 leave it out too.
        if use is CertificateUse.COMBINED and use not in self.plans:
            return CertificateUse.CHARGING_STATION
        return use

    def plan_for(self, use: CertificateUse) -> IssuePlan:
        """Return by which CA and profile a request of *use* is signed.

        Raises:
            OcppRefusal: by none.
        """
        plan = self.plans.get(use)
        if plan is None:
            raise OcppRefusal(
                f"no CA is set for {use.value}",
                answer=StatusAnswer("Rejected", "UnsupportedRequest", "no certificates of this type are issued here"),
                fix=f"start the CSMS with --issue {use.value}=CA",
            )
        return plan

    def defaults(self, use: CertificateUse) -> dict[str, str]:
        """Return the subject attributes that a CSR of *use* may leave to the CSMS."""
        plan = self.plan_for(use)
        defaults = dict(plan.subject_defaults)
        organization = plan.organization or self._station.organization
        if organization is not None:
            defaults["O"] = organization
        if opens_link(use):
            defaults["CN"] = self._station.serial_number
        return defaults

    def judge(self, csr: str, use: CertificateUse) -> CertificateRequest:
        """Return the request in *csr* (PEM), if it may be signed for this station.

        Raises:
            OcppRefusal: unreadable, against the profile, or with the serial number or the operator of somebody else.

        Clause: A02.FR.03; A00.FR.405, A00.FR.511 (CN); A00.FR.509, 1.6 A02.FR.13 (O).
        """
        plan = self.plan_for(use)
        try:
            request = parse_csr(csr)
            common_name, organization = names.get(request.subject_der, "CN"), names.get(request.subject_der, "O")
            verdict = judge_request(request, self._profiles[use], subject_defaults=self.defaults(use))
        except ChargePkiError as error:
            raise _invalid_csr(error.what, why=error.why, fix=error.fix) from error
        if not verdict.accepted:
            broken = verdict.refusals[0]
            raise _invalid_csr(broken.message, why=broken.clause, fix=broken.fix)
        station = self._station
        if opens_link(use) and common_name not in (None, station.serial_number):
            raise _invalid_csr(
                "the subject's CN is not this station's serial number",
                operator=f"{station.id} asked for CN {common_name!r}, its serial number is {station.serial_number!r}",
                why="A00.FR.405, A00.FR.511: the CN of a station certificate is its own serial number",
                fix="correct the station's serial number on record, if the record is wrong",
            )
        expected = plan.organization or station.organization
        if expected is not None and organization not in (None, expected):
            raise _invalid_csr(
                "the subject's O is not the operator's name",
                operator=f"{station.id} asked for O {organization!r}, expected is {expected!r}",
                why="A00.FR.509; 1.6 A02.FR.13: O is OrganizationName (1.6: CpoName)",
                fix="set OrganizationName on the station, or correct the station's record",
            )
        return request

    def check_rate(self, now: datetime) -> None:
        """Refuse one more new CSR if there were too many within the last hour.

        Raises:
            OcppRefusal: there were.
        """
        while self._accepted_at and now - self._accepted_at[0] >= timedelta(hours=1):
            self._accepted_at.pop(0)
        if len(self._accepted_at) >= self._max_per_hour:
            raise OcppRefusal(
                f"{self._station.id} sent more than {self._max_per_hour} new CSRs within an hour",
                answer=StatusAnswer("Rejected", "Unspecified", "too many requests within an hour"),
                why="a station in a loop must not become a signing storm",
                fix="look at the station's CertSigningWaitMinimum: it is in seconds",
            )

    def count(self, now: datetime) -> None:
        """Take note of a new CSR that was accepted."""
        self._accepted_at.append(now)


def _invalid_csr(told: str, *, operator: str = "", why: str = "", fix: str = "") -> OcppRefusal:
    answer = StatusAnswer("Rejected", "InvalidCSR", told[:_MAX_INFO_CHARACTERS])
    return OcppRefusal(operator or told, answer=answer, why=why, fix=fix)
