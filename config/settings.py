"""Typed settings: frozen, every limit explicit, unknown keys refused."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from config.sections import (
    MetricsSettings,
    ObserveSettings,
    PlanSettings,
    Section,
    TimeSettings,
)


class MarketSettings(Section):
    """The market's clock and grid."""

    timezone: str = "UTC"
    settlement_minutes: Literal[5, 15, 30, 60] = 15
    currency: str = "EUR"


class StoreSettings(Section):
    """Where things are kept."""

    database: str = "sqlite:///data/market.db"
    """`sqlite:///PATH` or `postgresql://USER@HOST:PORT/NAME`, without a password."""
    database_password_file: Path | None = None
    """Password of the database; left out, libpq's PGPASSWORD or PGPASSFILE counts."""
    readings: str = "data/readings.db"
    """A path (SQLite) or `postgresql://USER@HOST:PORT/NAME`, without a password."""
    readings_password_file: Path | None = None
    """Password of the readings' database; left out, that of `database_password_file`."""
    patience_s: float = Field(default=30.0, ge=0)
    """Wall seconds that a database server may be away before the service ends."""
    journal_shards: int = Field(default=8, ge=1, le=256)
    roots: Path = Path("data/roots/roots.jsonl")
    """Signed roots; put them on other storage than the database."""
    signing_key: Path = Path("data/keys/journal.pem")
    root_every_s: float = Field(default=1.0, gt=0)

    @field_validator("readings", mode="before")
    @classmethod
    def _path_as_text(cls, value: object) -> object:
        return str(value) if isinstance(value, Path) else value


class BusSettings(Section):
    """How facts travel between stages, and where live device state is; limits are explicit."""

    kind: Literal["local", "redis"] = "local"
    live_state: Literal["memory", "redis"] = "memory"
    url: str = "redis://127.0.0.1:6379/0"
    """`redis://` on this machine, `rediss://` (TLS) elsewhere; without a password."""
    password_file: Path | None = None
    """Password of the server; left out, the environment's REDISCLI_AUTH counts."""
    prefix: str = Field(default="flexway", pattern="^[A-Za-z0-9_.-]{1,64}$")
    """Begins every key: installations that share a server need different ones."""
    consumer: str = Field(default="", pattern="^[A-Za-z0-9_.-]{0,64}$")
    """Names this process in its groups, the same after a restart; empty: the host's name."""
    queue: int = Field(default=10_000, ge=1)
    """Most records that wait for one stage; more send it to the journal."""
    streams: int = Field(default=1, ge=1, le=256)
    """Redis Streams that the journal's shards are spread over."""
    stream_entries: int = Field(default=100_000, ge=100)
    """About how many entries a stream keeps."""
    entry_records: int = Field(default=1_000, ge=1)
    """Most records in one entry."""
    entry_bytes: int = Field(default=4 * 1024 * 1024, ge=1024)
    """Most bytes of facts in one entry."""
    timeout_s: float = Field(default=1.0, gt=0)
    """Wall seconds without an answer after which Redis counts as away."""
    check_s: float = Field(default=5.0, gt=0)
    """Wall seconds after which a stage looks into the journal in any case."""
    claim_after_s: float = Field(default=30.0, gt=0)
    """Wall seconds after which entries that a process left unacknowledged are taken over."""


class ClientSettings(Section):
    """One API client of an organisation."""

    organisation: str
    role: Literal["buyer", "seller", "operator", "readonly"]
    token_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """SHA-256 of the bearer token, in hex: the token itself stands nowhere."""


class ApiSettings(Section):
    """The HTTP API."""

    host: str = "127.0.0.1"
    port: int = Field(default=8443, ge=0, le=65535)
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    max_body_bytes: int = Field(default=32 * 1024 * 1024, gt=0)
    clients: tuple[ClientSettings, ...] = ()
    """Clients with a fixed token; `flexway client add` makes others."""
    token_for_s: float = Field(default=3_600.0, gt=0)
    """How long an access token is good for."""
    failed_logins: int = Field(default=20, ge=1)
    """Failed logins that one address may have in a minute."""
    confirm_orders: bool = False
    """Take orders only with the token of a dry run."""
    confirm_for_s: float = Field(default=120.0, gt=0)
    """Wall seconds that such a token is good for."""
    stream_queue: int = Field(default=256, ge=1)
    """Messages that wait for one reader of a live stream; above, it is dropped."""


