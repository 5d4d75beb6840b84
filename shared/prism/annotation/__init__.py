"""Prompt file and rows become a prompt; a model's reply becomes validated rows. Pure."""

from prism.annotation.answer import Answer, Problem
from prism.annotation.column import NOT_APPLICABLE, Column
from prism.annotation.prompt import MENTIONS, Message, Prompt, PromptRow, build_prompt, build_repair
from prism.annotation.prompt_file import ROW_ID, PromptFile, PromptRefused
from prism.annotation.reply import BadReply, read_reply

__all__ = [
    "MENTIONS",
    "NOT_APPLICABLE",
    "ROW_ID",
    "Answer",
    "BadReply",
    "Column",
    "Message",
    "Problem",
    "Prompt",
    "PromptFile",
    "PromptRefused",
    "PromptRow",
    "build_prompt",
    "build_repair",
    "read_reply",
]
