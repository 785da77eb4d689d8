"""Audits: can the figures be trusted, and is each track in the right playlist?

    genre_levels  the scores within each genre and between the genres
    learnability  which pairs of subgenres can be distinguished
    leakage       the same score under loose and strict splits
    duplicates    one recording under two names
    growth        the learning curve, and what more tracks would bring
    confounders   how well tempo, loudness, file type or year predict the playlist
    calibration   whether the probability of belonging is right
    open_set      whether tracks of an unknown subgenre are rejected
    mislabels     tracks in the wrong playlist, copies, outliers, broken recordings
    hubness       tracks that are recommended always or never

Numpy and scikit-learn on vectors, labels and tracks.
"""
