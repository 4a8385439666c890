"""EXI of the messages about certificates (ISO 15118-2 and -20): grammars as data, codec, JSON form."""

from chargepki.pki.exi.codec import MAX_EXI_BYTES, Message, MessageSet, Tree, Value, decode, encode
from chargepki.pki.exi.errors import ExiError
from chargepki.pki.exi.json_form import from_json, to_json

__all__ = [
    "MAX_EXI_BYTES",
    "ExiError",
    "Message",
    "MessageSet",
    "Tree",
    "Value",
    "decode",
    "encode",
    "from_json",
    "to_json",
]
