"""INA219, INA226 and INA260 bit by bit, on a chip of registers that computes as the data sheets say.

No I2C exists on a test machine, so `Silicon` stands where the bus would: it holds registers, multiplies as equations 2
to 5 of the data sheets do, and loses everything when its supply fails.
"""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from meter_contract import MeterContract, Rig

from edge.meters import ina as module
from edge.meters.base import Absent, MeterError
from edge.meters.ina import Chip, InaSensor, ina, ina219, ina226, ina260, signed, swapped
from edge.meters.sampled import PowerMeter

ADDRESS = 0x40


@dataclass
class Silicon:
    """A chip with a supply of `volts` and a load of `amperes`."""

    kind: str
    shunt_ohm: float = 0.1
    volts: float = 5.1
    amperes: float = 1.0
    wired: bool = True
    stuck: bool = False
    ids: dict[int, int] = field(default_factory=dict)
    registers: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ids = {0xFE: 0x5449, 0xFF: {"ina226": 0x2260, "ina260": 0x2271}.get(self.kind, 0)}
        self.lose_supply()

    def lose_supply(self) -> None:
        self.registers = {0: {"ina219": 0x399F, "ina226": 0x4127, "ina260": 0x6127}[self.kind]}

    def read_word_data(self, i2c_addr: int, register: int) -> int:
        self._check(i2c_addr)
        return swapped(self._computed(register) & 0xFFFF)

    def write_word_data(self, i2c_addr: int, register: int, value: int) -> None:
        self._check(i2c_addr)
        if not self.stuck:
            value = swapped(value)
            self.registers[register] = value & 0xFFFE if (self.kind, register) == ("ina219", 5) else value

    def close(self) -> None:
        pass

    def _check(self, address: int) -> None:
        if not self.wired or address != ADDRESS:
            raise OSError(121, "Remote I/O error")

    def _computed(self, register: int) -> int:
        current, power = self._measured()
        if self.kind == "ina260":
            return {1: current, 3: power}.get(register, self.ids.get(register, self.registers.get(register, 0)))
        return {3: power, 4: current}.get(register, self.ids.get(register, self.registers.get(register, 0)))

    def _measured(self) -> tuple[int, int]:
        calibration = self.registers.get(5, 0)
        if self.kind == "ina219":
            shunt = max(-32000, min(32000, round(self.amperes * self.shunt_ohm / 10e-6)))
            current = shunt * calibration // 4096
            return current, current * round(self.volts / 4e-3) // 5000
        if self.kind == "ina226":
            shunt = max(-32768, min(32767, round(self.amperes * self.shunt_ohm / 2.5e-6)))
            current = shunt * calibration // 2048
            return current, current * round(self.volts / 1.25e-3) // 20000
        current = round(self.amperes / 1.25e-3)
        return current, round(current * 1.25e-3 * self.volts / 10e-3)


CHIPS: dict[str, Chip] = {"ina219": ina219(), "ina226": ina226(shunt_ohm=0.01), "ina260": ina260()}


def silicon(kind: str) -> Silicon:
    return Silicon(kind, shunt_ohm=0.01 if kind == "ina226" else 0.1)


