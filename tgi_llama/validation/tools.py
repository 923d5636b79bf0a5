"""The tools of a chat and the choice between them: what is judged before the template is rendered.

Pure functions.
"""

from tgi_llama.errors import ToolError
from tgi_llama.wire.openai_requests import ChatRequest, NamedToolChoice

from .grammars import constrains
from .rules import reject_unsupported

_CHOICES_WITHOUT_NAME = ("auto", "none", "required")

_LONGEST_NAME = 64
"""Characters of a tool's name that an error repeats; OpenAI's names are no longer."""


def check_tools(request: ChatRequest) -> None:
    """Without ``tools`` the choice is ignored.

    Raises ToolError for a contradiction, ValidationError for tools, which are not supported.
    """
    if request.tools is None:
        return
    if constrains(request.response_format):
        raise ToolError("Grammar and tools are mutually exclusive")
    name = _chosen_name(request)
    if name is not None and all(tool.function.name != name for tool in request.tools):
        raise ToolError(f"Tool with name {_shortened(name)} not found")
    if request.tools and request.tool_choice != "none":
        reject_unsupported("tools", field="tools")


def _chosen_name(request: ChatRequest) -> str | None:
    choice = request.tool_choice
    if isinstance(choice, NamedToolChoice):
        return choice.function.name
    return None if choice in _CHOICES_WITHOUT_NAME else choice


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."
