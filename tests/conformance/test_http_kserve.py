"""KServe's routes (contract 1.7, with the changes of decisions)."""

import json

import pytest
from fakes.engine import FakeEngine, fails_after, text_events
from fakes.raw_client import get

from tgi_llama.errors import GenerationError

INFER = "/v2/models/any/versions/1/infer"


def infer_input(text, name="in"):
    data = list(text.encode()) if isinstance(text, str) else text
    return {"name": name, "shape": [1, len(data)], "datatype": "BYTES", "data": data}


def asked(*texts, **others):
    inputs = [infer_input(text) for text in texts]
    outputs = [{"name": f"out{i}"} for i in range(len(texts))]
    return {"id": "7", "inputs": inputs, "outputs": outputs} | others


async def infer(site, payload):
    response = await site.client().post(INFER, json=payload)
    return response, (await response.get_data()).decode()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/health/live", '{"live":true}'),
        ("/v2/health/ready", '{"live":true}'),
        (
            "/v2",
            '{"name":"text-generation-inference","version":"1.2.3",'
            '"extensions":["health","models","metrics"]}',
        ),
        (
            "/v2/models/any/versions/9",
            '{"name":"any","version":"9","extensions":["infer","ready"]}',
        ),
        ("/v2/models/any/versions/9/ready", '{"live":true}'),
    ],
)
async def test_get_routes_answer_to_the_byte_and_need_no_key(make_site, path, body):
    response = await (await make_site(api_keys=("secret",))).client().get(path)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert (await response.get_data()).decode() == body


@pytest.mark.parametrize("name", ["Qwen/Qwen2", "Qwen%2FQwen2"])
async def test_names_with_slashes_are_echoed(make_site, name):
    client = await (await make_site()).connect()
    response = await client.request(get(f"/v2/models/{name}/versions/1"))
    assert response.json == {"name": "Qwen/Qwen2", "version": "1", "extensions": ["infer", "ready"]}
    response = await client.request(get(f"/v2/models/{name}/versions/1/ready"))
    assert response.json == {"live": True}


async def test_infer_answers_bytes_with_every_key_in_order(make_site):
    site = await make_site(FakeEngine(lambda _: text_events("h", "é")))
    response, body = await infer(site, asked("hi"))
    assert body == (
        '{"id":"7","outputs":[{"name":"out0","shape":[1,3],"datatype":"BYTES",'
        '"data":[104,195,169]}]}'
    )
    assert not [name for name, _ in response.headers if name.lower().startswith("x-")]
    assert site.metric("tgi_request_count") == 1
    assert site.metric("tgi_request_success") == 1


async def test_outputs_are_in_the_order_of_the_inputs(make_site):
    def script(request):  # the first input takes longest
        return text_events(*["a"] * (10 - len(request.prompt_ids)))

    site = await make_site(FakeEngine(script))
    _, body = await infer(site, asked("1", "22", "333"))
    outputs = json.loads(body)["outputs"]
    assert [(output["name"], output["shape"]) for output in outputs] == [
        ("out0", [1, 8]),
        ("out1", [1, 7]),
        ("out2", [1, 6]),
    ]


async def test_input_is_read_as_utf8(make_site):
    site = await make_site()
    await infer(site, asked("hé"))
    assert site.engine.requests[0].prompt_ids == (1, ord("h"), ord("é"))


@pytest.mark.parametrize(("given", "greedy"), [({}, False), ({"parameters": {}}, True)])
async def test_without_parameters_it_samples_as_generate_does(make_site, given, greedy):
    site = await make_site()
    await infer(site, asked("a", **given))
    assert site.engine.requests[0].sampling.greedy is greedy


async def test_parameters_hold_for_all_inputs(make_site):
    site = await make_site()
    await infer(site, asked("a", "b", parameters={"max_new_tokens": 5, "stop": ["x"]}))
    assert [request.stopping.max_new_tokens for request in site.engine.requests] == [5, 5]
    assert [request.stopping.stop_strings for request in site.engine.requests] == [("x",), ("x",)]


