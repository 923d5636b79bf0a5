"""A model whose template would run for ever costs a request its answer, and no other."""

from tgi_llama.text.chat_template import ChatTemplate, ChatTemplates
from tgi_llama.text.template_meter import TemplateLimits

HOSTILE = (
    "{% if messages[0].content == 'loop' %}"
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    "{% elif messages[0].content == 'bomb' %}{{ 'a' * 10 ** 9 }}"
    "{% endif %}{{ messages[0].content }}"
)


def body(content: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 3}


async def test_template_that_never_ends_is_422_and_the_next_request_is_answered(make_site) -> None:
    template = ChatTemplate(HOSTILE, limits=TemplateLimits(timeout_s=0.2))
    site = await make_site(chat_templates=ChatTemplates(template))
    client = site.client()
    for content, reason in (("loop", "takes longer than 0.2 s"), ("bomb", "makes more than")):
        refused = await client.post("/v1/chat/completions", json=body(content))
        assert refused.status_code == 422
        assert reason in (await refused.get_json())["error"]["message"]
        answered = await client.post("/v1/chat/completions", json=body("Hi"))
        assert answered.status_code == 200
