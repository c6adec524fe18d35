"""The codes of warnings, and what happened."""

from collections.abc import Mapping

WARNINGS: Mapping[str, str] = {
    "composite_failed": "the base could not be blended, and the picture was exported without it",
    "encode_failed": "one format could not be made; if it is there, the search for a larger file within its `max_bytes`"
    " ended early",
    "over_budget": "no file of this format is within its `max_bytes`",
    "storage_full": "there was no space for one file",
    "profile_ignored": "the colour profile is broken or not supported, and the levels were taken for sRGB",
    "animation_ignored": "the first frame of an animation was exported, for want of `animate=keep`",
    "loop_ignored": "AVIF is repeated for ever, though the animation is not",
    "ratio_ignored": "Gemini drew another ratio than the requested one, and a part was cut off",
}
