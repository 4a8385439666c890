"""Two generations of a CA and their lists before tools that are not ours, whichever list a tool takes for the name.

Old and new generation have a good and a revoked certificate each. A tool gets the list of the certificate's own
generation, which is what the certificate points to; or those of both, in either order, which is what lies in a folder.
With own lists (``crl_generations = "own"``) Java and GnuTLS pass a revoked certificate for good, which is why lists
name the revocations of all generations unless somebody says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from chargepki.pki.authority import Authority, IssueOrder, utc_now
from chargepki.pki.authority.generations import CrlGenerations
from chargepki.pki.authority.rollover import RolloverOrder, roll_over
from testkit.authorities import ACTOR, MemoryKeyStore, make_csr, ocpp_authority, open_inventory
from testkit.foreign import ChainCase, Tool, Verdict, judge_chains, missing, need, run

pytestmark = [pytest.mark.foreign, pytest.mark.timeout(180)]


@dataclass(frozen=True, slots=True)
class Scene:
    """Two generations below one root; leaves by ``GENERATION|good`` and ``GENERATION|revoked``."""

    root: bytes
    root_list: bytes
    subs: Mapping[int, bytes]
    leaves: Mapping[str, bytes]
    lists: Mapping[int, bytes]
    """Of each generation, with the revocations of both."""
    own: Mapping[int, bytes]
    """The same with its own revocations alone."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder, keystore = tmp_path_factory.mktemp("generations"), MemoryKeyStore()
    # The tools know no other clock than the machine's; nothing may lie in its future.
    now = utc_now() - timedelta(minutes=2)
    with open_inventory(f"sqlite:///{folder / 'inventory.db'}", folder) as inventory:
        authority = ocpp_authority(inventory, keystore=keystore, clock=lambda: now)
        leaves = {}
        for generation in (1, 2):
            for state in ("good", "revoked"):
                csr = make_csr(f"CS-{generation}-{state}")
                issued = authority.issue(IssueOrder(ca="t-sub", profile="ocpp/charging-station", csr=csr))
                leaves[f"{generation}|{state}"] = issued.certificate_der
                if state == "revoked":
                    authority.revoke(issued.record.id, "keyCompromise")
            if generation == 1:
                roll_over(authority, RolloverOrder("t-sub"))
        alone = Authority(inventory, keystore, actor=ACTOR, clock=lambda: now, crl_generations=CrlGenerations.OWN)
        yield Scene(
            root=inventory.get_ca("t-root").certificate_der or b"",
            root_list=authority.publish_crl("t-root").der,
            subs={each: inventory.get_ca(f"t-sub@{each}").certificate_der or b"" for each in (1, 2)},
            leaves=leaves,
            own={each: alone.publish_crl(f"t-sub@{each}").der for each in (1, 2)},
            lists={each: authority.publish_crl(f"t-sub@{each}").der for each in (1, 2)},
        )


def cases(scene: Scene, kind: str, lists: Mapping[int, bytes]) -> list[ChainCase]:
    found = []
    for name, leaf in scene.leaves.items():
        own = int(name[0])
        other = 3 - own
        for handed in ((own,), (own, other), (other, own)):
            crls = (*(lists[each] for each in handed), scene.root_list)
            label = f"{kind}|{name}|{'+'.join(map(str, handed))}"
            found.append(ChainCase(label, (leaf, scene.subs[own]), scene.root, crls, None, (scene.subs[other],)))
    return found


def wrong(verdicts: Mapping[str, Verdict], kind: str) -> set[str]:
    """Return the cases that were accepted or refused wrongly."""
    mine = {name: each for name, each in verdicts.items() if name.startswith(kind)}
    return {name for name, each in mine.items() if each.accepted is not ("good" in name)}


TOOLS = [
    pytest.param(each, marks=() if each in (Tool.OPENSSL, Tool.GNUTLS) else pytest.mark.campaign)
    for each in (Tool.OPENSSL, Tool.GNUTLS, Tool.JAVA, Tool.PYHANKO)
]


