"""Routes under paths that whoever runs the server chooses. Vertex AI tells a container the paths
that it will call."""

from collections.abc import Iterator, Sequence

import attrs

from tgi_llama.errors import ConfigError

from .routes import Route


def chosen_routes(
    routes: Sequence[Route], *, predict: str | None, health: str | None
) -> tuple[Route, ...]:
    """Further paths of some of the routes. Raises ConfigError where a path is taken already by a
    route that does something else."""
    return tuple(_chosen(routes, predict, health))


def _chosen(routes: Sequence[Route], predict: str | None, health: str | None) -> Iterator[Route]:
    wanted = (
        ("--aip-predict-route", predict, "vertex_compatibility"),
        ("--aip-health-route", health, "health"),
    )
    by_name = {route.name: route for route in routes}
    by_path = {(route.method, route.path): route for route in routes}
    for flag, path, name in wanted:
        if path is None:
            continue
        route = by_name[name]
        taken_by = by_path.get((route.method, path))
        if taken_by is None:
            yield attrs.evolve(route, path=path, name=f"{name}_at_chosen_path")
        elif taken_by.view != route.view:
            raise ConfigError(f"{flag}: {path!r} is the path of another route of this server")
