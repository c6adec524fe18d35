"""Builds the prompt for a thumbnail from a script, and finds the script in a prompt."""

_OPEN = "<script>\n"
_CLOSE = "\n</script>"

_TASK = """\
Draw one finished thumbnail picture, aspect ratio {ratio}, for the video whose script stands between the script tags.

- One clear subject that shows what the video is about, with depth, strong light and colours that stand out when small.
- Fill the whole frame, edge to edge: no border, no collage, no mock-up of a player, no watermark.
- If words help, use at most five, large, in the language of the script, spelled exactly and clear of the edges.
- Take the subject, the mood and the style from the script alone.
"""

_WITH_BASE = """\
- The attached picture is the reference: keep its subject, people and products recognisable and build the thumbnail \
around them.
"""


def build_prompt(script: str, aspect_ratio: str, with_base: bool) -> str:
    """The instructions, then the script verbatim; `with_base`: a reference picture is sent along."""
    task = _TASK.format(ratio=aspect_ratio) + (_WITH_BASE if with_base else "")
    return f"{task}\n{_OPEN}{script}{_CLOSE}"


def script_of(prompt: str) -> str:
    """The script in a prompt of `build_prompt`; any other prompt is returned as it is."""
    start, end = prompt.find(_OPEN), prompt.rfind(_CLOSE)
    if start < 0 or end < start + len(_OPEN):
        return prompt
    return prompt[start + len(_OPEN) : end]
