"""Which column of a table is which, by the names that the field uses; and what cells of theirs mean.

Names are compared by their words, in any spelling: `Subject_ID`, `subject_id` and `SubjectID` are one name.
A number is a word: `Set1` is not `Set`.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

from .table_text import is_none

# Words of a column's name, in small letters. A name that has no other words is metadata.
# Who speaks comes first: a subject beside a speaker may be one who listens.
_SPEAKERS: Final = "speaker spk actor singer performer subject participant person patient user worker"
_NUMBERED: Final = ("id", "", "name", "code", "number", "no", "nr")  # what may follow: Subject_ID
_RECORDING: Final = """
    id uid uuid key index idx row unnamed number no nr code file fileid filename filepath path folder name url
    wav audio clip recording utterance utt segment sentence session take repetition trial corpus dataset
    database source version split fold folds partition subset set device microphone mic channel channels
    sample samples rate sr sampling samplerate frame frames bit bits depth
"""
_TIME: Final = """
    date day month year time times timestamp start end begin stop onset offset duration durations dur length
    len seconds secs sec ms
"""
_PEOPLE: Final = """
    age ages group years birth sex gender info country countrystring string nationality ethnicity race native
    language lang accent dialect rater raters annotator annotators listener listeners ratings n num
"""
METADATA: Final = frozenset(
    [f"{who}{what}" for who in _SPEAKERS.split() for what in _NUMBERED]
    + f"{_RECORDING} {_TIME} {_PEOPLE}".split()
)
# Names of the columns that a table needs; of several in a table the earlier one is taken.
FILE_NAMES: Final = (
    *("fileid", "filename", "filepath", "file", "path", "audiofile", "audiopath", "audio", "wavfile", "wav"),
    *("clip", "clipid", "recording", "recordingid", "utterance", "utteranceid"),
)
SPLIT_NAMES: Final = ("split", "partition", "subset", "set")
SPEAKER_NAMES: Final = tuple(f"{who}{what}" for who in _SPEAKERS.split() for what in _NUMBERED)
COUNTRY_NAMES: Final = ("countrystring", "country")

SPLITS: Final = ("Train", "Val", "Test")
_SPLIT_WORDS: Final = {
    **dict.fromkeys(("train", "training", "trn"), "Train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "devel", "development"), "Val"),
    **dict.fromkeys(("test", "testing", "tst"), "Test"),
}
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[^\W\d_][^\W\d_A-Z]*|\d+")


def named(columns: Sequence[str], names: Sequence[str]) -> str:
    """The column that has one of the names in any spelling; earlier names win. "" where none has."""
    return next(iter(all_named(columns, names)), "")


def all_named(columns: Sequence[str], names: Sequence[str]) -> list[str]:
    """All of them, in the order of the names."""
    joined = {column: "".join(words(column)) for column in columns}
    return [column for name in names for column in joined if name and joined[column] == name]


def is_metadata(column: str) -> bool:
    """Whether a name has no other words than those of metadata and of identifiers, and numbers."""
    found = [word for word in words(column) if not word.isdecimal()]
    return bool(found) and ("".join(found) in METADATA or METADATA.issuperset(found))


def words(column: str) -> list[str]:
    """Subject_ID, subjectID and "Subject id" -> subject, id. Set1 -> set, 1."""
    return [word.casefold() for word in _WORD.findall(column)]


def split_of(cell: str) -> str:
    """Train, Val or Test for dev, DEVEL, training, ...; any other text is left as it is."""
    return _SPLIT_WORDS.get(cell.casefold(), cell)


def speaker_of(cell: str) -> str:
    """One name for all ways to write its letters in Unicode; "" for NA and the like."""
    return "" if is_none(cell) else unicodedata.normalize("NFC", cell)
