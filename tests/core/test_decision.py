"""Decisions, limits, architectures."""

import pytest

from gapless.core.decision import Arch, Decision, Keep, check
from gapless.core.errors import UserError

DECISIONS = (
    Decision("a", ("x", "y")),
    Decision("b", ("x", "none"), never=("none",)),
    Decision("c", ("x", "y", "z")),
)
LIMITS = (Keep(("b", "c"), 1),)


def test_an_arch_is_a_hashable_mapping_that_forgets_the_order():
    one, other = Arch({"b": "x", "a": "y"}), Arch({"a": "y", "b": "x"})
    assert one == other
    assert hash(one) == hash(other)
    assert dict(one) == {"a": "y", "b": "x"}
    assert len({one, other, Arch({"a": "x"})}) == 2
    assert one != {"a": "y", "b": "x"}


def test_an_arch_can_be_read_back():
    arch = Arch({"normal:2<-0": "skip_connect#2", "layer1.0": "sep_conv_3x3"})
    assert Arch.parse(str(arch)) == arch
    assert Arch.parse(f"  {arch} ,\n") == arch
    assert str(arch) in repr(arch)
    assert Arch.parse("") == Arch({})


def test_an_arch_cannot_be_changed():
    choice = {"a": "x"}
    arch = Arch(choice)
    choice["a"] = "y"
    assert arch["a"] == "x"
    with pytest.raises(TypeError):
        arch["a"] = "y"
    with pytest.raises(AttributeError):
        arch.extra = 1


@pytest.mark.parametrize("text", ["a", "a=", "=x", "a=x,b"])
def test_text_that_is_no_arch_is_named(text):
    with pytest.raises(UserError, match="not of the form decision=option"):
        Arch.parse(text)


def test_a_decision_answered_twice_is_refused():
    with pytest.raises(UserError, match="'a' is answered twice"):
        Arch.parse("a=x,a=y")


@pytest.mark.parametrize("name", ["", "a b", "a,b", "a=b", "a\nb"])
def test_names_that_could_not_be_read_back_are_refused(name):
    with pytest.raises(ValueError, match="cannot name a decision or an option"):
        Decision(name, ("x",))
    with pytest.raises(ValueError, match="cannot name a decision or an option"):
        Decision("a", (name,))


def test_options_have_labels_of_their_own():
    with pytest.raises(ValueError, match="each must stand once"):
        Decision("a", ("skip", "skip"))
    assert Decision("a", ("skip", "skip#2")).eligible == (0, 1)
    assert DECISIONS[1].eligible == (0,)


@pytest.mark.parametrize("count", [0, 3, -1])
def test_no_more_can_be_kept_than_there_are(count):
    with pytest.raises(ValueError, match="cannot keep"):
        Keep(("a", "b"), count)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"a": "x", "d": "x", "b": "x"}, "no decision 'd'"),
        ({"a": "w", "b": "x"}, "'w' is no answer to 'a'.*Legal: x, y"),
        ({"a": "x", "b": "none"}, "'none' is no answer to 'b'.*Legal: x"),
        ({"a": "x"}, "Exactly 1 of b, c must be present; given: none"),
        ({"a": "x", "b": "x", "c": "x"}, "Exactly 1 of b, c must be present; given: b, c"),
        ({"b": "x"}, "does not answer a"),
    ],
)
def test_check_says_what_is_wrong(given, said):
    with pytest.raises(UserError, match=said):
        check(Arch(given), DECISIONS, LIMITS)


def test_check_accepts_what_is_in_the_space():
    for given in ({"a": "x", "b": "x"}, {"a": "y", "c": "z"}):
        check(Arch(given), DECISIONS, LIMITS)


def test_a_near_miss_is_suggested():
    with pytest.raises(UserError, match="Did you mean 'skip_connect'"):
        check(Arch({"a": "skip_conect"}), (Decision("a", ("skip_connect", "none")),), ())
