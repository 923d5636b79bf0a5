"""``/metrics`` alone, for ``--prometheus-port``: a port that may be open where the API is not."""

from quart import Response
from quart_trio import QuartTrio

from tgi_llama.metrics import CONTENT_TYPE, Metrics


def create_metrics_app(metrics: Metrics) -> QuartTrio:
    """An application with one route. TGI's own Prometheus port, where it served one, answered on
    every path; scrapers ask for ``/metrics``."""
    app = QuartTrio("tgi_llama.metrics", static_folder=None)

    async def page() -> Response:
        return Response(metrics.render(), content_type=CONTENT_TYPE)

    app.add_url_rule("/metrics", view_func=page, methods=["GET"])
    return app