def sensor(bus: Silicon, chip: Chip | None = None) -> InaSensor:
    return InaSensor(chip or CHIPS[bus.kind], 1, ADDRESS, lambda _: bus)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers need no time to settle, and a busy test machine is no gap."""
    monkeypatch.setattr(module, "SETTLE_S", 0.0)
    monkeypatch.setattr(module, "RATE_HZ", 1.0)


@pytest.mark.parametrize("kind", CHIPS)
class TestContract(MeterContract):
    @pytest.fixture
    def rig(self, kind: str) -> Rig:
        bus = silicon(kind)
        return Rig(
            lambda: PowerMeter(sensor(bus)), lambda: setattr(bus, "wired", False), lambda: setattr(bus, "wired", True)
        )


def test_the_data_sheets_own_example():
    """SBOS547, section 8.2.2: 2 mΩ, 15 A; they round the step up to 1 mA and get 2560, we keep 15 A / 2¹⁵."""
    chip = ina226(shunt_ohm=0.002, max_a=15.0)
    assert chip.registers[1] == (0x05, int(0.00512 / (15.0 / 2**15 * 0.002)))
    assert chip.current_ma == pytest.approx(15.0 / 2**15 * 1000, rel=1e-3)
    assert chip.power_mw == 25 * chip.current_ma


@pytest.mark.parametrize(
    ("chip", "registers"),
    [
        # 32 V; 320 mV; 32 samples each; continuous: 001 11 1101 1101 111
        (ina219(), ((0, 0b0011_1110_1110_1111), (5, 4194 & ~1))),
        (ina219(max_a=0.4), ((0, 0b0010_0110_1110_1111), (5, 33554))),
        # 16 averages, 1.1 ms, 1.1 ms, continuous
        (ina226(), ((0, 0x4527), (5, 2048))),
        (ina260(), ((0, 0x6527),)),
    ],
)
def test_registers_bit_by_bit(chip: Chip, registers: tuple[tuple[int, int], ...]):
    assert chip.registers == registers


def test_steps_of_a_full_scale_ina226_are_those_of_its_shunt():
    assert ina226(shunt_ohm=0.1).current_ma == pytest.approx(2.5e-6 / 0.1 * 1000)


@given(st.integers(0, 0xFFFF))
def test_bytes_and_signs(word: int):
    assert swapped(swapped(word)) == word
    assert swapped(word).to_bytes(2, "big") == word.to_bytes(2, "little")
    assert signed(word) == int.from_bytes(word.to_bytes(2, "big"), "big", signed=True)


@pytest.mark.parametrize("kind", CHIPS)
@given(volts=st.floats(4.5, 20.0), part=st.floats(0.05, 0.9))
def test_what_is_read_is_the_load_to_a_step_of_the_power_register(kind: str, volts: float, part: float):
    chip, bus = CHIPS[kind], silicon(kind)
    bus.volts, bus.amperes = volts, part * chip.max_a
    one = sensor(bus)
    one.open()
    # One step of power, one of current times the voltage, and half a step of the voltage's 4 mV times the current.
    tolerance_mw = 1.5 * chip.power_mw + 1.5 * chip.current_ma * volts + 2.0 * bus.amperes
    assert one.read() == pytest.approx(volts * bus.amperes * 1000.0, abs=tolerance_mw)


@pytest.mark.parametrize("kind", CHIPS)
def test_a_chip_that_lost_its_supply_is_a_hole_and_set_up_again(kind: str):
    bus = silicon(kind)
    meter = PowerMeter(sensor(bus))
    meter.read()
    bus.lose_supply()
    if kind == "ina260":  # calibrated at the factory, it only forgets to average
        assert meter.read().holes == 0
        return
    with pytest.raises(MeterError, match="0 mW, expected more than 0"):
        meter.read()
    assert meter.read().holes == 1
    assert bus.registers[5] == CHIPS[kind].registers[1][1]


@pytest.mark.parametrize("kind", CHIPS)
@pytest.mark.parametrize(("amperes", "error"), [(-1.0, r"are IN\+ and IN− exchanged"), (40.0, "expected less than")])
def test_currents_that_cannot_be_are_errors(kind: str, amperes: float, error: str):
    bus = silicon(kind)
    one = sensor(bus)
    one.open()
    bus.amperes = amperes
    with pytest.raises(MeterError, match=f"meter {kind} on bus 1, address 0x40: .*{error}"):
        one.read()


@pytest.mark.parametrize("kind", ["ina226", "ina260"])
def test_another_chip_at_the_address_is_named(kind: str):
    bus = silicon(kind)
    bus.ids[0xFF] = 0x3220
    with pytest.raises(MeterError, match="maker 0x5449, die 0x3220; expected 0x5449, 0x22"):
        sensor(bus).open()


def test_a_chip_that_keeps_nothing_is_named():
    bus = silicon("ina219")
    bus.stuck = True
    with pytest.raises(MeterError, match="register 0 holds 0x399f, expected 0x3eef"):
        sensor(bus).open()


@pytest.mark.parametrize(
    ("kind", "argument", "error"),
    [
        ("ina219", "bus=x", "bus=x: expected a whole number from 0 to 255"),
        ("ina219", "address=0x20", "expected a whole number from 64 to 79"),
        ("ina219", "shunt=0", "number above 0, at most 100 Ω"),
        ("ina219", "shunt", "'shunt': expected bus=…, address=…, shunt=…, max=…"),
        ("ina219", "bus=1,bus=2", "each once at most"),
        ("ina219", "shunt=0.1,max=4", r"max=4 A: expected at most 3.2 A, where 0.1 Ω drop 0.32 V"),
        ("ina226", "shunt=0.1,max=0.001", "calibration .* expected 1 to 32767: more amperes"),
        ("ina260", "shunt=0.1", "expected bus=…, address=…"),
    ],
)
def test_a_wrong_setting_says_what_was_expected(kind: str, argument: str, error: str):
    with pytest.raises(ValueError, match=error):
        ina(kind, argument)


def test_without_a_bus_there_is_no_meter():
    with pytest.raises(Absent, match="/dev/i2c-250 is not there"):
        ina("ina219", "bus=250").read()
