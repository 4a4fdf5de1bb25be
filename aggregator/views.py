"""What the HTTP door shows, as models, so that the OpenAPI description is complete. Energy in J or mJ, times in s."""

from typing import Any

from pydantic import BaseModel, Field

DIGEST = r"^[0-9a-f]{64}$"
BASE64 = r"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
DEVICE = r"^[a-z0-9-]{1,64}$"
GROUP = r"^[a-z0-9-]{0,64}$"


class Receipt(BaseModel):
    """The final word on one update."""

    task: str
    round: int
    accepted: bool
    refusal: str = Field(description="stable code, empty when accepted")
    reason: str
    received_at: float


class DeviceView(BaseModel):
    """One device in a list."""

    id: str
    group: str = Field(description="empty for none")
    job: str = Field(description="what it works for")
    status: str
    revoked: bool
    quarantined: str = Field(description="why it is not asked to train; empty while it is")
    seen_at: float
    joined_at: float
    precision: str
    reason: str = Field(description="why it got this precision")
    budget_j_per_day: float | None = Field(
        description="the operator's budget; null leaves the device's own, 0 is 0, 1e12 is mains"
    )
    stated_j_per_day: float = Field(description="the device's own budget; 0 for mains power")
    lifecycle: str = Field(description="what the agent is doing, by its last telemetry")
    progress: float
    samples: int
    sent_bytes: int
    received_bytes: int
    model_version: int


class Cause(BaseModel):
    """Why one update gave cause for doubt."""

    round: int
    task: str
    reason: str


class Quarantine(BaseModel):
    """Whether a device is asked to train, and what spoke against it."""

    reason: str = Field(description="why it is asked no more; empty while it is")
    since: float = Field(description="0 if it never was in quarantine")
    until: float = Field(description="0 until an operator releases it")
    on_probation: bool = Field(description="time alone let it in again: one more cause within the window is enough")
    causes: list[Cause] = Field(
        description="refused updates that no trainer makes, and those that stood out; newest last"
    )


class DeviceDetail(DeviceView):
    """One device with everything known of it."""

    public_key: str = Field(description="hex")
    birth: dict[str, Any] = Field(description="what it last said of itself")
    telemetry: dict[str, Any]
    decision: dict[str, Any] = Field(description="what its precision was decided from")
    feasible: bool = Field(description="whether what it does keeps its limits")
    doubts: list[str] = Field(description="its measurements that are not believed, and why")
    update_bytes: int = Field(description="all its updates as they were sent")
    update_fp32_bytes: int = Field(description="the same updates as 32-bit floats")
    spent_in_a_day_mj: float = Field(description="by the ledger, for rounds opened in the last 24 hours")
    receipts: list[Receipt]
    refusals: dict[str, int] = Field(description="how often each stable code was given")
    quarantine: Quarantine


class TaskView(BaseModel):
    """One offer to one device."""

    id: str
    device: str
    state: str
    precision: str
    recipe: str
    note: str
    refusal: str = Field(default="", description="stable code of a refused update")
    received_at: float | None = Field(default=None, description="when its update was judged; null where none came")
    payload_bytes: int = 0
    train_s: float = 0.0


class RoundView(BaseModel):
    """One round in a list."""

    number: int
    state: str
    base_version: int
    opened_at: float
    deadline_at: float
    closed_at: float | None
    note: str
    tasks: dict[str, int] = Field(description="how many offers are in each state")
    update_bytes: int
    update_fp32_bytes: int


class RoundDetail(RoundView):
    """One round with its offers."""

    offers: list[TaskView]
    rates: str = Field(description="why it is coded as it is, where that was decided for the round; else empty")


class EnergyEntry(BaseModel):
    """What a round cost one device for one purpose."""

    round: int
    device: str
    purpose: str = Field(description="up, down, training, inference or idle")
    source: str = Field(description="measured or modelled")
    energy_mj: float


class EnergyTotal(BaseModel):
    """Entries of one purpose and source, added up."""

    purpose: str
    source: str
    energy_mj: float


class EnergyView(BaseModel):
    """The ledger, or a part of it."""

    entries: list[EnergyEntry]
    totals: list[EnergyTotal]
    total_mj: float = Field(description="of all entries, measured and modelled")


class UpdateView(BaseModel):
    """One judged update."""

    task: str
    round: int
    device: str
    accepted: bool
    refusal: str
    reason: str
    digest: str
    payload_bytes: int
    fp32_bytes: int
    samples: int
    loss: float
    accuracy: float
    train_s: float
    energy_mj: float
    energy_source: str
    received_at: float
    norm: float = Field(description="Euclidean norm of its deltas; 0 where it was refused before that was known")
    doubt: str = Field(description="how it stood out when its round was merged; empty where it did not")
    merged: int | None = Field(description="the round whose model it went into; null while it waits, or for none")


class ExportView(BaseModel):
    """A checked ONNX file; fetch it as a blob by its digest."""

    precision: str
    digest: str
    model_bytes: int
    accuracy: float | None = Field(description="of the integer model on the held-out pictures")
    pictures: int = Field(description="on how many it equals the integer reference")


