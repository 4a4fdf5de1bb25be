"""Charts: options for ECharts, which NiceGUI carries with it. Their colours are legible on dark ground and on light."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from nicegui import ui

COLOURS: Final = ("#14968f", "#c98a1b", "#7a6ff0", "#d2584f", "#5b8def", "#8c959f", "#b3679b", "#6b8e23")
GREY: Final = "#8c959f"
LINE: Final = "rgba(140, 149, 159, 0.25)"

Points = Sequence[tuple[float, float]]


def lines(
    series: Mapping[str, Points],
    *,
    x: str,
    y: str,
    dots_only: bool = False,
    percent: bool = False,
    log_x: bool = False,
    height_px: int = 280,
    limit: float | None = None,
) -> None:
    """Curves, or dots, over a number.

    Args:
        series: points by name, in the order of the legend.
        x: what the horizontal axis is, with its unit.
        y: what the vertical one is.
        dots_only: whether no line joins them.
        percent: whether y is a share.
        log_x: whether x grows by factors.
        height_px: of the chart.
        limit: a dashed line at this height, if given.
    """
    chart = ui.echart(_options(series, x, y, dots_only, percent, log_x, limit), renderer="svg")
    chart.style(f"height: {height_px}px; width: 100%").props(f'role=img aria-label="{y} against {x}"')


def _options(
    series: Mapping[str, Points], x: str, y: str, dots_only: bool, percent: bool, log_x: bool, limit: float | None
) -> dict[str, Any]:
    many = len(series) > 1
    drawn = [_series(name, points, dots_only) for name, points in series.items()]
    if limit is not None and drawn:
        line = {"silent": True, "symbol": "none", "data": [{"yAxis": limit}], "label": {"color": GREY}}
        drawn[0]["markLine"] = line | {"lineStyle": {"color": GREY, "type": "dashed"}}
    axis = _axis(y) | {"scale": True}
    if percent:
        axis["axisLabel"] = axis["axisLabel"] | {":formatter": "v => (100 * v).toFixed(0) + ' %'"}
    return {
        "animation": False,
        "color": list(COLOURS),
        "textStyle": {"fontFamily": "Roboto, system-ui, sans-serif"},
        "grid": {"left": 8, "right": 24, "top": 60 if many else 32, "bottom": 28, "containLabel": True},
        "legend": {"show": many, "top": 0, "left": 0, "icon": "roundRect", "textStyle": {"color": GREY}},
        "tooltip": {"trigger": "item"},
        "xAxis": _axis(x) | _across(log_x),
        "yAxis": axis,
        "series": drawn,
    }


def _across(log_x: bool) -> dict[str, Any]:
    """A horizontal axis; one that grows by factors shows every power of two up to 32 bits."""
    kind = {"type": "log", "logBase": 2, "min": 1, "max": 32} if log_x else {"type": "value", "scale": True}
    return {**kind, "nameLocation": "middle", "nameGap": 28}


def _axis(name: str) -> dict[str, Any]:
    return {
        "type": "value",
        "name": name,
        "nameTextStyle": {"color": GREY, "align": "left"} if name else {},
        "axisLabel": {"color": GREY, "hideOverlap": True},
        "axisLine": {"lineStyle": {"color": LINE}},
        "splitLine": {"lineStyle": {"color": LINE}},
    }


def _series(name: str, points: Points, dots_only: bool) -> dict[str, Any]:
    drawn = {"name": name, "type": "scatter" if dots_only else "line", "data": [list(point) for point in points]}
    return drawn | ({"symbolSize": 10} if dots_only else {"symbolSize": 6, "lineStyle": {"width": 2}})


def stacked(names: Sequence[str], series: Mapping[str, Sequence[float]], *, y: str, height_px: int = 240) -> None:
    """Columns of parts, one for each name.

    Args:
        names: below the columns.
        series: the parts of each column, by what they are.
        y: what is added up, with its unit.
        height_px: of the chart.
    """
    bars = [
        {"name": name, "type": "bar", "stack": "all", "barMaxWidth": 28, "data": list(values)}
        for name, values in series.items()
    ]
    options = _options({}, "", y, False, False, False, None) | {
        "legend": {"show": True, "top": 0, "left": 0, "icon": "roundRect", "textStyle": {"color": GREY}},
        "grid": {"left": 8, "right": 16, "top": 56, "bottom": 4, "containLabel": True},
        "xAxis": _axis("") | {"type": "category", "data": list(names)},
        "yAxis": _axis(y),
        "series": bars,
    }
    ui.echart(options, renderer="svg").style(f"height: {height_px}px; width: 100%").props(f'role=img aria-label="{y}"')
