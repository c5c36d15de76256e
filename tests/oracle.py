"How an answer of ours is compared with the one that fastai gave."

MISSING = "no answer"


def differences(ours, theirs, tolerance=(0.0, 0.0), otherwise=(), where=()):
    """Where two answers differ, in words. `tolerance` is a share of fastai's number, and the least that counts; what
    `otherwise` names is left out."""
    if "/".join(where) in otherwise:
        return
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in theirs | ours:
            yield from differences(
                ours.get(key, MISSING),
                theirs.get(key, MISSING),
                tolerance,
                otherwise,
                (*where, key),
            )
    elif isinstance(theirs, list) and isinstance(ours, list) and len(ours) == len(theirs):
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(one, other, tolerance, otherwise, (*where, str(index)))
    elif is_number(ours) and is_number(theirs):
        share, least = tolerance
        if not abs(ours - theirs) <= max(share * abs(theirs), least):
            yield f"{'/'.join(where)}: {ours} and not {theirs}"
    elif ours != theirs or type(ours) is not type(theirs):
        yield f"{'/'.join(where)}: {ours!r} and not {theirs!r}"


def is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