class ModelView(BaseModel):
    """A version of the global model."""

    version: int
    digest: str
    made_at: float
    exports: list[ExportView]


class SummaryView(BaseModel):
    """The fleet in a few figures."""

    states: dict[str, int] = Field(description="devices by state: online, offline or revoked")
    precisions: dict[str, int] = Field(description="devices by chosen precision; undecided before the first choice")
    update_bytes: int = Field(description="accepted updates as they were sent")
    update_fp32_bytes: int = Field(description="the same updates as 32-bit floats")
    energy: list[EnergyTotal]


class LearningPoint(BaseModel):
    """One rated ONNX file, and what the fleet had sent and spent until then."""

    version: int
    made_at: float
    precision: str
    weight_bits: int
    accuracy: float
    model_bytes: int
    update_bytes: int
    update_fp32_bytes: int
    energy_mj: float


class Live(BaseModel):
    """One device's line in the status."""

    id: str
    status: str
    lifecycle: str
    task: str
    progress: float
    precision: str


class JobView(BaseModel):
    """One of the things that the fleet is asked to learn."""

    name: str
    architecture: str
    groups: list[str] = Field(description="of devices that work for it; empty for the main job, which has the rest")
    rounds_planned: int = Field(description="0 for ever")
    devices: int
    round: int = Field(description="0 before the first")
    state: str = Field(description="of that round; empty before the first")
    paused: bool


class StatusView(BaseModel):
    """Where a job of the fleet stands."""

    fleet: str
    job: str
    architecture: str
    round: int = Field(description="0 before the first")
    state: str = Field(description="of that round; empty before the first")
    rounds_planned: int = Field(description="0 for ever")
    paused: bool
    paused_because: str = Field(description="empty where an operator paused it")
    model_version: int
    devices: int
    online: int
    server_key: str = Field(description="hex")
    broker: str
    live: list[Live]


class Health(BaseModel):
    """The process answers."""

    status: str


class Ready(BaseModel):
    """Whether devices can be served, and if not, why."""

    ready: bool
    broker: bool
    database: bool


class JoinRequest(BaseModel):
    """A device asks to become a member."""

    device: str = Field(pattern=DEVICE, examples=["pi-kitchen"])
    public_key: str = Field(pattern=DIGEST, description="Ed25519, 32 bytes in hex")
    token: str = Field(default="", max_length=200, description="may be left out by a member")
    request: str = Field(
        default="",
        max_length=6000,
        pattern=BASE64,
        description="PKCS#10 certificate request, DER in base64",
    )
    proof: str = Field(default="", pattern=r"^([0-9a-f]{128})?$", description="Ed25519 signature, hex; see SPEC BF-097")


class JoinAnswer(BaseModel):
    """What a member must know; in an answer of status 202 only what is not empty."""

    fleet: str
    server_key: str = Field(description="hex; pin it")
    broker: str = Field(examples=["mqtt://192.168.1.5:1883"])
    ca: str = Field(default="", description="the fleet's authority, PEM; empty where it has none")
    certificate: str = Field(default="", description="the device's own, PEM")
    broker_trust: str = Field(default="system", description="who certifies the broker: fleet or system")


class TokenRequest(BaseModel):
    """A join token to be made."""

    uses: int = Field(default=1, ge=1, le=100_000)
    ttl_s: float = Field(default=3600.0, gt=0, le=3.2e7)
    note: str = Field(default="", max_length=200)
    group: str = Field(default="", pattern=GROUP, description="where devices come that join with it")


class TokenView(BaseModel):
    """A join token without its secret."""

    name: str = Field(description="what it is revoked by")
    uses_left: int
    made_at: float
    expires_at: float
    note: str
    group: str


class ApplicantView(BaseModel):
    """A device that waits for an operator's word."""

    device: str
    public_key: str = Field(description="hex")
    group: str
    asked_at: float
    rejected: bool


class UserRequest(BaseModel):
    """Somebody who is to have a token."""

    name: str = Field(pattern=DEVICE)
    role: str = Field(pattern=r"^(viewer|operator|admin)$", examples=["operator"])


class UserView(BaseModel):
    """Somebody who has a token."""

    name: str
    role: str
    made_at: float


class AuditView(BaseModel):
    """One command, or what a device did by itself."""

    id: int
    at: float
    who: str
    role: str
    action: str
    object: str = Field(description="what it was done to; empty for the fleet")
    detail: dict[str, Any]
    outcome: str = Field(description="done, or why it was refused")


class GroupRequest(BaseModel):
    """Where a device belongs; empty for nowhere."""

    group: str = Field(pattern=GROUP)


class TokenAnswer(BaseModel):
    """The secret, shown this once."""

    token: str


class BudgetRequest(BaseModel):
    """An energy budget; null gives the device back its own, 0 is 0 and reported as what nothing fits, 1e12 is mains."""

    joules_per_day: float | None = Field(ge=0, le=1e12, allow_inf_nan=False)


class QuarantineRequest(BaseModel):
    """Why a device is asked no more."""

    reason: str = Field(min_length=1, max_length=400)


class RoundAnswer(BaseModel):
    """The round that was meant."""

    round: int