class ProfileSettings(Section):
    """What a device can do; kilowatts are injection-positive at its terminals."""

    min_kw: float
    max_kw: float
    control: Literal["setpoint", "limit"] = "setpoint"
    lease: Literal["revert_timer", "time_to_live", "event_end", "heartbeat", "watchdog", "none"] = (
        "none"
    )
    lease_s: float = Field(default=0.0, ge=0)
    fallback_kw: float | None = None
    capacity_kwh: float | None = None
    notice_s: float = Field(default=0.0, ge=0)
    telemetry_s: float = Field(default=60.0, gt=0)
    tier: int = Field(default=0, ge=0)
    weight: float = Field(default=1.0, gt=0)
    """Part that it takes beside others where `plan.fairness` is proportional or equal."""
    rank: float = 0.0
    """Its place where `plan.fairness` is priority: the lowest serves first."""
    aggregate: bool = False
    ramp_kw_per_s: float | None = Field(default=None, gt=0)
    """How fast its power can change, in kW per second."""
    min_on_kw: float = Field(default=0.0, ge=0)
    """Below this it does not run: its power is 0, or this and more in either direction."""
    step_kw: float = Field(default=0.0, ge=0)
    """Steps of power that it can hold, rounded towards zero; 0 = any."""
    write_every_s: float = Field(default=0.0, ge=0)
    """Least wall seconds between two setpoint writes; a release may always come."""
    writes_per_day: int = Field(default=0, ge=0)
    """Write requests its flash may take in any 24 hours (about 6 a setpoint); 0 = no limit."""
    refresh: Literal["half_time", "long"] = "half_time"
    """`long`: one lease up to the setpoint's end instead of writes that renew a short one."""
    longest_lease_s: float = Field(default=0.0, ge=0)
    """Longest such lease; 0 = whatever is left of the setpoint."""


class SerialLineSettings(Section):
    """A serial line; of every unit on it the same."""

    port: str = Field(min_length=1)
    """The serial device, such as `/dev/ttyUSB0`."""
    baudrate: int = Field(default=19_200, ge=300, le=1_000_000)
    parity: Literal["even", "odd", "none"] = "even"
    stopbits: Literal[1, 2] = 1


class ModbusDeviceSettings(Section):
    """One Modbus unit."""

    device_id: str
    organisation: str = ""
    """Whose it is; only in a lab it may be left out: the first to register it has it then."""
    transport: Literal["tcp", "rtu", "rtu_over_tcp"] = "tcp"
    """`rtu`: a serial line; `rtu_over_tcp`: a serial server that passes the bytes on."""
    host: str = ""
    """Of `tcp` and `rtu_over_tcp`."""
    port: int = Field(default=502, ge=1, le=65535)
    unit: int = Field(default=1, ge=0, le=255)
    role: Literal["battery", "inverter", "charger", "meter"]
    device_profile: str = ""
    """Where it is not SunSpec: a profile of `flexway modbus profiles`, or a YAML file's path."""
    profile_control: str = ""
    """Which of the device profile's controls drives it; without it the first."""
    phases: Literal[1, 2, 3] = 3
    """Phases that a charger charges on, where its device profile tells it amperes."""
    serial: str = ""
    """Its serial number, checked before the first write on every connection; empty = any."""
    meter_sign: Literal[-1, 1] = 1
    """-1 where a SunSpec meter counts import as positive; with a device profile, which says so
    itself, where the device is mounted the other way round."""
    control: Literal["wset", "wmaxlim_704", "wmaxlim_123", "storage_124"] | None = None
    """How it is driven; without it a battery by wset, an inverter by wmaxlim_123."""
    lease_restarts_on: Literal["timer", "value", "enable"] = "enable"
    """Which write restarts its revert timer."""
    negative_rates: bool = False
    """storage_124 only: its maker takes negative rates, so that it can be forced."""
    sharing: Literal["hold", "release"] = "hold"
    """`release`: gives the connection up when idle, where another master needs it as well."""
    release_after_s: float = Field(default=2.0, ge=0)
    """Wall seconds of idleness after which it is given up."""
    gap_s: float = Field(default=1.0, ge=0)
    """Wall seconds that the other master has before it is taken again."""
    slow_s: float = Field(default=0.0, ge=0)
    """Market seconds between reads of state of charge and energy; 0 = with every poll."""
    max_registers: int = Field(default=120, ge=2, le=125)
    """Registers of one read."""
    max_gap: int = Field(default=110, ge=0, le=125)
    """Registers that are read along rather than asking twice; on a slow serial line about 20."""
    unreadable: tuple[tuple[int, int], ...] = ()
    """First and last register of ranges that no read may touch."""
    serial_line: SerialLineSettings | None = None
    profile: ProfileSettings


