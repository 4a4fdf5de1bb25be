"""Configurations for brokers of one's own, all written from one table of rights (`protocol/rights.py`).

Each lets in certificates of the fleet alone, takes user and client id from their common name, lets a device do what the
table says, and bounds what a stranger can make it hold. Mosquitto's is run by the tests; the others follow their
makers' documentation, and their files say so.
"""

from collections.abc import Callable, Mapping
from typing import Final
from xml.sax.saxutils import escape

from aggregator.access import mosquitto_access
from aggregator.broker import PACKET_BYTES, QUEUED_MESSAGES
from protocol.envelope import AGGREGATOR
from protocol.rights import DEVICE_RIGHTS, Act

Files = dict[str, str]

RECEIVE_MAXIMUM: Final = 32
"""Unacknowledged messages each way, twice what an agent sends."""
SESSION_HOURS: Final = 24
NOT_TRIED: Final = "Written from its documentation; this project's tests run Mosquitto's configuration alone."


def mosquitto(root: str, folder: str, port: int) -> Files:
    """Mosquitto 2."""
    lines = [
        "# bitfleet: append to mosquitto.conf, or start with mosquitto -c",
        f"listener {port}",
        "allow_anonymous false",
        "require_certificate true",
        "# a client is who its certificate says, whatever it says itself",
        "use_identity_as_username true",
        "use_username_as_clientid true",
        "tls_version tlsv1.2",
        f"cafile {folder}/ca.crt",
        f"certfile {folder}/server.crt",
        f"keyfile {folder}/server.key",
        "# copy it here again after a revocation, and send SIGHUP",
        f"crlfile {folder}/revoked.pem",
        f"acl_file {folder}/access",
        "# chunks are 64 kB; the queue is for one sleeping device",
        f"max_packet_size {PACKET_BYTES}",
        f"max_queued_messages {QUEUED_MESSAGES}",
        f"max_inflight_messages {RECEIVE_MAXIMUM}",
        "persistence true",
        f"persistence_location {folder}/",
        f"persistent_client_expiration {SESSION_HOURS}h",
        "set_tcp_nodelay true",
    ]
    return {"mosquitto.conf": "\n".join(lines) + "\n", "access": mosquitto_access(root)}


def vernemq(root: str, folder: str, port: int) -> Files:
    """VerneMQ 1 and 2: its own access list, and a script that holds the client id to the certificate's name."""
    lines = [
        f"## bitfleet: append to vernemq.conf. {NOT_TRIED}",
        f"listener.ssl.fleet = 0.0.0.0:{port}",
        f"listener.ssl.fleet.cafile = {folder}/ca.crt",
        f"listener.ssl.fleet.certfile = {folder}/server.crt",
        f"listener.ssl.fleet.keyfile = {folder}/server.key",
        f"listener.ssl.fleet.crlfile = {folder}/revoked.pem",
        "listener.ssl.fleet.require_certificate = on",
        "listener.ssl.fleet.use_identity_as_username = on",
        "listener.ssl.fleet.allowed_protocol_versions = 4,5",
        "allow_anonymous = off",
        "## one connection for each name: a device that is revoked is ended by a second one",
        "allow_multiple_sessions = off",
        "plugins.vmq_passwd = off",
        "plugins.vmq_acl = on",
        f"vmq_acl.acl_file = {folder}/access",
        "plugins.vmq_diversity = on",
        f"vmq_diversity.bitfleet.file = {folder}/bitfleet.lua",
        "## chunks are 64 kB; the queue is for one sleeping device",
        f"max_message_size = {PACKET_BYTES}",
        f"max_offline_messages = {QUEUED_MESSAGES}",
        f"max_online_messages = {QUEUED_MESSAGES}",
        f"max_inflight_messages = {RECEIVE_MAXIMUM}",
        f"receive_max_broker = {RECEIVE_MAXIMUM}",
        f"persistent_client_expiration = {SESSION_HOURS}h",
    ]
    script = [
        "-- bitfleet: nobody connects under another name than that of the certificate.",
        "function own_name(reg)",
        "    return reg.username ~= nil and reg.client_id == reg.username",
        "end",
        "hooks = { auth_on_register = own_name, auth_on_register_m5 = own_name }",
    ]
    verbs = {Act.PUBLISH: "write", Act.SUBSCRIBE: "read"}
    access = [f"user {AGGREGATOR}", f"topic {root}/#", ""]
    access += [f"pattern {verbs[right.act]} {right.filter(root, '%u')}" for right in DEVICE_RIGHTS]
    files = {"vernemq.conf": lines, "bitfleet.lua": script, "access": access}
    return {name: "\n".join(text) + "\n" for name, text in files.items()}


