"""A document as text spans: which formats there are, what in them is translated, and how the
translations are put back so that everything else stays byte for byte. Pure functions; knows no
tier and no Redis, so that the API can check an upload with what the document worker works with."""
