"""Every key and element of a TOML text has its place."""

from __future__ import annotations

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from chargepki.pki.toml_places import find_places, leaves

TEXT = """\
# a comment = "not a key"
database = "x" # = y
[csms]
listen = "1:2"
"we ird".b = 'q'
tls_cert = [ "a", # [hi]
   \"\"\"b
c\"\"\", { file = "z]" } ]
issue = { A = "b:c", "D e" = 3 }
[[rule]]
k = 1
[[rule]]
k = 1979-05-27T07:32:00Z
[rule.sub]
z = true
"""


def test_every_key_and_element_is_found_where_it_stands() -> None:
    found = find_places(TEXT)
    assert set(leaves(tomllib.loads(TEXT))) <= set(found)
    assert str(found["csms", "issue", "D e"]) == "line 9, column 22"
    assert str(found["csms", "tls_cert", 2, "file"]) == "line 8, column 9"
    assert str(found["rule", 1, "sub", "z"]) == "line 15, column 1"


scalars = st.one_of(
    st.integers(-10, 10).map(str), st.booleans().map(lambda b: str(b).lower()), st.sampled_from(['"a]#"', "'b=,}'"])
)
keys = st.sampled_from(["a", "b-1", '"c d"', "'e.f'"])
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[ " + " , ".join(items) + " ]"),
        st.dictionaries(keys, inner, max_size=3).map(
            lambda table: "{" + ", ".join(f"{key} = {value}" for key, value in table.items()) + "}"
        ),
    ),
    max_leaves=6,
)


@given(st.dictionaries(keys, values, max_size=4), st.dictionaries(keys, values, max_size=3))
def test_no_key_of_any_document_is_lost(top: dict[str, str], table: dict[str, str]) -> None:
    lines = [f"{key}={value} # note" for key, value in top.items()]
    lines += ["[ t ]", *(f"{key} = {value}" for key, value in table.items())]
    text = "\n".join(lines) + "\n"
    assert set(leaves(tomllib.loads(text))) <= set(find_places(text))
