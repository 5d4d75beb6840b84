"""TLS, users and certificates of a secured broker, kept in `security/` of its data folder.

ca.pem          the certificate authority's certificate: what clients trust
ca.p12          its key
broker.p12      the broker's key and certificate
NAME.p12        a user's key and certificate, made when it is first asked for
passwords.json  the users' passwords and the key stores' one, random, made once; for the owner's eyes only

Who comes with a password (SCRAM-SHA-512) and who comes with a certificate of the same name is the same
principal, `User:NAME`, so that one set of ACLs holds for both. `keytool` comes with the Java that runs Kafka.
"""

import base64
import hashlib
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prism_embedded.errors import EmbeddedError
from prism_embedded.kafka_jars import find_java
from prism_embedded.loopback import HOST

BROKER_USER = "prism-broker"
_MECHANISM = "SCRAM-SHA-512"
_ITERATIONS = 8192
_DAYS = "3650"
_KEYTOOL_TIMEOUT_S = 60.0
_STORE = "key stores"  # no user's name: it has a space


@dataclass(frozen=True, slots=True)
class BrokerSecurity:
    """One secured broker's folder; `users`: who may log in, the first of them may do everything."""

    folder: Path
    users: Sequence[str]

    @property
    def authority(self) -> Path:
        """The certificate that clients trust."""
        return self.folder / "ca.pem"

    def prepare(self) -> None:
        """Make everything, once. Raises EmbeddedError."""
        if not self.folder.exists():
            draft = self.folder.with_name(f"{self.folder.name}.new")
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(mode=0o700, parents=True)
            BrokerSecurity(draft, self.users)._make()
            draft.rename(self.folder)
        unknown = set(self.users) - set(self._passwords())
        if unknown:
            raise EmbeddedError(
                f"{self.folder} was made without {', '.join(sorted(unknown))}; choose another data folder"
            )

    def _make(self) -> None:
        words = {name: secrets.token_urlsafe(24) for name in (*self.users, _STORE)}
        _write_private(self.folder / "passwords.json", json.dumps(words, indent=1))
        authority = ["-genkeypair", "-alias", "ca", "-dname", "CN=prism-ca", "-ext", "bc:c"]
        self._keytool(*authority, "-ext", "ku:c=keyCertSign", *_KEY, "-keystore", self._store("ca"))
        self._issue(BROKER_USER, "broker")
        export = ["-exportcert", "-rfc", "-alias", "ca", "-keystore", self._store("ca")]
        self._keytool(*export, "-file", str(self.authority))

    def password(self, user: str) -> str:
        """Return a user's password."""
        return self._passwords()[user]

    def certificate(self, user: str) -> Path:
        """Return the PKCS#12 file of a user's key and certificate; its password is `store_password`."""
        if user not in self.users:
            raise EmbeddedError(f"the broker knows no user {user}; it has {', '.join(self.users)}")
        if not Path(self._store(user)).exists():
            self._issue(user, user)
        return Path(self._store(user))

    @property
    def store_password(self) -> str:
        """The password of all key stores."""
        return self._passwords()[_STORE]

    def scram_options(self) -> list[str]:
        """Return the format tool's options that make the users; salted: a list of processes tells nothing."""
        options = []
        for user in self.users:
            salt = secrets.token_bytes(32)
            salted = hashlib.pbkdf2_hmac("sha512", self.password(user).encode(), salt, _ITERATIONS)
            parts = {"salt": _base64(salt), "saltedpassword": _base64(salted)}
            text = ",".join(f'{name}="{value}"' for name, value in parts.items())
            options += ["--add-scram", f"{_MECHANISM}=[name={user},iterations={_ITERATIONS},{text}]"]
        return options

    def server_properties(self) -> dict[str, str]:
        """Return what makes Kafka ask who comes, and whether they may."""
        return {
            "ssl.keystore.type": "PKCS12",
            "ssl.keystore.location": self._store("broker"),
            "ssl.keystore.password": self.store_password,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority),
            "listener.name.mutual.ssl.client.auth": "required",
            "listener.name.controller.ssl.client.auth": "required",
            "ssl.principal.mapping.rules": "RULE:^CN=([^,]+).*$/$1/,DEFAULT",
            "sasl.enabled.mechanisms": _MECHANISM,
            "listener.name.client.scram-sha-512.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "false",
            "super.users": f"User:{BROKER_USER};User:{self.users[0]}",
        }

    def client_properties(self, user: str) -> dict[str, str]:
        """Return librdkafka's properties of a user who comes with a password."""
        return {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": _MECHANISM,
            "sasl.username": user,
            "sasl.password": self.password(user),
            "ssl.ca.location": str(self.authority),
        }

    def certificate_properties(self, user: str) -> dict[str, str]:
        """Return librdkafka's properties of a user who comes with a certificate."""
        return {
            "security.protocol": "SSL",
            "ssl.ca.location": str(self.authority),
            "ssl.keystore.location": str(self.certificate(user)),
            "ssl.keystore.password": self.store_password,
        }

    def write_environments(self, bootstrap: str, mutual: str) -> None:
        """Write each user's settings, as services and `prism` take them: NAME.env and NAME.mtls.env.

        The first user's NAME.env comes last: a certificate takes seconds, and whoever waits for it has all.
        """
        for user in (*self.users[1:], self.users[0]):
            self._write_environment(f"{user}.mtls.env", mutual, self.certificate_properties(user))
            self._write_environment(f"{user}.env", bootstrap, self.client_properties(user))

    def _write_environment(self, name: str, bootstrap: str, properties: dict[str, str]) -> None:
        lines = {"BOOTSTRAP_SERVER": bootstrap, **environment(properties)}
        _write_private(self.folder / name, "".join(f"{key}={value}\n" for key, value in lines.items()))

    def _passwords(self) -> dict[str, str]:
        try:
            found = json.loads((self.folder / "passwords.json").read_text())
            return {str(name): str(word) for name, word in found.items()}
        except (OSError, ValueError, AttributeError) as error:
            raise EmbeddedError(
                f"cannot read {self.folder / 'passwords.json'}: {error}; choose another data folder"
            ) from error

    def _store(self, name: str) -> str:
        return str(self.folder / f"{name}.p12")

    def _issue(self, common_name: str, file: str) -> None:
        """Make a key and have it signed in a copy of the authority's store, then take that out of it."""
        draft = self.folder / f"{file}.p12.new"
        shutil.copyfile(self._store("ca"), draft)
        named = ["-alias", file, "-dname", f"CN={common_name}", "-ext", f"san=ip:{HOST},dns:localhost"]
        self._keytool("-genkeypair", *named, "-signer", "ca", *_KEY, "-keystore", str(draft))
        self._keytool("-delete", "-alias", "ca", "-keystore", str(draft))
        draft.replace(self._store(file))

    def _keytool(self, *arguments: str) -> None:
        command = [str(find_java().parent / "keytool"), *arguments, "-storepass:env", _WORD]
        try:
            done = subprocess.run(
                [*command, "-J-XX:TieredStopAtLevel=1"],
                capture_output=True,
                text=True,
                env={**os.environ, _WORD: self.store_password},
                timeout=_KEYTOOL_TIMEOUT_S,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise EmbeddedError(f"cannot run keytool: {error}; a Java with keytool is needed") from error
        if done.returncode != 0:
            raise EmbeddedError(f"cannot make certificates in {self.folder}: {done.stdout.strip()[:300]}")


_WORD = "PRISM_KEYTOOL_WORD"
_KEY = ["-keyalg", "EC", "-groupname", "secp256r1", "-validity", _DAYS, "-storetype", "PKCS12"]


def environment(properties: dict[str, str]) -> dict[str, str]:
    """Return librdkafka's properties as the environment in which services look for them."""
    return {f"KAFKA_{name.upper().replace('.', '_')}": value for name, value in properties.items()}


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _write_private(path: Path, text: str) -> None:
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