def emqx(root: str, folder: str, port: int) -> Files:
    """EMQX 5."""
    settings = f"""\
## bitfleet: include in emqx.conf. {NOT_TRIED}
## EMQX reads revocation lists from the web alone: ban a device that was revoked by its client id as well.
listeners.tcp.default.enable = false
listeners.ssl.default {{
  bind = "0.0.0.0:{port}"
  ssl_options {{
    cacertfile = "{folder}/ca.crt"
    certfile = "{folder}/server.crt"
    keyfile = "{folder}/server.key"
    versions = ["tlsv1.3", "tlsv1.2"]
    verify = verify_peer
    fail_if_no_peer_cert = true
  }}
}}
mqtt {{
  ## a client is who its certificate says, whatever it says itself
  peer_cert_as_username = cn
  peer_cert_as_clientid = cn
  ## chunks are 64 kB; the queue is for one sleeping device
  max_packet_size = {PACKET_BYTES // 1024}KB
  max_mqueue_len = {QUEUED_MESSAGES}
  mqueue_store_qos0 = false
  max_inflight = {RECEIVE_MAXIMUM}
  session_expiry_interval = {SESSION_HOURS}h
}}
authorization {{
  no_match = deny
  deny_action = ignore
  sources = [{{type = file, enable = true, path = "{folder}/acl.conf"}}]
}}
"""
    acts = {Act.PUBLISH: "publish", Act.SUBSCRIBE: "subscribe"}
    rules = [f'{{allow, {{user, "{AGGREGATOR}"}}, all, ["{root}/#"]}}.']
    rules += [f'{{allow, all, {acts[right.act]}, ["{right.filter(root, "${username}")}"]}}.' for right in DEVICE_RIGHTS]
    return {"bitfleet.conf": settings, "acl.conf": "\n".join([*rules, "{deny, all}."]) + "\n"}


def hivemq(root: str, folder: str, port: int) -> Files:
    """HiveMQ 4 with its Enterprise Security Extension; the free edition takes no names from certificates."""
    settings = f"""\
<?xml version="1.0"?>
<!-- bitfleet. {NOT_TRIED}
     openssl pkcs12 -export -in server.crt -inkey server.key -out server.p12 -passout pass:bitfleet
     keytool -importcert -noprompt -alias fleet -file ca.crt -keystore ca.p12 -storetype PKCS12 -storepass bitfleet
     Java reads no revocation lists from files: the aggregator refuses a revoked device and ends its connection. -->
<hivemq>
  <listeners>
    <tls-tcp-listener>
      <port>{port}</port>
      <bind-address>0.0.0.0</bind-address>
      <tls>
        <keystore>
          <path>{escape(folder)}/server.p12</path>
          <password>bitfleet</password>
          <private-key-password>bitfleet</private-key-password>
        </keystore>
        <truststore>
          <path>{escape(folder)}/ca.p12</path>
          <password>bitfleet</password>
        </truststore>
        <client-authentication-mode>REQUIRED</client-authentication-mode>
      </tls>
    </tls-tcp-listener>
  </listeners>
  <mqtt>
    <packets><max-packet-size>{PACKET_BYTES}</max-packet-size></packets>
    <queued-messages><max-queue-size>{QUEUED_MESSAGES}</max-queue-size><strategy>discard</strategy></queued-messages>
    <receive-maximum><server-receive-maximum>{RECEIVE_MAXIMUM}</server-receive-maximum></receive-maximum>
    <session-expiry><max-interval>{SESSION_HOURS * 3600}</max-interval></session-expiry>
  </mqtt>
</hivemq>
"""
    extension = f"""\
<?xml version="1.0"?>
<!-- bitfleet: conf/config.xml of the Enterprise Security Extension. {NOT_TRIED} -->
<enterprise-security-extension>
  <realms>
    <file-realm>
      <name>fleet</name>
      <enabled>true</enabled>
      <configuration><file-path>{escape(folder)}/file-realm.xml</file-path></configuration>
    </file-realm>
  </realms>
  <pipelines>
    <listener-pipeline listener="ALL">
      <authentication-preprocessors>
        <x509-preprocessor>
          <x509-extractions>
            <x509-extraction>
              <x509-field>subject-common-name</x509-field>
              <ese-variable>authentication-key</ese-variable>
            </x509-extraction>
          </x509-extractions>
        </x509-preprocessor>
      </authentication-preprocessors>
      <allow-all-authentication-manager/>
      <file-authorization-manager>
        <realm>fleet</realm>
        <use-authorization-key>false</use-authorization-key>
        <use-authorization-role-key>true</use-authorization-role-key>
      </file-authorization-manager>
    </listener-pipeline>
  </pipelines>
</enterprise-security-extension>
"""
    acts = {Act.PUBLISH: "PUBLISH", Act.SUBSCRIBE: "SUBSCRIBE"}
    rights = [(right.filter(root, "${authentication-key}"), acts[right.act]) for right in DEVICE_RIGHTS]
    realm = ['<?xml version="1.0"?>', f"<!-- bitfleet. {NOT_TRIED} -->", "<ese-file-realm>", "  <mqtt-roles>"]
    realm += _role("device", rights) + _role(AGGREGATOR, [(f"{root}/#", "ALL")])
    realm += ["  </mqtt-roles>", "</ese-file-realm>"]
    return {
        "config.xml": settings,
        "enterprise-security-extension.xml": extension,
        "file-realm.xml": "\n".join(realm) + "\n",
    }


def _role(name: str, rights: list[tuple[str, str]]) -> list[str]:
    permissions = [
        f"        <permission><topic>{escape(topic)}</topic><activity>{act}</activity></permission>"
        for topic, act in rights
    ]
    return [
        "    <role>",
        f"      <id>{name}</id>",
        "      <permissions>",
        *permissions,
        "      </permissions>",
        "    </role>",
    ]


KINDS: Final[Mapping[str, Callable[[str, str, int], Files]]] = {
    "mosquitto": mosquitto,
    "vernemq": vernemq,
    "emqx": emqx,
    "hivemq": hivemq,
}
