"""INA219, INA226 and INA260: power monitors on I2C that an owner wires into the supply of a board.

Data sheets, all Texas Instruments: INA219 SBOS448, INA226 SBOS547, INA260 SBOS656; equation numbers below are theirs.
Registers hold 16 bits, the high byte first, and SMBus gives the low byte first. The chip multiplies current by voltage
at each conversion and averages, over 34 ms as configured here, so that asking every 40 ms misses little.

What is in it: what flows through the shunt, so mostly the 5 V of the board with everything that hangs on it. A reading
is two transfers, about 1 ms on a bus of 100 kHz in which the processor is free; the meter's own board takes power too,
so a chip that is read by another board than the one it measures disturbs least. The user must be in group i2c.

Error: INA219 0.5 % of current and of voltage, INA226 0.1 %, both with 1 % for the shunt of common modules; INA260,
whose shunt is inside, 0.5 % over its temperatures. Rounded up.

A chip that lost its supply comes back without its calibration and says 0 W, which no running device takes: that reading
is refused, and opening it again writes the registers anew.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from edge.meters.base import Absent, Accuracy, Description, MeterError
from edge.meters.options import parse_options, positive, whole
from edge.meters.sampled import PowerMeter

RATE_HZ: Final = 25.0
SETTLE_S: Final = 0.1
"""After writing the registers, until a conversion with them has surely ended."""
FULL: Final = 0.998
"""Of the largest current; from here on the converter may be at its end and the true current above it."""
ADDRESSES: Final = range(0x40, 0x50)
"""Both address pins have four positions."""

CONFIG: Final = 0x00
MAKER: Final = 0xFE
DIE: Final = 0xFF
TEXAS_INSTRUMENTS: Final = 0x5449
_MA_PER_A: Final = 1000.0


class Bus(Protocol):
    """What is needed of an SMBus. Words are as SMBus gives them, low byte first."""

    def read_word_data(self, i2c_addr: int, register: int) -> int:
        """Read a register."""
        ...

    def write_word_data(self, i2c_addr: int, register: int, value: int) -> None:
        """Write a register."""
        ...

    def close(self) -> None:
        """Let go of the bus."""
        ...


@dataclass(frozen=True, slots=True)
class Chip:
    """One kind of chip with what is written into it and how its registers are read.

    Attributes:
        name: of the kind.
        registers: what is written when it is opened: (register, value) in order.
        current: the register of the current.
        current_ma: milliamperes of its lowest bit.
        power: the register of the power.
        power_mw: milliwatts of its lowest bit.
        max_a: the largest current that it is set up for.
        max_v: the largest supply voltage.
        error_percent: of a power, with a shunt of 1 % where it is not in the chip.
        die: what register 0xFF says without its lowest four bits, the revision; None where there is no such register.
    """

    name: str
    registers: tuple[tuple[int, int], ...]
    current: int
    current_ma: float
    power: int
    power_mw: float
    max_a: float
    max_v: float
    error_percent: float
    die: int | None


def ina219(shunt_ohm: float = 0.1, max_a: float | None = None) -> Chip:
    """An INA219 with its shunt, which drops at most 320 mV.

    Bus range 32 V; the smallest gain of 40, 80, 160 and 320 mV that holds the largest current, since offset grows with
    it; 32 samples of 12 bits for each of shunt and supply, 17.02 ms (tables 4 and 5).
    Cal = trunc(0.04096 / (LSB · R)) (equation 1), its lowest bit always 0; a power step is 20 current steps (3).

    Raises:
        ValueError: the current does not fit the shunt.
    """
    max_a = _fitting(max_a, shunt_ohm, 0.32)
    calibration = _calibration(0.04096, shunt_ohm, max_a, 0xFFFE)
    current_ma = 0.04096 / (calibration * shunt_ohm) * _MA_PER_A
    gain = next(index for index, full_v in enumerate((0.04, 0.08, 0.16, 0.32)) if max_a * shunt_ohm <= full_v + 1e-9)
    config = 1 << 13 | gain << 11 | 0b1101 << 7 | 0b1101 << 3 | 0b111
    registers = ((CONFIG, config), (0x05, calibration))
    return Chip("ina219", registers, 0x04, current_ma, 0x03, 20 * current_ma, max_a, 26.0, 2.0, None)


def ina226(shunt_ohm: float = 0.1, max_a: float | None = None) -> Chip:
    """An INA226 with its shunt, which drops at most 81.92 mV less one step of 2.5 µV.

    16 averages of 1.1 ms for each of shunt and supply, 35.2 ms (tables 6 to 8).
    Cal = trunc(0.00512 / (LSB · R)) (equation 1), 15 bits; a power step is 25 current steps.

    Raises:
        ValueError: the current does not fit the shunt.
    """
    max_a = _fitting(max_a, shunt_ohm, 0.08192)
    calibration = _calibration(0.00512, shunt_ohm, max_a, 0x7FFF)
    current_ma = 0.00512 / (calibration * shunt_ohm) * _MA_PER_A
    registers = ((CONFIG, 0x4000 | 0b010 << 9 | 0b100 << 6 | 0b100 << 3 | 0b111), (0x05, calibration))
    return Chip("ina226", registers, 0x04, current_ma, 0x03, 25 * current_ma, max_a, 36.0, 1.5, 0x2260)


def ina260() -> Chip:
    """An INA260, whose shunt of 2 mΩ is inside: 1.25 mA and 10 mW a step, 15 A at most.

    16 averages of 1.1 ms for each of current and supply (tables 3 to 5).
    """
    config = 0x6000 | 0b010 << 9 | 0b100 << 6 | 0b100 << 3 | 0b111
    return Chip("ina260", ((CONFIG, config),), 0x01, 1.25, 0x03, 10.0, 15.0, 36.0, 0.5, 0x2270)


def swapped(word: int) -> int:
    """The 16 bits with their bytes exchanged."""
    return (word & 0xFF) << 8 | word >> 8


def signed(word: int) -> int:
    """16 bits as two's complement."""
    return word - 0x10000 if word & 0x8000 else word


