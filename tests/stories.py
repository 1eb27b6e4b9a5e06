"""Children's stories of a few sentences, made by rule: text of the kind that stories260K knows."""

import random

_NAMES = ["Lily", "Tom", "Ben", "Sara", "Max", "Mia", "Tim", "Anna"]
_THINGS = ["ball", "car", "doll", "kite", "book", "hat", "cake", "flower"]
_PLACES = ["park", "garden", "house", "forest", "school", "beach"]
_FEELINGS = ["happy", "sad", "excited", "scared", "proud"]
_LOOKS = ["big", "small", "red", "blue", "shiny", "soft", "old", "new"]
_ANIMALS = ["dog", "cat", "bird", "bunny", "frog"]


def stories(count: int, *, seed: int) -> list[str]:
    """So many stories; different seeds share none but by chance."""
    chance = random.Random(seed)
    return [_story(chance) for _ in range(count)]


def _story(chance: random.Random) -> str:
    girl, friend = chance.sample(_NAMES, 2)
    thing, other = chance.sample(_THINGS, 2)
    place, animal = chance.choice(_PLACES), chance.choice(_ANIMALS)
    look, feeling = (lambda: chance.choice(_LOOKS)), (lambda: chance.choice(_FEELINGS))
    return (
        f"Once upon a time, there was a little girl named {girl}. She loved to play with her "
        f"{look()} {thing} in the {place}. One day, {girl} saw a {look()} {animal} near the "
        f'{place}. The {animal} was very {feeling()}. {girl} asked, "Do you want to play with '
        f'me?" Her friend {friend} said, "Yes, I have a {look()} {other}." They played together '
        f"all day. {friend} was {feeling()} and gave the {other} to {girl}. At the end of the "
        f"day, {girl} and {friend} went home to their mom. They were very {feeling()}."
    )
