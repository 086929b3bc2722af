"""Mutated JSON trees and bytes, for the fuzz of every door."""

import copy
import json
import random

from hypothesis import HealthCheck

FUZZ = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": [HealthCheck.too_slow]}
"""Settings of all tests by hypothesis."""

ODD = [
    *(None, True, False, -1, 0, 1, 2, 3, 7, 255, 10**5, 10**9, 10**30, -(10**12), 0.5, 1e-300, 1e308, -0.0),
    *(
        float("nan"),
        float("inf"),
        "",
        "x",
        "1",
        "\0",
        "\n",
        "\ud83d",
        "a" * 5000,
        "../x",
        "/",
        "é☃🙂",
        "<image>",
        "<imgpad>",
    ),
    *([], {}, [[]], [None], [1, "x"], [1, 2], [0, 0, 0, 0], {"a": 1}, {"": {}}, [1e308] * 3),
]


def odd(rng: random.Random):
    if rng.random() < 0.02:
        deep: list = []
        for _ in range(rng.choice((10, 50, 400))):
            deep = [deep]
        return deep
    return copy.deepcopy(rng.choice(ODD))  # a tree may change it


def mutated_tree(tree, rng: random.Random, times: int):
    """A copy of JSON data with some values, keys or entries changed."""
    tree = json.loads(json.dumps(tree))
    for _ in range(times):
        places = list(_places(tree))
        if not places:
            return odd(rng)
        part, key = rng.choice(places)
        kind = rng.random()
        if kind < 0.6:
            part[key] = odd(rng)
        elif kind < 0.75:
            del part[key]
        elif kind < 0.85 and isinstance(part, dict):
            part[rng.choice(("x", "", "id", "\ud800", str(key) + "s"))] = part.pop(key)
        elif isinstance(part, list):
            part.insert(rng.randrange(len(part) + 1), odd(rng) if rng.random() < 0.5 else part[key])
        elif isinstance(part[key], (int, float)):
            part[key] = part[key] * rng.choice((-1, 2, 0.5, 3, 1000)) + rng.choice((0, 1))
    return tree


def _places(tree):
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield tree, key
        yield from _places(value)


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not found:
            break
        place, length = rng.randrange(len(found)), rng.choice((1, 1, 2, 4, 8, 64))
        kind = rng.randrange(7)
        if kind == 0:
            found[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            found[place : place + length] = bytes([rng.choice((0, 1, 127, 128, 255))]) * min(length, len(found) - place)
        elif kind == 2:
            del found[place : place + length]
        elif kind == 3:
            found[place:place] = rng.randbytes(length)
        elif kind == 4:
            del found[place:]
        elif kind == 5:
            found[place:place] = found[rng.randrange(len(found)) :][:length]
        else:
            found[place : place + length] = rng.randbytes(length)
    return bytes(found)