class ModbusSettings(Section):
    """Modbus devices and how long to wait for them."""

    timeout_s: float = Field(default=1.0, gt=0)
    """Wall seconds for an answer, on a serial line besides the time that its bytes take."""
    writes: Path = Path("data/modbus-writes.json")
    """Counts of writes to devices with `writes_per_day`, kept over a restart."""
    devices: tuple[ModbusDeviceSettings, ...] = ()


class SparkplugMetricSettings(Section):
    """One metric of a Sparkplug device: `{ metric = "Inverter/Power", scale = -0.001 }`."""

    metric: str = Field(min_length=1, max_length=512)
    """Its name, as the birth declares it."""
    scale: float = 1.0
    """A value times this is in our unit and sign."""


class SparkplugMetricsSettings(Section):
    """What the metrics of a Sparkplug device mean; each is `{ metric = "NAME", scale = 1.0 }`."""

    power: SparkplugMetricSettings | None = None
    """Active power; times its scale in kW, positive when it injects."""
    soc: SparkplugMetricSettings | None = None
    """Energy stored, in kWh; of a percentage, the scale is a hundredth of the capacity."""
    energy_import: SparkplugMetricSettings | None = None
    """Register of energy taken from the grid, in kWh."""
    energy_export: SparkplugMetricSettings | None = None
    """Register of energy given to the grid, in kWh."""
    available: SparkplugMetricSettings | None = None
    """Whether it can be driven now."""
    setpoint: SparkplugMetricSettings | None = None
    """Power to hold, written by us and reported back; in kW, positive when it injects."""
    enable: SparkplugMetricSettings | None = None
    """Whether the setpoint is in force, written by us and reported back."""
    lease: SparkplugMetricSettings | None = None
    """Seconds that the device holds a setpoint unrefreshed; written with each."""
    heartbeat: SparkplugMetricSettings | None = None
    """Counter that the device falls back without; written with each command, reported back."""


class MqttDeviceSettings(Section):
    """One MQTT device."""

    device_id: str
    organisation: str
    dialect: Literal["flexway", "sparkplug"] = "flexway"
    """Payloads that it speaks: ours, or Sparkplug B with the keys below."""
    group: str = ""
    """Sparkplug group of its edge node."""
    edge_node: str = ""
    sparkplug_device: str = ""
    """Name behind the edge node; left out where the metrics are the edge node's own."""
    metrics: SparkplugMetricsSettings = SparkplugMetricsSettings()
    profile: ProfileSettings

    @property
    def driven(self) -> bool:
        """Whether it is ever sent a setpoint."""
        return self.dialect == "flexway" or self.metrics.setpoint is not None


