"""What labels are suspected of when a detector contradicts them."""

from enum import StrEnum


class Kind(StrEnum):
    """What is suspected; the values are the codes of findings.json."""

    OVERLOOKED = "suspect-overlooked"
    LOCATION = "suspect-location"
    CLASS = "suspect-class"

    @property
    def explanation(self) -> str:
        """What it means, in one line."""
        return {
            Kind.OVERLOOKED: "The detector is sure of an object where no label is: perhaps nobody drew it.",
            Kind.LOCATION: "The detector sees this object of the same class elsewhere: perhaps the box is badly drawn.",
            Kind.CLASS: "The detector is sure of another class at this place: perhaps the class is wrong.",
        }[self]