def _fitting(max_a: float | None, shunt_ohm: float, full_v: float) -> float:
    most_a = full_v / shunt_ohm
    if max_a is None:
        return most_a
    if max_a > most_a * (1 + 1e-9):
        raise ValueError(f"max={max_a:g} A: expected at most {most_a:g} A, where {shunt_ohm:g} Ω drop {full_v:g} V")
    return max_a


def _calibration(factor: float, shunt_ohm: float, max_a: float, mask: int) -> int:
    """The register that makes `max_a` the end of the current's 15 bits."""
    value = int(factor * 2**15 / (max_a * shunt_ohm) + 1e-9)  # what is whole must not fall to the number below
    if not 1 <= value <= mask:
        raise ValueError(f"max={max_a:g} A at {shunt_ohm:g} Ω: calibration {value}, expected 1 to {mask}: more amperes")
    return value & mask


class InaSensor:
    """One chip.

    Args:
        chip: its kind and set-up.
        bus: number of the I2C bus, as in /dev/i2c-1.
        address: of the chip on it.
        open_bus: opens a bus by its number.
    """

    def __init__(self, chip: Chip, bus: int, address: int, open_bus: Callable[[int], Bus] | None = None) -> None:
        self._chip, self._number, self._address = chip, bus, address
        self._open_bus = open_bus or _smbus
        self._bus: Bus | None = None
        where = f"bus {bus}, address {address:#04x}"
        includes = f"what flows through the shunt of the {chip.name} on {where}"
        self.description = Description(chip.name, Accuracy.RAIL, chip.error_percent, RATE_HZ, includes)
        self.max_mw = chip.max_a * chip.max_v * 1000.0
        self._name = f"meter {chip.name} on {where}"

    def open(self) -> None:
        """Check what chip it is, set it up, and let it convert once.

        Raises:
            MeterError: another chip answers, or it does not keep what was written.
            OSError: nothing answers.
        """
        self._bus = self._open_bus(self._number)
        if self._chip.die is not None:
            found = self._read(MAKER), self._read(DIE) & 0xFFF0
            if found != (TEXAS_INSTRUMENTS, self._chip.die):
                raise MeterError(
                    f"{self._name}: maker {found[0]:#06x}, die {found[1]:#06x};"
                    f" expected {TEXAS_INSTRUMENTS:#06x}, {self._chip.die:#06x}"
                )
        for register, value in self._chip.registers:
            self._bus.write_word_data(self._address, register, swapped(value))
            if (kept := self._read(register)) != value:
                raise MeterError(f"{self._name}: register {register} holds {kept:#06x}, expected {value:#06x}")
        time.sleep(SETTLE_S)

    def read(self) -> float:
        """Milliwatts now.

        Raises:
            MeterError: the current flows backwards, or is more than the chip was set up for.
            OSError: nothing answers.
        """
        current_ma = signed(self._read(self._chip.current)) * self._chip.current_ma
        if current_ma < 0.0:
            raise MeterError(f"{self._name}: {current_ma:g} mA, expected more than 0; are IN+ and IN− exchanged?")
        if current_ma >= FULL * self._chip.max_a * _MA_PER_A:
            raise MeterError(f"{self._name}: {current_ma:g} mA, expected less than {self._chip.max_a:g} A")
        return self._read(self._chip.power) * self._chip.power_mw

    def close(self) -> None:
        """Let go of the bus."""
        if self._bus is not None:
            self._bus.close()
            self._bus = None

    def _read(self, register: int) -> int:
        assert self._bus is not None
        return swapped(self._bus.read_word_data(self._address, register))


def _smbus(number: int) -> Bus:
    """The kernel's bus, through smbus2."""
    if not Path(f"/dev/i2c-{number}").exists():
        raise Absent(f"/dev/i2c-{number} is not there: switch I2C on (raspi-config), or name another bus")
    try:
        from smbus2 import SMBus  # noqa: PLC0415 (only devices with such a chip need it)
    except ImportError:
        raise Absent("smbus2 is not installed: bitfleet[edge]") from None
    bus: Any = SMBus(number)
    return bus


_WHERE: Final = {"bus": whole(0, 255), "address": whole(ADDRESSES.start, ADDRESSES.stop - 1)}
_SHUNT: Final = {"shunt": positive(100.0, "Ω"), "max": positive(1000.0, "A")}


def ina(kind: str, argument: str) -> PowerMeter:
    """The meter of `ina219:bus=1,address=0x40,shunt=0.1,max=3.2` and its like; what is left out is as on most modules.

    Raises:
        ValueError: a name or value is wrong.
    """
    values = parse_options(argument, _WHERE if kind == "ina260" else _WHERE | _SHUNT)
    bus, address = values.get("bus", 1), values.get("address", ADDRESSES.start)
    if kind == "ina260":
        return PowerMeter(InaSensor(ina260(), bus, address))
    chip = {"ina219": ina219, "ina226": ina226}[kind](values.get("shunt", 0.1), values.get("max"))
    return PowerMeter(InaSensor(chip, bus, address))