class MqttSettings(Section):
    """The broker and the devices behind it."""

    host: str = "127.0.0.1"
    port: int = 8883
    username: str = ""
    password_file: Path | None = None
    ca_certificate: Path | None = None
    client_certificate: Path | None = None
    """Certificate that the gateway shows to a broker that asks for one; with `client_key`."""
    client_key: Path | None = None
    tls: bool = True
    protocol: Literal["5", "3.1.1"] = "5"
    client_id: str = "flexway-gateway"
    ack_timeout_s: float = Field(default=5.0, gt=0)
    keepalive_s: int = Field(default=30, ge=5, le=65_535)
    session_expiry_s: int = Field(default=86_400, ge=0, le=4_294_967_295)
    """Wall seconds that the broker keeps the gateway's session and queue while it is away."""
    receive_maximum: int = Field(default=1_000, ge=1, le=65_535)
    """Unacknowledged messages that the broker may have in flight to the gateway."""
    maximum_packet_bytes: int = Field(default=1_048_576, ge=270_000, le=268_435_460)
    """Bytes of one packet that the broker may send (MQTT 5); a device's longest is 262,144."""
    queue: int = Field(default=50_000, ge=1)
    """Messages that wait for the broker's window; more commands are unreachable."""
    sparkplug_host: str = "flexway"
    """Our Sparkplug host id: `spBv1.0/STATE/{sparkplug_host}` says whether we are there."""
    rebirth_every_s: float = Field(default=10.0, gt=0)
    """Wall seconds between two rebirths that one edge node is asked for."""
    devices: tuple[MqttDeviceSettings, ...] = ()


class OpenAdrVenSettings(Section):
    """One VEN that may register."""

    device_id: str
    organisation: str = ""
    """Whose it is; only in a lab it may be left out: the first to register it has it then."""
    ven_name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_.:-]*$")
    fingerprint: str = Field(default="", pattern="^$|^[0-9A-F]{2}(:[0-9A-F]{2}){9}$")
    """Last ten bytes of the SHA-256 of its client certificate, as AA:BB:.."""
    profile: ProfileSettings


class OpenAdrSettings(Section):
    """The VTN and its VENs."""

    host: str = "127.0.0.1"
    port: int = Field(default=8081, ge=0, le=65535)
    vtn_id: str = "flexway"
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    ca_certificate: Path | None = None
    state: Path = Path("data/openadr.json")
    poll_s: float = Field(default=10.0, gt=0)
    answer_timeout_s: float = Field(default=30.0, gt=0)
    vens: tuple[OpenAdrVenSettings, ...] = ()


class WebhookDeviceSettings(Section):
    """One aggregate that is dispatched by webhook."""

    device_id: str
    organisation: str
    """Whose registered webhook takes its dispatches."""
    profile: ProfileSettings


class WebhookSettings(Section):
    """Messages to endpoints that organisations register; wall seconds."""

    key: Path | None = None
    """Key that the secrets are sealed with, made at the first start with mode 0600; beside
    `store.signing_key` when left out."""
    allow_addresses: tuple[str, ...] = ()
    """Networks (`10.1.0.0/16`) that may be spoken to although they are not public."""
    ca_certificate: Path | None = None
    """Authority that endpoints are verified with; the system's when left out."""
    connect_timeout_s: float = Field(default=3.0, gt=0)
    answer_timeout_s: float = Field(default=10.0, gt=0)
    attempts: int = Field(default=4, ge=1, le=20)
    backoff_s: float = Field(default=1.0, ge=0)
    broken_after: int = Field(default=5, ge=1)
    trial_every_s: float = Field(default=5.0, gt=0)
    ping_s: float = Field(default=60.0, gt=0)
    rotation_overlap_s: float = Field(default=86_400.0, ge=0)
    """How long messages are signed with the old secret as well after a rotation."""
    give_up_s: float = Field(default=86_400.0, gt=0)
    """Age at which a notification that was never taken is given up."""
    devices: tuple[WebhookDeviceSettings, ...] = ()


class Settings(Section):
    """Everything `flexway serve` needs to know."""

    lab: bool = False
    """Allow plain text on loopback: for demos and tests, never for a site."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    market: MarketSettings = MarketSettings()
    time: TimeSettings = TimeSettings()
    store: StoreSettings = StoreSettings()
    bus: BusSettings = BusSettings()
    api: ApiSettings = ApiSettings()
    modbus: ModbusSettings = ModbusSettings()
    mqtt: MqttSettings = MqttSettings()
    openadr: OpenAdrSettings = OpenAdrSettings()
    webhook: WebhookSettings = WebhookSettings()
    plan: PlanSettings = PlanSettings()
    observe: ObserveSettings = ObserveSettings()
    metrics: MetricsSettings = MetricsSettings()
