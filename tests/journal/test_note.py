"""Signed notes and checkpoints: others' examples are understood, and nothing that was altered is believed."""

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galerne.journal import Checkpoint, Proof, Signer, VerifierKey, hash_leaf, parse_key, parse_proof
from galerne.journal.checkpoint import parse_checkpoint, verify_checkpoint, verify_growth, verify_proof
from galerne.journal.merkle import ProofRefused
from galerne.journal.note import open_note, sign_note
from tests.journal.trees import LEAVES, ROOTS, Tree

NAME = "log.example/journal"
SIGNER = Signer(NAME, bytes(range(32)))
OTHER = Signer(NAME, bytes(range(1, 33)))
KEYS = [SIGNER.verifier]
CHECKPOINT = Checkpoint(NAME, 8, ROOTS[7])
NOTE = sign_note(CHECKPOINT.text, [SIGNER])


# Notes that other implementations signed: Go's note package and an Elixir one publish these in their documentation.
@pytest.mark.parametrize(
    ("key", "signature", "text"),
    [
        (
            "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=",
            "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n",
        ),
        (
            "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=",
            "This is an example message.\n",
        ),
    ],
)
def test_notes_of_other_implementations_verify(key: str, signature: str, text: str) -> None:
    parsed = parse_key(key)
    assert parsed.text == key
    assert open_note(f"{text}\n— {parsed.name} {signature}\n", [parsed]) == (text, [parsed])


def test_the_specification_s_checkpoint_is_read() -> None:
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    checkpoint = parse_checkpoint(text)
    assert (checkpoint.origin, checkpoint.size, checkpoint.text) == ("example.com/behind-the-sofa", 20852163, text)
    assert parse_checkpoint(text + "an extension\n") == checkpoint


def test_what_we_signed_verifies_with_the_public_key_alone() -> None:
    assert verify_checkpoint(NOTE, [parse_key(SIGNER.verifier.text)]) == CHECKPOINT
    assert "seed" not in repr(SIGNER)


def test_signatures_of_unknown_keys_are_passed_over_and_two_keys_bridge_a_rotation() -> None:
    both = sign_note(CHECKPOINT.text, [SIGNER, OTHER])
    assert verify_checkpoint(both, KEYS) == verify_checkpoint(both, [OTHER.verifier]) == CHECKPOINT


@given(st.data())
def test_a_note_with_any_character_changed_is_refused(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(NOTE) - 1))
    other = data.draw(st.characters(codec="utf-8"))
    # Base64 of 68 bytes ends in one padding sign, before which 2 bits mean nothing: strict decoders differ on them.
    if other == NOTE[at] or at == len(NOTE) - 3:
        return
    with pytest.raises(ProofRefused):
        verify_checkpoint(NOTE[:at] + other + NOTE[at + 1 :], KEYS)


@given(st.text(max_size=200))
def test_what_is_no_note_key_or_proof_is_refused_and_nothing_else_happens(text: str) -> None:
    for attempt in (
        lambda: verify_checkpoint(text, KEYS),
        lambda: parse_key(text),
        lambda: parse_proof(text),
        lambda: parse_proof(f"c2sp.org/tlog-proof@v1\nextra {text}\nindex 0\n\n{NOTE}"),
    ):
        with contextlib.suppress(ProofRefused):
            attempt()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (sign_note(CHECKPOINT.text, [OTHER]), "None of the keys"),
        (NOTE.replace("\n8\n", "\n9\n"), "altered"),
        (NOTE.replace("\n\n", "\n"), "not a signed note"),
        (NOTE + "x", "not a signed note"),
        (NOTE.replace("— ", "-- "), "signature line"),
        (sign_note(Checkpoint("another", 8, ROOTS[7]).text, [SIGNER]), "of another"),
        (sign_note(f"{NAME}\n08\n{base64.b64encode(ROOTS[7]).decode()}\n", [SIGNER]), "not a checkpoint"),
        (sign_note(f"{NAME}\n8\n{base64.b64encode(ROOTS[7][1:]).decode()}\n", [SIGNER]), "32 bytes"),
        (sign_note(f"{NAME}\n8\n", [SIGNER]), "not a checkpoint"),
    ],
)
def test_a_checkpoint_that_is_none_is_refused_with_the_reason(wrong: str, why: str) -> None:
    with pytest.raises(ProofRefused, match=why):
        verify_checkpoint(wrong, KEYS)


@pytest.mark.parametrize("name", ["", "two words", "a+b", "line\nbreak", "x" * 201])
def test_a_key_s_name_has_no_spaces_or_plus_signs(name: str) -> None:
    with pytest.raises(ProofRefused):
        VerifierKey(name, bytes(32))


def test_a_public_key_that_was_altered_is_refused() -> None:
    text = SIGNER.verifier.text
    name, key_id, encoded = text.split("+", 2)
    for wrong in (
        f"{name}x+{key_id}+{encoded}",
        f"{name}+00000000+{encoded}",
        f"{name}+{key_id}+{OTHER.verifier.text.split('+', 2)[2]}",
        f"{name}+{key_id}",
        f"{name}+{key_id}+!",
        f"{name}+{key_id}+{base64.b64encode(bytes([2]) + bytes(32)).decode()}",
    ):
        with pytest.raises(ProofRefused):
            parse_key(wrong)


def test_a_proof_file_carries_the_leaf_and_shows_that_it_was_signed() -> None:
    tree = Tree([hash_leaf(leaf) for leaf in LEAVES])
    for index, leaf in enumerate(LEAVES):
        proof = Proof(leaf, index, tuple(tree.inclusion_proof(index)), NOTE)
        assert parse_proof(proof.text) == proof
        assert verify_proof(parse_proof(proof.text), KEYS) == CHECKPOINT


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("extra MDE=", "extra MDI=", "not in the tree"),
        ("index 4", "index 3", "not in the tree"),
        ("index 4", "index 8", "no leaf"),
        ("index 4", "index 04", "third"),
        ("extra", "exta", "second"),
        ("proof@v1", "proof@v2", "first line"),
        ("\n8\n", "\n9\n", "altered"),
    ],
)
def test_a_proof_that_was_tampered_with_is_refused_with_the_reason(old: str, new: str, why: str) -> None:
    tree = Tree([hash_leaf(leaf) for leaf in LEAVES])
    text = Proof(LEAVES[4], 4, tuple(tree.inclusion_proof(4)), NOTE).text
    assert old in text
    with pytest.raises(ProofRefused, match=why):
        verify_proof(parse_proof(text.replace(old, new)), KEYS)


def test_growth_between_two_checkpoints_is_verified_for_one_log_only() -> None:
    tree, old = Tree([hash_leaf(leaf) for leaf in LEAVES]), Checkpoint(NAME, 3, ROOTS[2])
    verify_growth(old, CHECKPOINT, tree.consistency_proof(3))
    with pytest.raises(ProofRefused, match="two logs"):
        verify_growth(Checkpoint("another", 3, ROOTS[2]), CHECKPOINT, tree.consistency_proof(3))
    with pytest.raises(ProofRefused, match="rewritten"):
        verify_growth(Checkpoint(NAME, 3, ROOTS[3]), CHECKPOINT, tree.consistency_proof(3))
    with pytest.raises(ProofRefused, match="gone back"):
        verify_growth(CHECKPOINT, old, [])
