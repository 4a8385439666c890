"""Configuration slots of the simulated station: what it takes, where it connects, how it falls back (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.uri import parse_uri

from chargepki.ocpp_security.station.network import SLOTS, NetworkFacts, StationNetwork, parse_endpoint
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.errors import InputError
from testkit.effort import examples

V16, V201, V21 = OcppVersion
PLAIN, SECURE = "ws://csms.example:80/ocpp", "wss://csms.example:443/ocpp"


@dataclass
class Facts:
    """What the rest of the station says about itself."""

    profile: int = 1
    has_root: bool = True
    has_certificate: bool = True
    has_password: bool = True
    attempts: int = 2
    may_be_lowered: bool = False

    def read(self) -> NetworkFacts:
        return NetworkFacts(
            profile=lambda: self.profile,
            has_root=lambda: self.has_root,
            has_certificate=lambda: self.has_certificate,
            has_password=lambda: self.has_password,
            attempts=lambda: self.attempts,
            may_be_lowered=lambda: self.may_be_lowered,
        )


def network(
    folder: Path, version: OcppVersion = V201, url: str = PLAIN, facts: Facts | None = None, **options: Any
) -> StationNetwork:
    return StationNetwork(folder, version, url, (facts or Facts()).read(), identity="CS-1", **options)


def slot(number: int = 2, profile: int = 2, url: str = SECURE, **more: Any) -> dict[str, Any]:
    data = {
        "ocppVersion": "OCPP20", "ocppTransport": "JSON", "ocppCsmsUrl": url, "messageTimeout": 30,
        "securityProfile": profile, "ocppInterface": "Wired0", **more,
    }  # fmt: skip
    return {"configurationSlot": number, "connectionData": data}


def told(answer: dict[str, Any]) -> tuple[str, str | None]:
    return answer["status"], answer.get("statusInfo", {}).get("reasonCode")


def tries(made: StationNetwork, count: int) -> list[int]:
    """Return the slots of the next *count* attempts, each of which fails."""
    found = []
    for _ in range(count):
        found.append(made.current)
        made.failed()
    return found


def raised(folder: Path, profile: int = 2, facts: Facts | None = None) -> StationNetwork:
    """A station that was told a slot and to use it first, and rebooted."""
    made = network(folder, facts=facts)
    assert made.set_profile(slot(profile=profile)) == {"status": "Accepted"}
    assert made.takes_order("2,1")
    made.set_order("2,1")
    made.restarted()
    return made


# --- SetNetworkProfile (B09) -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", SLOTS)
def test_b09_fr_01_and_fr_06_every_slot_takes_a_profile(tmp_path: Path, number: int) -> None:
    made = network(tmp_path)
    assert len(SLOTS) >= 2
    assert told(made.set_profile(slot(number))) == ("Accepted", None)
    assert network(tmp_path).slots[number].security_profile == 2


@pytest.mark.parametrize(
    "bad",
    [
        slot(url="https://csms.example"),
        slot(url="wss://user:secret@csms.example"),
        slot(url=PLAIN),
        slot(profile=1),
        slot(profile=0),
        slot(profile=4),
        slot(ocppTransport="SOAP"),
        slot(ocppVersion="OCPP16"),
        slot(vpn={"server": "x"}),
        slot(apn={"apn": "x"}),
        slot(identity="half:half"),
        slot(basicAuthPassword="too-short"),
    ],
    ids=lambda payload: "-".join(sorted(map(str, payload["connectionData"].values())))[:60],
)
def test_tc_b_43_cs_and_b09_fr_02_what_cannot_be_used_is_rejected(tmp_path: Path, bad: dict[str, Any]) -> None:
    made = network(tmp_path)
    assert told(made.set_profile(bad)) == ("Rejected", "InvalidNetworkConf")
    assert list(made.slots) == [1] and list(tmp_path.iterdir()) == []


def test_b09_fr_03_a_slot_that_cannot_be_stored_fails(tmp_path: Path) -> None:
    made = network(tmp_path / "absent")
    assert told(made.set_profile(slot())) == ("Failed", None)
    assert list(made.slots) == [1]


@pytest.mark.parametrize("version", [V201, V21])
def test_tc_a_22_tc_b_110_and_tc_b_112_cs_a_lower_profile_is_rejected(tmp_path: Path, version: OcppVersion) -> None:
    """B09.FR.04, B09.FR.31; A05.FR.09, A05.FR.10: down to 2, and down to 1."""
    made = network(tmp_path, version, SECURE, Facts(profile=3))
    assert told(made.set_profile(slot(profile=2))) == ("Rejected", "NoSecurityDowngrade")
    assert told(made.set_profile(slot(profile=1, url=PLAIN))) == ("Rejected", "NoSecurityDowngrade")
    assert told(made.set_profile(slot(profile=3))) == ("Accepted", None)


@pytest.mark.parametrize("number", [0, SLOTS[-1] + 1, -1])
def test_b09_fr_05_a_slot_that_there_is_not_is_rejected(tmp_path: Path, number: int) -> None:
    assert told(network(tmp_path).set_profile(slot(number))) == ("Rejected", "InvalidConfSlot")


@pytest.mark.parametrize("named", ["OCPP20", "OCPP201", "OCPP21", None])
def test_2_1_leaves_the_version_in_a_slot_unread(tmp_path: Path, named: str | None) -> None:
    payload = slot(ocppVersion=named)
    if named is None:
        del payload["connectionData"]["ocppVersion"]
    assert network(tmp_path, V21).set_profile(payload) == {"status": "Accepted"}


# --- NetworkConfigurationPriority (A05, B10) -------------------------------------------------------------------------


def test_b10_fr_01_and_fr_02_an_order_names_slots_that_can_be_used(tmp_path: Path) -> None:
    made = network(tmp_path)
    made.set_profile(slot(2))
    assert [made.takes_order(value) for value in ("1", "2,1", " 2 , 1 ", "2")] == [True] * 4
    assert [made.takes_order(value) for value in ("", "3", "1,3", "1,1", "x", "1;2", "[1]", "-1", "²")] == [False] * 9


def test_tc_a_20_cs_and_a05_fr_02_without_a_csms_root_the_order_is_rejected(tmp_path: Path) -> None:
    facts = Facts(has_root=False)
    made = network(tmp_path, facts=facts)
    made.set_profile(slot(2))
    assert not made.takes_order("2,1")
    facts.has_root = True
    assert made.takes_order("2,1")


def test_tc_a_21_cs_and_a05_fr_03_without_a_certificate_profile_3_is_rejected(tmp_path: Path) -> None:
    facts = Facts(profile=2, has_certificate=False)
    made = network(tmp_path, url=SECURE, facts=facts)
    made.set_profile(slot(2, profile=3))
    assert not made.takes_order("2,1")
    facts.has_certificate = True
    assert made.takes_order("2,1")  # A05.FR.04


def test_tc_b_107_cs_and_b09_fr_20_a_slot_goes_on_and_off_the_order(tmp_path: Path) -> None:
    made = raised(tmp_path)
    assert made.order_text() == network(tmp_path).order_text() == "2,1"
    assert made.takes_order("1")
    made.set_order("1")
    assert network(tmp_path).order_text() == "1"


# --- connecting ------------------------------------------------------------------------------------------------------


def test_tc_a_19_cs_and_a05_fr_06_a_raised_profile_takes_the_lower_slots_away(tmp_path: Path) -> None:
    """A05.FR.05, A05.FR.06; it does not go back, even when nothing answers on the new slot."""
    made = raised(tmp_path)
    assert made.current == 2
    assert made.connected(2) == "slot 2 is in use; removed slot 1"
    assert (made.order_text(), made.active, list(made.slots)) == ("2", 2, [2])
    assert set(tries(made, 9)) == {2}
    assert set(tries(network(tmp_path, facts=Facts(profile=2)), 9)) == {2}


def test_tc_b_45_cs_and_b10_fr_04_after_a_reboot_the_first_entry_is_tried_first(tmp_path: Path) -> None:
    made = network(tmp_path)
    made.set_profile(slot(2, profile=1, url="ws://other.example"))
    made.set_order("2,1")
    assert made.current == 1  # B09: what is in use changes with the next reboot
    made.restarted()
    assert (made.current, made.profile.url) == (2, "ws://other.example")
    assert made.connected(1) == "slot 2 is in use"
    assert made.order_text() == "2,1"


def test_tc_b_46_cs_and_b10_fr_03_every_entry_gets_its_attempts_in_turn(tmp_path: Path) -> None:
    made = raised(tmp_path, facts=Facts(attempts=3))
    assert tries(made, 6) == [2, 2, 2, 1, 1, 1]
    assert tries(made, 4) == [2, 2, 2, 1]  # B10.FR.08, FR.09: from the beginning, without end


def test_tc_b_47_and_tc_b_49_cs_the_slot_of_the_last_connection_is_fallen_back_on(tmp_path: Path) -> None:
    """B10.FR.07: also when the order does not name it."""
    made = network(tmp_path)
    made.set_profile(slot(2, profile=1, url="ws://gone.example"))
    made.set_order("2")
    made.restarted()
    assert tries(made, 5) == [2, 2, 1, 2, 2]
    assert made.current == 1
    made.connected(1)
    assert (made.active, made.order_text()) == (1, "2")


def test_a_lost_connection_is_tried_again_where_it_was(tmp_path: Path) -> None:
    """B10.FR.03 after the errata."""
    made = network(tmp_path)
    made.set_profile(slot(2, profile=1, url="ws://other.example"))
    made.set_order("2,1")
    made.connected(1)
    assert tries(made, 4) == [1, 1, 2, 2]


# --- 1.6 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "facts"),
    [
        ("1", Facts(profile=1)),
        ("0", Facts(profile=1)),
        ("4", Facts()),
        ("two", Facts()),
        ("2", Facts(has_password=False)),
        ("2", Facts(has_root=False)),
        ("3", Facts(profile=2, has_certificate=False)),
        ("3", Facts(profile=2, has_root=False)),
    ],
)
def test_tc_084_cs_and_1_6_a05_fr_01_to_fr_04_what_is_missing_rejects_the_change(
    tmp_path: Path, value: str, facts: Facts
) -> None:
    made = network(tmp_path, V16, facts=facts)
    assert made.raise_profile(value) == "Rejected"
    assert list(tmp_path.iterdir()) == [] and made.order_text() == "1"


def test_tc_083_cs_and_1_6_a05_fr_05_to_fr_07_the_station_reconnects_over_tls(tmp_path: Path) -> None:
    made = network(tmp_path, V16, facts=Facts(profile=1))
    assert made.raise_profile("2") == "Accepted"
    made.restarted()
    assert (made.profile.url, made.profile.security_profile) == ("wss://csms.example:80/ocpp", 2)
    made.connected(2)
    assert list(made.slots) == [made.active]


def test_1_6_the_endpoint_of_the_higher_profiles_can_be_commissioned(tmp_path: Path) -> None:
    made = network(tmp_path, V16, secure_url=SECURE)
    made.raise_profile("2")
    made.restarted()
    assert made.profile.url == SECURE


def test_1_6_a05_fr_08_a_station_that_cannot_connect_forgets_the_new_profile(tmp_path: Path) -> None:
    made = network(tmp_path, V16)
    made.raise_profile("2")
    made.restarted()
    assert tries(made, 2) == [2, 2]
    made.connected(1)
    assert (list(made.slots), made.order_text()) == ([1], "1")
    assert made.raise_profile("2") == "Accepted"


# --- the store -------------------------------------------------------------------------------------------------------


def test_another_url_commissions_the_station_anew(tmp_path: Path) -> None:
    raised(tmp_path).connected(2)
    assert network(tmp_path).slots[2].url == SECURE
    anew = network(tmp_path, url="ws://third.example")
    assert (anew.order_text(), anew.slots[1].url, list(anew.slots)) == ("1", "ws://third.example", [1])


@pytest.mark.parametrize("text", ["", "{}", '{"commissioned": "ws://csms.example:80/ocpp", "slots": {}}', "[1"])
def test_a_damaged_file_is_one_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "network.json").write_text(text)
    (tmp_path / "network.json").chmod(0o600)
    with pytest.raises(InputError, match="cannot be read"):
        network(tmp_path)


@pytest.mark.parametrize("url", ["", "http://x", "wss://", "wss://user:pw@x", "x", "ws://[::1", "ws://x:0"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="URL"):
        parse_endpoint(url, "CS-1")


STEPS = st.sampled_from(["fail", "connect", "reboot", "restart", "order 2,1", "order 1", "slot 2", "slot 3"])


@settings(max_examples=examples(12))
@given(st.lists(STEPS, max_size=25))
def test_no_story_leaves_the_station_without_a_slot_or_lowers_its_profile(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    folder, facts = tmp_path_factory.mktemp("network"), Facts()
    made = network(folder, facts=facts)
    for step in steps:
        verb, _, value = step.partition(" ")
        match verb:
            case "fail":
                made.failed()
            case "connect":
                facts.profile = max(facts.profile, made.profile.security_profile or 1)
                made.connected(facts.profile)
            case "reboot":
                made.restarted()
            case "restart":
                made = network(folder, facts=facts)
            case "order" if made.takes_order(value):
                made.set_order(value)
            case "slot":
                made.set_profile(slot(int(value), profile=int(value)))
        assert made.profile.url
        assert {made.active, *made.order} <= set(made.slots)
        lowest = min((each.security_profile or 1) for number, each in made.slots.items() if number == made.active)
        assert lowest >= facts.profile


@pytest.mark.parametrize(
    ("url", "port"), [("ws://csms.example", 80), ("wss://csms.example/x", 443), ("wss://h:80", 80)]
)
def test_a_url_without_a_port_means_that_of_its_scheme(url: str, port: int) -> None:
    dialled = parse_uri(parse_endpoint(url, "CS1"))
    assert (dialled.port, dialled.secure) == (port, url.startswith("wss"))