async def test_nothing_asked_is_answered_with_nothing(make_site):
    assert (await infer(await make_site(), asked()))[1] == '{"id":"7","outputs":[]}'


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([0xFF, 0x61], "invalid utf-8 sequence of 1 bytes from index 0"),
        ([0x61, 0xE2, 0x82, 0x61], "invalid utf-8 sequence of 2 bytes from index 1"),
        ([0x61, 0xE2, 0x82], "incomplete utf-8 byte sequence from index 1"),
    ],
)
async def test_input_that_is_not_utf8_is_refused_before_lengths_are_compared(
    make_site, data, message
):
    site = await make_site()
    response, body = await infer(site, asked("a", data, outputs=[]))
    assert response.status_code == 422
    assert json.loads(body) == {"error": f"inputs[1].data: {message}", "error_type": "utf8"}
    assert site.metric('tgi_request_failure{err="validation"}') == 1


@pytest.mark.parametrize("outputs", [[], [{"name": "a"}, {"name": "b"}]])
async def test_lists_of_different_lengths_are_refused(make_site, outputs):
    response, body = await infer(await make_site(), asked("a", outputs=outputs))
    assert response.status_code == 422
    assert body == '{"error":"Inputs and outputs length mismatch","error_type":"length mismatch"}'


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"inputs": [], "outputs": []}, "id: missing, expected a string"),
        (asked("a", inputs=[{"name": "x"}]), "inputs[0].shape: missing, expected a list"),
        (asked([97, 256]), "inputs[0].data[1]: expected an integer from 0 to 255, got 256"),
        (asked([97, -1]), "inputs[0].data[1]: expected an integer from 0 to 255, got -1"),
        (asked(["hi"]), 'inputs[0].data[0]: expected an integer, got "hi"'),
        (asked("a", parameters=None), "parameters: expected an object, got null"),
        (asked("a", outputs=[{}]), "outputs[0].name: missing, expected a string"),
    ],
)
async def test_wrong_shape_names_the_field(make_site, payload, message):
    response, body = await infer(await make_site(), payload)
    assert response.status_code == 422
    assert json.loads(body) == {
        "error": f"Failed to deserialize the JSON body into the target type: {message}",
        "error_type": "validation",
    }


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (asked("a", ""), "inputs[1].data: `inputs` cannot be empty"),
        (
            asked("a", parameters={"top_p": 1}),
            "parameters.top_p: `top_p` must be > 0.0 and < 1.0",
        ),
    ],
)
async def test_wrong_value_keeps_its_status(make_site, payload, error):
    site = await make_site()
    response, body = await infer(site, payload)
    assert response.status_code == 422
    assert json.loads(body) == {
        "error": f"Input validation error: {error}",
        "error_type": "validation",
    }
    assert site.engine.n_opened == 0


async def test_each_input_takes_a_permit(make_site):
    site = await make_site(max_concurrent_requests=3)
    with site.admission.permit():
        assert (await infer(site, asked("a", "b")))[0].status_code == 200
        assert (await infer(site, asked("a", "b", "c")))[0].status_code == 429
    assert site.admission.n_running == 0


async def test_generation_that_fails_keeps_its_status(make_site):
    site = await make_site(FakeEngine(fails_after("a", error=GenerationError("no"))))
    response, body = await infer(site, asked("a"))
    assert response.status_code == 424
    assert json.loads(body)["error_type"] == "generation"


async def test_infer_asks_for_the_key(make_site):
    site = await make_site(api_keys=("secret",))
    assert (await infer(site, asked("a")))[0].status_code == 401
    assert (await site.client().get(INFER)).status_code == 401


async def test_get_of_infer_is_405(make_site):
    response = await (await make_site()).client().get(INFER)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
