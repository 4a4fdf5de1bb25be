import pytest
from golden import RECIPES
from hypothesis import given
from hypothesis import strategies as st

from protocol.codec.clusters import Clusters
from protocol.codec.recipe import DEFAULT_RECIPE, STAGES, Recipe
from protocol.codec.sign import Sign
from protocol.codec.sparse import Sparse
from protocol.codec.step import Step
from protocol.codec.together import Floats, Halves, Ranges
from protocol.errors import Unsupported


@pytest.mark.parametrize("text", RECIPES)
def test_a_recipe_prints_as_it_is_parsed(text: str) -> None:
    """BF-041, BF-056."""
    recipe = Recipe.parse(text)
    assert str(recipe) == text
    assert recipe.stages <= set(STAGES)
    assert Recipe.parse(str(recipe.without_feedback)).feedback == ""


@pytest.mark.parametrize(
    ("text", "usual"),
    [
        ("topk:0.0025+sign", "stc:0.0025"),
        ("topk:.10", "topk:0.1"),
        ("topk:0.1+half", "topk:0.1"),
        ("fedzip:z=.20,k=03", "fedzip:z=0.2,k=3"),
        ("eden:2.0", "eden:2"),
        ("ef+step:.0010+rc", "ef+step:0.001+rc"),
        ("step:10", "step:10"),
        ("step:0.00000001", "step:0.00000001"),
    ],
)
def test_every_recipe_has_one_usual_form(text: str, usual: str) -> None:
    """BF-041."""
    assert str(Recipe.parse(text)) == usual


@pytest.mark.parametrize(
    "text",
    [
        *("", "+", "ef", "rc", "zip", "sign+sign", "ef+ef+sign", "uniform:4+rc+rc", "sign ", "SIGN"),
        *("uniform", "uniform:0", "uniform:9", "uniform:1.5", "uniform:z=0.2,k=3", "sign:1", "fp32:1"),
        *("step", "step:0", "step:0.0", "step:11", "step:10.5", "step:-1", "step:1e-3", "step:0.000000001"),
        *("step:z=0.2,k=3", "dgc+step:0.1", "topk:0.1+step:0.1"),
        *("eden", "eden:0", "eden:1.5", "eden:5", "eden:-1", "eden:1e0"),
        *("stc:0", "stc:1", "topk", "topk:2", "topk:nan", "topk:0.1+topk:0.1", "stc:0.1+uniform:4", "stc:0.1+sign"),
        *("topk:0.1+eden:1", "topk:0.1+stc:0.1", "topk:0.1+stosign", "topk:0.1+fedzip:z=0.2,k=3"),
        *("fedzip", "fedzip:0.2", "fedzip:z=0.2", "fedzip:z=0,k=3", "fedzip:z=2,k=3", "fedzip:z=0.2,k=1"),
        *("fedzip:z=0.2,k=17", "dgc+sign", "dgc+fedzip:z=0.2,k=3"),
        *("fp32+rc", "sign+rc", "half+huffman", "stosign+rc", "eden:1+rc", "eden:0.5+huffman", "stc:0.1+huffman"),
    ],
)
def test_stages_that_are_none_or_do_not_go_together_are_named(text: str) -> None:
    """BF-056."""
    with pytest.raises(Unsupported, match="recipe"):
        Recipe.parse(text)


@given(st.text(alphabet="efdgctopkrhuman:+0123456789.,=z sign", max_size=30))
def test_any_text_is_a_recipe_or_unsupported(text: str) -> None:
    """BF-042."""
    try:
        recipe = Recipe.parse(text)
    except Unsupported:
        return
    assert Recipe.parse(str(recipe)) == recipe


def test_dgc_warms_up_by_quarters() -> None:
    recipe = Recipe.parse("dgc+topk:0.001")
    spelled = [str(recipe.in_round(number)) for number in (1, 2, 3, 4, 5, 6, 1000)]
    shares = ("0.25", "0.0625", "0.015625", "0.00390625", "0.001", "0.001", "0.001")
    assert spelled == [f"dgc+topk:{share}" for share in shares]
    for number in range(1, 20):
        warm = Recipe.parse("dgc+topk:0.00000001").in_round(number)
        assert Recipe.parse(str(warm)) == warm
    assert Recipe.parse("ef+topk:0.001").in_round(1) == Recipe.parse("ef+topk:0.001")


def test_every_stage_has_a_recipe() -> None:
    assert set().union(*(Recipe.parse(text).stages for text in RECIPES)) == set(STAGES)
    assert DEFAULT_RECIPE in RECIPES


def test_stages_become_codecs() -> None:
    """BF-055."""
    assert isinstance(Recipe.parse("ef+sign").weights, Sign)
    assert isinstance(Recipe.parse("stc:0.1").weights, Sparse)
    assert isinstance(Recipe.parse("fedzip:z=0.2,k=3").weights, Clusters)
    assert isinstance(Recipe.parse("step:0.002+rc").weights, Step)
    assert isinstance(Recipe.parse("fp32").deltas, Floats)
    assert isinstance(Recipe.parse("topk:0.1+fp32").deltas, Ranges)
    assert isinstance(Recipe.parse("half").absolutes, Halves)
