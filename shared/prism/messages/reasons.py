"""Why a row, a file or a message was not accepted: the closed list of typed reasons.

A reason is what the `Error` column, the manifest and the dead-letter topic show. Free text
(`detail`) may go beside it in logs and manifests, never into a data cell.
"""

from enum import StrEnum


class RowReason(StrEnum):
    """Why one row ended as a failure."""

    # Found while the file was cut: the row is not sent to a model.
    WRONG_CELL_COUNT = "wrong_cell_count"
    NUL_CHARACTER = "nul_character"
    FIELD_TOO_LONG = "field_too_long"
    EMPTY_MESSAGE = "empty_message"
    ROW_TOO_LONG = "row_too_long"
    # Its photo cannot be used, or the model cannot see.
    NO_PHOTO = "no_photo"
    BAD_PHOTO = "bad_photo"
    NO_VISION = "no_vision"
    # The model's answer for this row was never acceptable.
    NOT_JSON = "not_json"
    TRUNCATED_REPLY = "truncated_reply"
    TRUNCATED_PROMPT = "truncated_prompt"
    EMPTY_REPLY = "empty_reply"
    MISSING_ROW = "missing_row"
    AMBIGUOUS_ROW = "ambiguous_row"
    SCHEMA_VIOLATION = "schema_violation"
    LABEL_NOT_ALLOWED = "label_not_allowed"
    # The model server refused this row while it answered others.
    MODEL_REFUSED = "model_refused"
    MODEL_ERROR = "model_error"
    MODEL_TIMEOUT = "model_timeout"
    # The fleet gave the row up.
    RESULT_TOO_LARGE = "result_too_large"
    POISON = "poison"
    LOST = "lost"
    CANCELLED = "cancelled"


class FileReason(StrEnum):
    """Why a whole source was refused, or its run failed."""

    EMPTY_FILE = "empty_file"
    NO_HEADER = "no_header"
    MISSING_COLUMN = "missing_column"
    DUPLICATE_COLUMN = "duplicate_column"
    DUPLICATE_ROW_ID = "duplicate_row_id"
    NOT_UTF8 = "not_utf8"
    UNCLOSED_QUOTE = "unclosed_quote"
    MALFORMED_CSV = "malformed_csv"
    MALFORMED_JSONL = "malformed_jsonl"
    MALFORMED_PARQUET = "malformed_parquet"
    UNSUPPORTED_COLUMN = "unsupported_column"
    WRONG_DELIMITER = "wrong_delimiter"
    NOT_GZIP = "not_gzip"
    GZIP_BOMB = "gzip_bomb"
    NOT_A_FILE = "not_a_file"
    NOT_FOUND = "not_found"
    OUTSIDE_DATA_FOLDER = "outside_data_folder"
    SCHEME_NOT_ALLOWED = "scheme_not_allowed"
    PRIVATE_ADDRESS = "private_address"
    NO_SPACE = "no_space"
    TOO_LARGE = "too_large"
    CHECKSUM_MISMATCH = "checksum_mismatch"
    MODEL_CHANGED = "model_changed"
    ROW_FAILED = "row_failed"
    SOURCE_CHANGED = "source_changed"
    SOURCE_GONE = "source_gone"
    RUN_ID_TAKEN = "run_id_taken"
    BAD_RUN_ID = "bad_run_id"
    UNKNOWN_JOB = "unknown_job"
    BAD_JOB = "bad_job"
    BAD_PROMPT = "bad_prompt"
    BAD_REFERENCE = "bad_reference"
    BAD_REQUEST = "bad_request"
    BAD_HEADER = "bad_header"
    INCOMPLETE_CHUNKS = "incomplete_chunks"


class MessageReason(StrEnum):
    """Why a message went to the dead letters."""

    NOT_PARSED = "not_parsed"
    UNKNOWN_RUN = "unknown_run"
    RUN_ID_TAKEN = "run_id_taken"
    UNKNOWN_COMMAND = "unknown_command"
    STALE = "stale"
    # A photo or text request: without a reply, answered with an error at once, or after it was tried.
    REQUEST_SKIPPED = "request_skipped"
    REQUEST_REFUSED = "request_refused"
    REQUEST_FAILED = "request_failed"
