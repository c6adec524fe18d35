import pytest

from service.gemini.prompts import build_prompt, script_of

SCRIPTS = [
    "My awesome video",
    "  spaces stay \n\n and so do {braces} and %s\t",
    "Größe, 日本語, עברית, 😀",
    "a script about <script>\ntags\n</script> in HTML",
    "\n",
    "",
]


@pytest.mark.parametrize("with_base", [True, False])
@pytest.mark.parametrize("script", SCRIPTS)
def test_the_prompt_has_the_script_verbatim_and_it_can_be_extracted(script: str, with_base: bool) -> None:
    prompt = build_prompt(script, "16:9", with_base)
    assert script in prompt
    assert script_of(prompt) == script


def test_the_prompt_names_the_ratio() -> None:
    assert "21:9" in build_prompt("My awesome video", "21:9", with_base=False)


def test_the_prompt_mentions_a_reference_only_with_a_base() -> None:
    assert "reference" in build_prompt("My awesome video", "16:9", with_base=True)
    assert "reference" not in build_prompt("My awesome video", "16:9", with_base=False)


@pytest.mark.parametrize("prompt", ["Draw a cat.", "half <script>\na mark", "\n</script> upside down <script>\n", ""])
def test_any_other_prompt_is_its_own_script(prompt: str) -> None:
    assert script_of(prompt) == prompt
