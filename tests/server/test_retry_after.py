import pytest

from tgi_llama.server.retry_after import RetryAdvice


def test_advice_without_experience_is_a_second():
    assert RetryAdvice().seconds(8) == 1


@pytest.mark.parametrize(("n_running", "seconds"), [(0, 1), (1, 40), (2, 20), (3, 14), (1000, 1)])
def test_advice_is_the_mean_duration_shared_by_those_at_work(n_running, seconds):
    advice = RetryAdvice()
    advice.note_finished(40.0)
    assert advice.seconds(n_running) == seconds


def test_advice_is_never_more_than_a_minute():
    advice = RetryAdvice()
    advice.note_finished(10_000.0)
    assert advice.seconds(1) == 60


def test_advice_follows_recent_generations():
    advice = RetryAdvice()
    advice.note_finished(40.0)
    for _ in range(100):
        advice.note_finished(4.0)
    assert advice.seconds(1) == 5


async def test_answer_to_overload_uses_finished_generations(make_site):
    site = await make_site(max_concurrent_requests=1)
    site.services.retry_advice.note_finished(7.5)
    with site.admission.permit():
        response = await site.client().post("/generate", json={"inputs": "hi"})
    assert response.status_code == 429
    assert response.headers["retry-after"] == "8"
