"""Tokens of nodes and workers: nobody without the cluster's secret can make one, or turn one into another."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from omni.kernel import internal_tokens

NAMES = st.from_regex(r"[A-Za-z0-9:._-]{1,40}", fullmatch=True)
KINDS: st.SearchStrategy[internal_tokens.Kind] = st.sampled_from(("node", "worker"))
SECRETS = st.text(min_size=1, max_size=40)


@given(KINDS, NAMES, SECRETS)
def test_a_minted_token_names_its_owner(kind: internal_tokens.Kind, name: str, secret: str) -> None:
    token = internal_tokens.mint(kind, name, secret)
    assert internal_tokens.verify(token, secret) == (kind, name)


@given(KINDS, NAMES, SECRETS, SECRETS)
def test_another_secret_verifies_nothing(kind: internal_tokens.Kind, name: str, one: str, other: str) -> None:
    assume(one != other)
    assert internal_tokens.verify(internal_tokens.mint(kind, name, one), other) is None


@given(KINDS, NAMES, NAMES, SECRETS)
def test_a_signature_cannot_be_moved_to_another_owner(
    kind: internal_tokens.Kind, name: str, thief: str, secret: str
) -> None:
    assume(name != thief)
    signature = internal_tokens.mint(kind, name, secret).rpartition("_")[2]
    other = "worker" if kind == "node" else "node"
    assert internal_tokens.verify(f"omni_{kind}_{thief}_{signature}", secret) is None
    assert internal_tokens.verify(f"omni_{other}_{name}_{signature}", secret) is None


@given(st.text(max_size=120), SECRETS)
def test_any_other_text_is_nobodys(text: str, secret: str) -> None:
    assert internal_tokens.verify(text, secret) is None


def test_a_newline_at_the_end_is_not_the_same_token() -> None:
    token = internal_tokens.mint("node", "127.0.0.1-8000", "s")
    assert internal_tokens.verify(token + "\n", "s") is None
    assert internal_tokens.verify(token, "") is None


@pytest.mark.parametrize(("name", "secret"), [("", "s"), ("a b", "s"), ("a", "")])
def test_what_no_token_can_carry_is_refused(name: str, secret: str) -> None:
    with pytest.raises(ValueError, match=r"token|secret"):
        internal_tokens.mint("node", name, secret)
