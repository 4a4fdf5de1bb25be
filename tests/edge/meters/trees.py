"""Sysfs as kernels lay it out, as files in a folder. Names, labels and units are those of real boards."""

from pathlib import Path


def write(folder: Path, **files: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(f"{content}\n")
    return folder


def orin_nano(sysfs: Path, number: int = 1, *, mv: int = 5080, ma: int = 1000) -> Path:
    """JetPack 5 and 6: driver ina3221. The chip beside it, and channel 7, the sum of the shunts, are there too."""
    hwmon = sysfs / "class/hwmon"
    write(hwmon / "hwmon0", name="thermal-fan-est")
    return write(
        hwmon / f"hwmon{number}",
        name="ina3221",
        in1_label="VDD_IN",
        in1_input=mv,
        curr1_input=ma,
        in2_label="VDD_CPU_GPU_CV",
        in2_input=5072,
        curr2_input=296,
        in3_label="VDD_SOC",
        in3_input=5072,
        curr3_input=288,
        in4_input=5000,
        in7_label="sum of shunt voltages",
        in7_input=0,
    )


def nano(sysfs: Path, *, mw: int = 2444) -> Path:
    """JetPack 4: driver ina3221x. The board is not the first channel of every module."""
    return write(
        sysfs / "bus/i2c/drivers/ina3221x/6-0040/iio:device0",
        name="ina3221x",
        rail_name_0="POM_5V_GPU",
        in_power0_input=81,
        in_voltage0_input=5072,
        in_current0_input=16,
        rail_name_1="POM_5V_IN",
        in_power1_input=mw,
        rail_name_2="POM_5V_CPU",
        in_power2_input=406,
    )


def agx_xavier(sysfs: Path) -> None:
    """JetPack 4: two chips, no rail for the whole."""
    first = sysfs / "bus/i2c/drivers/ina3221x/1-0040/iio:device0"
    second = sysfs / "bus/i2c/drivers/ina3221x/1-0041/iio:device1"
    write(
        first,
        rail_name_0="GPU",
        in_power0_input=619,
        rail_name_1="CPU",
        in_power1_input=774,
        rail_name_2="SOC",
        in_power2_input=1238,
    )
    write(
        second,
        rail_name_0="CV",
        in_power0_input=0,
        rail_name_1="VDDRQ",
        in_power1_input=464,
        rail_name_2="SYS5V",
        in_power2_input=1846,
    )


def agx_orin(sysfs: Path) -> None:
    """JetPack 5: two chips; the rail of the memory hangs behind VIN_SYS_5V0."""
    hwmon = sysfs / "class/hwmon"
    write(
        hwmon / "hwmon3",
        name="ina3221",
        in1_label="VDD_GPU_SOC",
        in1_input=20_000,
        curr1_input=100,
        in2_label="VDD_CPU_CV",
        in2_input=20_000,
        curr2_input=50,
        in3_label="VIN_SYS_5V0",
        in3_input=5000,
        curr3_input=600,
    )
    write(
        hwmon / "hwmon4",
        name="ina3221",
        in1_label="NC",
        in2_label="VDDQ_VDD2_1V8AO",
        in2_input=5000,
        curr2_input=120,
    )


def rapl(sysfs: Path, number: int = 0, *, package_uj: int = 1000, dram_uj: int | None = 500) -> Path:
    """A package with core and, on servers, DRAM; the same under mmio as laptops have; psys beside it."""
    powercap = sysfs / "class/powercap"
    package = write(
        powercap / f"intel-rapl:{number}",
        name=f"package-{number}",
        energy_uj=package_uj,
        max_energy_range_uj=262143328850,
    )
    write(package / f"intel-rapl:{number}:0", name="core", energy_uj=900, max_energy_range_uj=262143328850)
    if dram_uj is not None:
        write(package / f"intel-rapl:{number}:1", name="dram", energy_uj=dram_uj, max_energy_range_uj=65712999613)
    write(powercap / f"intel-rapl-mmio:{number}", name=f"package-{number}", energy_uj=5, max_energy_range_uj=9)
    write(powercap / "intel-rapl:7", name="psys", energy_uj=5, max_energy_range_uj=262143328850)
    return package