@pytest.mark.parametrize("tool", TOOLS)
def test_a_revoked_certificate_of_either_generation_is_refused_whichever_lists_lie_there(
    tool: Tool, scene: Scene
) -> None:
    need(tool)
    verdicts = judge_chains(tool, [*cases(scene, "all", scene.lists), *cases(scene, "own", scene.own)])
    assert not wrong(verdicts, "all"), verdicts
    revoked = {name: each for name, each in verdicts.items() if name.startswith("all") and "revoked" in name}
    assert all("revoked" in each.reason.lower() for each in revoked.values()), revoked
    # What own lists would do: once a tool passes this, too, the default has one reason less.
    expected = {name for name in wrong(verdicts, "own") if "revoked" in name}
    assert bool(expected) is (tool in (Tool.GNUTLS, Tool.JAVA)), expected
    assert wrong(verdicts, "own") == expected


def test_strongswan_refuses_the_revoked_one_or_says_that_it_does_not_know(scene: Scene, tmp_path: Path) -> None:
    """It keeps one list for a name and looks for it by the key: with both lists it may know nothing, and says so."""
    if reason := missing("pki", "strongswan-pki"):
        pytest.skip(reason)
    files = {"root": scene.root} | {f"list{each}": scene.lists[each] for each in (1, 2)}
    files |= {f"sub{each}": scene.subs[each] for each in (1, 2)}
    files |= {name.replace("|", "-"): leaf for name, leaf in scene.leaves.items()}
    for name, der in files.items():
        (tmp_path / name).write_bytes(der)
    if run("pki", "--print", "--type", "x509", "--in", tmp_path / "root").returncode != 0:
        pytest.skip("no plugin for EC keys; on Debian: apt-get install libstrongswan-standard-plugins")
    cas = [word for name in ("root", "sub1", "sub2") for word in ("--cacert", str(tmp_path / name))]
    for name in scene.leaves:
        own = int(name[0])
        for handed in ((own,), (3 - own, own)):
            lists = [word for each in handed for word in ("--crl", str(tmp_path / f"list{each}"))]
            done = run("pki", "--verify", "--in", tmp_path / name.replace("|", "-"), *cas, *lists)
            if "good" in name:
                assert done.returncode == 0, (name, handed, done)
            elif len(handed) == 1:
                assert done.returncode != 0 and "revoked" in done.stdout + done.stderr, (name, done)
            else:
                assert done.returncode != 0 or "revocation checking failed" in done.stdout + done.stderr, (name, done)


def test_nss_relies_on_the_list_of_the_newest_generation_alone(scene: Scene, tmp_path: Path) -> None:
    """It keeps one list for a name, and verifies it with the newest key: no list tells it of the older generation."""
    if reason := missing("crlutil", "libnss3-tools"):
        pytest.skip(reason)
    database = f"sql:{tmp_path}"
    run("certutil", "-N", "-d", database, "--empty-password")
    stored = {"root": scene.root, "sub1": scene.subs[1], "sub2": scene.subs[2]}
    stored |= {name: leaf for name, leaf in scene.leaves.items() if "revoked" in name}
    for name, der in stored.items():
        (tmp_path / "file").write_bytes(der)
        trust = "CT,C,C" if name == "root" else ",,"
        assert run("certutil", "-A", "-d", database, "-n", name, "-t", trust, "-i", tmp_path / "file").returncode == 0
    (tmp_path / "crl").write_bytes(scene.lists[2])
    assert run("crlutil", "-I", "-d", database, "-i", tmp_path / "crl").returncode == 0
    refused = run("certutil", "-V", "-d", database, "-n", "2|revoked", "-u", "C")
    assert refused.returncode != 0 and "revoked" in refused.stdout + refused.stderr
    # What the guide warns of: once it refuses this one, the warning can go.
    assert run("certutil", "-V", "-d", database, "-n", "1|revoked", "-u", "C").returncode == 0
