"""Whether prompt and reply were whole, told from the tokens counted: what all backends share."""

from prism.modelserver.errors import PromptTruncated, ReplyTruncated

# A prompt that comes this near to the context's end (tokens) was shortened, or leaves no room for a reply.
_PROMPT_MARGIN = 4


def assert_in_context(
    prompt_tokens: int, completion_tokens: int, context: int, name: str, where: str, advice: str
) -> None:
    """Raise PromptTruncated or ReplyTruncated for what cannot have been in a context of so many tokens.

    name: what the context's length is called where it is set.
    """
    if prompt_tokens >= context - _PROMPT_MARGIN:
        what = f"the prompt filled the context: {prompt_tokens} tokens, {name} {context}"
        raise PromptTruncated(what, where, advice)
    if prompt_tokens + completion_tokens > context:
        # The context was shifted while the reply grew: its end answers a prompt without its beginning.
        counts = f"{prompt_tokens} + {completion_tokens} tokens, {name} {context}"
        raise ReplyTruncated(f"prompt and reply overran the context: {counts}", where, advice)
