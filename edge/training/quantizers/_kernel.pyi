from protocol.precision import Float32

def quantize_values(values: Float32, levels: Float32, trace: Float32, step: float, low: int, high: int, /) -> None: ...
def pass_values(gradient: Float32, trace: Float32, passed: Float32, /) -> tuple[float, float, float]: ...
def quantize_rows(
    weight: Float32, levels: Float32, step: Float32, unit: Float32, form: int, codes: tuple[float, float, float], /
) -> None: ...
def pass_rows(
    weight: Float32,
    gradient: Float32,
    passed: Float32,
    step: Float32,
    along_code: Float32,
    along_position: Float32,
    reach: float,
    form: int,
    codes: tuple[float, float, float],
    /,
) -> None: ...
