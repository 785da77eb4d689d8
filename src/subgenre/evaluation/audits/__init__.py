"""Audits: can the figures be trusted, and is each track where it belongs?

    leakage       the same score under loose and strict splits
    duplicates    one recording under two names
    learnability  which pairs of subgenres can be told apart at all
    growth        the learning curve, and what more tracks would bring
    confounders   what tempo, loudness, file type or year give away
    doctor        tracks in the wrong playlist, copies, outliers, broken recordings
    open_set      tracks that belong to no playlist
    hubness       tracks that are recommended always or never

Pure numpy and scikit-learn on vectors, labels and tracks; each gives a frozen dataclass whose
`to_dict` is safe as JSON.
"""
